"""Real boards against the calibrations that were shipped with them."""

from pathlib import Path

import pytest

from calib.boards.board import Board, BoardFinder
from calib.boards.intrinsics import choose_views, solve_intrinsics
from calib.formats import read_rig
from calib.formats.foreign import Wishes
from calib.look.compare import compare
from calib.solve.from_boards import cameras_from_boards
from calib.solve.refine import refine
from viewsync.cli.calib.board_corners import read_corners
from viewsync.cli.calib.board_pictures import pictures
from viewsync.cli.calib.board_views import joined_views


@pytest.mark.parametrize(("camera", "focal"), [("cam01", 107599.671875 / 64), ("cam02", 107118.695313 / 64)])
def test_pose2sim_lenses_come_back_from_their_chessboards(data: Path, camera: str, focal: float) -> None:
    """Against the calibration that was shipped with them, made by Qualisys with a wand."""
    finder = BoardFinder(Board("chessboard", 4, 7, 0.06))
    paths = [str(path) for path in sorted((data / "pose2sim-4cam/intrinsics").glob(f"{camera}_*"))]
    seen = [finder.find(image, name) for name, image, _ in pictures(paths, 1, 1)]
    found = solve_intrinsics(choose_views([sighting for sighting in seen if sighting is not None]))
    assert found.camera.K[0, 0] == pytest.approx(focal, rel=0.01)
    assert any("few" in note for note in found.notes)


def test_a_caliscope_lens_comes_back_from_its_video(data: Path) -> None:
    """Within 1 %, and what it says itself, ± 1.3 %: the board was in an eighth of the image only."""
    folder = data / "caliscope-4webcam/session_a"
    finder = BoardFinder(Board("charuco", 4, 5, 0.054, 0.0405, "DICT_4X4_1000", inverted=True))
    seen = [finder.find(image, name, at) for name, image, at in pictures([str(folder / "cam_2.mp4")], 300, 1)]
    found = solve_intrinsics(choose_views([sighting for sighting in seen if sighting is not None]))
    theirs = read_rig([folder / "camera_array.toml"]).cameras["cam_2"]
    assert found.camera.K[0, 0] == pytest.approx(theirs.K[0, 0], rel=0.01)
    assert abs(found.camera.K[0, 0] - theirs.K[0, 0]) < 3 * found.focal_deviation_px
    assert any("12 % of the image" in note for note in found.notes)


def test_caliscope_cameras_come_back_from_their_corners_alone(data: Path) -> None:
    """Their lenses given, no poses: as seen from each other within half a degree, and 5 mm for four pairs of
    six; the fourth camera saw the board 23 times only.
    """
    folder = data / "caliscope-4webcam/session_b"
    theirs = read_rig([folder / "camera_array.toml"], wishes=Wishes(up="z")).cameras
    views, notes = joined_views(read_corners(folder / "xy.csv", theirs), 0.0)
    assert "at 41 placements" in notes[0]
    found = refine(cameras_from_boards(theirs, views), (), views)
    pairs = compare(found.cameras, theirs).pairs
    assert len(pairs) == 6 and all(pair.turn_deg < 0.5 for pair in pairs)
    assert sorted(pair.shift_m for pair in pairs)[3] < 0.005
    assert all(pair.shift_m < 0.008 for pair in pairs)
