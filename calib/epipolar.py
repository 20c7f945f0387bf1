"""Two views of one scene: fundamental matrix, epipolar lines, and soft weights around them.

Shape letters: H0 W0 the first view (the reference), Hi Wi the second.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera
from calib.errors import CalibError

Floats = NDArray[np.float64]
# Beyond this many standard deviations a Gaussian is below 4e-4 of its peak.
_KERNEL_SIGMAS = 4.0


def fundamental_matrix(first: Camera, second: Camera) -> Floats:
    """(3, 3) F with x_secondᵀ F x_first = 0 for pixels of the same point, Frobenius norm 1. Hartley &
    Zisserman 9.6.

    CalibError if a camera has lens distortion (F relates straight rays) or both have the same centre.
    """
    if not (first.is_pinhole and second.is_pinhole):
        raise CalibError("fundamental_matrix needs pinhole cameras: give camera.undistorted() of both")
    second_from_first = second.R @ first.R.T
    x, y, z = second.t - second_from_first @ first.t
    if x * x + y * y + z * z < 1e-18:
        raise CalibError(
            "both cameras have the same centre, so there is no epipolar geometry: check the positions"
        )
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    F: Floats = np.linalg.inv(second.K).T @ cross @ second_from_first @ np.linalg.inv(first.K)
    F /= np.linalg.norm(F)
    return F


def epipolar_lines(F: ArrayLike, points: ArrayLike) -> Floats:
    """Pixels (..., 2) of the first view -> lines (..., 3) a x + b y + c = 0 in the second, with a² + b² = 1.

    |a x + b y + c| is then the distance in pixels. NaN where the point is the epipole, which has no line.
    """
    pixels = np.asarray(points, dtype=np.float64)
    F = np.asarray(F, dtype=np.float64)
    lines: Floats = pixels @ F[:, :2].T + F[:, 2]
    length = np.hypot(lines[..., 0], lines[..., 1])[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(length > 0, lines / length, np.nan)


def _places(shape: tuple[int, int]) -> Floats:
    """(H·W, 2) pixels (x, y) of every place, row by row."""
    rows, columns = shape
    x, y = np.meshgrid(np.arange(columns, dtype=np.float64), np.arange(rows, dtype=np.float64))
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def _check_sigma(sigma_px: float) -> None:
    if not (np.isfinite(sigma_px) and sigma_px > 0):
        raise CalibError(f"sigma_px is {sigma_px!r}: give a positive number of pixels")


def line_mask(line: Floats, shape: tuple[int, int]) -> NDArray[np.float32]:
    """(3,) -> (H, W): 1 on the line, one pixel wide, 0 elsewhere; all zero for the NaN line of an epipole."""
    a, b, c = line
    rows, columns = shape
    mask = np.zeros(shape, dtype=np.float32)
    if np.isnan(a):
        return mask
    if abs(b) >= abs(a):  # closer to horizontal: one pixel per column
        x = np.arange(columns)
        y = np.rint(-(a * x + c) / b)
        hit = (y >= 0) & (y < rows)
        mask[y[hit].astype(np.intp), x[hit]] = 1.0
    else:
        y = np.arange(rows)
        x = np.rint(-(b * y + c) / a)
        hit = (x >= 0) & (x < columns)
        mask[y[hit], x[hit].astype(np.intp)] = 1.0
    return mask


def epipolar_weights(
    F: ArrayLike, first_shape: tuple[int, int], second_shape: tuple[int, int], sigma_px: float
) -> NDArray[np.float32]:
    """float32 (H0·W0, Hi, Wi): for each place of the first view its line in the second, convolved with a 2D
    Gaussian.

    Paper Eq. 17 (mask M_i: 1 on the epipolar line, 0 elsewhere, then blurred by σ). F is in the pixels of
    these shapes. The Gaussian is scaled so that a level line weighs 1 on itself; a slanting one weighs
    max(|a|, |b|), because that many of its one-pixel steps fall on a pixel length. The paper leaves the
    scale open; it only multiplies the correlation.
    """
    _check_sigma(sigma_px)
    radius = max(1, int(np.ceil(_KERNEL_SIGMAS * sigma_px)))
    gaussian = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    # Along one axis the sum is 1, along the other the peak is 1; which is which does not matter to the
    # product.
    along = gaussian / gaussian.sum()
    lines = epipolar_lines(F, _places(first_shape))
    weights = np.empty((len(lines), *second_shape), dtype=np.float32)
    for place, line in enumerate(lines):
        cv2.sepFilter2D(
            line_mask(line, second_shape),
            cv2.CV_32F,
            along,
            gaussian,
            weights[place],
            borderType=cv2.BORDER_CONSTANT,
        )
    return weights


def distance_weights(
    F: ArrayLike, first_shape: tuple[int, int], second_shape: tuple[int, int], sigma_px: float
) -> NDArray[np.float32]:
    """float32 (H0·W0, Hi, Wi): exp(-d²/2σ²), d the distance in pixels to the epipolar line; 0 for an epipole.

    The closed form of `epipolar_weights`: convolving an unbroken line with a 2D Gaussian leaves a 1D
    Gaussian of the distance. It differs from the mask by the factor max(|a|, |b|) of the one-pixel steps
    and within 4σ of the image border, where the mask's line is cut off. It is what a graph can compute from
    F without a stored mask.
    """
    _check_sigma(sigma_px)
    lines = epipolar_lines(F, _places(first_shape))
    places = _places(second_shape)
    distance = lines[:, :2] @ places.T + lines[:, 2:]
    weights = np.exp(-0.5 * (distance / sigma_px) ** 2)
    return np.nan_to_num(weights, nan=0.0).astype(np.float32).reshape(-1, *second_shape)
