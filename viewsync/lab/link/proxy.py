"""TCP through a link, for those who may not touch the network: a relay that holds back what it reads.

A relay sees a stream and cannot lose packets of it. So it cuts what it reads into packets' sizes, and what
the link loses comes later by the retransmission that TCP would need, and holds up all behind it, as it would
with TCP. A connection takes a round trip to come about. What is missing: TCP's slow start, and the way that
real losses make it slow down.

One thread, one `select`. State: `_ways`, by the socket that each reads from.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from viewsync.errors import UserError
from viewsync.lab.link.pump import be_punctual
from viewsync.lab.profile import ViewSection
from viewsync.lab.timeline import Link
from viewsync.units import MS_NS, SECOND_NS

_log = logging.getLogger(__name__)

# What a TCP segment holds, and what its headers add, as on a link of 1500 bytes.
SEGMENT_BYTES: Final = 1448
HEADER_BYTES: Final = 52
# Linux's bounds for a retransmission's wait.
_SHORTEST_NS: Final = 200 * MS_NS
_LONGEST_NS: Final = 120 * SECOND_NS
_HOPELESS_NS: Final = 900 * SECOND_NS
# Segments held back at most, of a queue that has more room; beyond, the sender's own buffer fills up.
_HELD: Final = 512
_LOOK_FOR_STOP_S: Final = 0.2


@dataclass(slots=True, eq=False)
class _Segment:
    """Data under way. out_ns: when it comes out; None: it was lost, and is sent again at `again_ns`."""

    data: bytes
    again_ns: int
    wait_ns: int
    out_ns: int | None = None


@dataclass(slots=True, eq=False)
class _Way:
    """One direction of one connection: what is under way, in order, and what is due but not yet taken."""

    source: socket.socket
    sink: socket.socket
    link: Link
    room: int
    not_before_ns: int
    waiting: deque[_Segment] = field(default_factory=deque)
    lost: list[_Segment] = field(default_factory=list)
    unsent: bytes = b""
    ended: bool = False

    @property
    def reads(self) -> bool:
        return not self.ended and len(self.waiting) < self.room

    @property
    def due_ns(self) -> int | None:
        """When there is something to do."""
        times = [segment.again_ns for segment in self.lost]
        if self.waiting and not self.unsent and self.waiting[0].out_ns is not None:
            times.append(self.waiting[0].out_ns)
        return min(times, default=None)

    def transmit(self, segment: _Segment, zero_ns: int) -> None:
        """Send a segment when it is time to."""
        at_ns = segment.again_ns - zero_ns
        out_ns = self.link.departures(at_ns, len(segment.data) + HEADER_BYTES)
        if out_ns is None:
            segment.again_ns += segment.wait_ns
            segment.wait_ns = longer_ns(segment.wait_ns)
        else:
            segment.out_ns = out_ns + zero_ns


def arrivals(link: Link, sent_ns: Sequence[int], size: int, wait_ns: int) -> list[int]:
    """When packets of a stream, each sent first at its time, are there, in order: as the relay has it.

    wait_ns: until the first retransmission. What a quarter of an hour does not suffice for counts as there
    then.
    """
    out = [0] * len(sent_ns)
    tries = [(at_ns, number, wait_ns) for number, at_ns in enumerate(sent_ns)]
    while tries:
        at_ns, number, wait_ns = heapq.heappop(tries)
        out_ns = link.departures(at_ns, size + HEADER_BYTES)
        if out_ns is None and at_ns > sent_ns[number] + _HOPELESS_NS:
            out[number] = at_ns
        elif out_ns is None:
            heapq.heappush(tries, (at_ns + wait_ns, number, longer_ns(wait_ns)))
        else:
            out[number] = out_ns
    return list(itertools.accumulate(out, max))


def longer_ns(wait_ns: int) -> int:
    """The wait after the next loss of the same packet."""
    return min(max(2 * wait_ns, _SHORTEST_NS), _LONGEST_NS)


def first_wait_ns(section: ViewSection) -> int:
    """Until a loss is noticed by what comes after it: a round trip and a quarter."""
    trip = trip_ns(section)
    return trip + trip // 4 + MS_NS


def trip_ns(section: ViewSection) -> int:
    """A round trip over a view's link, by its mean delays."""
    return round((section.up.delay_ms + section.down.delay_ms) * MS_NS)


class Proxy:
    """Listens at once; `run` relays until told to stop. Every connection here is one to `target`.

    section, links: of the view, (up, down), up towards the target; zero_ns: the profile's time 0 in the
    monotonic clock. Raises UserError for an address that cannot be listened at.
    """

    def __init__(
        self,
        listen: tuple[str, int],
        target: tuple[str, int],
        section: ViewSection,
        links: tuple[Link, Link],
        zero_ns: int,
    ) -> None:
        try:
            self._listener = socket.create_server(listen)
        except OSError as error:
            where = f"{listen[0]}:{listen[1]}"
            raise UserError(f"--listen {where}: {error.strerror}; choose another address") from None
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._target = target
        self._links = links
        # Half of the queue: what a TCP that meets losses at its end would leave in it.
        self._rooms = [min(_HELD, way.queue_packets // 2 + 1) for way in (section.up, section.down)]
        self._trip_ns, self._wait_ns = trip_ns(section), first_wait_ns(section)
        self._zero_ns = zero_ns
        self._ways: dict[socket.socket, _Way] = {}
        self._complained = False

    def run(self, stopped: Callable[[], bool]) -> None:
        """Until `stopped()`, which is asked several times a second."""
        be_punctual()
        try:
            while not stopped():
                self._turn()
        finally:
            self.close()

    def close(self) -> None:
        """Break every connection and listen no more."""
        for way in list(self._ways.values()):
            self._drop(way)
        self._listener.close()

    def _turn(self) -> None:
        ways = self._ways.values()
        readers = [self._listener, *(way.source for way in ways if way.reads)]
        writers = {way.sink: way for way in ways if way.unsent}
        due_ns = min((due for way in ways if (due := way.due_ns) is not None), default=None)
        wait_s = _LOOK_FOR_STOP_S
        if due_ns is not None:
            wait_s = min(wait_s, max(0.0, (due_ns - time.monotonic_ns()) * 1e-9))
        readable, writable, _ = select.select(readers, list(writers), (), wait_s)
        for source in readable:
            if source is self._listener:
                self._accept()
            elif (way := self._ways.get(source)) is not None:
                self._read(way)
        for sink in writable:
            self._write(writers[sink])
        for way in list(self._ways.values()):
            self._serve(way, time.monotonic_ns())

    def _serve(self, way: _Way, now_ns: int) -> None:
        """Send again what was lost, and hand over what is there."""
        for segment in [segment for segment in way.lost if segment.again_ns <= now_ns]:
            way.transmit(segment, self._zero_ns)
        way.lost = [segment for segment in way.lost if segment.out_ns is None]
        while way.waiting and not way.unsent:
            out_ns = way.waiting[0].out_ns
            if out_ns is None or out_ns > now_ns:
                break
            self._deliver(way, way.waiting.popleft().data)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target, timeout=2.0)
        except OSError as error:
            if not self._complained:
                _log.warning("%s:%d: %s; refusing connections meanwhile", *self._target, error)
            self._complained = True
            near.close()
            return
        self._complained = False
        up, down = self._links
        # As SYN and its answer would take, for which the listening system does not wait.
        open_ns = time.monotonic_ns() + self._trip_ns
        rooms = self._rooms
        for source, sink, link, room in ((near, far, up, rooms[0]), (far, near, down, rooms[1])):
            source.setblocking(False)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ways[source] = _Way(source, sink, link, room, open_ns)

    def _read(self, way: _Way) -> None:
        try:
            data = way.source.recv(SEGMENT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._drop(way)
            return
        way.ended = not data
        segment = _Segment(data, max(time.monotonic_ns(), way.not_before_ns), self._wait_ns)
        way.waiting.append(segment)
        way.transmit(segment, self._zero_ns)
        if segment.out_ns is None:
            way.lost.append(segment)

    def _deliver(self, way: _Way, data: bytes) -> None:
        if data:
            way.unsent = data
            self._write(way)
            return
        # The end of the stream.
        with contextlib.suppress(OSError):
            way.sink.shutdown(socket.SHUT_WR)
        other = self._ways.get(way.sink)
        if other is None or (other.ended and not other.waiting):
            self._drop(way)

    def _write(self, way: _Way) -> None:
        try:
            way.unsent = way.unsent[way.sink.send(way.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(way)

    def _drop(self, way: _Way) -> None:
        """End both directions of the connection at once."""
        for end in (way.source, way.sink):
            other = self._ways.pop(end, None)
            if other is not None:
                other.waiting.clear()
                other.lost.clear()
                other.unsent = b""
            end.close()
