"""Coded pictures to frames, one thread, no waiting; damaged frames are withheld, not passed off as seen.

FFmpeg conceals what is missing in a picture by copying from the one before, and says so on H.264 frames. A
count taken from such a frame would be invented, so the frame is withheld and counted. What follows is built
on it and withheld as well, until a key frame, or for `_DISTRUST_NS` where a camera refreshes its picture bit
by bit and sends none.

A picture that was handed out too early (`AccessUnit.again`) is decoded once more: the decoder starts anew
from the last key frame (where pictures are reordered from the one before, because the decoder still held some
of those), and what it gave before is swallowed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

import av
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from edge.access_units import AccessUnit

_DISTRUST_NS: Final = 5_000_000_000
_MOST_HISTORY_BYTES: Final = 16 * 1024**2
# More than any reordering depth: a stamp of a picture that never came out is forgotten.
_MOST_STAMPS: Final = 64


@dataclass(frozen=True, slots=True)
class Decoded:
    """A whole frame with the times of its coded picture: arrival in the agent's clock, capture in the
    camera's (None: not known).
    """

    picture: VideoFrame
    arrival_ns: int
    capture_ns: int | None


class _History:
    """The pictures since the last key frame but one, at most `_MOST_HISTORY_BYTES`; past that nothing is kept
    until the next key frame.
    """

    def __init__(self) -> None:
        self._groups: deque[list[AccessUnit]] = deque(maxlen=2)

    def add(self, unit: AccessUnit) -> None:
        """Take the newest picture, in place of its earlier self where it came once more."""
        if unit.is_key and not unit.again:
            self._groups.append([])
        if not self._groups:
            return
        if unit.again:
            del self._groups[-1][-1:]
        self._groups[-1].append(unit)
        if sum(len(kept.data) for group in self._groups for kept in group) > _MOST_HISTORY_BYTES:
            self._groups.clear()

    def before_newest(self, reordered: bool) -> list[AccessUnit] | None:
        """What to decode before the newest picture; None: not known any more."""
        if not self._groups:
            return None
        groups = list(self._groups) if reordered else [self._groups[-1]]
        return [unit for group in groups for unit in group][:-1]


class Decoder:
    """Decodes one connection's pictures. withheld: damaged frames so far; redone: pictures decoded again.

    State: `_stamps` of pictures that have not come out; `_distrusted_ns`, since when what comes out is built
    on damage (`_distrusted_before_ns`: as it was before the newest picture).
    """

    __slots__ = (
        "_context",
        "_distrusted_before_ns",
        "_distrusted_ns",
        "_history",
        "_stamps",
        "redone",
        "withheld",
    )

    def __init__(self, context: VideoCodecContext) -> None:
        """context: an unopened decoder (as a stream has it); its threading and delay are set here."""
        context.thread_count = 1  # frame threads would each hold one frame back
        context.flags |= int(Flags.low_delay)
        self._context = context
        self._stamps: OrderedDict[int, tuple[int, int | None]] = OrderedDict()
        self._history = _History()
        self._distrusted_ns: int | None = None
        self._distrusted_before_ns: int | None = None
        self.withheld = 0
        self.redone = 0

    def decode(self, unit: AccessUnit) -> list[Decoded]:
        """The frames that come out for one picture: none, one, or, where pictures are reordered, several."""
        self._history.add(unit)
        pictures: list[VideoFrame] = []
        if unit.again:
            earlier = self._history.before_newest(bool(self._context.has_b_frames))
            if earlier is None:
                self._distrusted_ns = unit.arrival_ns
                return []
            self.redone += 1
            self._distrusted_ns = self._distrusted_before_ns
            self._context.flush_buffers()
            pictures += [picture for unit in earlier for picture in self._feed(unit) or ()]
        elif unit.is_key:
            self._distrusted_ns = None
        self._distrusted_before_ns = self._distrusted_ns
        self._stamps[unit.pts] = (unit.arrival_ns, unit.capture_ns)
        while len(self._stamps) > _MOST_STAMPS:
            self._stamps.popitem(last=False)
        newest = self._feed(unit)
        if newest is None:
            self.withheld += 1
            self._distrusted_ns = unit.arrival_ns
            return []
        return self._trusted([*pictures, *newest], unit)

    def _feed(self, unit: AccessUnit) -> list[VideoFrame] | None:
        """None: the decoder refused the picture. Damage may look like anything: a flipped bit of H.265 like
        what FFmpeg has not implemented, or like an operation that is not permitted.
        """
        packet = av.Packet(unit.data)
        packet.pts = packet.dts = unit.pts
        try:
            return self._context.decode(packet)
        except av.error.FFmpegError:
            return None

    def _trusted(self, pictures: list[VideoFrame], unit: AccessUnit) -> list[Decoded]:
        if self._distrusted_ns is not None and unit.arrival_ns - self._distrusted_ns > _DISTRUST_NS:
            self._distrusted_ns = None
        decoded = []
        for picture in pictures:
            stamp = None if picture.pts is None else self._stamps.pop(picture.pts, None)
            if stamp is None:
                continue  # given out before going back
            if picture.is_corrupt:
                self._distrusted_ns = unit.arrival_ns
            if self._distrusted_ns is not None:
                self.withheld += 1
            else:
                decoded.append(Decoded(picture, *stamp))
        return decoded
