"""From every decoded frame to the newest few: at the chosen rate, and one waits at most.

`RateGate` decides when a frame comes; pure. `NewestFrame` hands frames from the thread that decodes to the
one that extracts: a frame that waits is replaced by a newer one, and counted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from viewsync.units import SECOND_NS
from viewsync.wire import Clock, OffsetEstimate

RgbImage = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame chosen for extraction. image: RGB (H, W, 3). Times as in `wire.FeatureMessage`."""

    view: str
    seq: int
    capture_ns: int
    clock: Clock
    arrival_ns: int
    camera_offset: OffsetEstimate | None
    decoded_ns: int
    # Size of the stream, before the image was made smaller.
    stream_size: tuple[int, int]
    image: RgbImage


class Picture(Protocol):
    """Something that becomes an image when it is wanted: converting every decoded frame would cost more
    than decoding it.
    """

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the stream."""

    def image(self) -> RgbImage:
        """RGB (H, W, 3)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A decoded frame that may be chosen."""

    picture: Picture
    capture_ns: int
    clock: Clock
    arrival_ns: int
    camera_offset: OffsetEstimate | None
    decoded_ns: int


class RateGate:
    """Lets frames pass at `rate_hz` at most, in the long run exactly that where more come.

    It goes by the frames' own time in the stream, so that jitter on the way changes nothing and every frame
    of a stream no faster than `rate_hz` passes. A frame may be a quarter period early. After a pause nothing
    is caught up; when the stream's time runs back it starts anew.
    """

    __slots__ = ("_due_ns", "_period_ns")

    def __init__(self, rate_hz: float) -> None:
        self._period_ns = round(SECOND_NS / rate_hz)
        self._due_ns: int | None = None

    def admit(self, stream_ns: int) -> bool:
        """Whether the frame at `stream_ns` passes."""
        early_ns = self._period_ns // 4
        if self._due_ns is None or stream_ns < self._due_ns - 2 * self._period_ns:
            self._due_ns = stream_ns
        if stream_ns < self._due_ns - early_ns:
            return False
        self._due_ns = max(self._due_ns, stream_ns - early_ns) + self._period_ns
        return True


class NewestFrame:
    """A slot for one frame."""

    def __init__(self, view: str) -> None:
        self._view = view
        self._changed = threading.Condition()
        self._candidate: Candidate | None = None
        self._closed = False
        self._failure: Exception | None = None
        self._seq = 0

    def offer(self, candidate: Candidate) -> bool:
        """Put the newest frame in; whether it replaced one that still waited."""
        with self._changed:
            replaced = self._candidate is not None
            self._candidate = None if self._closed else candidate
            self._changed.notify()
            return replaced

    def fail(self, error: Exception) -> None:
        """The thread that gives frames ended with `error`: raise it where they are taken."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def close(self, discard: bool = True) -> None:
        """No frame comes after this. discard: nor is the one that waits wanted any more."""
        with self._changed:
            self._closed = True
            if discard:
                self._candidate = None
            self._changed.notify_all()

    def frames(self) -> Iterator[Frame]:
        """The newest frame each time one is asked for, waiting for it; ends when the slot is closed."""
        while (candidate := self._take()) is not None:
            yield Frame(
                view=self._view,
                seq=self._seq,
                capture_ns=candidate.capture_ns,
                clock=candidate.clock,
                arrival_ns=candidate.arrival_ns,
                camera_offset=candidate.camera_offset,
                decoded_ns=candidate.decoded_ns,
                stream_size=candidate.picture.size,
                image=candidate.picture.image(),
            )
            self._seq += 1

    def _take(self) -> Candidate | None:
        with self._changed:
            self._changed.wait_for(lambda: self._candidate or self._closed or self._failure)
            if self._failure is not None:
                raise self._failure
            candidate, self._candidate = self._candidate, None
            return candidate
