"""One DEALER socket to one hub, with what libzmq knows about its connection. Used from one thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import zmq
from zmq.utils.monitor import recv_monitor_message

from viewsync.errors import ConfigError
from viewsync.keys import ClientKeys
from viewsync.packing import MAX_MESSAGE_BYTES

# libzmq's own reconnecting, for a hub that is not there: the first wait; it doubles.
_RECONNECT_MS: Final = 200
# Enough for 10 Mbit/s over 200 ms. How old messages get does not depend on it: that is the outbox's doing.
_SEND_BUFFER_BYTES: Final = 256 * 1024
_BROKEN_HANDSHAKES: Final = 3
_WATCHED: Final = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


@dataclass(frozen=True, slots=True)
class Change:
    """What became of the connection. `absent`: libzmq goes on trying; `refused`: this socket is of no more
    use. problem: what to tell people.
    """

    kind: Literal["up", "down", "absent", "refused"]
    problem: str = ""


class HubSocket:
    """Connects at once and, while the hub is not there, again and again by itself.

    queue: messages that libzmq may hold; longest_reconnect_s: the longest wait between tries. Raises
    ConfigError for an unusable endpoint.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        keys: ClientKeys | None,
        queue: int,
        longest_reconnect_s: float,
    ) -> None:
        self._secured = keys is not None
        self._broken_handshakes = 0  # in a row
        self._somebody_listens = False  # at the last try
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        # Nothing is queued for a hub that is not there: when it comes back only fresh messages flow.
        self._socket.immediate = 1
        self._socket.sndhwm = queue
        self._socket.sndbuf = _SEND_BUFFER_BYTES
        self._socket.ipv6 = "[" in endpoint
        self._socket.maxmsgsize = MAX_MESSAGE_BYTES
        self._socket.reconnect_ivl = _RECONNECT_MS
        self._socket.reconnect_ivl_max = max(_RECONNECT_MS, round(1000 * longest_reconnect_s))
        self._monitor = self._socket.get_monitor_socket(_WATCHED)
        try:
            if keys is not None:
                keys.secure(self._socket)
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"hub.endpoint: cannot connect to {endpoint!r} ({error}); "
                "give an address such as tcp://192.168.1.10:5555"
            ) from None

    def register(self, poller: zmq.Poller, for_room: bool) -> None:
        """Let `poller` wake up for whatever happens here; for_room: and when `put` may take a message."""
        poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if for_room else 0))
        poller.register(self._monitor, zmq.POLLIN)

    def put(self, data: bytes) -> bool:
        """Hand a message to libzmq without waiting; False where it takes none now."""
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def messages(self) -> Iterator[bytes]:
        """What has arrived, without waiting."""
        while True:
            try:
                yield self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return

    def changes(self) -> Iterator[Change]:
        """What has become of the connection, without waiting."""
        while not self._monitor.closed and self._monitor.poll(0):
            change = self._change(recv_monitor_message(self._monitor)["event"])
            if change is not None:
                yield change

    def close(self) -> None:
        """Give everything up at once. Closing twice is fine."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)

    def _change(self, event: int) -> Change | None:
        match event:
            case zmq.EVENT_CONNECTED:
                self._somebody_listens = True
                return None
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._broken_handshakes = 0
                return Change("up")
            case zmq.EVENT_DISCONNECTED:
                return Change("down", "the hub closed the connection; check that it runs")
            case zmq.EVENT_CONNECT_RETRIED if self._somebody_listens:
                # Tried anew after a handshake that failed: what that means is told when it goes on.
                self._somebody_listens = False
                return None
            case zmq.EVENT_CONNECT_RETRIED:
                return Change("absent", "nobody listens there; check the address, and that the hub runs")
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                # libzmq would not try again after this, but the allow-list may change.
                return Change(
                    "refused",
                    "the hub does not know this agent's key; add it to the hub's allow-list "
                    "(`viewsync keys make --agent …`)",
                )
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                return Change("refused", self._why())  # libzmq gives up after this too
        self._broken_handshakes += 1
        # One may be a hub that stopped just then.
        return Change("refused", self._why()) if self._broken_handshakes >= _BROKEN_HANDSHAKES else None

    def _why(self) -> str:
        broken = "the hub breaks off the handshake"
        if self._secured:
            return f"{broken}: it uses no keys, or security.hub_key is another hub's; give its hub.pub"
        return (
            f"{broken}: it demands keys; make this agent's with `viewsync keys make --agent …` and give "
            "security.keys and security.hub_key"
        )
