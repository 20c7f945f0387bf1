"""What marked points say about a scene: how far off it is, and which common mistake would explain it."""

from collections.abc import Iterator, Sequence
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.look.finding import Finding
from calib.points import MarkedPoint, residuals
from calib.scene import Scene

Floats = NDArray[np.float64]

WORST_PX = 3.0
_FEWEST_POINTS = 4
_NAMED = 3
# A mistake explains the points if what it leaves is good, or so much less that nothing else is wrong.
_EXPLAINED, _EXPLAINED_PX = 0.2, 10.0
_SCALES = {
    "the points' world positions are in millimetres where the scene is in metres: divide them by 1000": 1e-3,
    "the points' world positions are in centimetres where the scene is in metres: divide them by 100": 1e-2,
    "the scene is in millimetres where the points are in metres: divide its translations by 1000": 1e3,
    "the scene is in centimetres where the points are in metres: divide its translations by 100": 1e2,
}


def point_findings(scene: Scene, points: Sequence[MarkedPoint]) -> Iterator[Finding]:
    """Reprojection over 3 px by view and by point; where units or mirrored axes explain it, that instead."""
    unknown = {view for point in points for view in point.pixels} - set(scene.cameras)
    for view in sorted(unknown):
        yield Finding(
            "unknown-view", "warning", view, "points are marked in it, but the scene has no such camera"
        )
    found = residuals(scene.cameras, points)
    for view, camera in scene.cameras.items():
        mine = np.array([name == view for name in found.cameras], dtype=np.bool_)
        if not mine.any():
            continue
        distances = found.distances_px[mine]
        names = [name for name, own in zip(found.points, mine, strict=True) if own]
        # A surveyed point that the camera cannot see was clicked in its picture all the same.
        surveyed = {point.name for point in points if point.world is not None}
        behind = [n for n, d in zip(names, distances, strict=True) if n in surveyed and not np.isfinite(d)]
        known = distances[np.isfinite(distances)]
        rms = float(np.sqrt(np.mean(known**2))) if known.size else np.inf
        if rms <= WORST_PX and not behind:
            yield from _outliers(view, names, distances)
            continue
        reason = _explanation(camera, view, points, rms)
        if reason is not None:
            code, message = reason
            yield Finding(code, "error", view, message)
        elif behind:
            yield Finding(
                "reprojection",
                "error",
                view,
                f"{_listed(behind)} cannot be seen by the camera (behind it, or outside its lens model) but "
                f"{'are' if len(behind) > 1 else 'is'} marked in its picture: solve the pose again",
            )
        elif known.size:
            yield _over(view, names, distances, rms)


def _over(view: str, names: list[str], distances: Floats, rms: float) -> Finding:
    worst = [names[i] for i in np.argsort(-np.nan_to_num(distances, nan=-1.0))[:_NAMED]]
    return Finding(
        "reprojection",
        "error",
        view,
        f"its {len(names)} marked points are {rms:.1f} px off (RMS; at most {WORST_PX:g} px is fine), worst: "
        f"{_listed(worst)}: check these marks, then solve the pose again",
    )


def _outliers(view: str, names: list[str], distances: Floats) -> Iterator[Finding]:
    over = [int(i) for i in np.argsort(-np.nan_to_num(distances, nan=-1.0)) if distances[i] > WORST_PX]
    if over:
        listed = ", ".join(f"{names[i]} ({distances[i]:.1f} px)" for i in over[:_NAMED])
        more = f" and {len(over) - _NAMED} more" if len(over) > _NAMED else ""
        yield Finding(
            "reprojection",
            "warning",
            view,
            f"over {WORST_PX:g} px off: {listed}{more}; check these marks and positions",
        )


def _explanation(
    camera: Camera, view: str, points: Sequence[MarkedPoint], rms: float
) -> tuple[str, str] | None:
    """(code, message) of the mistake that makes the view's surveyed points fit."""
    chosen = [point for point in points if point.world is not None and view in point.pixels]
    if len(chosen) < _FEWEST_POINTS:
        return None
    world = np.stack([point.world for point in chosen if point.world is not None])
    pixels = np.stack([point.pixels[view] for point in chosen])
    limit = max(WORST_PX, min(_EXPLAINED * rms, _EXPLAINED_PX))
    best, found = limit, None
    for message, scale in _SCALES.items():
        off = _off(camera, scale * world, pixels)
        if off < best:
            best, found = off, ("units", message)
    flipped = camera.width - 1 - pixels[:, 0]
    for message, turned in _mirrorings(world):
        for seen, pictured in (
            (pixels, ""),
            (np.column_stack([flipped, pixels[:, 1]]), " and the picture flipped"),
        ):
            off = _off(camera, turned, seen)
            if off < best:
                best = off
                found = (
                    "mirrored",
                    f"its axes are mirrored or swapped: with {message}{pictured} the points fit within "
                    f"{off:.1f} px; correct the axes where the rig was exported",
                )
    return found


def _mirrorings(world: Floats) -> Iterator[tuple[str, Floats]]:
    """Every other way to name and sign the axes, except turning the world about z (which is no mistake of
    axes but of the origin's direction, and is found all the same).
    """
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            if order == (0, 1, 2) and signs == (1.0, 1.0, 1.0):
                continue
            named = [
                "xyz"[axis] if sign > 0 else f"-{'xyz'[axis]}"
                for axis, sign in zip(order, signs, strict=True)
            ]
            yield f"(x, y, z) read as ({', '.join(named)})", world[:, order] * np.array(signs)


def _off(camera: Camera, world: Floats, pixels: Floats) -> float:
    """RMS distance, pixels; infinite if a point has no pixel."""
    distances = np.linalg.norm(camera.project(world) - pixels, axis=-1)
    return float(np.sqrt(np.mean(distances**2))) if np.isfinite(distances).all() else np.inf


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
