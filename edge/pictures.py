"""Pictures that become RGB images only when they are wanted, no larger than they are needed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from av.video.frame import VideoFrame

from edge.frames import RgbImage
from viewsync.errors import SourceError


def reduced_size(stream: tuple[int, int], wanted: tuple[int, int] | None) -> tuple[int, int]:
    """(width, height) to convert a frame of `stream` size to, before it is remapped to `wanted`.

    Remapping samples four pixels, so an image more than twice too large would alias: it is reduced by a whole
    factor, area-averaged, to between once and twice the wanted size. Otherwise the stream's own size.
    """
    if wanted is None:
        return stream
    factor = min(stream[0] // wanted[0], stream[1] // wanted[1])
    return stream if factor < 2 else (round(stream[0] / factor), round(stream[1] / factor))


class DecodedPicture:
    """A frame as the decoder left it.

    It is converted by one thread: libswscale would start new ones for every frame, and waiting for those took
    ten times as long as converting a small frame.
    """

    __slots__ = ("_frame", "_wanted")

    def __init__(self, frame: VideoFrame, wanted: tuple[int, int] | None) -> None:
        self._frame = frame
        self._wanted = wanted

    @property
    def size(self) -> tuple[int, int]:
        return self._frame.width, self._frame.height

    def image(self) -> RgbImage:
        width, height = reduced_size(self.size, self._wanted)
        if (width, height) == self.size:
            return np.asarray(self._frame.to_ndarray(format="rgb24", threads=1), dtype=np.uint8)
        smaller = self._frame.reformat(
            width=width, height=height, format="rgb24", interpolation="AREA", threads=1
        )
        return np.asarray(smaller.to_ndarray(), dtype=np.uint8)


class ImagePicture:
    """An image that was a file."""

    __slots__ = ("_image", "_wanted")

    def __init__(self, path: Path, wanted: tuple[int, int] | None) -> None:
        """Raises SourceError where the file holds no readable image."""
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise SourceError(f"{path} is not a readable image; remove it from the folder or repair it")
        self._image = np.asarray(image, dtype=np.uint8)
        self._wanted = wanted

    @property
    def size(self) -> tuple[int, int]:
        return self._image.shape[1], self._image.shape[0]

    def image(self) -> RgbImage:
        size = reduced_size(self.size, self._wanted)
        if size == self.size:
            return self._image
        return np.asarray(cv2.resize(self._image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
