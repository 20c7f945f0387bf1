"""Zone weights against areas that a person can compute."""

import numpy as np
import pytest

from calib.ground import GroundGrid
from hub.zones import inside, zone_weights

GRID = GroundGrid(-1.0, 2.0, 0.5, 16, 12)  # x −1 … 7, y 2 … 8


def area_m2(polygon: list[list[float]]) -> float:
    return float(zone_weights(GRID, {"zone": np.array(polygon)})["zone"].sum()) * GRID.cell_m**2


def test_a_rectangle_on_cell_borders_weighs_its_cells_and_nothing_else() -> None:
    weights = zone_weights(GRID, {"zone": np.array([[0, 3], [2, 3], [2, 4], [0, 4]], float)})["zone"]
    expected = np.zeros(GRID.shape, np.float32)
    expected[2:4, 2:6] = 1
    assert np.array_equal(weights, expected)


@pytest.mark.parametrize(
    ("polygon", "area"),
    [
        ([[0.1, 3.1], [3.3, 3.1], [3.3, 5.7], [0.1, 5.7]], 3.2 * 2.6),
        ([[0, 3], [6, 3], [0, 7]], 12.0),
        ([[0, 7], [6, 3], [0, 3]], 12.0),  # the other way round
        ([[-9, -9], [-2, -9], [-2, 9], [-9, 9]], 0.0),
        ([[-50, -50], [50, -50], [50, 50], [-50, 50]], 48.0),
        ([[0, 3], [4, 3], [4, 7], [2, 4], [0, 7]], 10.0),  # not convex
    ],
)
def test_areas(polygon: list[list[float]], area: float) -> None:
    """Each border cell is right to about a tenth of 0.25 m²; errors along a border mostly cancel."""
    assert area_m2(polygon) == pytest.approx(area, abs=0.35)


def test_zones_that_meet_share_no_point_and_miss_none() -> None:
    points = np.random.default_rng(3).uniform((-1, 2), (7, 8), (2000, 2))
    left = inside(points, np.array([[-1, 2], [3, 2], [5, 8], [-1, 8]], float))
    right = inside(points, np.array([[3, 2], [7, 2], [7, 8], [5, 8]], float))
    assert np.array_equal(left, ~right)
