"""Cameras from nothing but marked points: those with enough surveyed points first, then those that share
enough clicks with cameras already placed. A start for `refine`, which makes all agree.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera, nearest_rotation
from calib.errors import CalibError
from calib.extrinsics import Solved, pose_from_points
from calib.points import MarkedPoint, check_unique, residuals
from calib.refine_start import BoardView, placed_boards
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


def cameras_from_boards(intrinsics: Mapping[str, Camera], boards: Sequence[BoardView]) -> dict[str, Camera]:
    """Cameras of known lenses from boards at rest alone, in the frame of the camera that most share one with.

    The world is that camera's: x right, y down, z forward. CalibError names the cameras that no placement
    ties to the others.
    """
    seen: dict[str, dict[str, BoardView]] = {}
    for view in boards:
        if view.camera in intrinsics:
            seen.setdefault(view.placement, {})[view.camera] = view
    shared = [views for views in seen.values() if len(views) > 1]
    ties = {name: sum(name in views for views in shared) for name in intrinsics}
    first = max(ties, key=lambda name: ties[name])
    placed = {first: _at(intrinsics[first], np.eye(3), np.zeros(3))}
    while left := [name for name in intrinsics if name not in placed]:
        steps = [
            (name, base, views)
            for views in shared
            for name in left
            for base in placed
            if name in views and base in views
        ]
        if not steps:
            raise CalibError(
                f"no board at rest ties {', '.join(left)} to {', '.join(placed)}: let one lie where both see "
                "it"
            )
        # The neighbour with most boards in common next.
        pairs = [(name, base) for name, base, _ in steps]
        name, base = max(set(pairs), key=lambda pair: (pairs.count(pair), pair))
        poses = [
            (_board_pose(intrinsics[name], views[name]), _board_pose(intrinsics[base], views[base]))
            for one, other, views in steps
            if (one, other) == (name, base)
        ]
        moves = [_from_to(ours, theirs) for ours, theirs in poses if ours is not None and theirs is not None]
        if not moves:
            raise CalibError(
                f"boards that {name} and {base} share are seen edge-on: turn them to the cameras"
            )
        # The move that the others agree with best.
        apart = [sum(float(np.linalg.norm(move[1] - other[1])) for other in moves) for move in moves]
        turn, shift = moves[int(np.argmin(apart))]
        camera = placed[base]
        placed[name] = _at(intrinsics[name], turn @ camera.R, turn @ camera.t + shift)
    return {name: placed[name] for name in intrinsics}


def _at(lens: Camera, rotation: Floats, translation: Floats) -> Camera:
    return Camera(lens.K, nearest_rotation(rotation), translation, lens.distortion, lens.width, lens.height)


def _board_pose(lens: Camera, view: BoardView) -> Camera | None:
    try:
        return pose_from_points(view.corners, view.pixels, (lens.width, lens.height), lens).camera
    except CalibError:
        return None


def _from_to(ours: Camera, theirs: Camera) -> tuple[Floats, Floats]:
    """Rotation and shift from the frame of the second camera to that of the first, which see one board."""
    turn = ours.R @ theirs.R.T
    return turn, ours.t - turn @ theirs.t


def on_floor(cameras: Mapping[str, Camera], boards: Sequence[BoardView], placement: str) -> dict[str, Camera]:
    """The same cameras in the world of a board that lies on the floor, face up, at that placement: origin at
    its first corner, x and y along it, z up, z = 0 on it. CalibError if nobody sees it there.
    """
    views = [view for view in boards if view.placement == placement]
    if not views:
        known = ", ".join(sorted({view.placement for view in boards}))
        raise CalibError(f"no camera sees a board at {placement!r}; there are {known or 'none'}")
    placed = placed_boards(cameras, views).get(placement)
    if placed is None:
        raise CalibError(f"the board at {placement!r} is seen edge-on only: let it lie nearer to a camera")
    turn, shift = placed
    # It faces the cameras: the side that they are on is up.
    centres = np.stack([cameras[view.camera].centre for view in views])
    if np.mean((centres - shift) @ turn[:, 2]) < 0:
        turn = turn * np.array([1.0, -1.0, -1.0])
    return {
        name: _at(camera, camera.R @ turn, camera.R @ shift + camera.t) for name, camera in cameras.items()
    }
