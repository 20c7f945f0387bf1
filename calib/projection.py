"""Projection with its derivatives, for solving: what `Camera.project` does, smooth wherever a solver wanders.

N observations at once, each with its own camera. Where `Camera` has no answer (behind the camera, beyond the
radius where the lens polynomial folds) this goes on smoothly, so that a poor start can find its way back.
"""

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.distortion import radius_limit

Floats = NDArray[np.float64]

# The intrinsics in the order of all arrays here.
INTRINSICS = ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3")
# Nearer than this, and behind the camera, a point is treated as if it were this far in front.
_NEAREST_M = 0.02


def intrinsics_of(camera: Camera) -> Floats:
    """(9,) fx, fy, cx, cy, k1, k2, p1, p2, k3."""
    K = camera.K
    return np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2], *camera.distortion])


def rotations(vectors: Floats) -> Floats:
    """Rotation vectors (N, 3) -> rotations (N, 3, 3). Rodrigues' formula."""
    angle = np.linalg.norm(vectors, axis=-1)[:, None, None]
    cross = crosses(vectors)
    # sin(a)/a and (1 - cos(a))/a², by np.sinc, which knows a = 0.
    half = np.sinc(angle / (2 * np.pi))
    result: Floats = np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * half**2 * (cross @ cross)
    return result


def degrees_between(first: Floats, second: Floats) -> float:
    """Angle, in degrees from 0 to 180, of the turn that takes one rotation (3, 3) to the other."""
    cosine = (np.trace(first @ second.T) - 1) / 2
    return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))


def left_jacobians(vectors: Floats) -> Floats:
    """Rotation vectors (N, 3) -> (N, 3, 3) J with exp(w + δ) ≈ exp(J δ) exp(w). Barfoot, State Estimation for
    Robotics, eq. 7.77.
    """
    angle = np.linalg.norm(vectors, axis=-1)[:, None, None]
    cross = crosses(vectors)
    half = np.sinc(angle / (2 * np.pi))
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    third = np.where(small, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    result: Floats = np.eye(3) + 0.5 * half**2 * cross + third * (cross @ cross)
    return result


def crosses(vectors: Floats) -> Floats:
    """(N, 3) -> (N, 3, 3) matrices [v]× with [v]× u = v × u."""
    result = np.zeros((*vectors.shape[:-1], 3, 3))
    x, y, z = np.moveaxis(vectors, -1, 0)
    result[..., 0, 1], result[..., 0, 2], result[..., 1, 2] = -z, y, -x
    result[..., 1, 0], result[..., 2, 0], result[..., 2, 1] = z, -y, x
    return result


def fold_radii(distortions: Floats) -> Floats:
    """Distortions (M, 5) -> (M,) normalised radii where their polynomials fold; inf where they never do."""
    return np.array([radius_limit(distortion) for distortion in distortions])


def pixels_and_slopes(
    in_camera: Floats, intrinsics: Floats, skews: Floats, folds: Floats
) -> tuple[Floats, Floats, Floats]:
    """Points (N, 3) in the cameras' frames, intrinsics (N, 9), skews (N,), fold radii (N,) -> pixels (N, 2),
    their derivatives by the points (N, 2, 3) and by the intrinsics (N, 2, 9).
    """
    fx, fy, cx, cy, k1, k2, p1, p2, k3 = intrinsics.T
    count = len(in_camera)
    front = in_camera[:, 2] > _NEAREST_M
    depth = np.where(front, in_camera[:, 2], _NEAREST_M)
    x, y = in_camera[:, 0] / depth, in_camera[:, 1] / depth
    true_squared = x * x + y * y
    # Beyond the fold the radial factor stays what it is there.
    within = true_squared < folds * folds
    squared = np.where(within, true_squared, np.minimum(folds, 1e6) ** 2)
    radial = 1 + squared * (k1 + squared * (k2 + squared * k3))
    slope = np.where(within, 2 * (k1 + squared * (2 * k2 + squared * 3 * k3)), 0.0)
    # The tangential part grows without bound as well.
    tangent = np.where(within, 1.0, squared / np.maximum(true_squared, 1e-12))
    a = x * radial + tangent * (2 * p1 * x * y + p2 * (true_squared + 2 * x * x))
    b = y * radial + tangent * (2 * p2 * x * y + p1 * (true_squared + 2 * y * y))
    pixels = np.stack([fx * a + skews * b + cx, fy * b + cy], axis=-1)

    # By the normalised point; beyond the fold the tangential part's own change is left out.
    by_normalised = np.empty((count, 2, 2))
    by_normalised[:, 0, 0] = radial + slope * x * x + tangent * (2 * p1 * y + 6 * p2 * x)
    by_normalised[:, 0, 1] = slope * x * y + tangent * (2 * p1 * x + 2 * p2 * y)
    by_normalised[:, 1, 0] = by_normalised[:, 0, 1]
    by_normalised[:, 1, 1] = radial + slope * y * y + tangent * (2 * p2 * x + 6 * p1 * y)
    focal = np.zeros((count, 2, 2))
    focal[:, 0, 0], focal[:, 0, 1], focal[:, 1, 1] = fx, skews, fy
    by_normalised = focal @ by_normalised
    normalised_by_point = np.zeros((count, 2, 3))
    normalised_by_point[:, 0, 0] = normalised_by_point[:, 1, 1] = 1 / depth
    normalised_by_point[:, 0, 2] = np.where(front, -x / depth, 0.0)
    normalised_by_point[:, 1, 2] = np.where(front, -y / depth, 0.0)

    by_intrinsics = np.zeros((count, 2, 9))
    by_intrinsics[:, 0, 0], by_intrinsics[:, 1, 1] = a, b
    by_intrinsics[:, 0, 2] = by_intrinsics[:, 1, 3] = 1.0
    lens = np.empty((count, 2, 5))  # of (a, b) by k1, k2, p1, p2, k3
    lens[:, 0, 0], lens[:, 1, 0] = x * squared, y * squared
    lens[:, 0, 1], lens[:, 1, 1] = x * squared**2, y * squared**2
    lens[:, 0, 2], lens[:, 1, 2] = tangent * 2 * x * y, tangent * (true_squared + 2 * y * y)
    lens[:, 0, 3], lens[:, 1, 3] = tangent * (true_squared + 2 * x * x), tangent * 2 * x * y
    lens[:, 0, 4], lens[:, 1, 4] = x * squared**3, y * squared**3
    by_intrinsics[:, :, 4:] = focal @ lens
    return pixels, by_normalised @ normalised_by_point, by_intrinsics
