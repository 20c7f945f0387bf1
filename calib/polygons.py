"""Closed polygons on the ground (metres) or in an image (pixels)."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.errors import CalibError

Floats = NDArray[np.float64]
# Less than a square millimetre on the ground, or next to nothing of a pixel.
_SMALLEST_AREA = 1e-6
# Masks are drawn with corners on this fraction of a pixel.
_SUBPIXEL_BITS = 4


def checked_polygon(what: str, corners: ArrayLike, unit: Literal["metres", "pixels"]) -> Floats:
    """Corners (N ≥ 3, 2), implicitly closed, as a read-only copy. CalibError names `what` and says what is
    wrong.
    """
    try:
        polygon = np.array(corners, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibError(f"{what} is not a list of [x, y] corners in {unit}") from error
    if polygon.ndim != 2 or polygon.shape[1] != 2 or len(polygon) < 3 or not np.isfinite(polygon).all():
        raise CalibError(f"{what} is not a polygon: give at least three finite [x, y] corners in {unit}")
    if abs(area(polygon)) < _SMALLEST_AREA:
        raise CalibError(f"{what} covers no area: give its corners in order along its border")
    polygon.setflags(write=False)
    return polygon


def area(polygon: Floats) -> float:
    """Signed area of corners (N, 2), positive where they go anticlockwise (x right, y up)."""
    following = np.roll(polygon, -1, axis=0)
    return float(0.5 * np.sum(polygon[:, 0] * following[:, 1] - following[:, 0] * polygon[:, 1]))


def inside_polygon(polygon: Floats, points: ArrayLike) -> NDArray[np.bool_]:
    """Points (..., ≥2), (x, y) first -> (...) whether they lie inside, by the even-odd rule; NaN does not."""
    array = np.asarray(points, dtype=np.float64)
    x, y = array[..., 0], array[..., 1]
    inside = np.zeros(x.shape, dtype=np.bool_)
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if ay == by:
            continue
        crosses = (ay > y) != (by > y)
        inside ^= crosses & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return inside


def image_mask(polygons: list[Floats], width: int, height: int) -> NDArray[np.bool_]:
    """(height, width): pixels that one of the polygons (N, 2), in pixels, covers."""
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        corners = np.round(polygon * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(mask, [corners], 1, shift=_SUBPIXEL_BITS)
    return mask.astype(np.bool_)
