"""Points of the world from their pixels in two or more calibrated views. Hartley & Zisserman, chapter 12."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera
from calib.projection import fold_radii, intrinsics_of, pixels_and_slopes

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Rays that meet at a smaller angle than this place a point nowhere in particular.
_SMALLEST_ANGLE_RAD = np.deg2rad(0.05)
_STEPS = 15
_SETTLED = 1e-10


def triangulate(cameras: Mapping[str, Camera], pixels: Mapping[str, ArrayLike]) -> Floats:
    """(3,) the world point whose projections are closest to its pixels, metres.

    pixels: by view, (2,) each, as delivered. NaN where fewer than two known cameras see it, where the rays
    are as good as parallel, and where it would be behind one of the cameras.
    """
    result: Floats = triangulate_all(cameras, [pixels])[0]
    return result


def triangulate_all(
    cameras: Mapping[str, Camera], points: Sequence[Mapping[str, ArrayLike]], *, exact: bool = True
) -> Floats:
    """(P, 3) places of P points, each given by its pixels as for `triangulate`, all at once.

    exact: False takes the places nearest to all rays, which are as good for a start.
    """
    names = list(cameras)
    number = {name: index for index, name in enumerate(names)}
    clicks = [
        (index, number[view], pixel)
        for index, point in enumerate(points)
        for view, pixel in point.items()
        if view in number
    ]
    which = np.array([click[0] for click in clicks], dtype=np.intp)
    by = np.array([click[1] for click in clicks], dtype=np.intp)
    pixels = np.array([click[2] for click in clicks], dtype=np.float64).reshape(-1, 2)
    rays = np.full((len(clicks), 3), np.nan)
    for index, name in enumerate(names):
        rays[by == index] = cameras[name].rays(pixels[by == index])
    met = np.isfinite(rays).all(axis=1)
    which, by, pixels, rays = which[met], by[met], pixels[met], rays[met]
    centres = np.array([camera.centre for camera in cameras.values()]).reshape(-1, 3)
    places = _nearest_to_rays(len(points), which, rays, centres[by])
    if exact:
        places = _least_pixels(list(cameras.values()), places, which, by, pixels)
    for index, camera in enumerate(cameras.values()):
        chosen = which[by == index]
        behind = ~(camera.depth(places[chosen]) > 0)
        places[chosen[behind]] = np.nan
    return places


def _nearest_to_rays(count: int, which: NDArray[np.intp], rays: Floats, centres: Floats) -> Floats:
    across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
    normal, right = np.zeros((count, 3, 3)), np.zeros((count, 3))
    np.add.at(normal, which, across)
    np.add.at(right, which, np.einsum("nij,nj->ni", across, centres))
    # The smallest eigenvalue is the sum of squared sines to the common direction.
    good = np.linalg.eigvalsh(normal)[:, 0] >= np.sin(_SMALLEST_ANGLE_RAD / 2) ** 2
    good &= np.bincount(which, minlength=count) >= 2
    places = np.full((count, 3), np.nan)
    places[good] = np.linalg.solve(normal[good], right[good][..., None])[..., 0]
    return places


def _least_pixels(
    cameras: list[Camera], places: Floats, which: NDArray[np.intp], by: NDArray[np.intp], pixels: Floats
) -> Floats:
    """Gauss-Newton on the pixels, each point on its own; one for which a step does not help stays."""
    if not cameras:
        return places
    turns, shifts = np.stack([one.R for one in cameras]), np.stack([one.t for one in cameras])
    intrinsics = np.stack([intrinsics_of(one) for one in cameras])
    skews = np.array([one.K[0, 1] for one in cameras])
    folds = fold_radii(intrinsics[:, 4:])
    count = len(places)

    def parts(at: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """Costs (P,), JᵀJ (P, 3, 3), Jᵀr (P, 3)."""
        view = by[rows]
        in_camera = np.einsum("nij,nj->ni", turns[view], at[which[rows]]) + shifts[view]
        predicted, by_point, _ = pixels_and_slopes(in_camera, intrinsics[view], skews[view], folds[view])
        error = predicted - pixels[rows]
        slopes = by_point @ turns[view]
        cost, square, gradient = np.zeros(count), np.zeros((count, 3, 3)), np.zeros((count, 3))
        np.add.at(cost, which[rows], np.sum(error**2, axis=1))
        np.add.at(square, which[rows], np.swapaxes(slopes, 1, 2) @ slopes)
        np.add.at(gradient, which[rows], np.einsum("nij,ni->nj", slopes, error))
        return cost, square, gradient

    going: Flags = np.asarray(np.isfinite(places).all(axis=1))
    rows = np.flatnonzero(going[which])
    cost, square, gradient = parts(places, rows)
    for _ in range(_STEPS):
        if not going.any():
            break
        at = np.flatnonzero(going)
        floor = 1e-12 * np.trace(square[at], axis1=1, axis2=2)[:, None, None] * np.eye(3)
        step = np.linalg.solve(square[at] + floor, gradient[at][..., None])[..., 0]
        moved = places.copy()
        moved[at] -= step
        rows = np.flatnonzero(going[which])
        next_cost, next_square, next_gradient = parts(moved, rows)
        better: Flags = going & (next_cost < cost)
        places[better] = moved[better]
        going = better & (cost - next_cost > _SETTLED * cost)
        cost, square, gradient = next_cost, next_square, next_gradient
    return places
