"""A point of the world from its pixels in two or more calibrated views. Hartley & Zisserman, chapter 12."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera

Floats = NDArray[np.float64]

# Rays that meet at a smaller angle than this place a point nowhere in particular.
_SMALLEST_ANGLE_RAD = np.deg2rad(0.05)
_STEPS = 10


def triangulate(cameras: Mapping[str, Camera], pixels: Mapping[str, ArrayLike]) -> Floats:
    """(3,) the world point whose projections are closest to its pixels, metres.

    pixels: by view, (2,) each, as delivered. NaN where fewer than two known cameras see it, where the rays
    are as good as parallel, and where it would be behind one of the cameras.
    """
    seen = [
        (cameras[view], np.asarray(pixel, dtype=np.float64))
        for view, pixel in pixels.items()
        if view in cameras
    ]
    nowhere = np.full(3, np.nan)
    directions = [camera.rays(pixel) for camera, pixel in seen]
    met = [index for index, ray in enumerate(directions) if np.isfinite(ray).all()]
    if len(met) < 2:
        return nowhere
    # The point nearest to all rays, as the start.
    normal, right = np.zeros((3, 3)), np.zeros(3)
    for index in met:
        ray = directions[index]
        across = np.eye(3) - np.outer(ray, ray)
        normal += across
        right += across @ seen[index][0].centre
    # The smallest eigenvalue is the sum of squared sines to the common direction.
    values = np.linalg.eigvalsh(normal)
    if values[0] < np.sin(_SMALLEST_ANGLE_RAD / 2) ** 2:
        return nowhere
    point: Floats = np.linalg.solve(normal, right).astype(np.float64)
    if any(seen[index][0].depth(point) <= 0 for index in met):
        return nowhere
    return _least_pixels([seen[index] for index in met], point)


def _least_pixels(seen: list[tuple[Camera, Floats]], start: Floats) -> Floats:
    """Gauss-Newton on the pixels; a step that does not help ends it."""
    point, error = start, _error(seen, start)
    for _ in range(_STEPS):
        step_m = 1e-6 * max(1.0, float(np.linalg.norm(point - seen[0][0].centre)))
        slopes = np.stack(
            [
                (_error(seen, point + step_m * axis) - _error(seen, point - step_m * axis)) / (2 * step_m)
                for axis in np.eye(3)
            ],
            axis=-1,
        )
        if not (np.isfinite(slopes).all() and np.isfinite(error).all()):
            break
        moved = point - np.linalg.lstsq(slopes, error, rcond=None)[0]
        then = _error(seen, moved)
        if not np.isfinite(then).all() or then @ then >= error @ error * (1 - 1e-12):
            break
        point, error = moved, then
    return point


def _error(seen: list[tuple[Camera, Floats]], point: Floats) -> Floats:
    return np.concatenate([camera.project(point) - pixel for camera, pixel in seen])
