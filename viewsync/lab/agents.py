"""An agent and its connection to the hub, in virtual time: the real pure parts of `edge` between a simulated
camera and simulated packets.

What `edge.agent` and `edge.publisher` do with threads and sockets happens here as events, in the same order:
frames are dated by `FrameDating`, wait in an `Outbox`, and are sent in bytes of the real wire once `HubTime`
knows the hub's time. Time is the hub's clock; every agent has a clock of its own that is off.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.backoff import Backoff
from edge.dating import FrameDating
from edge.hub_time import HubTime
from edge.outbox import Outbox
from viewsync.capture_clock import CaptureClock
from viewsync.clock import ClockExchange
from viewsync.lab.events import Events
from viewsync.lab.scenario import Bytes
from viewsync.lab.transport import Channel, Stream
from viewsync.sim.camera_clock import CameraClock
from viewsync.units import MS_NS, SECOND_NS
from viewsync.wire import Ack, ClockProbe, ClockReply, FeatureMessage, Tensor, decode, encode

# From exposure to a whole picture at the agent: what a simulated camera next door takes live.
_FASTEST_CAMERA_NS: Final = 60 * MS_NS
_CAMERA_SPREAD_NS: Final = 60 * MS_NS
_EXTRACTION_NS: Final = 30 * MS_NS
_ALLOWANCE_NS: Final = 400 * MS_NS
# As `edge.config` has them.
_TIMEOUT_NS: Final = 10 * SECOND_NS
_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 5.0
# TCP's and ZeroMQ's handshakes before the first message: small packets there and back.
_HANDSHAKES: Final = 3
_HANDSHAKE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class AgentClock:
    """The agent's clock against the hub's: `offset_ns` ahead at `epoch_ns`, and `drift_ppm` too fast."""

    offset_ns: int
    drift_ppm: float
    epoch_ns: int

    def __call__(self, true_ns: int) -> int:
        """What it shows at `true_ns`."""
        return true_ns + self.offset_ns + round(self.drift_ppm * 1e-6 * (true_ns - self.epoch_ns))


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame that the camera takes: when truly, and its features uint8 (C, h, w)."""

    true_ns: int
    features: Bytes


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A message at the hub: when it came, and when its frame was truly taken."""

    received_ns: int
    true_ns: int
    message: FeatureMessage
    size: int


@dataclass(slots=True)
class Traffic:
    """What one agent sent."""

    frames: int = 0
    messages: int = 0
    replaced: int = 0
    bytes: int = 0
    reconnects: int = 0


class VirtualAgent:
    """One view's agent. deliver: called with each feature message that reaches the hub.

    there, back: the link to the hub and from it; chance: decides the camera's delay and the waits before
    reconnecting. `start` once, then the events do the rest.
    """

    def __init__(
        self,
        events: Events,
        template: FeatureMessage,
        camera_clock: CameraClock,
        clock: AgentClock,
        there: Channel,
        back: Channel,
        chance: random.Random,
        deliver: Callable[[Delivery], None],
    ) -> None:
        self.traffic = Traffic()
        self._events = events
        self._template = template
        self._camera_clock = camera_clock
        self._clock = clock
        self._there, self._back = there, back
        self._chance = chance
        self._deliver = deliver
        self._dating = FrameDating(CaptureClock(allowance_ns=_ALLOWANCE_NS), use_camera_clock=True)
        self._outbox = Outbox(1, _TIMEOUT_NS, _TIMEOUT_NS)
        self._time = HubTime(ClockExchange(), _TIMEOUT_NS)
        self._backoff = Backoff(_FIRST_RETRY_S, _LAST_RETRY_S, chance)
        self._taken: dict[int, int] = {}  # when frame `seq` was truly taken
        self._streams: tuple[Stream, Stream] | None = None
        self._connected = False
        self._alarm_ns: int | None = None

    def start(self) -> None:
        """Connect to the hub."""
        self._connect()

    def take(self, picture: Picture) -> None:
        """The camera takes a picture now: it is here a moment later, and its features after another."""
        delay_ns = _FASTEST_CAMERA_NS + round(self._chance.random() * _CAMERA_SPREAD_NS)
        self._events.at(picture.true_ns + delay_ns, lambda: self._arrive(picture))

    def camera_came_back(self) -> None:
        """The camera was opened anew."""
        self._dating.restart()

    def _now(self) -> int:
        return self._clock(self._events.now_ns)

    def _arrive(self, picture: Picture) -> None:
        arrival_ns = self._now()
        camera_ns = self._camera_clock.camera_ns(picture.true_ns, self._clock.epoch_ns)
        capture_ns, clock, offset = self._dating.date(camera_ns, arrival_ns)
        seq = self.traffic.frames
        self.traffic.frames += 1
        self._taken[seq] = picture.true_ns
        message = dataclasses.replace(
            self._template,
            seq=seq,
            capture_ns=capture_ns,
            clock=clock,
            arrival_ns=arrival_ns,
            camera_offset=offset,
            tensors=(Tensor("features", picture.features),),
        )

        def extracted() -> None:
            self.traffic.replaced += self._outbox.offer(message)
            self._speak()

        self._events.at(self._events.now_ns + _EXTRACTION_NS, extracted)

    # --- what the publisher does ------------------------------------------------------------------------

    def _connect(self) -> None:
        up = Stream(self._events, self._there, self._back)
        down = Stream(self._events, self._back, self._there)
        self._streams = (up, down)
        left = _HANDSHAKES

        def once_more() -> None:
            nonlocal left
            if left == 0:
                self._connected = True
                self._time.connected()
                self._speak()
                return
            left -= 1
            up.send(_HANDSHAKE_BYTES, lambda: down.send(_HANDSHAKE_BYTES, once_more))

        once_more()

    def _lose(self) -> None:
        assert self._streams is not None
        for stream in self._streams:
            stream.close()
        self._streams, self._connected = None, False
        self._time.disconnected()
        self._outbox.connection_lost()
        self.traffic.reconnects += 1
        self._events.at(self._events.now_ns + round(self._backoff.next_s() * SECOND_NS), self._connect)

    def _speak(self) -> None:
        """As `edge.publisher.Publisher._speak`: a probe when one is due, then the message that waits."""
        if not self._connected or self._streams is None:
            return
        up, down = self._streams
        sent_ns = self._now()
        if self._time.is_probe_due(sent_ns):
            data = encode(ClockProbe(sent_ns))
            self._time.asked(sent_ns)
            self._count(data)
            up.send(len(data), lambda: self._hub_reads_probe(down, sent_ns))
        if self._time.known:
            message = self._outbox.take(sent_ns)
            if message is not None:
                self._send(message, sent_ns, up, down)
        self._set_alarm()

    def _send(self, message: FeatureMessage, sent_ns: int, up: Stream, down: Stream) -> None:
        offset = self._time.offset(sent_ns)
        data = encode(dataclasses.replace(message, sent_ns=sent_ns, hub_offset=offset))
        self._count(data)
        self.traffic.messages += 1
        up.send(len(data), lambda: self._hub_reads(down, data))

    def _count(self, data: bytes) -> None:
        self.traffic.bytes += len(data)

    def _hub_reads_probe(self, down: Stream, sent_ns: int) -> None:
        reply = ClockReply(sent_ns, self._events.now_ns, self._events.now_ns)
        down.send(len(encode(reply)), lambda: self._hear(reply))

    def _hub_reads(self, down: Stream, data: bytes) -> None:
        received_ns = self._events.now_ns
        message = decode(data)
        assert isinstance(message, FeatureMessage)
        self._deliver(Delivery(received_ns, self._taken[message.seq], message, len(data)))
        # A refusal is as long and settles as much; what the hub makes of the frame is for the replay.
        ack = Ack(message.session, message.seq, message.sent_ns, received_ns, received_ns)
        down.send(len(encode(ack)), lambda: self._hear(ack))

    def _hear(self, answer: Ack | ClockReply) -> None:
        if isinstance(answer, ClockReply):
            ours = self._time.is_ours(answer)
        else:
            ours = self._outbox.sent_ns(answer.seq) == answer.sent_ns
            self._outbox.answered(answer.seq)
        if ours and self._time.learn(answer, self._now()) is not None:
            self._backoff.reset()
        self._speak()

    # --- what is due without anything happening ---------------------------------------------------------

    def _set_alarm(self) -> None:
        due = [
            due_ns
            for due_ns in (self._outbox.due_ns(), self._time.answer_due_ns(), self._time.probe_due_ns())
            if due_ns is not None
        ]
        if not due:
            return
        # The agent's clock runs almost as fast as ours.
        alarm_ns = self._events.now_ns + max(0, min(due) - self._now()) + MS_NS
        if self._alarm_ns is None or alarm_ns < self._alarm_ns or self._alarm_ns <= self._events.now_ns:
            self._alarm_ns = alarm_ns
            self._events.at(alarm_ns, self._ring)

    def _ring(self) -> None:
        if self._alarm_ns is not None and self._events.now_ns >= self._alarm_ns:
            self._alarm_ns = None
        if self._streams is None or not self._connected:
            return
        unanswered = [ns for ns in (self._outbox.due_ns(), self._time.answer_due_ns()) if ns is not None]
        if unanswered and self._now() >= min(unanswered):
            self._lose()
        else:
            self._speak()
