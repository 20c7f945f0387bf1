"""Pictures of the views, wherever they come from: the command line knows files and cameras, this does not."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibError

Image = NDArray[np.uint8]
Size = tuple[int, int]

_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures of one view.

    kind: still, video (asked for a time) or live (the newest); grab: seconds from the start -> RGB image (H,
    W, 3), CalibError where there is none, called from any thread; length_s: of a video, else 0; where: for
    people, passwords removed.
    """

    kind: Literal["still", "video", "live"]
    grab: Callable[[float], Image]
    where: str
    length_s: float = 0.0


class Shots:
    """JPEGs of all views. Remembers the newest of each, and its size, because the check compares sizes."""

    def __init__(self, pictures: dict[str, Pictures]) -> None:
        self.pictures = pictures
        self.sizes: dict[str, Size] = {}
        self._lock = threading.Lock()
        self._newest: dict[str, tuple[float, bytes]] = {}

    def first_sizes(self) -> dict[str, Size]:
        """Sizes of what can be had at once: stills and videos. CalibError where one cannot be read."""
        for view, source in self.pictures.items():
            if source.kind != "live":
                self.image(view, 0.0)
        return dict(self.sizes)

    def image(self, view: str, at_s: float) -> Image:
        """RGB (H, W, 3). CalibError where there is none."""
        source = self.pictures.get(view)
        if source is None:
            raise CalibError(f"no picture of {view}: start with --source {view}=FILE_OR_ADDRESS")
        image = source.grab(at_s)
        with self._lock:
            self.sizes[view] = (image.shape[1], image.shape[0])
        return image

    def jpeg(self, view: str, at_s: float) -> bytes:
        """The picture as the page gets it. CalibError where there is none."""
        kind = self.pictures[view].kind if view in self.pictures else "live"
        with self._lock:
            held = self._newest.get(view)
        if kind != "live" and held is not None and held[0] == at_s:
            return held[1]
        made = encode(self.image(view, at_s))
        with self._lock:
            self._newest[view] = (at_s, made)
        return made


def encode(image: Image) -> bytes:
    """RGB (H, W, 3) as JPEG."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise CalibError("the picture cannot be compressed as JPEG: give a smaller one")
    return data.tobytes()
