"""Laws of the ground grid, of sampling grids and of homographies."""

import numpy as np
import pytest

from calib.errors import CalibError
from calib.ground import GroundGrid, ground_from_image, view_from_ground

GRID = GroundGrid(-4.0, -3.0, 0.25, 32, 24)


def bilinear(image: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Like `grid_sample` (bilinear, zeros, align_corners=False): image (H, W), grid (..., 2) -> (...)."""
    height, width = image.shape
    x, y = ((grid[..., 0] + 1) * width - 1) / 2, ((grid[..., 1] + 1) * height - 1) / 2
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    total = np.zeros(x.shape)
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = left + dx, top + dy
            there = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            weight = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
            total += np.where(there, weight * image[row.clip(0, height - 1), column.clip(0, width - 1)], 0)
    return total


def test_cells_and_centres_agree():
    rows, columns = np.indices(GRID.shape)
    np.testing.assert_array_equal(GRID.cell_of(GRID.centres()), np.stack([rows, columns], axis=-1))
    assert GRID.contains(GRID.centres()).all()
    np.testing.assert_allclose(GRID.centres()[0, 0], (-3.875, -2.875))
    np.testing.assert_allclose(GRID.centres()[2, 1], (-4 + 1.5 * 0.25, -3 + 2.5 * 0.25))


def test_border_and_rubbish():
    points = np.array([(-4.0, -3.0), (4.0, 0.0), (3.999, 2.999), (-4.001, 0.0), (np.nan, 0.0), (np.inf, 0.0)])
    assert GRID.contains(points).tolist() == [True, False, True, False, False, False]
    assert GRID.cell_of(points)[4:].tolist() == [[-1, -1], [-1, -1]]


def test_a_coarser_grid_covers_the_same_ground():
    coarse = GRID.coarser(4)
    assert (coarse.rows, coarse.columns, coarse.cell_m) == (6, 8, 1.0)
    fine_centres = GRID.centres().reshape(6, 4, 8, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse.centres(), fine_centres, atol=1e-12)
    with pytest.raises(CalibError, match="divides"):
        GRID.coarser(5)


@pytest.mark.parametrize(
    "numbers",
    [(0, 0, 0.0, 4, 4), (0, 0, -0.2, 4, 4), (0, np.nan, 0.2, 4, 4), (0, 0, 0.2, 0, 4), (0, 0, 0.2, 4, 4.5)],
)
def test_no_impossible_grid(numbers):
    with pytest.raises(CalibError, match="ground"):
        GroundGrid(*numbers)


def test_sampling_where_view_from_ground_says_finds_what_projects_there(make_camera):
    camera = make_camera(0, distortion=(0,) * 5)
    heights = (0.0, 0.9, 1.75)
    grid = view_from_ground(camera, GRID, heights)
    assert grid.shape == (3, 24, 32, 2) and grid.dtype == np.float32
    points = np.concatenate(
        [np.broadcast_to(GRID.centres(), (3, 24, 32, 2)), np.empty((3, 24, 32, 1))], axis=-1
    )
    points[..., 2] = np.array(heights)[:, None, None]
    pixels = camera.project(points)
    seen = (pixels > 1).all(axis=-1) & (pixels < (camera.width - 2, camera.height - 2)).all(axis=-1)
    assert seen.mean() > 0.3
    y, x = np.indices((camera.height, camera.width)).astype(float)
    # Bilinear sampling reproduces linear images: sampling x gives the pixel. float32 of [-1, 1] is 1e-7 ·
    # 768 px.
    np.testing.assert_allclose(bilinear(x, grid)[seen], pixels[seen][:, 0], atol=1e-3)
    np.testing.assert_allclose(bilinear(y, grid)[seen], pixels[seen][:, 1], atol=1e-3)


def test_one_sampling_grid_serves_every_resolution(make_camera):
    camera = make_camera(0, distortion=(0,) * 5)
    features = camera.resized(camera.width // 8, camera.height // 8)
    full, small = view_from_ground(camera, GRID, (0.5,)), view_from_ground(features, GRID, (0.5,))
    np.testing.assert_allclose(full, small, atol=1e-5)  # float32 near 2
    _, x = np.indices((features.height, features.width)).astype(float)
    points = np.concatenate([GRID.centres(), np.full((24, 32, 1), 0.5)], axis=-1)
    pixels = features.project(points)
    seen = (pixels > 1).all(axis=-1) & (pixels < (features.width - 2, features.height - 2)).all(axis=-1)
    np.testing.assert_allclose(bilinear(x, full[0])[seen], pixels[seen][:, 0], atol=1e-3)


def test_nothing_behind_the_camera_is_sampled(make_camera):
    camera = make_camera(0, distortion=(0,) * 5)
    around = GroundGrid(-40.0, -40.0, 2.0, 40, 40)
    grid = view_from_ground(camera, around, (0.0,))
    points = np.concatenate([around.centres(), np.zeros((40, 40, 1))], axis=-1)
    behind = camera.depth(points) <= 0
    assert behind.any() and (grid[0][behind] == -2).all()
    assert np.isfinite(grid).all() and np.abs(grid).max() <= 2
    assert (bilinear(np.ones((camera.height, camera.width)), grid[0])[behind] == 0).all()


@pytest.mark.parametrize("z", [0.0, 1.75])
def test_the_homography_is_back_projection(make_camera, z):
    camera = make_camera(2, distortion=(0,) * 5)
    pixels = np.random.default_rng(0).uniform((0, 0), (camera.width, camera.height), (300, 2))
    mapped = np.column_stack([pixels, np.ones(300)]) @ ground_from_image(camera, z).T
    wanted = camera.back_project(pixels, z)
    in_front = ~np.isnan(wanted[:, 0])
    assert in_front.mean() > 0.3
    np.testing.assert_array_equal(mapped[:, 2] > 0, in_front)
    # Near the horizon metres grow without bound: relative.
    np.testing.assert_allclose(
        mapped[in_front, :2] / mapped[in_front, 2:], wanted[in_front, :2], rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(1 / mapped[in_front, 2], camera.depth(wanted[in_front]), rtol=1e-6)


def test_flat_geometry_refuses_lens_distortion(make_camera):
    with pytest.raises(CalibError, match="undistorted"):
        view_from_ground(make_camera(0), GRID, (0.0,))
    with pytest.raises(CalibError, match="undistorted"):
        ground_from_image(make_camera(0))
    with pytest.raises(CalibError, match="lies in the plane"):
        camera = make_camera(0).undistorted()
        ground_from_image(camera, float(camera.centre[2]))
    with pytest.raises(CalibError, match="heights_m"):
        view_from_ground(make_camera(0).undistorted(), GRID, ())
