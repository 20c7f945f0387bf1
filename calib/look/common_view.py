"""Which ground the cameras have in common: a grid for a scene that comes without one."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.errors import CalibError
from calib.ground import GroundGrid

Floats = NDArray[np.float64]

_PERSON_M = 1.75
# A person's height as a share of the picture's: more than the largest counts no more, and ground where the
# mean over all cameras is below the least is better left out.
_LARGEST_SHARE, _LEAST_SHARE = 1 / 5, 1 / 24
# Side of the raster on which the view is tested, and rays per side of a picture that find its extent.
_RASTER = 96
_RAYS = 24
# A model's ground has some hundred cells a side; the first of these cells that gives no more.
_CELLS_M = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0)
_MOST_CELLS = 160
# Grids are halved and quartered downstream.
_MULTIPLE = 4


def common_ground(cameras: Mapping[str, Camera]) -> GroundGrid:
    """The rectangle of ground z = 0, along the axes, that the cameras see best together.

    A place is worth the mean, over all cameras, of how large a person there is in the picture (a share of
    its height, at most 1/5; 0 where the feet are not seen), or 0 unless two cameras see it (one, if there is
    only one); less 1/24. The rectangle is the one with the greatest sum. Raises CalibError where no two
    cameras see the same ground.
    """
    low, high = _extent(cameras)
    step = (high - low) / _RASTER
    x, y = (low[axis] + (np.arange(_RASTER) + 0.5) * step[axis] for axis in (0, 1))
    points = np.stack([*np.meshgrid(x, y), np.zeros((_RASTER, _RASTER))], axis=-1)
    shares = np.stack([_share(camera, points) for camera in cameras.values()])
    seen = (shares > 0).sum(axis=0) >= min(2, len(cameras))
    if not seen.any():
        raise CalibError(
            "no two cameras see the same ground (z = 0), so no grid can be chosen: give it with --ground "
            "x,y,width,height in metres, or check the world's axes and height 0"
        )
    worth = np.where(seen, shares.mean(axis=0), 0.0) - _LEAST_SHARE
    top, bottom, left, right = _best_rectangle(worth)
    x0, y0 = low + step * (left, top)
    x1, y1 = low + step * (right, bottom)
    return grid_over(float(x0), float(y0), float(x1 - x0), float(y1 - y0))


def grid_over(x_m: float, y_m: float, width_m: float, height_m: float) -> GroundGrid:
    """A grid of the rectangle with corner (x, y), width along x and height along y, metres: cells of a round
    size, at most 160 a side, and rows and columns that 4 divides, so it may reach a little beyond.

    Raises CalibError for a rectangle without area or not finite.
    """
    if not all(map(math.isfinite, (x_m, y_m, width_m, height_m))) or min(width_m, height_m) <= 0:
        raise CalibError(
            f"ground {x_m:g},{y_m:g},{width_m:g},{height_m:g} is no rectangle: give x,y,width,height, m"
        )
    longest = max(width_m, height_m)
    cell = next((size for size in _CELLS_M if longest / size <= _MOST_CELLS), longest / _MOST_CELLS)

    def along(start: float, length: float) -> tuple[float, int]:
        # Apart from rounding: 12 m are 48 cells of 0.25 m, not 49.
        first = math.floor(start / cell + 1e-6)
        count = math.ceil(((start + length) / cell - first) / _MULTIPLE - 1e-6)
        return round(first * cell, 6), _MULTIPLE * max(1, count)

    (x0, columns), (y0, rows) = along(x_m, width_m), along(y_m, height_m)
    return GroundGrid(x0, y0, cell, columns, rows)


def _extent(cameras: Mapping[str, Camera]) -> tuple[Floats, Floats]:
    """Corners (2,), (2,) of the ground that any camera sees well enough."""
    found = []
    for camera in cameras.values():
        x, y = np.meshgrid(np.linspace(0, camera.width - 1, _RAYS), np.linspace(0, camera.height - 1, _RAYS))
        points = camera.back_project(np.stack([x, y], axis=-1))
        found.append(points[_share(camera, points) > _LEAST_SHARE])
    ground = np.concatenate(found)
    if not len(ground):
        raise CalibError(
            "no camera sees the ground (z = 0) from where a person would be large enough, so no grid can be "
            "chosen: give it with --ground x,y,width,height in metres, or check units, axes and height 0"
        )
    low, high = ground[:, :2].min(axis=0), ground[:, :2].max(axis=0)
    return low, np.maximum(high, low + 1e-3)


def _share(camera: Camera, points: Floats) -> Floats:
    """Ground points (..., 3) -> (...) a person's height there as a share of the picture's, 0 if not seen."""
    if camera.centre[2] <= 0:
        # From below, nobody is seen standing on it.
        return np.zeros(points.shape[:-1])
    feet = camera.project(points)
    head = camera.project(points + np.array([0.0, 0.0, _PERSON_M]))
    share = np.linalg.norm(head - feet, axis=-1) / camera.height
    # A head beyond the lens model belongs to somebody very near.
    share = np.minimum(np.nan_to_num(share, nan=_LARGEST_SHARE), _LARGEST_SHARE)
    return np.where(camera.inside(feet), share, 0.0)


def _best_rectangle(weights: Floats) -> tuple[int, int, int, int]:
    """(top, bottom, left, right), half open, of the rectangle of greatest sum: Kadane's over row spans."""
    sums = np.vstack([np.zeros(weights.shape[1]), np.cumsum(weights, axis=0)])
    best, result = -math.inf, (0, 1, 0, 1)
    for top in range(weights.shape[0]):
        # Column sums of all spans from `top`, one row each.
        spans = sums[top + 1 :] - sums[top]
        along = np.concatenate([np.zeros((len(spans), 1)), np.cumsum(spans, axis=1)], axis=1)
        # The greatest difference along[right] - along[left], left < right.
        lowest = np.minimum.accumulate(along, axis=1)[:, :-1]
        gains = along[:, 1:] - lowest
        span, column = np.unravel_index(int(gains.argmax()), gains.shape)
        if gains[span, column] > best:
            best = float(gains[span, column])
            left = int(along[span, : column + 1].argmin())
            result = (top, top + 1 + int(span), left, int(column) + 1)
    return result
