"""Brown-Conrady lens distortion on normalised image coordinates (x/z, y/z), in OpenCV's order k1, k2, p1, p2,
k3.

The polynomial is only meaningful as far as it grows with the radius. Beyond that radius it folds back and
would put points from far outside the field of view into the picture, so `radius_limit` bounds it and points
beyond give NaN.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Newton's start comes from a table of the radial part; a pixel's normalised radius is below 6 for any field
# of view under 160°.
_TABLE_RADIUS = 6.0
_TABLE_SIZE = 512
_NEWTON_STEPS = 8
# Normalised units: with focal lengths below 10^4 px this is under 1e-8 px.
_CONVERGED = 1e-12


def radius_limit(coefficients: Floats) -> float:
    """Undistorted radius up to which the distortion grows with the radius in every direction (inf if
    everywhere).

    The radial component of the distorted point in direction u is r + k1 r³ + k2 r⁵ + k3 r⁷ + 3 r² (p2 u_x +
    p1 u_y). Its derivative is smallest where u points against (p2, p1), which leaves one polynomial in r;
    the limit is its first positive root. It is solved in 1/r, where it is monic however small the
    coefficients are.
    """
    k1, k2, p1, p2, k3 = coefficients
    roots = np.roots([1.0, -6 * np.hypot(p1, p2), 3 * k1, 0.0, 5 * k2, 0.0, 7 * k3])
    real = roots[np.abs(roots.imag) <= 1e-9 * np.abs(roots)].real
    largest = float(real.max(initial=0.0))
    return 1 / largest if largest > 1e-6 else float("inf")


def _radial(coefficients: Floats, radius: Floats) -> Floats:
    k1, k2, _, _, k3 = coefficients
    squared = radius * radius
    result: Floats = radius * (1 + squared * (k1 + squared * (k2 + squared * k3)))
    return result


def radial_table(coefficients: Floats, limit: float) -> Floats:
    """(2, N): distorted and undistorted radii, both ascending, from which `undistort` starts."""
    undistorted = np.linspace(0.0, min(limit, _TABLE_RADIUS), _TABLE_SIZE)
    # The tangential terms are left to Newton; where they shorten the limit the radial part alone still grows.
    return np.stack([_radial(coefficients, undistorted), undistorted])


def distort(coefficients: Floats, limit: float, points: Floats) -> Floats:
    """Normalised (..., 2) -> distorted normalised (..., 2); NaN beyond `limit`. OpenCV's model (calib3d
    documentation).
    """
    k1, k2, p1, p2, k3 = coefficients
    x, y = points[..., 0], points[..., 1]
    squared = x * x + y * y
    radial = 1 + squared * (k1 + squared * (k2 + squared * k3))
    product = 2 * x * y
    result = np.empty_like(points)
    result[..., 0] = x * radial + p1 * product + p2 * (squared + 2 * x * x)
    result[..., 1] = y * radial + p2 * product + p1 * (squared + 2 * y * y)
    if np.isfinite(limit):
        result[squared > limit * limit] = np.nan
    return result


def undistort(coefficients: Floats, limit: float, table: Floats, points: Floats) -> Floats:
    """Distorted normalised (..., 2) -> normalised (..., 2), by Newton's method; NaN where no point within
    `limit` lands.
    """
    k1, k2, p1, p2, k3 = coefficients
    target_x, target_y = points[..., 0], points[..., 1]
    distorted_radius = np.hypot(target_x, target_y)
    start = np.interp(distorted_radius, table[0], table[1]) / np.maximum(distorted_radius, 1e-300)
    start = np.where(distorted_radius > 0, start, 1.0)
    x, y = target_x * start, target_y * start
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for _ in range(_NEWTON_STEPS):
            squared = x * x + y * y
            radial = 1 + squared * (k1 + squared * (k2 + squared * k3))
            slope = 2 * (k1 + squared * (2 * k2 + squared * 3 * k3))  # d radial / d squared, times 2
            error_x = x * radial + 2 * p1 * x * y + p2 * (squared + 2 * x * x) - target_x
            error_y = y * radial + 2 * p2 * x * y + p1 * (squared + 2 * y * y) - target_y
            if np.nanmax(np.abs(error_x) + np.abs(error_y), initial=0.0) < 0.01 * _CONVERGED:
                break
            xx = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x
            xy = slope * x * y + 2 * p1 * x + 2 * p2 * y
            yy = radial + slope * y * y + 2 * p2 * x + 6 * p1 * y
            determinant = xx * yy - xy * xy
            x = x - (yy * error_x - xy * error_y) / determinant
            y = y - (xx * error_y - xy * error_x) / determinant
        result = np.stack([x, y], axis=-1)
        back = distort(coefficients, limit * (1 + 1e-9), result)
        scale = 1 + distorted_radius
        good = np.abs(back - points).max(axis=-1) < _CONVERGED * scale
    result[~good] = np.nan
    return result
