"""Pictures of views for the commands that look at them: stills, videos, live cameras through edge's source.

`calib` gets a callable and knows none of these.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibError
from calib.page.pictures import Pictures
from viewsync.errors import ConfigError, ViewsyncError
from viewsync.redact import redact

if TYPE_CHECKING:
    from edge.source import Source

Image = NDArray[np.uint8]

STILLS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg")
# Looking needs no more, and decoding costs.
_LIVE_RATE_HZ = 5.0
# A stream that breaks off for less is nothing to tell.
_LOST_S = 3.0


def gather(folder: Path | None, given: Sequence[str]) -> dict[str, Pictures]:
    """Pictures by view: files of `folder` by their name without the ending, and NAME=SOURCE each of `given`,
    which come before. Raises ConfigError.
    """
    found: dict[str, Pictures] = {}
    if folder is not None:
        found.update(_of_folder(folder))
    named: set[str] = set()
    for text in given:
        view, equals, source = text.partition("=")
        if not equals or not view.strip() or not source.strip():
            raise ConfigError(f"--source {text}: write VIEW=SOURCE, such as north=rtsp://camera/stream")
        if view.strip() in named:
            raise ConfigError(f"--source {redact(text)}: {view.strip()} has a source already; give one each")
        named.add(view.strip())
        found[view.strip()] = open_pictures(view.strip(), source.strip())
    return found


def first_pictures(sources: dict[str, Pictures], patience_s: float = 15.0) -> dict[str, Image]:
    """One picture of every view, RGB; live cameras are waited for. Raises CalibError where none comes."""
    images = {}
    for view, source in sources.items():
        deadline = time.monotonic() + (patience_s if source.kind == "live" else 0.0)
        while view not in images:
            try:
                images[view] = source.grab(0.0)
            except CalibError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.1)
    return images


def _of_folder(folder: Path) -> dict[str, Pictures]:
    if not folder.is_dir():
        raise ConfigError(f"--frames {folder}: no such folder; give one with a picture named after each view")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (*STILLS, *VIDEOS))
    if not paths:
        raise ConfigError(
            f"--frames {folder}: holds no pictures; name one after each view, such as north.png"
        )
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise ConfigError(
                f"--frames {folder}: {found[path.stem].name} and {path.name} are both {path.stem}; keep one"
            )
        found[path.stem] = path
    return {view: open_pictures(view, str(path)) for view, path in found.items()}


def open_pictures(view: str, source: str) -> Pictures:
    """A still, a video, or a live camera (rtsp://…, /dev/video…), by its address. Raises ConfigError."""
    if "://" in source or source.startswith("/dev/"):
        return _live(view, source)
    path = Path(source)
    ending = path.suffix.lower()
    if not path.is_file():
        raise ConfigError(f"--source {view}={source}: no such file; give a picture, a video or rtsp://…")
    if ending in VIDEOS:
        return _video(path)
    if ending in STILLS:
        return Pictures("still", lambda _: _read_still(path), str(path))
    raise ConfigError(
        f"--source {view}={source}: of no known kind; give a picture ({', '.join(STILLS)}), "
        f"a video ({', '.join(VIDEOS)}) or rtsp://…"
    )


def _read_still(path: Path) -> Image:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise CalibError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise CalibError(f"{path}: is no picture, or only half of one: give another file")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


def _video(path: Path) -> Pictures:
    capture = cv2.VideoCapture(str(path))
    rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    if not capture.isOpened() or not rate > 0:
        raise CalibError(f"{path}: cannot be read as a video: give another file, or a picture")
    length_s = max(0.0, (count - 1) / rate)
    lock = threading.Lock()

    def grab(at_s: float) -> Image:
        with lock:
            capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * min(max(0.0, at_s), length_s))
            done, image = capture.read()
        if not done or image is None:
            raise CalibError(f"{path}: has no picture at {at_s:.1f} s: choose another time")
        return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)

    return Pictures("video", grab, str(path), length_s)


class _Newest:
    """The newest frame of a live camera, taken from its source by a thread of its own."""

    def __init__(self, source: Source, where: str) -> None:
        self._source = source
        self._where = where
        self._frame: tuple[float, Image] | None = None
        self._problem = ""
        source.start()
        threading.Thread(target=self._take, name="pictures", daemon=True).start()

    def _take(self) -> None:
        try:
            for frame in self._source.frames():
                self._frame = time.monotonic(), frame.image
            self._problem = "it ended"
        except ViewsyncError as error:
            self._problem = str(error)

    def grab(self, at_s: float) -> Image:
        frame = self._frame
        problem = redact(str(self._problem or self._source.state()[1].get("problem") or ""))
        if frame is None:
            raise CalibError(f"{self._where}: no picture yet: {problem or 'waiting for the first picture'}")
        age_s = time.monotonic() - frame[0]
        # A camera may send a picture a minute; one that is lost says so.
        if problem and age_s > _LOST_S:
            raise CalibError(f"the last picture is {age_s:.0f} s old; {problem}")
        return frame[1]


def _live(view: str, address: str) -> Pictures:
    from prometheus_client import CollectorRegistry

    from edge.config import SourceSection
    from edge.counts import EdgeCounts
    from edge.source import open_source

    source = open_source(
        SourceSection(url=address), view, _LIVE_RATE_HZ, None, EdgeCounts(CollectorRegistry()), time.time_ns
    )
    where = redact(address)
    grab: Callable[[float], Image] = _Newest(source, where).grab
    return Pictures("live", grab, where)
