"""One camera fitted to points, without judging them: a start from the points alone, then least squares.

`extrinsics` decides which points to believe.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from calib.camera import Camera
from calib.projection import crosses, fold_radii, intrinsics_of, left_jacobians, pixels_and_slopes, rotations

Floats = NDArray[np.float64]
Unknown = Literal["pose", "focal", "focal+k1"]

_NEEDED = {"pose": 4, "focal": 6, "focal+k1": 8}
# Focal lengths in widths of the image: fish-eye to a long lens.
_FOCALS = np.geomspace(0.35, 6.0, 10)
_K1S = (0.0, -0.25)
_BEHIND_PX = 1e6


def needed(unknown: Unknown) -> int:
    """How many points it takes."""
    return _NEEDED[unknown]


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A camera on the way: rotation (3, 3), translation (3,) m, intrinsics (9,) as in `projection`, skew.

    unknown: what least squares may change; covariance: of (turn 3 rad, translation 3 m, ln focal, k1), as far
    as they are unknown, for clicks that are right to 1 px or to what they showed; cost: sum of squares, px².
    """

    rotation: Floats
    translation: Floats
    intrinsics: Floats
    skew: float
    unknown: Unknown
    cost: float = np.inf
    covariance: Floats | None = None

    @property
    def focal(self) -> float:
        """In x, pixels."""
        return float(self.intrinsics[0])

    @property
    def k1(self) -> float:
        """First radial coefficient."""
        return float(self.intrinsics[4])

    def deviation(self, name: Literal["focal", "k1"]) -> float:
        """One standard deviation: of the focal length as a share of it, of k1 as it is; inf where unknown."""
        row = 6 if name == "focal" else 7
        if self.covariance is None or len(self.covariance) <= row:
            return float("inf")
        return float(np.sqrt(self.covariance[row, row]))

    @property
    def position_deviation_m(self) -> float:
        """One standard deviation of the camera's centre, metres, all directions together."""
        if self.covariance is None:
            return float("inf")
        # c = -Rᵀt with R = exp(w) R0: dc = -Rᵀ (dt + [t]× dw).
        by_pose = np.concatenate([crosses(self.translation[None])[0], np.eye(3)], axis=1)
        spread = by_pose @ self.covariance[:6, :6] @ by_pose.T
        return float(np.sqrt(max(np.trace(spread), 0.0)))

    def distances_px(self, world: Floats, pixels: Floats) -> Floats:
        """World (N, 3), pixels (N, 2) -> (N,) distances; NaN for points behind the camera."""
        in_camera = world @ self.rotation.T + self.translation
        predicted, _, _ = _project(in_camera, self.intrinsics, self.skew)
        distances: Floats = np.linalg.norm(predicted - pixels, axis=1)
        distances[in_camera[:, 2] <= 0] = np.nan
        return distances

    def clipped_cost(self, world: Floats, pixels: Floats, gate_px: float) -> float:
        """Sum of squared distances, px², none counted for more than the gate. Torr & Zisserman's MSAC."""
        distances = np.nan_to_num(self.distances_px(world, pixels), nan=np.inf)
        return float(np.sum(np.minimum(distances, gate_px) ** 2))


def _project(in_camera: Floats, intrinsics: Floats, skew: float) -> tuple[Floats, Floats, Floats]:
    count = len(in_camera)
    fold = fold_radii(intrinsics[None, 4:])
    return pixels_and_slopes(
        in_camera, np.broadcast_to(intrinsics, (count, 9)), np.full(count, skew), np.repeat(fold, count)
    )


def best_start(
    world: Floats,
    pixels: Floats,
    size: tuple[int, int],
    camera: Camera | None,
    unknown: Unknown,
) -> Fit | None:
    """The best of many closed solutions, one for each focal length (and k1) that a lens may have; None where
    no camera has the points in front of it.
    """
    best: Fit | None = None
    for lens in _lenses(size, camera, unknown):
        normalised = lens.rays(pixels)
        with np.errstate(divide="ignore", invalid="ignore"):
            normalised = normalised[:, :2] / normalised[:, 2:]
        if not np.isfinite(normalised).all():
            continue
        for rotation, translation in _poses(world, normalised):
            found = Fit(rotation, translation, intrinsics_of(lens), float(lens.K[0, 1]), unknown)
            distances = np.nan_to_num(found.distances_px(world, pixels), nan=_BEHIND_PX)
            cost = float(distances @ distances)
            if best is None or cost < best.cost:
                best = Fit(rotation, translation, found.intrinsics, found.skew, unknown, cost)
    if best is None or best.cost >= _BEHIND_PX**2:
        return None
    return best


@lru_cache(maxsize=16)
def _lenses(size: tuple[int, int], camera: Camera | None, unknown: Unknown) -> list[Camera]:
    if camera is not None:
        return [Camera(camera.K, np.eye(3), np.zeros(3), camera.distortion, camera.width, camera.height)]
    width, height = size
    lenses = []
    for focal in _FOCALS * max(size):
        for k1 in _K1S if unknown == "focal+k1" else (0.0,):
            K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
            lenses.append(Camera(K, np.eye(3), np.zeros(3), np.array([k1, 0, 0, 0, 0]), width, height))
    return lenses


def robust_starts(
    world: Floats,
    pixels: Floats,
    size: tuple[int, int],
    camera: Camera | None,
    unknown: Unknown,
    gate_px: float,
) -> list[Fit]:
    """For each focal length (and k1) that a lens may have, the pose that most points agree with (RANSAC,
    Fischler & Bolles 1981), ordered by how many do and how well; `fit` with `loss_px` goes on from there.
    """
    found: list[Fit] = []
    for lens in _lenses(size, camera, unknown):
        with np.errstate(divide="ignore", invalid="ignore"):
            rays = lens.rays(pixels)
            normalised = rays[:, :2] / rays[:, 2:]
        known = np.flatnonzero(np.isfinite(normalised).all(axis=1))
        # A focal length between two of those tried is met with a wider gate.
        wide_px = gate_px if camera is not None else 4 * gate_px
        if len(known) < 4:
            continue
        try:
            good, turn, shift, _ = cv2.solvePnPRansac(
                world[known],
                normalised[known],
                np.eye(3),
                None,
                iterationsCount=200,
                reprojectionError=wide_px / float(lens.K[0, 0]),
                confidence=0.9999,
                flags=cv2.SOLVEPNP_SQPNP,
            )
        except cv2.error:
            continue
        if not good or not (np.isfinite(turn).all() and np.isfinite(shift).all()):
            continue
        start = Fit(
            rotations(np.reshape(turn, (1, 3)))[0],
            np.asarray(shift, dtype=np.float64).reshape(3),
            intrinsics_of(lens),
            float(lens.K[0, 1]),
            unknown,
        )
        found.append(replace(start, cost=start.clipped_cost(world, pixels, wide_px)))
    return sorted(found, key=lambda start: start.cost)


def _poses(world: Floats, normalised: Floats) -> list[tuple[Floats, Floats]]:
    """Poses by SQPnP (Terzakis & Lourakis 2020) and, for points on a plane, IPPE's two (Collins & Bartoli
    2014): seen flat, a plane has a twin that is nearly as good.
    """
    methods = [cv2.SOLVEPNP_SQPNP]
    extent = np.linalg.svd(world - world.mean(axis=0), compute_uv=False)
    if extent[2] <= 1e-3 * extent[0]:
        methods.append(cv2.SOLVEPNP_IPPE)
    found: list[tuple[Floats, Floats]] = []
    for method in methods:
        try:
            _, turns, shifts, _ = cv2.solvePnPGeneric(world, normalised, np.eye(3), None, flags=method)
        except cv2.error:
            continue
        for turn, shift in zip(turns, shifts, strict=True):
            if np.isfinite(turn).all() and np.isfinite(shift).all():
                found.append(
                    (rotations(np.reshape(turn, (1, 3)))[0], np.asarray(shift, dtype=np.float64).reshape(3))
                )
    return found


def fit(world: Floats, pixels: Floats, start: Fit, loss_px: float | None = None) -> Fit:
    """Least squares from `start` over what is unknown in it: squared pixel distances of all points; with
    `loss_px`, points further off than that count little (Cauchy's loss).
    """
    unknowns = {"pose": 6, "focal": 7, "focal+k1": 8}[start.unknown]
    turned = world @ start.rotation.T

    def parts(x: Floats) -> tuple[Floats, Floats]:
        intrinsics = start.intrinsics.copy()
        if unknowns > 6:
            intrinsics[:2] *= np.exp(np.clip(x[6], -5, 5))
        if unknowns > 7:
            intrinsics[4] = x[7]
        rotated = turned @ rotations(x[None, :3])[0].T
        predicted, by_point, by_intrinsics = _project(rotated + x[3:6], intrinsics, start.skew)
        slopes = np.empty((len(world), 2, unknowns))
        slopes[:, :, :3] = by_point @ -crosses(rotated) @ left_jacobians(x[None, :3])[0]
        slopes[:, :, 3:6] = by_point
        if unknowns > 6:
            slopes[:, :, 6] = by_intrinsics[:, :, :2] @ intrinsics[:2]
        if unknowns > 7:
            slopes[:, :, 7] = by_intrinsics[:, :, 4]
        return (predicted - pixels).ravel(), slopes.reshape(-1, unknowns)

    x0 = np.concatenate([np.zeros(3), start.translation, [0.0, start.k1]])[:unknowns]
    solution = least_squares(
        lambda x: parts(x)[0],
        x0,
        jac=lambda x: parts(x)[1],
        x_scale="jac",
        method="trf",
        max_nfev=60,
        loss="linear" if loss_px is None else "cauchy",
        f_scale=loss_px or 1.0,
    )
    x = solution.x
    intrinsics = start.intrinsics.copy()
    if unknowns > 6:
        intrinsics[:2] *= np.exp(np.clip(x[6], -5, 5))
    if unknowns > 7:
        intrinsics[4] = x[7]
    # As in `parts`: the deviation of a turn is told as one after the rotation found.
    slopes = solution.jac.copy()
    slopes[:, :3] = slopes[:, :3] @ np.linalg.inv(left_jacobians(x[None, :3])[0])
    cost = 2 * float(solution.cost)
    variance = max(1.0, cost / max(2 * len(world) - unknowns, 1))
    return Fit(
        rotations(x[None, :3])[0] @ start.rotation,
        x[3:6],
        intrinsics,
        start.skew,
        start.unknown,
        cost,
        _covariance(slopes, variance),
    )


def _covariance(slopes: Floats, variance: float) -> Floats | None:
    scale = np.linalg.norm(slopes, axis=0)
    if (scale == 0).any():
        return None
    _, values, right = np.linalg.svd(slopes / scale, full_matrices=False)
    if values[-1] <= 1e-9 * values[0]:
        return None
    half = right.T / values / scale[:, None]
    result: Floats = variance * (half @ half.T)
    return result
