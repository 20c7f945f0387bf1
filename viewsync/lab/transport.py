"""What TCP makes of a link, in virtual time: messages in order and whole, however many packets are lost.

Enough of TCP to know when a message arrives: segments, a congestion window that starts at ten segments and
starts again after a pause (RFC 6928, RFC 5681), selective acknowledgements on the way back, which the link
may lose too, loss noticed by later segments' acknowledgements (RFC 8985) or by the retransmission timer with
its back-off (RFC 6298; Linux's bounds). Left out: delayed acknowledgements, receive windows, pacing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from viewsync.lab.events import Events
from viewsync.units import MS_NS, SECOND_NS

# When a packet of so many bytes that is sent now will arrive, ns; None: it is lost.
Channel = Callable[[int, int], int | None]

HEADER_BYTES: Final = 52
SEGMENT_BYTES: Final = 1448
_INITIAL_WINDOW: Final = 10
_FIRST_RTO_NS: Final = SECOND_NS
_MIN_RTO_NS: Final = 200 * MS_NS
_MAX_RTO_NS: Final = 120 * SECOND_NS


@dataclass(slots=True, eq=False)
class _Segment:
    number: int
    size: int
    sent_ns: int = 0


@dataclass(slots=True)
class _RoundTrip:
    """Smoothed round trip and its variation, ns (RFC 6298)."""

    smooth_ns: int = 0
    spread_ns: int = 0

    def take(self, sample_ns: int) -> None:
        if not self.smooth_ns:
            self.smooth_ns, self.spread_ns = sample_ns, sample_ns // 2
            return
        self.spread_ns += (abs(sample_ns - self.smooth_ns) - self.spread_ns) // 4
        self.smooth_ns += (sample_ns - self.smooth_ns) // 8

    @property
    def timeout_ns(self) -> int:
        if not self.smooth_ns:
            return _FIRST_RTO_NS
        return self.smooth_ns + max(_MIN_RTO_NS, 4 * self.spread_ns)


@dataclass(slots=True)
class _Receiver:
    """The other side: what came, and up to where it is whole."""

    have: set[int] = field(default_factory=set)
    whole: int = 0

    def take(self, number: int) -> None:
        self.have.add(number)
        while self.whole in self.have:
            self.have.discard(self.whole)
            self.whole += 1


class Stream:
    """One direction of an established connection: `send` whole messages, `delivered` in the same order.

    there: the way of the data; back: that of the acknowledgements.
    """

    def __init__(self, events: Events, there: Channel, back: Channel) -> None:
        self._events = events
        self._there = there
        self._back = back
        self._waiting: deque[_Segment] = deque()
        self._flying: dict[int, _Segment] = {}
        self._ends: deque[tuple[int, Callable[[], None]]] = deque()
        self._receiver = _Receiver()
        self._next = 0
        self._window = float(_INITIAL_WINDOW)
        self._threshold = float("inf")
        self._recovering_until = 0
        self._trip = _RoundTrip()
        self._backed_off = 0
        self._timer = 0
        self._last_sent_ns = events.now_ns
        self._closed = False

    def send(self, size: int, delivered: Callable[[], None]) -> None:
        """Send a message of so many bytes; `delivered` is called when the last of it is there, in order."""
        if self._closed:
            return
        if not self._flying and self._events.now_ns - self._last_sent_ns > self._trip.timeout_ns:
            self._window = min(self._window, float(_INITIAL_WINDOW))
        while size > 0:
            self._waiting.append(_Segment(self._next, min(size, SEGMENT_BYTES)))
            self._next += 1
            size -= SEGMENT_BYTES
        self._ends.append((self._next, delivered))
        self._push()

    def close(self) -> None:
        """Nothing more is sent, and nothing that is under way counts."""
        self._closed = True

    def _push(self) -> None:
        while self._waiting and len(self._flying) < self._window:
            segment = self._waiting.popleft()
            self._flying[segment.number] = segment
            self._transmit(segment)

    def _transmit(self, segment: _Segment) -> None:
        now_ns = self._events.now_ns
        segment.sent_ns = self._last_sent_ns = now_ns
        there_ns = self._there(now_ns, segment.size + HEADER_BYTES)
        if there_ns is not None:
            self._events.at(there_ns, lambda: self._arrive(segment.number, now_ns))
        self._set_timer()

    def _set_timer(self) -> None:
        """Of all timers that were set, only the last counts."""
        self._timer += 1
        timer = self._timer
        wait_ns = min(self._trip.timeout_ns << self._backed_off, _MAX_RTO_NS)
        self._events.at(self._events.now_ns + wait_ns, lambda: self._expire(timer))

    # --- the other side ---------------------------------------------------------------------------------

    def _arrive(self, number: int, sent_ns: int) -> None:
        if self._closed:
            return
        receiver = self._receiver
        if number >= receiver.whole:
            receiver.take(number)
        while self._ends and self._ends[0][0] <= receiver.whole:
            self._ends.popleft()[1]()
        back_ns = self._back(self._events.now_ns, HEADER_BYTES)
        if back_ns is not None:
            whole, beyond = receiver.whole, frozenset(receiver.have)
            self._events.at(back_ns, lambda: self._acknowledged(whole, beyond, sent_ns))

    # --- this side --------------------------------------------------------------------------------------

    def _acknowledged(self, whole: int, beyond: frozenset[int], sent_ns: int) -> None:
        if self._closed:
            return
        gone = [number for number in self._flying if number < whole or number in beyond]
        if gone:
            self._trip.take(self._events.now_ns - sent_ns)
            self._backed_off = 0
        for number in gone:
            del self._flying[number]
            self._window += 1.0 if self._window < self._threshold else 1.0 / self._window
        # What was sent a good while before something that has arrived by now is lost.
        late_ns = sent_ns - max(self._trip.smooth_ns // 4, MS_NS)
        lost = [segment for segment in self._flying.values() if segment.sent_ns < late_ns]
        if lost and lost[0].number >= self._recovering_until:
            self._threshold = self._window = max(2.0, 0.7 * self._window)
            self._recovering_until = self._next
        for segment in lost:
            self._transmit(segment)
        if gone:
            self._set_timer()
        self._push()

    def _expire(self, timer: int) -> None:
        if self._closed or timer != self._timer or not self._flying:
            return
        self._backed_off = min(self._backed_off + 1, 20)
        self._threshold, self._window = max(2.0, len(self._flying) / 2), 1.0
        self._recovering_until = self._next
        first = min(self._flying.values(), key=lambda segment: segment.number)
        self._transmit(first)
        # The others count as lost, and are sent as acknowledgements make room.
        rest = sorted((s for s in self._flying.values() if s is not first), key=lambda s: s.number)
        for segment in reversed(rest):
            del self._flying[segment.number]
            self._waiting.appendleft(segment)
