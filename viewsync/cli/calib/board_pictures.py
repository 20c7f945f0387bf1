"""Pictures in which a board is looked for: stills, folders of them, a video, or a live camera."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from calib.boards.board import Image
from calib.errors import CalibError
from viewsync.cli.calib.pictures import STILLS, VIDEOS, open_pictures
from viewsync.errors import ConfigError

_LOOK_EVERY_S = 0.4
# A camera that shows nothing for so long is not there.
_PATIENCE_S = 15.0


class Picture(NamedTuple):
    """RGB (H, W, 3); time_s: from the start of a video, or by our clock."""

    name: str
    image: Image
    time_s: float | None


def is_live(source: str) -> bool:
    """Whether it is a camera rather than files."""
    return "://" in source or source.startswith("/dev/")


def pictures(sources: Sequence[str], most: int, seconds: float) -> Iterator[Picture]:
    """All pictures of `sources`, in order; of a video `most` at even distances, of a live camera one now and
    then for `seconds`. Raises ConfigError, CalibError.
    """
    for source in sources:
        if is_live(source):
            yield from _live(source, seconds)
            continue
        path = Path(source)
        if path.is_dir():
            paths = sorted(each for each in path.iterdir() if each.suffix.lower() in STILLS)
            if not paths:
                raise ConfigError(f"{path}: holds no pictures ({', '.join(STILLS)})")
            yield from _stills(paths)
        elif not path.is_file():
            raise ConfigError(f"{path}: no such file; give pictures, a video, a folder or rtsp://…")
        elif path.suffix.lower() in VIDEOS:
            yield from _video(path, most)
        elif path.suffix.lower() in STILLS:
            yield from _stills([path])
        else:
            raise ConfigError(
                f"{path}: is neither a picture ({', '.join(STILLS)}) nor a video ({', '.join(VIDEOS)})"
            )


def _stills(paths: Iterable[Path]) -> Iterator[Picture]:
    for path in paths:
        yield Picture(path.name, open_pictures("picture", str(path)).grab(0.0), None)


def _video(path: Path, most: int) -> Iterator[Picture]:
    # What FFmpeg says of a damaged file goes past our one line.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    capture = cv2.VideoCapture(str(path))
    count, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    if not capture.isOpened() or not rate > 0:
        raise CalibError(f"{path}: cannot be read as a video: give another file, or pictures")
    step = max(1, int(np.ceil(count / most)))
    number = 0
    try:
        while capture.grab():
            if number % step == 0:
                done, image = capture.retrieve()
                if not done:
                    raise CalibError(f"{path}: picture {number} cannot be decoded: give a whole file")
                rgb = np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)
                yield Picture(f"{path.name} {number}", rgb, number / rate)
            number += 1
    finally:
        capture.release()
    if number == 0:
        raise CalibError(f"{path}: holds no picture that can be decoded: give a whole file")


def _live(address: str, seconds: float) -> Iterator[Picture]:
    camera = open_pictures("camera", address)
    began = time.monotonic()
    number, last = 0, None
    while (now := time.monotonic()) - began < seconds:
        try:
            image = camera.grab(0.0)
        except CalibError:
            if number == 0 and now - began > min(_PATIENCE_S, seconds):
                raise
            time.sleep(_LOOK_EVERY_S)
            continue
        if image is not last:
            yield Picture(f"after {now - began:.1f} s", image, now - began)
            last, number = image, number + 1
        time.sleep(_LOOK_EVERY_S)
    if number == 0:
        camera.grab(0.0)
