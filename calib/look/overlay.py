"""What is drawn into a view to see whether its calibration is right: lines of the world, in its pixels.

Lines follow the lens: they are sampled finely and end where the camera model has no answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera
from calib.ground import GroundGrid

Floats = NDArray[np.float64]

_MOST_LINES = 26
_STEPS_M = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_SAMPLES = 120
_NEAREST_M, _FURTHEST_M = 0.2, 2000.0
# Of the picture's size, beyond its border: far enough that lines leave it, near enough for whole numbers.
_MARGIN = 0.25
# A line that leaves the picture is drawn to its next sample, if that is not further away than this.
_LEAVES = 8.0


def image_lines(camera: Camera, points: ArrayLike, samples: int = _SAMPLES) -> list[Floats]:
    """A polyline of the world (N, 3), metres -> its visible parts, each (M ≥ 2, 2) pixels."""
    corners = np.asarray(points, dtype=np.float64)
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    if along[-1] <= 0:
        return []
    # The corners themselves stay in.
    at = np.union1d(np.linspace(0.0, along[-1], samples), along)
    dense = np.stack([np.interp(at, along, corners[:, axis]) for axis in range(3)], axis=-1)
    return _visible(camera, camera.project(dense))


def _visible(camera: Camera, pixels: Floats) -> list[Floats]:
    size = np.array([camera.width, camera.height])

    def within(margin: float) -> NDArray[np.bool_]:
        reach = margin * max(camera.width, camera.height)
        with np.errstate(invalid="ignore"):
            result: NDArray[np.bool_] = np.all((pixels > -reach) & (pixels < size + reach), axis=-1)
        return result

    near = within(_MARGIN)
    beside = near.copy()
    beside[1:] |= near[:-1]
    beside[:-1] |= near[1:]
    kept = beside & within(_LEAVES)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    parts = [pixels[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return [part for part in parts if len(part) > 1]


def closed(polygon: Floats, z: float = 0.0) -> Floats:
    """Ground corners (N, 2) -> the closed outline (N + 1, 3) at height z."""
    ring = np.concatenate([polygon, polygon[:1]])
    return np.column_stack([ring, np.full(len(ring), z)])


def grid_step_m(grid: GroundGrid) -> float:
    """Distance of the lines to draw: a round number of metres that gives a readable net."""
    extent = grid.cell_m * max(grid.columns, grid.rows)
    fitting = [step for step in _STEPS_M if extent / step <= _MOST_LINES]
    return fitting[0] if fitting else extent / _MOST_LINES


@dataclass(frozen=True, slots=True)
class GroundLines:
    """The ground in one view, pixels. net: lines at whole multiples of the step; border: the grid's outline;
    axes: from the world's origin along x, y and z, two metres.
    """

    net: list[Floats]
    border: list[Floats]
    axes: tuple[list[Floats], list[Floats], list[Floats]]


def ground_lines(camera: Camera, grid: GroundGrid) -> GroundLines:
    """The grid's net, border and the world's axes as the view sees them."""
    step = grid_step_m(grid)
    low = np.array([grid.origin_x_m, grid.origin_y_m])
    high = low + grid.cell_m * np.array([grid.columns, grid.rows])
    net = []
    for axis in (0, 1):
        for value in (
            np.arange(np.ceil(low[axis] / step - 1e-9), np.floor(high[axis] / step + 1e-9) + 1) * step
        ):
            ends = np.zeros((2, 3))
            ends[:, axis] = value
            ends[:, 1 - axis] = low[1 - axis], high[1 - axis]
            net += image_lines(camera, ends)
    corners = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    x, y, z = (image_lines(camera, np.stack([np.zeros(3), 2.0 * unit]), 24) for unit in np.eye(3))
    return GroundLines(net, image_lines(camera, closed(corners), 4 * 60), (x, y, z))


@dataclass(frozen=True, slots=True)
class SeenRay:
    """The ray of one view's pixel in another view: parts of its epipolar curve, and the pixel where it meets
    the ground, or None.
    """

    parts: list[Floats]
    ground: Floats | None


def epipolar_curves(cameras: Mapping[str, Camera], view: str, pixel: ArrayLike) -> dict[str, SeenRay]:
    """Where the other views see what may be at `pixel` (2,) of `view`: curves, because lenses bend lines.

    Empty where no ray of the lens model reaches the pixel.
    """
    camera = cameras[view]
    direction = camera.rays(pixel)
    if not np.isfinite(direction).all():
        return {}
    # Evenly in 1/distance: as dense near the other view's border as at the horizon.
    distances = 1 / np.linspace(1 / _FURTHEST_M, 1 / _NEAREST_M, 1500)
    ray = camera.centre + distances[:, None] * direction
    on_ground = camera.back_project(pixel)
    found = {}
    for name, other in cameras.items():
        if name != view:
            foot = other.project(on_ground)
            kept = foot if np.isfinite(foot).all() and other.inside(foot) else None
            found[name] = SeenRay(_visible(other, other.project(ray)), kept)
    return found
