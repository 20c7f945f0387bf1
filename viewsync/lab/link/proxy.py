"""TCP through a link, for those who may not touch the network: a relay that holds back what it reads.

A relay sees a stream and cannot lose packets of it. So it cuts what it reads into packets' sizes, and what
the link loses comes later by the retransmission that TCP would need, and holds up all behind it, as it would
with TCP. A connection takes a round trip to come about. What is missing: TCP's slow start, and the way that
real losses make it slow down.

One thread, one `select`. State: `_ways`, by the socket that each reads from.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from collections import deque
from collections.abc import Callable
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
# Segments held back at most, of a queue that has more room; beyond, the sender's own buffer fills up.
_HELD: Final = 512
# A connection that could not get through for so long is broken.
_HOPELESS_NS: Final = 900 * SECOND_NS
_LOOK_FOR_STOP_S: Final = 0.2


@dataclass(slots=True, eq=False)
class _Way:
    """One direction of one connection: what waits until when, and what is due but not yet taken."""

    source: socket.socket
    sink: socket.socket
    link: Link
    room: int
    not_before_ns: int
    waiting: deque[tuple[int, bytes]] = field(default_factory=deque)
    unsent: bytes = b""
    ended: bool = False

    @property
    def reads(self) -> bool:
        return not self.ended and len(self.waiting) < self.room


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
        self._trip_ns = round((section.up.delay_ms + section.down.delay_ms) * MS_NS)
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
        due_ns = min((way.waiting[0][0] for way in ways if way.waiting and not way.unsent), default=None)
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
        now_ns = time.monotonic_ns()
        for way in list(self._ways.values()):
            while way.waiting and way.waiting[0][0] <= now_ns and not way.unsent:
                self._deliver(way, way.waiting.popleft()[1])

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
        now_ns = time.monotonic_ns()
        # As SYN and its answer would, for which the listening system does not wait.
        there_ns = self._arrival(up, now_ns, 0)
        open_ns = None if there_ns is None else self._arrival(down, there_ns, 0)
        if open_ns is None:
            near.close()
            far.close()
            return
        rooms = self._rooms
        for source, sink, link, room in ((near, far, up, rooms[0]), (far, near, down, rooms[1])):
            source.setblocking(False)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ways[source] = _Way(source, sink, link, room, open_ns)

    def _arrival(self, link: Link, sent_ns: int, size: int) -> int | None:
        """When data sent now is there, however often it has to be sent; None: it is hopeless."""
        first_ns, wait_ns = sent_ns, self._trip_ns + self._trip_ns // 4 + MS_NS
        while sent_ns - first_ns < _HOPELESS_NS:
            out_ns = link.departures(sent_ns - self._zero_ns, size + HEADER_BYTES)
            if out_ns is not None:
                return out_ns + self._zero_ns
            sent_ns += wait_ns
            wait_ns = min(max(2 * wait_ns, _SHORTEST_NS), _LONGEST_NS)
        return None

    def _read(self, way: _Way) -> None:
        try:
            data = way.source.recv(SEGMENT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._drop(way)
            return
        way.ended = not data
        sent_ns = max(time.monotonic_ns(), way.not_before_ns)
        out_ns = self._arrival(way.link, sent_ns, len(data))
        if out_ns is None:
            self._drop(way)
            return
        if way.waiting:
            out_ns = max(out_ns, way.waiting[-1][0])
        way.waiting.append((out_ns, data))

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
                other.unsent = b""
            end.close()
