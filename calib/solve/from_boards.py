"""Cameras of known lenses from a board that rested here and there; the world from one on the floor."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera, nearest_rotation
from calib.errors import CalibError
from calib.solve.extrinsics import pose_from_points
from calib.solve.refine_start import BoardView, is_spread, placed_boards
from calib.solve.similarity import similarity
from calib.triangulation import triangulate_all

Floats = NDArray[np.float64]


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
    placed = _met(cameras, views) or placed_boards(cameras, views).get(placement)
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


def _met(cameras: Mapping[str, Camera], views: Sequence[BoardView]) -> tuple[Floats, Floats] | None:
    """Rotation and shift of a board where rays of different cameras to its corners meet: one camera alone
    tells its tilt to a few degrees only.
    """
    pixels: dict[tuple[float, ...], dict[str, Floats]] = {}
    for view in views:
        for corner, pixel in zip(view.corners.tolist(), view.pixels, strict=True):
            pixels.setdefault(tuple(corner), {})[view.camera] = pixel
    places = triangulate_all(cameras, list(pixels.values()))
    found = np.isfinite(places).all(axis=1)
    corners = np.array(list(pixels))[found]
    if not is_spread(corners):
        return None
    moved = similarity(corners, places[found], scaled=False)
    return moved.rotation, moved.shift
