"""How much of every ground cell lies in a named zone, so that a zone's count is a weighted sum of the
density map.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from calib.ground import GroundGrid

Floats = NDArray[np.float64]

# Points per cell side: a cell on the border counts by the share of these inside, so to within about 1/10 of
# a cell.
_POINTS = 5


def zone_weights(grid: GroundGrid, zones: Mapping[str, Floats]) -> dict[str, NDArray[np.float32]]:
    """zone -> float32 (Hg, Wg): the share, 0 … 1, of each cell inside the polygon (N, 2) of ground metres."""
    steps = (np.arange(_POINTS) + 0.5) / _POINTS - 0.5
    dx, dy = np.meshgrid(steps, steps)
    spread = np.stack([dx, dy], axis=-1).reshape(-1, 2) * grid.cell_m
    points = grid.centres()[:, :, None, :] + spread
    return {name: inside(points, polygon).mean(axis=-1, dtype=np.float32) for name, polygon in zones.items()}


def inside(points: Floats, polygon: Floats) -> NDArray[np.bool_]:
    """Whether points (..., 2) lie in polygon (N, 2), by the even-odd rule."""
    x, y = points[..., 0], points[..., 1]
    result = np.zeros(x.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        result ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return result
