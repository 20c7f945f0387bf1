"""Cameras from nothing but marked points: those with enough surveyed points first, then those that share
enough clicks with cameras already placed. A start for `refine`, which makes all agree.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.errors import CalibError
from calib.points import MarkedPoint, check_unique, residuals
from calib.solve.extrinsics import Solved, pose_from_points
from calib.triangulation import triangulate_all

Floats = NDArray[np.float64]

# A click whose point, placed by other cameras, misses them by more than this share of the diagonal is not
# used to place the next.
_WORST_SHARE = 0.02
# With so many surveyed points a camera needs no others to start.
_PLENTY = 10


def cameras_from_scratch(
    points: Sequence[MarkedPoint],
    sizes: Mapping[str, tuple[int, int]],
    intrinsics: Mapping[str, Camera] | None = None,
) -> dict[str, Solved]:
    """By name, a camera for every image size (width, height) given, in that order.

    intrinsics: of the cameras whose lens is known (their poses are not used). CalibError names the cameras
    that cannot be placed and why.
    """
    check_unique(points)
    known = dict(intrinsics or {})
    solved: dict[str, Solved] = {}
    surveyed = {point.name: point.world for point in points if point.world is not None}
    while left := [name for name in sizes if name not in solved]:
        places, counts = surveyed, _counts(points, surveyed, left)
        if max(counts.values()) < _PLENTY:
            places = surveyed | _placed(points, {name: found.camera for name, found in solved.items()})
            counts = _counts(points, places, left)
        refused: dict[str, str] = {}
        for name in sorted(left, key=lambda name: -counts[name]):
            seen = [point for point in points if name in point.pixels and point.name in places]
            try:
                solved[name] = pose_from_points(
                    np.array([places[point.name] for point in seen]).reshape(-1, 3),
                    np.array([point.pixels[name] for point in seen]).reshape(-1, 2),
                    sizes[name],
                    known.get(name),
                    [point.name for point in seen],
                )
                break
            except CalibError as error:
                refused[name] = str(error)
        else:
            first = next(iter(refused))
            raise CalibError(
                f"cannot place {', '.join(refused)}: {first} has {counts[first]} points whose place is "
                f"known; {refused[first]}"
            )
    return {name: solved[name] for name in sizes}


def _counts(points: Sequence[MarkedPoint], places: Mapping[str, Floats], names: list[str]) -> dict[str, int]:
    return {name: sum(name in point.pixels and point.name in places for point in points) for name in names}


def _placed(points: Sequence[MarkedPoint], cameras: Mapping[str, Camera]) -> dict[str, Floats]:
    """Where two placed cameras or more see a point that nobody surveyed, and agree."""
    clicked = [point for point in points if point.world is None]
    places = triangulate_all(cameras, [point.pixels for point in clicked])
    found = {
        point.name: place for point, place in zip(clicked, places, strict=True) if np.isfinite(place).all()
    }
    off = residuals(cameras, [point for point in clicked if point.name in found])
    for name, view, distance in zip(off.points, off.cameras, off.distances_px, strict=True):
        camera = cameras[view]
        if not distance < _WORST_SHARE * np.hypot(camera.width, camera.height):
            found.pop(name, None)
    return found
