"""Which views see which part of the ground, and how large a person is in them.

Somebody counts as seen where the middle of the body is in the picture and the feet are not behind an occluder
of the scene. Shape letters: V views, Hg Wg rows and columns of the plan.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.ground import GroundGrid
from calib.look.walker import HEIGHT_M
from calib.polygons import image_mask
from calib.scene import Scene

Floats = NDArray[np.float64]

_MOST_CELLS = 120


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """plan: the cells; pixels: (V, Hg, Wg) height of a standing person in pixels, 0 where not seen."""

    plan: GroundGrid
    views: tuple[str, ...]
    pixels: Floats

    @property
    def seen_by(self) -> NDArray[np.int64]:
        """(Hg, Wg) number of views that see somebody there."""
        result: NDArray[np.int64] = (self.pixels > 0).sum(axis=0)
        return result

    @property
    def best(self) -> Floats:
        """(Hg, Wg) pixels in the view that sees a person largest."""
        result: Floats = self.pixels.max(axis=0)
        return result

    def share(self, views: int) -> float:
        """Share of the ground that at least so many views see."""
        return float((self.seen_by >= views).mean())


def coarse_plan(grid: GroundGrid, most_cells: int = _MOST_CELLS) -> GroundGrid:
    """Cells over the same ground, whole multiples of the grid's and few enough to draw."""
    factor = max(1, math.ceil(max(grid.columns, grid.rows) / most_cells))
    return GroundGrid(
        grid.origin_x_m,
        grid.origin_y_m,
        grid.cell_m * factor,
        math.ceil(grid.columns / factor),
        math.ceil(grid.rows / factor),
    )


# While points are marked one after the other, the scene stays the same.
@functools.lru_cache(maxsize=8)
def coverage(scene: Scene, most_cells: int = _MOST_CELLS) -> Coverage:
    """Coverage of the scene's ground, on a plan of at most `most_cells` a side."""
    plan = coarse_plan(scene.ground, most_cells)
    centres = plan.centres()
    body = np.empty((4, plan.rows, plan.columns, 3))
    body[..., :2] = centres
    body[..., 2] = (np.array([0.0, 0.25, 0.5, 0.75]) * HEIGHT_M)[:, None, None]
    pixels = np.zeros((len(scene.cameras), plan.rows, plan.columns))
    for index, (view, camera) in enumerate(scene.cameras.items()):
        feet, low, middle, high = camera.project(body)
        seen = camera.inside(middle)
        polygons = scene.occluders.get(view)
        if polygons:
            mask = image_mask(list(polygons.values()), camera.width, camera.height)
            on_image = camera.inside(feet)
            x, y = np.where(on_image, np.rint(np.moveaxis(feet, -1, 0)), 0).astype(np.intp)
            inside = np.clip(y, 0, camera.height - 1), np.clip(x, 0, camera.width - 1)
            seen &= ~(on_image & mask[inside])
        # Half the body, doubled: feet or head may be outside the picture or the lens model.
        height = 2 * np.linalg.norm(high - low, axis=-1)
        pixels[index] = np.where(seen & np.isfinite(height), height, 0.0)
    pixels.setflags(write=False)
    return Coverage(plan, tuple(scene.cameras), pixels)
