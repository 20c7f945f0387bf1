"""The H.264 settings of a cheap IP camera, in one place: live cameras send with them, training frames pass through them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

X264_OPTIONS: Mapping[str, str] = {
    "preset": "veryfast",
    "tune": "zerolatency",
    "crf": "25",
    "g": "10",
    "bf": "0",
    "profile": "main",
}
PIXEL_FORMAT = "yuv420p"


def encode_decode(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) uint8 RGB as a viewer of the camera's stream gets them: really encoded, really decoded."""
    count, height, width, _ = frames.shape
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as sink:
        stream = sink.add_stream("libx264", rate=10, options=dict(X264_OPTIONS))
        stream.width, stream.height, stream.pix_fmt = width, height, PIXEL_FORMAT
        stream.codec_context.thread_count = 1
        stream.time_base = Fraction(1, 10)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[index]), format="rgb24")
            frame.pts = index
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    buffer.seek(0)
    decoded = []
    with av.open(buffer) as source:
        source.streams.video[0].codec_context.thread_count = 1
        for picture in source.decode(video=0):
            decoded.append(picture.to_ndarray(format="rgb24"))
    if len(decoded) != count:
        raise RuntimeError(f"the codec gave back {len(decoded)} of {count} frames")
    return np.stack(decoded)
