"""The ground chosen for a rig without one: where several cameras see people, on cells of a round size."""

import numpy as np
import pytest

from calib.camera import Camera
from calib.errors import CalibError
from calib.formats import read_rig
from calib.look.common_view import common_ground, grid_over


def camera(centre, target):
    forward = np.subtract(target, centre) / np.linalg.norm(np.subtract(target, centre))
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    return Camera([[700, 0, 400], [0, 700, 300], [0, 0, 1]], R, -R @ np.array(centre), np.zeros(5), 800, 600)


def corners(grid):
    x0, y0 = grid.origin_x_m, grid.origin_y_m
    return x0, y0, x0 + grid.columns * grid.cell_m, y0 + grid.rows * grid.cell_m


def test_it_is_where_all_cameras_look_and_turns_with_them():
    places = [(9, 0, 4), (0, 9, 4), (-9, 0, 4), (0, -9, 4)]
    here = corners(common_ground({str(place): camera(place, (0, 0, 0)) for place in places}))
    assert here[0] < -3 and here[1] < -3 and here[2] > 3 and here[3] > 3
    assert max(map(abs, here)) < 12
    moved = {str(p): camera((p[0] + 50, p[1] - 20, p[2]), (50, -20, 0)) for p in places}
    np.testing.assert_allclose(
        corners(common_ground(moved)), np.array(here) + np.array([50, -20, 50, -20]), atol=0.6
    )


def test_one_camera_is_enough_for_its_own_ground():
    grid = common_ground({"only": camera((0, 0, 4), (8, 0, 0))})
    x0, y0, x1, y1 = corners(grid)
    assert 0 < x0 < 8 < x1 < 49 and y0 < 0 < y1  # at 49 m a person is 1/24 of the picture
    assert grid.rows % 4 == grid.columns % 4 == 0 and max(grid.shape) <= 164


def test_no_ground_in_common_or_none_at_all_says_what_to_do():
    apart = {"a": camera((0, 0, 4), (8, 0, 0)), "b": camera((0, 0, 4), (-8, 0, 0))}
    with pytest.raises(CalibError, match=r"no two cameras see the same ground.*--ground"):
        common_ground(apart)
    with pytest.raises(CalibError, match=r"no camera sees the ground.*--ground"):
        common_ground({"up": camera((0, 0, 4), (8, 0, 9))})
    with pytest.raises(CalibError, match="no camera sees the ground"):
        common_ground({"cellar": camera((0, 0, -1), (3, 0, 0))})
    with pytest.raises(CalibError, match="no rectangle"):
        grid_over(0, 0, 0, 5)
    with pytest.raises(CalibError, match="no rectangle"):
        grid_over(0, 0, float("nan"), 5)


def test_a_given_rectangle_is_covered_with_cells_of_a_round_size():
    grid = grid_over(-3, -9, 12, 36)
    assert (grid.cell_m, grid.columns, grid.rows) == (0.25, 48, 144) and corners(grid) == (-3, -9, 9, 27)
    for width, height in [(0.5, 0.3), (7.3, 2.2), (90, 400), (3000, 10)]:
        x0, y0, x1, y1 = corners(grid_over(1, 2, width, height))
        assert x0 <= 1 + 1e-6 and y0 <= 2 + 1e-6 and x1 >= 1 + width - 1e-6 and y1 >= 2 + height - 1e-6


def test_real_cameras_get_the_ground_that_their_people_walk_on(data):
    x0, y0, x1, y1 = corners(common_ground(read_rig([data / "pets2009/calibration"]).cameras))
    # PETS2009's people walk on x -16 to 4 m, y -16 to 8 m (viewsync.sim.pets2009).
    assert min(x1, 4) - max(x0, -16) > 15 and min(y1, 8) - max(y0, -16) > 15
    assert x1 - x0 < 40 and y1 - y0 < 45
