"""Plane maps against what the cameras themselves say of points on those planes."""

import numpy as np
import pytest

from calib.camera import Camera
from calib.epipolar import epipolar_lines, fundamental_matrix
from calib.errors import CalibError
from calib.planes import plane_maps
from viewsync.sim.scenes import look_at

HEIGHTS_M = (0.1, 0.9, 1.75)


def cameras() -> tuple[Camera, Camera]:
    first = look_at((-3.0, -3.0, 4.0), (3.6, 2.6, 0.0), 75.0, (96, 72), (0.0,) * 5)
    return first, look_at((11.0, -2.5, 4.2), (4.4, 2.8, 0.0), 60.0, (128, 80), (0.0,) * 5)


def points(z: float) -> np.ndarray:
    ground = np.random.default_rng(3).uniform((1, 0), (7, 5), (40, 2))
    return np.column_stack([ground, np.full(40, z)])


@pytest.mark.parametrize("row", range(3))
def test_a_point_at_that_height_is_found_in_the_other_picture(row: int) -> None:
    view, reference = cameras()
    world = points(HEIGHTS_M[row])
    here = np.column_stack([view.project(world), np.ones(40)])
    mapped = here @ plane_maps(view, reference, HEIGHTS_M)[row].T.astype(np.float64)
    # float32 maps: some ten-thousandths of a pixel.
    np.testing.assert_allclose(mapped[:, :2] / mapped[:, 2:3], reference.project(world), atol=2e-3)
    depths = [(world - c.centre) @ c.R[2] for c in (view, reference)]
    np.testing.assert_allclose(mapped[:, 2], depths[1] / depths[0], rtol=1e-5)
    # One metre to the right, at the same depth: these cameras are level.
    beside = view.project(world + view.R[0])
    np.testing.assert_allclose(mapped[:, 3], beside[:, 0] - here[:, 0], rtol=1e-5)


def test_all_heights_lie_on_one_epipolar_line_which_goes_back_to_the_pixel() -> None:
    view, reference = cameras()
    maps, back = plane_maps(view, reference, HEIGHTS_M), fundamental_matrix(reference, view)
    for pixel in ((20.0, 30.0), (70.0, 50.0), (50.0, 60.0)):
        mapped = maps[:, :3] @ np.array([*pixel, 1.0])
        lines = epipolar_lines(back, mapped[:, :2] / mapped[:, 2:])
        assert np.abs(lines @ np.array([*pixel, 1.0])).max() < 1e-3


def test_beyond_the_horizon_there_is_no_plane_and_a_view_shows_itself() -> None:
    view, reference = cameras()
    sky = plane_maps(view, reference, HEIGHTS_M) @ np.array([48.0, -300.0, 1.0])
    assert (sky[:, 3] < 0).all()
    own = plane_maps(view, view, HEIGHTS_M)[:, :3]
    np.testing.assert_allclose(own, np.tile(np.eye(3), (3, 1, 1)), atol=1e-5)


def test_a_camera_in_the_plane_sees_it_as_a_line() -> None:
    view, reference = cameras()
    with pytest.raises(CalibError, match="lies in the plane"):
        plane_maps(view, reference, (float(view.centre[2]),))
