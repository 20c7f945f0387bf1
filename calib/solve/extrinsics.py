"""Where one camera stands, from points whose place in the world and in its image are known.

4 points give the pose of a camera whose intrinsics are known, 6 also the focal length of an unknown one
(square pixels, principal point at the image's centre), 8 also its k1. Pairs that do not fit the rest are left
out and named. Hartley & Zisserman, chapters 7 and 4.7 (robust estimation).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera, nearest_rotation
from calib.errors import CalibError
from calib.solve.resection import Fit, Unknown, best_start, fit, needed, robust_starts

Floats = NDArray[np.float64]
What = Literal["pose", "focal", "focal+k1"]

# A click may be off by this share of the image's diagonal (6.6 px at 1920x1080) before it counts as wrong.
_CLICK_SHARE = 0.003
_SIGMAS = 3.0
_MOST_SUBSETS = 120
_STARTS = 3
# However much the points disagree, one this many times a click's error off is not of the same camera.
_WIDEST = 4.0
# Points thinner than this share of their extent are on a line: turning about it changes next to nothing.
_THINNEST = 0.02
# A focal length less certain than this is a guess.
_WORST_FOCAL = 0.1
_WORST_K1 = 0.15
_LARGEST = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """A camera found from points.

    names: (N,) of the pairs, their numbers where none were given; residuals_px: (N,) distances between clicks
    and projections, NaN behind the camera; outliers: the names of the pairs that were left out; solved: what
    was unknown and is found. position_deviation_m, focal_deviation_px: one standard deviation, as the
    clicks' own disagreement (at least 1 px) makes likely; the second is 0 where the focal length was given.
    notes: what to know about it, one line each.
    """

    camera: Camera
    names: tuple[str, ...]
    residuals_px: Floats
    outliers: tuple[str, ...]
    solved: What
    position_deviation_m: float
    focal_deviation_px: float
    notes: tuple[str, ...]


class _Pairs(NamedTuple):
    world: Floats
    pixels: Floats
    size: tuple[int, int]
    camera: Camera | None
    names: tuple[str, ...]
    gate_px: float


def pose_from_points(
    world: ArrayLike,
    pixels: ArrayLike,
    size: tuple[int, int],
    camera: Camera | None = None,
    names: Sequence[str] | None = None,
) -> Solved:
    """The camera that sees world points (N, 3), metres, at pixels (N, 2) of its image, (width, height).

    camera: gives intrinsics where they are known (its pose is not used); None: focal length and, from 8
    points on, k1 are found too. CalibError where there are too few points, they lie on a line, or no camera
    sees them like this.
    """
    pairs = _checked(world, pixels, size, camera, names)
    count = len(pairs.world)
    unknown: Unknown = "pose" if camera is not None else "focal+k1" if count >= 8 else "focal"
    if count < needed("focal" if unknown != "pose" else "pose"):
        raise CalibError(
            f"{count} point(s) are too few: mark at least 4"
            if camera is not None
            else f"{count} point(s) are too few for a camera whose intrinsics are not known: mark at least "
            "6, 8 for its k1 too, or give its intrinsics, with which 4 are enough"
        )
    _refuse_line(pairs)
    distinct = len(np.unique(pairs.world, axis=0))
    if distinct < needed("focal" if unknown != "pose" else "pose"):
        raise CalibError(f"the {count} points are at only {distinct} different places: mark others as well")
    notes: list[str] = []
    found, kept = _robust(pairs, unknown)
    if unknown == "focal+k1" and (found.deviation("k1") > _WORST_K1 or kept.sum() < 8):
        simpler, kept_simpler = _robust(pairs, "focal")
        if kept_simpler.sum() >= kept.sum() - 1:
            notes.append(
                f"k1 is uncertain by {found.deviation('k1'):.2f} from these points and stays 0: mark points "
                "near the borders of the image"
            )
            found, kept, unknown = simpler, kept_simpler, "focal"
    return _solved(pairs, found, kept, unknown, notes)


def _checked(
    world: ArrayLike,
    pixels: ArrayLike,
    size: tuple[int, int],
    camera: Camera | None,
    names: Sequence[str] | None,
) -> _Pairs:
    try:
        places = np.array(world, dtype=np.float64).reshape(-1, 3)
        marks = np.array(pixels, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise CalibError("points are not numbers: give world (N, 3) and pixels (N, 2)") from None
    if len(places) != len(marks) or (names is not None and len(names) != len(places)):
        raise CalibError(f"{len(places)} world points, {len(marks)} pixels: give one pixel for each point")
    if len(places) > _LARGEST:
        raise CalibError(f"{len(places)} points are too many: give at most {_LARGEST}")
    if not (np.isfinite(places).all() and np.isfinite(marks).all()):
        raise CalibError("points hold NaN or infinity: give finite numbers")
    if camera is not None and (camera.width, camera.height) != tuple(size):
        raise CalibError(
            f"the intrinsics are for {camera.width}x{camera.height}, the points for {size[0]}x{size[1]}: use "
            "pixels of that image size, or camera.resized()"
        )
    called = tuple(names) if names is not None else tuple(str(number) for number in range(len(places)))
    gate = _CLICK_SHARE * float(np.hypot(*size))
    return _Pairs(places, marks, (int(size[0]), int(size[1])), camera, called, gate)


def _refuse_line(pairs: _Pairs) -> None:
    for what, points in (("in the world", pairs.world), ("in the image", pairs.pixels)):
        extent = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if extent[1] <= _THINNEST * extent[0]:
            raise CalibError(
                f"the {len(points)} points lie on a line {what}, which leaves the camera free to turn about "
                "it: mark points beside that line"
            )


def _robust(pairs: _Pairs, unknown: Unknown) -> tuple[Fit, NDArray[np.bool_]]:
    """The fit to the pairs that agree, and which they are (N,)."""
    everything = np.ones(len(pairs.world), dtype=bool)
    found = _fit(pairs, unknown, everything, None)
    if found is not None and (found.distances_px(pairs.world, pairs.pixels) <= pairs.gate_px).all():
        return found, everything
    candidates = [found] if found is not None else []
    if unknown == "pose":
        for chosen in _subsets(len(everything)):
            start = best_start(pairs.world[chosen], pairs.pixels[chosen], pairs.size, pairs.camera, unknown)
            candidates += [start] if start is not None else []
    else:
        starts = robust_starts(pairs.world, pairs.pixels, pairs.size, None, unknown, pairs.gate_px)
        for start in starts[:_STARTS]:
            candidates.append(fit(pairs.world, pairs.pixels, start, pairs.gate_px / 2))
    best = min(
        candidates, key=lambda one: one.clipped_cost(pairs.world, pairs.pixels, pairs.gate_px), default=None
    )
    if best is None:
        raise CalibError(
            f"no camera sees these {len(everything)} points like this: check that each pixel belongs to its "
            "point, and that the world is right-handed (x to y counter-clockwise from above) and in metres"
        )
    kept = everything
    for _ in range(10):
        distances = np.nan_to_num(best.distances_px(pairs.world, pairs.pixels), nan=np.inf)
        spare = max(len(distances) - needed(unknown), 1)
        sigma = 1.4826 * (1 + 5 / spare) * float(np.median(distances))
        # Where points are few, their median says little: the floor decides.
        scatter = _SIGMAS * sigma if np.isfinite(sigma) and len(distances) > 12 else 0.0
        gate = min(max(pairs.gate_px, scatter), _WIDEST * pairs.gate_px)
        now = distances <= gate
        if now.sum() < needed(unknown):
            now = distances <= np.sort(distances)[needed(unknown) - 1]
        fresh = _fit(pairs, unknown, now, best)
        if fresh is None:
            break
        settled = bool((now == kept).all())
        best, kept = fresh, now
        if settled:
            break
    return best, kept


def _subsets(count: int) -> list[list[int]]:
    """Every four of `count` points, or enough of them at random to meet one without a wrong pair."""
    every = list(itertools.islice(itertools.combinations(range(count), 4), _MOST_SUBSETS + 1))
    if len(every) <= _MOST_SUBSETS:
        return [list(chosen) for chosen in every]
    rng = np.random.default_rng(0)
    return [rng.choice(count, 4, replace=False).tolist() for _ in range(_MOST_SUBSETS)]


def _fit(pairs: _Pairs, unknown: Unknown, kept: NDArray[np.bool_], start: Fit | None) -> Fit | None:
    world, pixels = pairs.world[kept], pairs.pixels[kept]
    fresh = best_start(world, pixels, pairs.size, pairs.camera, unknown)
    starts = [candidate for candidate in (start, fresh) if candidate is not None]
    ends = [fit(world, pixels, candidate) for candidate in starts]
    return min(ends, key=lambda end: end.cost, default=None)


def _solved(pairs: _Pairs, found: Fit, kept: NDArray[np.bool_], unknown: Unknown, notes: list[str]) -> Solved:
    distances = found.distances_px(pairs.world, pairs.pixels)
    if kept.sum() < needed(unknown) or kept.sum() <= len(kept) / 2:
        worst = pairs.names[int(np.argmax(np.nan_to_num(distances, nan=np.inf)))]
        raise CalibError(
            f"only {int(kept.sum())} of {len(kept)} pairs agree with any one camera: check that each pixel "
            f"belongs to its point (worst: {worst})"
        )
    worst_kept = float(np.nan_to_num(distances[kept], nan=np.inf).max())
    if not np.isfinite(worst_kept):
        behind = [name for name, far in zip(pairs.names, distances, strict=True) if np.isnan(far)]
        raise CalibError(
            f"point(s) {', '.join(behind)} would lie behind the camera: check their positions and pixels"
        )
    if worst_kept > 3 * pairs.gate_px:
        notes.append(
            f"the points disagree by up to {worst_kept:.0f} px: too few are right to tell which, so mark more"
        )
    focal_deviation = 0.0
    if unknown != "pose":
        relative = found.deviation("focal")
        if not relative < 3 * _WORST_FOCAL:
            raise CalibError(
                "these points leave the focal length open (seen flat from the front, or all far away): mark "
                "points at other depths or heights, or give the intrinsics"
            )
        focal_deviation = relative * found.focal
        if relative > _WORST_FOCAL:
            notes.append(
                f"the focal length is uncertain by {100 * relative:.0f} %: mark points at other depths or "
                "heights, or give the intrinsics"
            )
    camera = _camera(pairs, found)
    if camera.centre[2] < 0 and pairs.world[kept][:, 2].min() > camera.centre[2]:
        notes.append(
            f"the camera comes out {-camera.centre[2]:.1f} m below the ground: are x and y swapped, or one "
            "of them mirrored?"
        )
    wrong = np.flatnonzero(~kept)
    if wrong.size == 1 and len(kept) - 1 <= needed(unknown):
        rivals = _rivals(pairs, unknown, int(wrong[0]))
        if rivals:
            notes.append(
                f"instead of {pairs.names[int(wrong[0])]} it may be {' or '.join(rivals)} that is wrong: "
                "mark another point to tell"
            )
    return Solved(
        camera,
        pairs.names,
        distances,
        tuple(pairs.names[index] for index in wrong),
        unknown,
        found.position_deviation_m,
        focal_deviation,
        tuple(notes),
    )


def _rivals(pairs: _Pairs, unknown: Unknown, wrong: int) -> list[str]:
    """Names of the other points without which the rest would agree just as well."""
    found = []
    for index, name in enumerate(pairs.names):
        kept = np.arange(len(pairs.names)) != index
        other = None if index == wrong else _fit(pairs, unknown, kept, None)
        if other is not None:
            far = other.distances_px(pairs.world[kept], pairs.pixels[kept])
            if (far <= pairs.gate_px).all():
                found.append(name)
    return found


def _camera(pairs: _Pairs, found: Fit) -> Camera:
    rotation = nearest_rotation(found.rotation)
    if pairs.camera is not None:
        given = pairs.camera
        return Camera(given.K, rotation, found.translation, given.distortion, given.width, given.height)
    width, height = pairs.size
    K = [[found.focal, 0, (width - 1) / 2], [0, found.focal, (height - 1) / 2], [0, 0, 1]]
    return Camera(np.array(K), rotation, found.translation, np.array([found.k1, 0, 0, 0, 0]), width, height)
