"""Focal length, principal point and lens distortion from views of a board. Zhang (2000), by OpenCV.

Views are chosen for being different: many alike say hardly more than one, and only make errors look small.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.boards.board import Sighting
from calib.boards.coverage import Coverage, coverage_of, weaknesses
from calib.camera import Camera
from calib.errors import CalibError

Floats = NDArray[np.float64]
LensModel = Literal["auto", "none", "k1", "k1-k2", "brown"]

_FEWEST_VIEWS = 3
# Views nearer to each other than this share of the image's diagonal (root mean square over the board's four
# corners) say the same.
_SAME = 0.004
# Shares of the diagonal in a second. A board that moves so fast is worth half of one at rest; one that is
# faster than the second nothing, where enough others are left: a rolling shutter, which takes some 20 ms for
# a picture, bends it by ten times what a corner's place is uncertain.
_HALF_WORTH, _TOO_FAST = 0.05, 0.1
_ENOUGH = 15
# Across a longer gap between two pictures nobody knows how fast it was.
_LONGEST_GAP_S = 1.0
# Worse than this many times the median, a view is a mistake: a blurred or bent board, a wrong corner.
_WORST_VIEW = 3.0
_FINE_PX = 0.5
_SQUARE_SIGMAS = 4.0
# A coefficient nearer to 0 than this many deviations is not told by the views.
_TOLD_SIGMAS = 2.0
_FLAGS = {
    "none": cv2.CALIB_FIX_K1 + cv2.CALIB_FIX_K2 + cv2.CALIB_FIX_K3 + cv2.CALIB_ZERO_TANGENT_DIST,
    "k1": cv2.CALIB_FIX_K2 + cv2.CALIB_FIX_K3 + cv2.CALIB_ZERO_TANGENT_DIST,
    "k1-k2": cv2.CALIB_FIX_K3,
    "brown": 0,
}


@dataclass(frozen=True, slots=True)
class View:
    """One chosen view. rms_px: root mean square distance of its corners; corners: how many; tilt_deg: between
    the board and the image plane; used: False where it was left out as a mistake.
    """

    name: str
    rms_px: float
    corners: int
    tilt_deg: float
    used: bool


@dataclass(frozen=True, slots=True, eq=False)
class Intrinsics:
    """What the views say. camera: at the world's origin, looking along z; rms_px: of all corners of used
    views; focal_deviation_px: one standard deviation; model: the lens model that was fitted; notes: what is
    too thin, one line each.
    """

    camera: Camera
    rms_px: float
    focal_deviation_px: float
    model: LensModel
    views: tuple[View, ...]
    seen: int
    coverage: Coverage
    notes: tuple[str, ...]


def outline(sighting: Sighting) -> Floats:
    """(4, 2) where the corners of the smallest board rectangle around what is seen appear, as shares of the
    image's diagonal: position, size and tilt in one.
    """
    flat = sighting.corners[:, :2]
    homography, _ = cv2.findHomography(flat, sighting.pixels, 0)
    if homography is None:
        raise CalibError(f"{sighting.name}: the board's corners lie on a line")
    low, high = flat.min(axis=0), flat.max(axis=0)
    ends = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    mapped = cv2.perspectiveTransform(ends[None], homography)[0]
    return np.asarray(mapped, dtype=np.float64) / float(np.hypot(*sighting.size))


def choose_views(sightings: Sequence[Sighting], most: int = 30) -> list[Sighting]:
    """Up to `most` sightings that differ, slow ones before fast ones: the largest first, then always the one
    farthest from all chosen, until nothing new is left. In the order they came.
    """
    if not sightings:
        return []
    speeds = _speeds(sightings)
    slow = speeds <= _TOO_FAST
    if slow.sum() >= _ENOUGH:
        sightings = [sighting for sighting, one in zip(sightings, slow, strict=True) if one]
        speeds = speeds[slow]
    shapes = np.stack([outline(sighting) for sighting in sightings])
    still = 1 / (1 + speeds / _HALF_WORTH)
    chosen = [int(np.argmax(_areas(shapes) * still))]
    nearest = _apart(shapes, shapes[chosen[0]])
    while len(chosen) < min(most, len(sightings)):
        best = int(np.argmax(nearest * still))
        if nearest[best] < _SAME:
            break
        chosen.append(best)
        nearest = np.minimum(nearest, _apart(shapes, shapes[best]))
    return [sightings[index] for index in sorted(chosen)]


def _areas(shapes: Floats) -> Floats:
    x, y = shapes[..., 0], shapes[..., 1]
    result: Floats = 0.5 * np.abs(np.sum(x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1), axis=1))
    return result


def _apart(shapes: Floats, other: Floats) -> Floats:
    result: Floats = np.sqrt(np.mean(np.sum((shapes - other) ** 2, axis=2), axis=1))
    return result


def _speeds(sightings: Sequence[Sighting]) -> Floats:
    """(N,) how fast corners move to or from the neighbouring picture of a video, shares of the diagonal in a
    second; 0 where no time tells.
    """
    speeds = np.zeros(len(sightings))
    for index, (before, after) in enumerate(itertools.pairwise(sightings)):
        if before.time_s is None or after.time_s is None:
            continue
        seconds = after.time_s - before.time_s
        _, ours, theirs = np.intersect1d(before.ids, after.ids, return_indices=True)
        if len(ours) and 0 < seconds <= _LONGEST_GAP_S:
            moved = float(np.median(np.linalg.norm(before.pixels[ours] - after.pixels[theirs], axis=1)))
            speed = moved / float(np.hypot(*before.size)) / seconds
            speeds[index] = max(speeds[index], speed)
            speeds[index + 1] = max(speeds[index + 1], speed)
    return speeds


def solve_intrinsics(
    views: Sequence[Sighting], model: LensModel = "auto", seen: int | None = None
) -> Intrinsics:
    """Intrinsics from views of one board, all of one image size; `choose_views` chooses them. seen: in how
    many pictures the board was found, for the record.

    model: which coefficients are fitted: none, k1, k1 and k2 (with p1, p2), all five ("brown"); "auto" takes
    the most that the views can tell. CalibError where they tell too little.
    """
    if model not in get_args(LensModel):
        raise CalibError(f"lens model is {model!r}: give one of {', '.join(get_args(LensModel))}")
    sizes = {view.size for view in views}
    if len(sizes) > 1:
        listed = " and ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise CalibError(f"pictures are of different sizes ({listed}): give those of one camera")
    if len(views) < _FEWEST_VIEWS:
        raise CalibError(
            f"the board was found in {len(views)} picture(s) that differ: give at least {_FEWEST_VIEWS}, "
            "better 15, with the board near, far, tilted and in every corner of the image"
        )
    used = list(views)
    fit = _best_model(used, model)
    # A mistake shows best once it no longer bends the rest: twice is enough for the few there are.
    for _ in range(2):
        limit = max(_WORST_VIEW * float(np.median(fit.errors)), _FINE_PX)
        keep = [view for view, error in zip(used, fit.errors, strict=True) if error <= limit]
        if len(keep) == len(used) or len(keep) < max(_FEWEST_VIEWS, 0.7 * len(views)):
            break
        used = keep
        fit = _best_model(used, model)
    return _intrinsics(views, used, fit, len(views) if seen is None else seen)


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    camera: Camera
    model: LensModel
    errors: Floats
    rms_px: float
    focal_deviation_px: float
    lens_deviations: Floats


def _best_model(views: list[Sighting], model: LensModel) -> _Fit:
    if model != "auto":
        return _square_or_not(views, model)
    rows: tuple[tuple[LensModel, int], ...] = (("brown", 4), ("k1-k2", 1))
    for candidate, last in rows:
        fit = _square_or_not(views, candidate)
        told = abs(fit.camera.distortion[last]) > _TOLD_SIGMAS * fit.lens_deviations[last]
        if told and not _folds(fit.camera):
            return fit
    return _square_or_not(views, "k1")


def _square_or_not(views: list[Sighting], model: LensModel) -> _Fit:
    """Pixels are square unless the views say otherwise, clearly."""
    free = _fit(views, model, square=False)
    fx, fy = free.camera.K[0, 0], free.camera.K[1, 1]
    if abs(fx - fy) > _SQUARE_SIGMAS * free.focal_deviation_px:
        return free
    return _fit(views, model, square=True)


def _fit(views: list[Sighting], model: LensModel, *, square: bool) -> _Fit:
    width, height = views[0].size
    guess = np.array([[float(width), 0, (width - 1) / 2], [0, float(width), (height - 1) / 2], [0, 0, 1]])
    try:
        rms, K, distortion, _, _, deviations, _, errors = cv2.calibrateCameraExtended(
            [view.corners.astype(np.float32) for view in views],
            [view.pixels.astype(np.float32) for view in views],
            (width, height),
            guess,
            np.zeros(5),
            flags=_FLAGS[model]
            + cv2.CALIB_USE_INTRINSIC_GUESS
            + (cv2.CALIB_FIX_ASPECT_RATIO if square else 0),
            criteria=(cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-9),
        )
        coefficients = np.ravel(np.asarray(distortion, dtype=np.float64))[:5]
        camera = Camera(np.asarray(K, np.float64), np.eye(3), np.zeros(3), coefficients, width, height)
    except (cv2.error, CalibError) as error:
        raise CalibError(
            "the views do not fit any camera: check the board's kind and size, and that it is flat"
        ) from error
    spread = np.ravel(np.asarray(deviations, dtype=np.float64))
    return _Fit(
        camera, model, np.ravel(errors).astype(np.float64), float(rms), float(spread[:2].max()), spread[4:9]
    )


def _folds(camera: Camera) -> bool:
    """Whether the lens model has no answer somewhere in the image."""
    x, y = np.meshgrid(np.linspace(0, camera.width - 1, 9), np.linspace(0, camera.height - 1, 9))
    return not np.isfinite(camera.rays(np.stack([x, y], axis=-1))).all()


def _intrinsics(views: Sequence[Sighting], used: list[Sighting], fit: _Fit, seen: int) -> Intrinsics:
    camera = fit.camera
    records = []
    tilts = []
    for view in views:
        pixels = np.ascontiguousarray(view.pixels)
        _, turn, shift = cv2.solvePnP(view.corners, pixels, camera.K, camera.distortion)
        rotation, _ = cv2.Rodrigues(turn)
        projected = (rotation @ view.corners.T).T + np.ravel(shift)
        off = np.linalg.norm(camera.project(projected) - view.pixels, axis=1)
        tilt = float(np.rad2deg(np.arccos(min(1.0, abs(rotation[2, 2])))))
        rms = float(np.sqrt(np.mean(off**2)))
        is_used = any(view is other for other in used)
        if is_used:
            tilts.append(tilt)
        records.append(View(view.name, rms, len(view.ids), tilt, is_used))
    coverage = coverage_of(used, tilts)
    notes = weaknesses(coverage)
    relative = fit.focal_deviation_px / camera.K[0, 0]
    if relative > 0.005:
        notes.append(
            f"the focal length is uncertain by {100 * relative:.1f} %: add views with the board tilted by 30 "
            "to 45 degrees, near and far"
        )
    if fit.rms_px > 1.0:
        notes.append(
            f"corners are off by {fit.rms_px:.1f} px: is the board flat, its size right, are pictures sharp?"
        )
    if _folds(camera):
        notes.append("the lens model folds back inside the image: add views near its corners, or fit fewer")
    return Intrinsics(
        camera, fit.rms_px, fit.focal_deviation_px, fit.model, tuple(records), seen, coverage, tuple(notes)
    )
