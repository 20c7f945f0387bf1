"""`viewsync calib intrinsics` as one types it: pictures, a video and a live camera that see a board."""

import importlib.util
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from calib.boards.board import Board
from calib.boards.lens_file import load_lens
from calib.camera import Camera
from calib.projection import rotations
from viewsync.cli import main

BOARD = Board("charuco", 5, 4, 0.1, 0.07)
CHARUCO = ["--board", "charuco", "--size", "5x4", "--square-m", "0.1", "--marker-m", "0.07"]
K = [[700, 0, 319.5], [0, 700, 239.5], [0, 0, 1]]
LENS = Camera(K, np.eye(3), np.zeros(3), [-0.2, 0, 0, 0, 0], 640, 480)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["calib", "intrinsics", *map(str, words)])


def facts(*words: object) -> Any:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def film(photograph: Callable[..., Any]) -> list[np.ndarray]:
    """A board held before the camera into all parts of its image, tilted."""
    rng, taken = np.random.default_rng(1), []
    for x in (-0.2, 0.0, 0.2):
        for y in (-0.14, 0.0, 0.14):
            R = rotations(rng.normal(0, 0.35, (1, 3)))[0]
            t = np.array([x, y, 0.85]) - R @ BOARD.corners.mean(axis=0)
            taken.append(photograph(BOARD, LENS, R, t))
    return taken


@pytest.fixture(scope="module")
def stills(film: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stills")
    for number, picture in enumerate(film):
        assert cv2.imwrite(str(folder / f"{number:02d}.png"), picture)
    return folder


def test_a_lens_from_a_folder_of_pictures_and_from_a_video(
    stills: Path, film: list[np.ndarray], tmp_path: Path
) -> None:
    said = facts(stills, *CHARUCO, "--lens", "k1", "--out", tmp_path / "north.yaml")
    assert said["seen"] == said["pictures"] == 9 and said["rms_px"] < 0.2
    assert said["intrinsics_px"][0][0] == pytest.approx(700, rel=0.01)
    kept = load_lens(tmp_path / "north.yaml", "north")
    assert kept.K.tolist() == said["intrinsics_px"] and kept.distortion[0] == pytest.approx(-0.2, abs=0.05)
    video = cv2.VideoWriter(str(tmp_path / "north.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (640, 480))
    for picture in film:  # of a board printed white on black, twice each
        video.write(255 - picture)
        video.write(255 - picture)
    video.release()
    words = (*CHARUCO, "--inverted", "--dictionary", "DICT_4X4_50")
    done = run(tmp_path / "north.avi", *words, "--search", "9", "--views", "8")
    assert done.exit_code == 0, done.output
    for words in (
        "board found in 9 of 9 pictures; 8 that differ are used",
        "warning: coverage is thin: 8 views",
    ):
        assert words in done.output
    assert "north.avi " in done.output and "corners by part of the image" in done.output


def test_a_lens_from_a_live_camera(film: list[np.ndarray], tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "support" / "rtsp.py"
    spec = importlib.util.spec_from_file_location("tests_support_rtsp", path)
    assert spec is not None and spec.loader is not None
    rtsp: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rtsp)
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=2, options={"crf": "12", "g": "1", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        # As often as the camera may have to be waited for.
        for number, picture in enumerate(film * 4):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 2)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    server = rtsp.ClipServer(rtsp.serve_file(tmp_path / "film.mp4"))
    try:
        done = run(server.url, *CHARUCO, "--lens", "k1", "--seconds", "6", "--json")
        assert done.exit_code == 0, done.output
        assert "(Ctrl-C to solve)" in done.stderr
        said = json.loads(done.stdout)
        assert len(said["views"]) >= 3 and said["intrinsics_px"][0][0] == pytest.approx(700, rel=0.03)
    finally:
        server.kill()
