"""The truth as a density map: what training aims at and what measurements compare with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calib.ground import GroundGrid

TARGET_SIGMA_M = 0.3


def density_map(
    xy: NDArray[np.float64], grid: GroundGrid, sigma_m: float = TARGET_SIGMA_M
) -> NDArray[np.float32]:
    """Density map (Hg, Wg) in people per cell of everybody at xy (N, 2) m who stands on the grid.

    Each person is a Gaussian of `sigma_m` that is normalised on the grid, so the sum is the count.
    """
    inside = xy[grid.contains(xy)]
    x = grid.origin_x_m + (np.arange(grid.columns) + 0.5) * grid.cell_m
    y = grid.origin_y_m + (np.arange(grid.rows) + 0.5) * grid.cell_m
    along_x = np.exp(-0.5 * ((x[None] - inside[:, :1]) / sigma_m) ** 2)
    along_y = np.exp(-0.5 * ((y[None] - inside[:, 1:]) / sigma_m) ** 2)
    along_x /= along_x.sum(axis=1, keepdims=True)
    along_y /= along_y.sum(axis=1, keepdims=True)
    density: NDArray[np.float32] = np.einsum("nr,nc->rc", along_y, along_x).astype(np.float32)
    return density
