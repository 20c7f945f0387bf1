"""A hub that is a real ROUTER socket and says what it is told to, and a slow link in front of it."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from viewsync.wire import Ack, ClockProbe, ClockReply, FeatureMessage, Refusal, decode, encode


@dataclass(frozen=True)
class Received:
    message: FeatureMessage
    at_ns: int
    size: int


class AnsweringHub:
    """Answers clock probes and messages. refuse_with: a reason, or None to acknowledge; silent: read, say
    nothing. now: its clock.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:*",
        now: Callable[[], int] = time.time_ns,
        server_key: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.now = now
        self.refuse_with: str | None = None
        self.silent = False
        self.received: list[Received] = []
        self.probes = 0
        self._changed = threading.Condition()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        if server_key is not None:
            self._socket.curve_publickey, self._socket.curve_secretkey = server_key
            self._socket.curve_server = True
        self._socket.bind(endpoint)
        self.endpoint = self._socket.last_endpoint.decode().rstrip("\0")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def wait_for(
        self, condition: Callable[[list[Received]], bool], patience_s: float = 120.0
    ) -> list[Received]:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.received), patience_s), self.received
            return list(self.received)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._socket.close(linger=0)
        self._context.term()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._socket.poll(50):
                continue
            peer, data = self._socket.recv_multipart()
            at_ns = self.now()
            message = decode(data)
            answer = self._answer(message, at_ns, len(data))
            if answer is not None and not self.silent:
                self._socket.send_multipart([peer, encode(answer)])

    def _answer(self, message: object, at_ns: int, size: int) -> Ack | Refusal | ClockReply | None:
        if isinstance(message, ClockProbe):
            self.probes += 1
            return ClockReply(message.sent_ns, at_ns, self.now())
        assert isinstance(message, FeatureMessage)
        with self._changed:
            self.received.append(Received(message, at_ns, size))
            self._changed.notify_all()
        known = (message.session, message.seq, message.sent_ns, at_ns, self.now())
        if self.refuse_with is not None:
            return Refusal(*known, self.refuse_with, f"view {message.view}: refused by a test")
        return Ack(*known)


class SlowLink:
    """A TCP relay to `port` that passes `bytes_per_s` each way and, with small buffers, holds next to
    nothing. `cut` breaks all connections; `stall` stops passing anything, until `flow`.
    """

    _CHUNK = 512

    def __init__(self, port: int, bytes_per_s: float) -> None:
        self._target = port
        self._bytes_per_s = bytes_per_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._flowing = threading.Event()
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def stall(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        for pair in self._pairs:
            for side in pair:
                try:
                    side.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self._pairs.clear()

    def close(self) -> None:
        self._listener.close()
        self.flow()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket()
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            far.connect(("127.0.0.1", self._target))
            self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        free_s = time.monotonic()
        try:
            while data := source.recv(self._CHUNK):
                self._flowing.wait()
                # What a busy machine oversleeps is caught up: the link is slow, not slower still.
                free_s = max(free_s, time.monotonic() - 0.2) + len(data) / self._bytes_per_s
                time.sleep(max(0.0, free_s - time.monotonic()))
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for side in (source, sink):
                try:
                    side.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
