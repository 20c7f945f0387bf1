"""Boards: found where they were drawn, whole or in part; what is wrong is said."""

import numpy as np
import pytest

from calib.boards.board import Board, BoardFinder, why_not_found
from calib.camera import Camera
from calib.errors import CalibError
from calib.projection import rotations

CHARUCO = Board("charuco", 5, 4, 0.1, 0.07)
GRID = Board("aruco", 4, 3, 0.1, 0.08)
CHESS = Board("chessboard", 6, 4, 0.1)
INVERTED = Board("charuco", 5, 4, 0.1, 0.07, "DICT_5X5_100", inverted=True)


@pytest.mark.parametrize(
    ("board", "k1"), [(CHARUCO, -0.25), (GRID, 0.0), (CHESS, 0.0), (INVERTED, 0.0)], ids=str
)
def test_corners_are_found_where_the_camera_sees_them(board, k1, photograph) -> None:  # type: ignore[no-untyped-def]
    camera = Camera(
        [[620, 0, 318], [0, 620, 242], [0, 0, 1]], np.eye(3), np.zeros(3), [k1, 0, 0, 0, 0], 640, 480
    )
    R = rotations(np.array([[0.4, -0.3, 0.1]]))[0]
    t = np.array([-0.25, -0.2, 0.9])
    seen = BoardFinder(board).find(photograph(board, camera, R, t), "one")
    assert seen is not None and seen.size == (640, 480)
    assert len(seen.ids) == len(board.corners)
    expected = camera.project(seen.corners @ R.T + t)
    if board.kind == "chessboard":  # which end is first nobody can tell
        expected = min((expected, expected[::-1]), key=lambda one: np.abs(one - seen.pixels).max())
    off = np.linalg.norm(seen.pixels - expected, axis=1)
    # Markers' own corners are found less exactly than where squares meet.
    assert np.median(off) < (0.35 if board.kind == "aruco" else 0.15) and off.max() < 1.0


def test_part_of_a_marked_board_is_enough_and_keeps_its_numbers(photograph) -> None:  # type: ignore[no-untyped-def]
    camera = Camera([[620, 0, 318], [0, 620, 242], [0, 0, 1]], np.eye(3), np.zeros(3), np.zeros(5), 640, 480)
    image = photograph(CHARUCO, camera, np.eye(3), np.array([-0.25, -0.2, 0.6]))
    image[:, :210] = 128
    seen = BoardFinder(CHARUCO).find(image, "half")
    assert seen is not None and 6 <= len(seen.ids) < 12
    np.testing.assert_allclose(seen.corners, CHARUCO.corners[seen.ids])
    image[:, 320:] = 128
    assert BoardFinder(CHARUCO).find(image, "a line") is None


def test_a_picture_without_a_board_has_none() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    assert all(BoardFinder(board).find(noise, "noise") is None for board in (CHARUCO, GRID, CHESS))


@pytest.mark.parametrize(
    ("asked", "filmed", "advice"),
    [
        (Board("charuco", 5, 4, 0.1, 0.07), Board("charuco", 5, 4, 0.1, 0.07, inverted=True), "--inverted"),
        (Board("charuco", 5, 4, 0.1, 0.07), Board("charuco", 5, 4, 0.1, 0.07, "DICT_6X6_50"), "DICT_6X6"),
        (Board("charuco", 4, 6, 0.1, 0.07), Board("charuco", 4, 6, 0.1, 0.07, legacy=True), "--legacy"),
        (Board("charuco", 4, 5, 0.1, 0.07), CHARUCO, "--size 5x4"),
        (Board("chessboard", 7, 5, 0.1), CHESS, "--size 6x4"),
        (CHESS, None, "check --board and --size"),
        (CHARUCO, CHESS, "is it a chessboard?"),
    ],
    ids=["inverted", "dictionary", "legacy", "turned", "squares", "nothing", "plain"],
)
def test_a_board_that_is_another_one_is_named(asked, filmed, advice) -> None:  # type: ignore[no-untyped-def]
    image = np.full((300, 400), 90, np.uint8) if filmed is None else filmed.picture(50)
    image = np.pad(image, 40, constant_values=0 if filmed is not None and filmed.inverted else 255)
    assert BoardFinder(asked).find(image, "one") is None
    assert advice in why_not_found(asked, [image])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "circles"}, "board kind"),
        ({"columns": 2}, "board columns is 2"),
        ({"rows": 99}, "board rows is 99"),
        ({"square_m": 25.0}, "in metres"),
        ({"marker_m": None}, "needs the side of its markers"),
        ({"marker_m": 0.2}, "the marker is the smaller"),
        ({"dictionary": "DICT_9X9"}, "DICT_4X4_50"),
    ],
)
def test_an_impossible_board_is_refused(change, says) -> None:  # type: ignore[no-untyped-def]
    good = {"kind": "charuco", "columns": 5, "rows": 4, "square_m": 0.1, "marker_m": 0.07}
    with pytest.raises(CalibError, match=says):
        Board(**(good | change))


def test_corners_have_their_places_on_the_board() -> None:
    assert CHESS.corners.shape == (24, 3) and GRID.corners.shape == (48, 3)
    assert np.ptp(CHARUCO.corners, axis=0) == pytest.approx((0.3, 0.2, 0))
