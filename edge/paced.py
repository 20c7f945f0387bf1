"""Recordings played as if they were live: a video file, or a folder of images.

Each frame appears when it is due, and is dated by the agent's clock at that moment (`file`): a recording says
when its frames were taken relative to each other, not when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av

from edge.addresses import explain
from edge.counts import EdgeCounts
from edge.frames import Candidate, Picture, RateGate
from edge.pictures import DecodedPicture, ImagePicture
from edge.source_thread import SourceThread
from viewsync.errors import SourceError
from viewsync.units import SECOND_NS

_IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

# One frame of a recording: when it is shown, ns after the first, and how to get it.
Timed = tuple[int, Callable[[], Picture]]


class PacedSource(SourceThread):
    """Plays a recording in real time, newest frame only, `rate_hz` at most; `loop` starts it again.

    play: gives the frames of one round, in order. now: the agent's clock, UTC ns.
    """

    def __init__(
        self,
        view: str,
        path: Path,
        play: Callable[[], Iterator[Timed]],
        loop: bool,
        rate_hz: float,
        counts: EdgeCounts,
        now: Callable[[], int],
    ) -> None:
        super().__init__(view)
        self._path = path
        self._play = play
        self._loop = loop
        self._gate = RateGate(rate_hz)
        self._counts = counts
        self._now = now
        self._ended = False

    def state(self) -> tuple[bool, dict[str, Any]]:
        """Whether frames come, and facts for /healthz."""
        return not self._ended, {"address": str(self._path), "problem": "it ended" if self._ended else ""}

    def _work(self) -> None:
        self._counts.source_up.set(1)
        while self._play_once() and self._loop:
            pass
        self._ended = True
        self._counts.source_up.set(0)
        self._newest.close(discard=False)

    def _play_once(self) -> bool:
        """Play to the end; False when stopped before."""
        start_ns = self._now()
        shown = False
        for after_ns, picture in self._play():
            due_ns = start_ns + after_ns
            if self._stop.wait(max(0.0, (due_ns - self._now()) / SECOND_NS)):
                return False
            shown = True
            self._counts.frames_read.inc()
            if not self._gate.admit(due_ns):
                self._counts.frames_dropped.labels("rate").inc()
                continue
            candidate = Candidate(picture(), due_ns, "file", due_ns, None, self._now())
            if self._newest.offer(candidate):
                self._counts.frames_dropped.labels("newer").inc()
        if not shown:
            raise SourceError(f"{self._path} has no frames; give a recording that has some")
        return True


def play_video(path: Path, wanted_size: tuple[int, int] | None) -> Iterator[Timed]:
    """Frames of a video file at their own times. Raises SourceError: not there, or no video."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise SourceError(f"{path} holds no video; give another file")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            first_s = None
            for frame in container.decode(stream):
                if frame.time is None:
                    raise SourceError(f"{path} has frames without a time; put it into an .mp4 or .mkv")
                first_s = frame.time if first_s is None else first_s
                after_ns = round((frame.time - first_s) * SECOND_NS)
                yield after_ns, partial(DecodedPicture, frame, wanted_size)
    except (av.error.FFmpegError, OSError) as error:
        raise SourceError(explain(str(path), error)) from error


def play_folder(folder: Path, image_rate_hz: float, wanted_size: tuple[int, int] | None) -> Iterator[Timed]:
    """A folder's images in the order of their names, `image_rate_hz` a second. Raises SourceError."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGES)
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}; give a folder of images") from error
    for index, path in enumerate(paths):
        yield round(index * SECOND_NS / image_rate_hz), partial(ImagePicture, path, wanted_size)
