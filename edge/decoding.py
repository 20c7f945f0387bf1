"""Coded pictures to frames, one thread, no waiting; damaged frames are withheld, not passed off as seen.

FFmpeg conceals what is missing in a picture by copying from the one before, and says so on H.264 frames. A
count taken from such a frame would be invented, so the frame is withheld and counted. What follows is built
on it and withheld as well, until a key frame, or for `_DISTRUST_NS` where a camera refreshes its picture bit
by bit and sends none.

State: `_history`, the pictures since the last key frame, so that a picture that was handed out too early
(`AccessUnit.again`) can be decoded once more: the decoder starts anew from the key frame and swallows what it
gave before. Past `_MOST_HISTORY_BYTES` nothing is kept until the next key frame, and an early picture then
counts as damaged.
"""

from __future__ import annotations

from collections import OrderedDict
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


class Decoder:
    """Decodes one connection's pictures. withheld: damaged frames so far; redone: pictures decoded again."""

    __slots__ = ("_context", "_distrusted_ns", "_history", "_history_bytes", "_stamps", "redone", "withheld")

    def __init__(self, context: VideoCodecContext) -> None:
        """context: an unopened decoder (as a stream has it); its threading and delay are set here."""
        context.thread_count = 1  # frame threads would each hold one frame back
        context.flags |= int(Flags.low_delay)
        self._context = context
        self._stamps: OrderedDict[int, tuple[int, int | None]] = OrderedDict()
        self._history: list[AccessUnit] | None = None
        self._history_bytes = 0
        self._distrusted_ns: int | None = None
        self.withheld = 0
        self.redone = 0

    def decode(self, unit: AccessUnit) -> list[Decoded]:
        """The frames that come out for one picture: none, one, or, where pictures are reordered, several."""
        repairable = self._remember(unit)
        pictures: list[VideoFrame] = []
        if unit.again:
            if not repairable:
                self._distrusted_ns = unit.arrival_ns
                return []
            pictures += self._go_back()
        elif unit.is_key:
            self._distrusted_ns = None
        self._stamps[unit.pts] = (unit.arrival_ns, unit.capture_ns)
        while len(self._stamps) > _MOST_STAMPS:
            self._stamps.popitem(last=False)
        newest = self._feed(unit)
        if newest is None:
            self.withheld += 1
            self._distrusted_ns = unit.arrival_ns
            return []
        return self._trusted([*pictures, *newest], unit)

    def _remember(self, unit: AccessUnit) -> bool:
        """Keep the history; whether it reaches back to a key frame."""
        if unit.again and self._history:
            self._history_bytes -= len(self._history.pop().data)
        if unit.is_key:
            self._history = []
            self._history_bytes = 0
        if self._history is None:
            return False
        self._history.append(unit)
        self._history_bytes += len(unit.data)
        if self._history_bytes > _MOST_HISTORY_BYTES:
            self._history = None
            return False
        return True

    def _go_back(self) -> list[VideoFrame]:
        """Bring the decoder to where it stood before the newest picture; what comes out on the way."""
        assert self._history is not None
        self.redone += 1
        self._distrusted_ns = None
        self._context.flush_buffers()
        return [picture for earlier in self._history[:-1] for picture in self._feed(earlier) or ()]

    def _feed(self, unit: AccessUnit) -> list[VideoFrame] | None:
        """None: the decoder refused the picture as damaged."""
        packet = av.Packet(unit.data)
        packet.pts = packet.dts = unit.pts
        try:
            return self._context.decode(packet)
        except av.error.InvalidDataError:
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
