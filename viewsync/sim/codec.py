"""The one place that holds the video settings: live cameras and training frames wear the same artefacts.

H.264 as a cheap camera sends it: one slice and one reference picture, no B-frames, 4:2:0, headers before
every key frame, a key frame every two seconds. The quantiser is constant rather than a bit rate or CRF,
because both of those make a frame at 0.4 fps far finer than the same frame at 10 fps, and a model must not
see the frame rate in the pixels.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.codec.context import ThreadType
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from numpy.typing import NDArray

from viewsync.errors import InternalError

Image = NDArray[np.uint8]

QUANTISER = 27
KEY_FRAME_EVERY_S = 2.0


def key_frame_interval(fps: float) -> int:
    """Frames from one key frame to the next; 1 (every frame) below about 0.75 fps."""
    return max(1, round(KEY_FRAME_EVERY_S * fps))


def configure(codec: VideoCodecContext, width: int, height: int, fps: float) -> None:
    """Give a libx264 context, not yet open, the settings of this module.

    width, height: pixels, both even (4:2:0); fps: frames per second, nominal. Raises ValueError otherwise.
    """
    if width % 2 or height % 2 or width < 2 or height < 2:
        raise ValueError(f"H.264 4:2:0 needs even sides, got {width}x{height}")
    rate = Fraction(fps).limit_denominator(1000)
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.framerate, codec.time_base = rate, 1 / rate
    codec.gop_size = key_frame_interval(fps)
    codec.max_b_frames = 0
    codec.thread_count = 1
    codec.options = {
        "preset": "veryfast",
        "tune": "zerolatency",
        "profile": "main",
        "qp": str(QUANTISER),
        "x264-params": "repeat-headers=1:sliced-threads=0:scenecut=0:ref=1",
    }


class Encoder:
    """RGB images in, H.264 access units (Annex B bytes) out, one each."""

    def __init__(self, codec: VideoCodecContext) -> None:
        self.codec = codec
        self._number = 0

    @classmethod
    def create(cls, width: int, height: int, fps: float) -> Encoder:
        """An encoder of its own, for where no muxer brings one."""
        codec = av.CodecContext.create("libx264", "w")
        assert isinstance(codec, VideoCodecContext)
        configure(codec, width, height, fps)
        return cls(codec)

    def encode(self, image: Image, key_frame: bool = False) -> av.Packet[av.VideoStream]:
        """One image (H, W, 3) uint8 RGB → its access unit; `key_frame` makes it decodable by itself."""
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = self._number, self.codec.time_base
        frame.pict_type = PictureType.I if key_frame else PictureType.NONE
        self._number += 1
        packets = self.codec.encode(frame)
        if len(packets) != 1:
            raise RuntimeError(
                f"the encoder returned {len(packets)} packets for one frame; it must not buffer"
            )
        return packets[0]


def encode_decode(frames: Image, fps: float = 1.0) -> Image:
    """What a viewer sees of `frames` (T, H, W, 3) uint8 RGB, sent through the codec as one stream at `fps`.

    Same shape and type; deterministic. Raises ValueError for another shape or type, or odd sides.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"expected uint8 frames (T, H, W, 3), got {frames.dtype} {frames.shape}")
    encoder = Encoder.create(frames.shape[2], frames.shape[1], fps)
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count, decoder.thread_type = 1, ThreadType.SLICE
    shown = [f for image in frames for f in decoder.decode(encoder.encode(image))]
    shown += decoder.decode(None)
    if len(shown) != len(frames):
        raise InternalError(f"{len(frames)} frames went into the codec and {len(shown)} came out")
    return np.stack([f.to_ndarray(format="rgb24") for f in shown]) if shown else frames.copy()
