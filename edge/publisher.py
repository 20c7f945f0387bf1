"""Messages to the hub, newest only, acknowledged, over connections that come and go.

One thread owns the socket. At each connection it first asks the hub for its time (`HubTime`; a feature
message without hub − agent offset would be refused), then sends what `Outbox` gives. A hub that does not
answer within the timeout, or refuses the connection, gets a new socket after a wait that grows.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Any, Final

import zmq

from edge.backoff import Backoff
from edge.counts import EdgeCounts
from edge.hub_socket import Change, HubSocket
from edge.hub_time import HubTime
from edge.outbox import Outbox
from edge.refusals import Refusals
from edge.wakeup import Wakeup
from viewsync.clock import ClockExchange
from viewsync.errors import WireError
from viewsync.keys import ClientKeys
from viewsync.units import MS_NS, SECOND_NS
from viewsync.wire import Ack, ClockProbe, ClockReply, FeatureMessage, Message, Refusal, decode, encode

_log = logging.getLogger(__name__)

_FIRST_WAIT_S: Final = 0.5
_CLOSE_S: Final = 1.0


class Publisher:
    """Sends one agent's messages to one hub. Any thread may call `send`; it raises what the thread here
    failed with, if it did.

    session: which all messages carry; window: messages under way at most; timeout_ns: for an answer;
    exchange: hub − agent; now: the agent's clock, UTC ns. Raises ConfigError for an unusable endpoint.
    """

    def __init__(
        self,
        endpoint: str,
        keys: ClientKeys | None,
        session: int,
        window: int,
        timeout_ns: int,
        longest_reconnect_s: float,
        exchange: ClockExchange,
        counts: EdgeCounts,
        now: Callable[[], int],
    ) -> None:
        self.endpoint = endpoint
        self._keys = keys
        self._session = session
        self._window = window
        self._timeout_ns = timeout_ns
        self._longest_reconnect_s = longest_reconnect_s
        self._counts = counts
        self._now = now
        self._backoff = Backoff(min(_FIRST_WAIT_S, longest_reconnect_s), longest_reconnect_s)
        self._settled = threading.Condition()  # guards _outbox
        self._outbox = Outbox(window, timeout_ns, stale_ns=timeout_ns)
        self._failure: Exception | None = None
        self._closing = threading.Event()
        self._wakeup = Wakeup()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # The thread's own. _blocked: libzmq has no room for what there is to send now.
        self._retry_ns = 0
        self._connected = False
        self._blocked = False
        self._logged_problem = ""
        # Written by the thread, read by /healthz.
        self._time = HubTime(exchange, timeout_ns)
        self._problem = "connecting"
        self._refusals = Refusals(endpoint, counts)
        self._hub: HubSocket | None = self._connect()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, message: FeatureMessage) -> bool:
        """Let `message` be sent as soon as the hub can take it; False where it replaced one that waited.

        Its `sent_ns` and `hub_offset` are filled in at the moment of sending.
        """
        with self._settled:
            if self._failure is not None:
                raise self._failure
            replaced = self._outbox.offer(message)
        if replaced:
            self._counts.messages_replaced.inc()
        self._wakeup.set()
        return not replaced

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything has been sent and answered; False after the timeout, or when closed."""
        with self._settled:
            self._settled.wait_for(lambda: self._outbox.is_empty or self._closing.is_set(), timeout_s)
            return self._outbox.is_empty

    def stop(self) -> None:
        """End the thread within moments, from any thread; what waits is not sent."""
        self._closing.set()
        with self._settled:
            self._settled.notify_all()
        self._wakeup.set()

    def close(self) -> None:
        """Stop and let go of everything. For the thread that made this; closing twice is fine."""
        self.stop()
        if self._thread.ident is None:
            self._release()
        else:
            self._thread.join(_CLOSE_S)

    def state(self) -> tuple[bool, dict[str, Any]]:
        """Whether the hub answers, and facts for /healthz."""
        facts = {"endpoint": self.endpoint, "problem": self._problem, "refused": self._refusals.reasons()}
        return self._time.known, facts

    # --- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._turn()
        except Exception as error:  # noqa: BLE001 (raised again where messages are sent)
            self._failure = error
        finally:
            self._release()

    def _release(self) -> None:
        self._disconnect()
        if not self._context.closed:
            self._context.destroy(linger=0)

    def _turn(self) -> None:
        """Wait for something to happen, then do what it asks for."""
        poller = zmq.Poller()
        poller.register(self._wakeup.fileno(), zmq.POLLIN)
        if self._hub is not None:
            self._hub.register(poller, for_room=self._blocked)
        poller.poll(self._wait_ms())
        self._wakeup.clear()
        if self._hub is None:
            if self._now() >= self._retry_ns:
                self._hub = self._connect()
            return
        self._converse(self._hub)

    def _converse(self, hub: HubSocket) -> None:
        for change in hub.changes():
            self._take_change(change)
        if hub is not self._hub:
            return  # refused: this socket is closed
        for data in hub.messages():
            self._take_message(data, self._now())
        due_ns = self._answer_due_ns()
        if due_ns is not None and self._now() >= due_ns:
            self._lose(f"no answer for {self._timeout_ns / SECOND_NS:.0f} s; check the hub and the link")
        elif self._connected:
            self._speak(hub)

    def _wait_ms(self) -> int | None:
        """Until the next thing that is due without anything happening."""
        if self._hub is None:
            due_ns: int | None = self._retry_ns
        else:
            # What there was no room for waits for room: a time that is past would be waited for by spinning.
            probe_ns = None if self._blocked else self._time.probe_due_ns()
            due_ns = _earlier(self._answer_due_ns(), probe_ns)
        return None if due_ns is None else max(0, (due_ns - self._now()) // MS_NS + 1)

    def _answer_due_ns(self) -> int | None:
        """When what is under way will have waited too long for an answer."""
        with self._settled:
            due_ns = self._outbox.due_ns()
        return _earlier(due_ns, self._time.answer_due_ns())

    def _speak(self, hub: HubSocket) -> None:
        """Send what may be sent: a probe when one is due, then the message that waits."""
        # Whoever has nothing to send any more, because it went stale, must not wake up for room to send it.
        self._blocked = False
        sent_ns = self._now()
        if self._time.is_probe_due(sent_ns) and self._put(hub, encode(ClockProbe(sent_ns))):
            self._time.asked(sent_ns)
        if not self._time.known:
            return
        sent_ns = self._now()
        with self._settled:
            message = self._outbox.take(sent_ns)
            self._settled.notify_all()
        if message is None:
            return
        offset = self._time.offset(sent_ns)
        data = encode(dataclasses.replace(message, sent_ns=sent_ns, hub_offset=offset))
        if self._put(hub, data):
            self._counts.messages_sent.inc()
            self._counts.bytes_sent.inc(len(data))
        else:
            with self._settled:
                self._outbox.not_sent(message.seq)

    def _put(self, hub: HubSocket, data: bytes) -> bool:
        taken = hub.put(data)
        self._blocked |= not taken
        return taken

    # --- what the hub says ------------------------------------------------------------------------------

    def _take_message(self, data: bytes, returned_ns: int) -> None:
        try:
            answer = decode(data)
        except WireError as error:
            self._report(
                f"its answer cannot be read ({error}); run the same version of viewsync on both sides"
            )
            return
        knew = self._time.known
        if not self._is_ours(answer):
            return
        assert isinstance(answer, (Ack, Refusal, ClockReply))
        offset = self._time.learn(answer, returned_ns)
        if offset is not None:
            self._counts.hub_offset.set(offset.offset_ns / SECOND_NS)
            self._counts.hub_uncertainty.set(offset.uncertainty_ns / SECOND_NS)
        if self._time.known and not knew:
            self._problem = self._logged_problem = ""
            self._counts.hub_up.set(1)
            self._backoff.reset()
            _log.info("hub %s: it answers", self.endpoint)

    def _is_ours(self, answer: Message) -> bool:
        """Settle what is answered; whether its times may be believed: we asked, and are answered once."""
        match answer:
            case ClockReply():
                return self._time.is_ours(answer)
            case Ack() | Refusal():
                refused = isinstance(answer, Refusal)
                if isinstance(answer, Refusal):
                    self._refusals.note(answer)
                if answer.session != self._session or answer.seq is None:
                    return False
                with self._settled:
                    ours = self._outbox.sent_ns(answer.seq) == answer.sent_ns
                    settled = self._outbox.answered(answer.seq)
                    self._settled.notify_all()
                self._counts.messages_acked.inc(max(0, settled - refused))
                return ours
        return False

    # --- the connection ---------------------------------------------------------------------------------

    def _connect(self) -> HubSocket:
        # One place more than the window, for the probe.
        return HubSocket(
            self._context, self.endpoint, self._keys, self._window + 1, self._longest_reconnect_s
        )

    def _take_change(self, change: Change) -> None:
        match change.kind:
            case "up":
                self._time.connected()
                self._connected = True
            case "down" if self._connected:
                self._counts.hub_reconnects.inc()
                self._down()
                self._report(change.problem)
            case "absent":
                self._report(change.problem)
            case "refused":
                self._lose(change.problem)

    def _down(self) -> None:
        """The connection, if there was one, is gone."""
        self._connected = self._blocked = False
        self._time.disconnected()
        self._counts.hub_up.set(0)
        with self._settled:
            self._outbox.connection_lost()

    def _disconnect(self) -> None:
        self._down()
        if self._hub is not None:
            self._hub.close()
            self._hub = None

    def _lose(self, problem: str) -> None:
        """Give this socket up, and make another after a while."""
        self._disconnect()
        self._counts.hub_reconnects.inc()
        self._retry_ns = self._now() + round(self._backoff.next_s() * SECOND_NS)
        self._report(problem)

    def _report(self, problem: str) -> None:
        """Log a problem when it is another one than before: a hub that stays away fills no log."""
        self._problem = problem
        if problem != self._logged_problem:
            self._logged_problem = problem
            _log.warning("hub %s: %s; trying on", self.endpoint, problem)


def _earlier(first: int | None, second: int | None) -> int | None:
    """The earlier of two times; None: never."""
    return second if first is None else first if second is None else min(first, second)
