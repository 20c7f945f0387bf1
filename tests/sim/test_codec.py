"""The video settings: really H.264, the same every time, and as an IP camera sends it."""

import av
import numpy as np
import pytest

from viewsync.sim.codec import Encoder, encode_decode, key_frame_interval

IDR, SPS, PPS, SLICE = 5, 7, 8, 1


def moving(frames: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A textured picture with a dark square that moves: uint8 (frames, height, width, 3)."""
    coarse = np.random.default_rng(5).integers(60, 200, (height // 8, width // 8, 3), dtype=np.uint8)
    images = np.repeat(np.kron(coarse, np.ones((8, 8, 1), np.uint8))[None], frames, axis=0)
    for t in range(frames):
        images[t, 30:60, 5 * t : 5 * t + 20] = (30, 35, 60)
    return images


def units(data: bytes) -> list[int]:
    """Types of the H.264 units in an Annex B byte stream."""
    return [part[0] & 31 for part in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]]


def test_the_codec_changes_pictures_a_little_and_always_the_same_way() -> None:
    images = moving(5)
    shown = encode_decode(images)
    assert shown.shape == images.shape and shown.dtype == np.uint8
    error = np.abs(shown.astype(int) - images).mean()
    # Lossy, so not zero; 8 of 255 grey levels is about 28 dB, worse than any camera worth simulating.
    assert 0.1 < error < 8
    assert (encode_decode(images) == shown).all()


def test_a_stream_is_shown_in_order_without_delay() -> None:
    shown = encode_decode(moving(8), fps=10.0)
    dark = [np.flatnonzero(image[45, :, 0] < 50)[0] for image in shown]
    # Blocks of 8 pixels blur edges by a pixel or two.
    assert np.abs(np.array(dark) - 5 * np.arange(8)).max() <= 2


@pytest.mark.parametrize("fps", [0.4, 1.0, 10.0])
def test_key_frames_come_every_two_seconds_with_their_headers_and_one_slice_each(fps: float) -> None:
    encoder = Encoder.create(128, 96, fps)
    packets = [encoder.encode(image) for image in moving(2 * key_frame_interval(fps) + 1)]
    for number, packet in enumerate(packets):
        found = units(bytes(packet))
        if number % key_frame_interval(fps) == 0:
            assert packet.is_keyframe and {SPS, PPS} < set(found) and found.count(IDR) == 1
        else:
            assert not packet.is_keyframe and found.count(SLICE) == 1
        assert packet.pts == packet.dts == number  # no B-frames


def test_any_frame_can_be_made_a_key_frame() -> None:
    encoder = Encoder.create(128, 96, 10.0)
    images = moving(3)
    packets = [
        encoder.encode(images[0]),
        encoder.encode(images[1]),
        encoder.encode(images[2], key_frame=True),
    ]
    decoder = av.CodecContext.create("h264", "r")
    shown = [*decoder.decode(packets[2]), *decoder.decode(None)]
    assert len(shown) == 1


@pytest.mark.parametrize("shape", [(2, 97, 128, 3), (2, 96, 127, 3), (96, 128, 3), (2, 96, 128, 4)])
def test_what_the_codec_cannot_carry_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        encode_decode(np.zeros(shape, np.uint8))
