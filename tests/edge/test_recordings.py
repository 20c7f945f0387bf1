"""Files, folders and devices as sources."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.addresses import explain
from viewsync.clock import SteadyClock
from viewsync.errors import ConfigError, SourceError
from viewsync.units import SECOND_NS

Watch = Callable[..., Any]
Value = Callable[..., float]
Eventually = Callable[[Callable[[], bool]], None]

now = SteadyClock(time.time_ns, time.monotonic_ns)


def test_a_file_plays_in_real_time_by_the_agents_clock(clip: Path, watch: Watch, value: Value) -> None:
    start_ns = now()
    watched = watch(str(clip), rate_hz=5.0)
    frames = watched.wait_for(lambda frames: len(frames) >= 8)
    assert {frame.clock for frame in frames} == {"file"}
    steps = np.diff([frame.capture_ns for frame in frames]) / SECOND_NS / 0.2
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-5)
    # Where this machine was too slow for a frame, the next took its place and was counted.
    assert steps.min() > 0.5 and np.round(steps - 1).sum() <= value("frames_dropped_total", reason="newer")
    # Not before it is due; how late is the machine's affair.
    assert all(frame.decoded_ns >= frame.capture_ns >= start_ns for frame in frames)


def test_a_folder_of_images_ends_or_loops(
    tmp_path: Path, watch: Watch, eventually: Eventually, value: Value
) -> None:
    import cv2

    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((48, 64, 3), (0, 0, 80 * index), np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    once = watch(str(tmp_path), image_rate_hz=20.0)
    # Red is first: OpenCV writes BGR, frames are RGB. The last frame always comes.
    frames = once.wait_for(lambda frames: bool(frames) and frames[-1].image[0, 0, 0] == 160)
    reds = [int(frame.image[0, 0, 0]) for frame in frames]
    assert reds == sorted({*reds} & {0, 80, 160})
    assert len(reds) + value("frames_dropped_total", reason="newer") == 3
    eventually(lambda: not once.source.state()[0])
    looping = watch(str(tmp_path), image_rate_hz=20.0, loop=True)
    looping.wait_for(lambda frames: len(frames) >= 7)


def test_recordings_that_cannot_be_read_are_the_users_mistake(
    tmp_path: Path, watch: Watch, eventually: Eventually
) -> None:
    with pytest.raises(SourceError, match="there is no"):
        watch(str(tmp_path / "missing.mp4"))
    with pytest.raises(ConfigError, match="no known kind"):
        watch("gopher://camera")
    with pytest.raises(ConfigError, match="listen"):
        watch(str(tmp_path), listen=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "noise.mp4").write_bytes(b"no video at all")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.png").write_bytes(b"no image")
    for name, said in [
        ("empty", "has no frames"),
        ("noise.mp4", "no video"),
        ("broken", "not a readable image"),
    ]:
        watched = watch(str(tmp_path / name))
        eventually(lambda watched=watched: watched.error is not None)
        assert isinstance(watched.error, SourceError) and said in str(watched.error)


def test_a_device_that_is_not_there_is_waited_for(
    watch: Watch, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    watch("/dev/video97")
    eventually(lambda: "/dev/video97: it is not there" in caplog.text)
    watch("/dev/null")
    eventually(lambda: "/dev/null: it is no camera; give /dev/video" in caplog.text)


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.EACCES, errno.EBUSY])
def test_what_a_device_may_answer_is_told_with_what_to_do(number: int) -> None:
    said = explain("/dev/video0", OSError(number, os.strerror(number)))
    assert said.startswith("/dev/video0: ") and "; " in said and os.strerror(number) not in said


@pytest.mark.parametrize(
    "url", ["rtsp://", "rtsp:///path", "rtsp://a:s3cret@h:99999/x", "rtsp://a:s3/cret@h/x"]
)
def test_an_address_that_cannot_be_is_not_tried_for_ever(url: str, watch: Watch) -> None:
    with pytest.raises(ConfigError, match="no host, or no port") as caught:
        watch(url)
    assert "s3" not in str(caught.value)
