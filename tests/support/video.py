"""Real coded video for tests, and its RTP fragments."""

import io
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np


@dataclass(frozen=True)
class Recording:
    """Coded pictures in decoding order with their presentation ticks, and the decoder that reads them."""

    codec: str
    units: list[tuple[int, bytes]] = field(repr=False)


def moving_image(index: int, width: int = 160, height: int = 96) -> np.ndarray:
    """A picture with detail, different for each index."""
    blocks = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return np.roll(np.kron(blocks, np.ones((8, 8, 1), np.uint8)), 5 * index, axis=1)


def record(codec: str, count: int, gop: int = 8, **options: str) -> Recording:
    """`count` pictures through a real encoder (libx264, libx265), as Annex B access units."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="h264" if codec == "libx264" else "hevc") as container:
        stream = container.add_stream(codec, rate=10, options={"preset": "veryfast", **options})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.codec_context.gop_size = gop
        packets = []
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(moving_image(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            packets += stream.encode(frame)
        packets += stream.encode(None)
    return Recording(
        "h264" if codec == "libx264" else "hevc", [(packet.pts, bytes(packet)) for packet in packets]
    )


def decoder_context(recording: Recording) -> av.VideoCodecContext:
    context = av.CodecContext.create(recording.codec, "r")
    assert isinstance(context, av.VideoCodecContext)
    return context


def fragments(unit: bytes, size: int) -> list[bytes]:
    """What FFmpeg's RTP demuxer gives for one access unit without parser: a start code in front of each NAL
    unit (RFC 6184, 7798), long ones in pieces of at most `size` bytes of payload.
    """
    pieces = []
    for nal in unit.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]:
        pieces.append(b"\0\0\0\1" + nal[: size + 1])
        pieces += [nal[at : at + size] for at in range(size + 1, len(nal), size)]
    return pieces
