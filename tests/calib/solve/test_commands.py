"""`viewsync calib extrinsics`, `refine` and `compare`, as one types them: three cameras around a table, and a
board on it.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from calib.boards.board import Board
from calib.boards.lens_file import save_lens
from calib.camera import Camera, nearest_rotation
from calib.ground import GroundGrid
from calib.points import MarkedPoint, save_points
from calib.projection import rotations
from calib.scene import Scene, load_scene, save_scene
from viewsync.cli import main

BOARD = Board("charuco", 5, 4, 0.1, 0.07)
CHARUCO = ["--board", "charuco", "--size", "5x4", "--square-m", "0.1", "--marker-m", "0.07"]
GRID = Board("aruco", 4, 3, 0.12, 0.1)
ARUCO = ["--board", "aruco", "--size", "4x3", "--square-m", "0.12", "--marker-m", "0.1"]
PLACES = {"north": (0.3, 1.4, 1.3), "east": (1.5, -0.2, 1.0), "west": (-1.3, -0.5, 1.5)}
Cameras = dict[str, Camera]


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["calib", *map(str, words)])


def facts(*words: object) -> Any:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refusal(*words: object) -> str:
    """The one line that a mistake is answered with."""
    done = run(*words)
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.strip().splitlines()[-1:]
    return line


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    found = {}
    for name, place in PLACES.items():
        forward = -np.array(place) / np.linalg.norm(place)
        right = np.cross(forward, (0, 0, 1))
        right /= np.linalg.norm(right)
        R = nearest_rotation(np.stack([right, np.cross(forward, right), forward]))
        K = [[700, 0, 319.5], [0, 700, 239.5], [0, 0, 1]]
        found[name] = Camera(K, R, -R @ place, [-0.2, 0, 0, 0, 0], 640, 480)
    return found


@pytest.fixture(scope="module")
def scene(cameras: Cameras) -> Scene:
    return Scene("table", cameras, GroundGrid(-1, -1, 0.05, 40, 40), (0.1, 0.2), {})


@pytest.fixture(scope="module")
def points(cameras: Cameras) -> list[MarkedPoint]:
    rng = np.random.default_rng(3)
    places = rng.uniform((-0.5, -0.5, 0), (0.5, 0.5, 0.4), (24, 3))
    marked = []
    for number, place in enumerate(places):
        pixels = {name: camera.project(place) for name, camera in cameras.items()}
        marked.append(MarkedPoint(f"p{number}", place if number < 10 else None, pixels))
    return marked


# Where a board rests: its first corner, and how it is turned; on the floor half a turn, face up.
RESTS = {
    "floor": ((-0.2, 0.15, 0.0), (np.pi * np.cos(0.1), np.pi * np.sin(0.1), 0)),
    "leaning": ((-0.25, 0.2, 0.12), (np.pi - 0.4, 0.2, -0.3)),
}


Rests = dict[str, Path]


@pytest.fixture(scope="module")
def rests(
    cameras: Cameras, photograph: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Rests:
    """By kind of board, a folder that has one for each place, with a picture of each camera."""
    folders = {board.kind: tmp_path_factory.mktemp(board.kind) for board in (BOARD, GRID)}
    for name, (place, turn) in RESTS.items():
        rotation = rotations(np.array([turn]))[0]
        for board in (BOARD, GRID) if name == "floor" else (BOARD,):
            (folders[board.kind] / name).mkdir()
            for view, camera in cameras.items():
                picture = photograph(board, camera, camera.R @ rotation, camera.R @ place + camera.t)
                assert cv2.imwrite(str(folders[board.kind] / name / f"{view}.png"), picture)
    return folders


def displaced(cameras: Cameras) -> Cameras:
    rng = np.random.default_rng(5)
    moved = {}
    for name, camera in cameras.items():
        R = rotations(rng.normal(0, 0.02, (1, 3)))[0] @ camera.R
        moved[name] = Camera(
            camera.K, R, -R @ (camera.centre + rng.normal(0, 0.03, 3)), camera.distortion, 640, 480
        )
    return moved


def apart(found: Cameras, truth: Cameras) -> float:
    return max(float(np.linalg.norm(found[name].centre - truth[name].centre)) for name in truth)


def test_cameras_from_points(cameras: Cameras, points: list[MarkedPoint], tmp_path: Path) -> None:
    wrong = {**points[4].pixels, "east": points[4].pixels["east"] + 60}
    save_points(
        [*points[:4], MarkedPoint("p4", points[4].world, wrong), *points[5:]], tmp_path / "points.yaml"
    )
    save_lens(cameras["north"], tmp_path / "north.yaml", "a test")
    out = tmp_path / "scene.yaml"
    words = ("extrinsics", tmp_path / "points.yaml", "--lens", f"north={tmp_path / 'north.yaml'}")
    done = run(*words, "--image", "640x480", "--out", out)
    assert done.exit_code == 0, done.output
    assert "north: pose from 10 points" in done.output and "east: focal+k1 from" in done.output
    assert "left out: p4, off by" in done.output and f"{out}: written" in done.output
    assert apart(dict(load_scene(out).cameras), cameras) < 0.01
    assert list(facts(*words, "--cameras", "north")["cameras"]) == ["north"]
    assert "north has a lens already" in refusal(*words, *words[2:])
    assert "the image size of east is not known: give --image" in refusal(*words)


# Markers' own corners are found a third of a pixel off, where squares meet a tenth.
@pytest.mark.parametrize(("board", "apart_m"), [(CHARUCO, 0.005), (ARUCO, 0.015)], ids=["charuco", "aruco"])
def test_cameras_from_a_board_at_rest(
    cameras: Cameras, scene: Scene, rests: Rests, tmp_path: Path, board: list[str], apart_m: float
) -> None:
    lenses = []
    for name, camera in cameras.items():
        save_lens(camera, tmp_path / f"{name}.yaml", "a test")
        lenses += ["--lens", f"{name}={tmp_path / name}.yaml"]
    out = tmp_path / "scene.yaml"
    folder = rests[board[1]]
    done = run("extrinsics", "--rest", folder, "--floor", "floor", *board, *lenses, "--out", out)
    assert done.exit_code == 0, done.output
    assert "origin: the first corner of the board at floor" in done.output
    placed = dict(load_scene(out).cameras)
    half = {name: camera.resized(320, 240) for name, camera in cameras.items()}
    save_scene(Scene("half", half, scene.ground, scene.heights_m, {}), tmp_path / "half.yaml")
    said = refusal("refine", tmp_path / "half.yaml", "--rest", folder, *board)
    assert "is 640x480, its camera was calibrated at 320x240" in said
    refined = facts("refine", out, "--rest", folder, *board)
    assert refined["world"].endswith("the scale is the boards'") and refined["rms_after_px"] < 0.5
    assert max(camera["moved_m"] for camera in refined["cameras"].values()) < 1e-3
    # Gauge-free: as seen from each other.
    save_scene(scene, tmp_path / "truth.yaml")
    for pair in facts("compare", out, tmp_path / "truth.yaml")["pairs"]:
        assert pair["shift_m"] < apart_m and pair["turn_deg"] < 0.4
    # And on the floor: cameras as high above it as they are.
    for name, (_, _, height) in PLACES.items():
        assert placed[name].centre[2] == pytest.approx(height, abs=2 * apart_m)


def test_all_cameras_agree_after_refining(
    cameras: Cameras, scene: Scene, points: list[MarkedPoint], tmp_path: Path
) -> None:
    save_points(points, tmp_path / "points.yaml")
    save_scene(Scene("table", displaced(cameras), scene.ground, scene.heights_m, {}), tmp_path / "scene.yaml")
    words = ("refine", tmp_path / "scene.yaml", "--points", tmp_path / "points.yaml")
    done = run(*words, "--intrinsics", "focal", "--out", tmp_path / "better.yaml")
    assert done.exit_code == 0, done.output
    assert (
        "world: held by the surveyed points" in done.output and "points that are farthest off" in done.output
    )
    assert apart(dict(load_scene(tmp_path / "better.yaml").cameras), cameras) < 1e-3
    still = facts(*words, "--fixed", "north")
    assert still["cameras"]["north"]["moved_m"] == 0 and still["rms_after_px"] < still["rms_before_px"]
    # The better scene is not replaced by the one before it.
    save_scene(scene, tmp_path / "good.yaml")
    refused = run(
        "refine",
        tmp_path / "scene.yaml",
        "--points",
        tmp_path / "points.yaml",
        "--fixed",
        "north,east",
        "--out",
        tmp_path / "good.yaml",
    )
    assert refused.exit_code == 2 and "was not overwritten" in refused.output


def test_videos_of_a_board_tie_cameras_together_while_it_rests(
    cameras: Cameras, scene: Scene, rests: Rests, tmp_path: Path
) -> None:
    words: list[object] = []
    with (tmp_path / "times.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["camera", "frame", "time_s"])
        for late, view in enumerate(cameras):
            path = tmp_path / f"{view}.avi"
            video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 4, (640, 480))
            for number, place in enumerate(["floor"] * 6 + ["leaning"] * 6):
                # As a board printed white on black would look.
                video.write(255 - cv2.imread(str(rests["charuco"] / place / f"{view}.png")))
                table.writerow([view, number, 100 + number / 4 + 0.05 * late])
            video.release()
            words += ["--video", f"{view}={path}"]
    save_scene(Scene("table", displaced(cameras), scene.ground, scene.heights_m, {}), tmp_path / "scene.yaml")
    words = ["refine", tmp_path / "scene.yaml", *words, *CHARUCO, "--times", tmp_path / "times.csv"]
    words += ["--dictionary", "DICT_4X4_50", "--inverted"]
    done = run(*words, "--clock-error-s", "0.3", "--out", tmp_path / "better.yaml")
    assert done.exit_code == 0, done.output
    assert "at 2 placements it stayed long enough for clocks 0.3 s apart" in done.output
    save_scene(scene, tmp_path / "truth.yaml")
    for pair in facts("compare", tmp_path / "better.yaml", tmp_path / "truth.yaml")["pairs"]:
        assert pair["shift_m"] < 0.005 and pair["turn_deg"] < 0.2
    assert "at 0 placements" in run(*words, "--clock-error-s", "5").output


def test_corners_that_another_program_found(cameras: Cameras, scene: Scene, tmp_path: Path) -> None:
    """caliscope's table: a board at rest at two places, seen by all."""
    named = {f"cam_{number}": camera for number, camera in enumerate(displaced(cameras).values())}
    save_scene(Scene("table", named, scene.ground, scene.heights_m, {}), tmp_path / "scene.yaml")
    with (tmp_path / "xy.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            [
                *("sync_index", "cam_id", "frame_index", "frame_time", "object_id", "keypoint_id"),
                *("img_loc_x", "img_loc_y", "obj_loc_x", "obj_loc_y"),
            ]
        )
        for index, (place, turn) in enumerate(RESTS.values()):
            world = BOARD.corners @ rotations(np.array([turn]))[0].T + place
            for frame in range(10 * index, 10 * index + 5):
                for number, camera in enumerate(cameras.values()):
                    for corner, (x, y) in enumerate(camera.project(world)):
                        on_board = BOARD.corners[corner][:2]
                        table.writerow([frame, number, frame, frame / 5, 0, corner, x, y, *on_board])
    words = ("refine", tmp_path / "scene.yaml", "--corners", tmp_path / "xy.csv", "--clock-error-s", "0.1")
    assert facts(*words)["rms_after_px"] < 0.01
    text = (tmp_path / "xy.csv").read_text()
    for broken, says in (
        (text.replace("img_loc_x", "u"), "lacks the column(s) img_loc_x"),
        (text[: len(text) // 2].rsplit(",", 3)[0], "holds no numbers: give a whole xy.csv"),
        (text.replace("\n0,2,", "\n0,7,"), "there is no camera cam_7"),
        ("", "lacks the column(s)"),
    ):
        (tmp_path / "xy.csv").write_text(broken)
        assert says in refusal(*words)


def test_two_calibrations_compared(cameras: Cameras, scene: Scene, tmp_path: Path) -> None:
    save_scene(scene, tmp_path / "one.yaml")
    # Another world, in which z points down the first camera's axis: no matter.
    turn, shift = rotations(np.array([[1.0, 0.4, -2.0]]))[0], np.array([3.0, 1.0, -2.0])
    moved = {
        name: Camera(
            camera.K * np.array([[1.02], [1.02], [1]]),
            camera.R @ turn,
            camera.t + camera.R @ shift,
            camera.distortion,
            640,
            480,
        )
        for name, camera in cameras.items()
    }
    save_scene(Scene("two", moved, scene.ground, scene.heights_m, {}), tmp_path / "two.yaml")
    assert (
        run(
            "export", tmp_path / "two.yaml", "--format", "aniposelib", "--out", tmp_path / "two.toml"
        ).exit_code
        == 0
    )
    said = facts("compare", tmp_path / "two.yaml", tmp_path / "one.yaml")
    assert [lens["focal_x_percent"] for lens in said["lenses"]] == pytest.approx([2.0] * 3)
    assert (
        all(pair["shift_m"] < 1e-9 and pair["turn_deg"] < 1e-5 for pair in said["pairs"])
        and len(said["pairs"]) == 3
    )
    shown = run("compare", tmp_path / "two.toml", tmp_path / "one.yaml")
    assert shown.exit_code == 0 and "distances are 1.0000 times" in shown.output
    save_lens(cameras["east"], tmp_path / "east.yaml", "a test")
    assert [
        lens["camera"] for lens in facts("compare", tmp_path / "east.yaml", tmp_path / "one.yaml")["lenses"]
    ] == ["east"]
    save_lens(cameras["east"], tmp_path / "other.yaml", "a test")
    assert "no camera is in both" in refusal("compare", tmp_path / "other.yaml", tmp_path / "one.yaml")
