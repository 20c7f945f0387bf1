"""Pictures for the calibration commands: live ones over real RTSP, and videos at the time asked for."""

import importlib.util
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from calib.errors import CalibError
from viewsync.cli.calib.pictures import first_pictures, gather, open_pictures
from viewsync.errors import ConfigError


@pytest.fixture
def rtsp():
    path = Path(__file__).parents[2] / "support" / "rtsp.py"
    spec = importlib.util.spec_from_file_location("tests_support_rtsp", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_live_camera_is_looked_at_over_rtsp(rtsp):
    server = rtsp.ClipServer(rtsp.serve_pattern("5/1"))
    try:
        source = open_pictures("north", server.url)
        assert source.kind == "live"
        (image,) = first_pictures({"north": source}, patience_s=60.0).values()
        # A white ball on black, in colour order and size as the camera sends it.
        assert image.shape == (288, 384, 3) and image.max() > 200 and np.median(image) < 40
        server.kill()
        for _ in range(300):
            try:
                source.grab(0.0)
            except CalibError as lost:
                assert "the last picture is" in str(lost) and "s old" in str(lost)
                break
            time.sleep(0.1)
        else:
            raise AssertionError("a lost camera's last picture passes for a live one")
    finally:
        server.kill()


def test_a_camera_that_is_not_there_is_said_without_its_password(rtsp):
    url = f"rtsp://admin:secret@127.0.0.1:{rtsp.free_port()}/stream"
    with pytest.raises(CalibError) as caught:
        first_pictures({"north": open_pictures("north", url)}, patience_s=0.5)
    assert "no picture yet" in str(caught.value) and "secret" not in str(caught.value)


def test_a_video_is_shown_at_the_time_asked_for(tmp_path):
    film = cv2.VideoWriter(str(tmp_path / "east.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(20):
        film.write(np.full((48, 64, 3), (0, 0, 12 * number), np.uint8))  # ever more red
    film.release()
    source = gather(tmp_path, ())["east"]
    assert source.kind == "video" and source.length_s == pytest.approx(1.9)
    for at_s, number in ((0.0, 0), (1.0, 10), (1.9, 19), (99.0, 19), (0.5, 5)):
        red, green, _ = source.grab(at_s).mean(axis=(0, 1))
        assert red == pytest.approx(12 * number, abs=8) and green < 12


def test_a_source_given_by_name_comes_before_the_folder(tmp_path):
    for name, level in (("north", 10), ("other", 200)):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((4, 4, 3), level, np.uint8))
    found = gather(tmp_path, (f"north={tmp_path / 'other.png'}",))
    assert set(found) == {"north", "other"} and found["north"].grab(0).mean() == 200
    with pytest.raises(ConfigError, match="VIEW=SOURCE"):
        gather(None, ("=x",))
    with pytest.raises(ConfigError, match="north has a source already"):
        gather(None, (f"north={tmp_path / 'other.png'}", f"north={tmp_path / 'north.png'}"))
