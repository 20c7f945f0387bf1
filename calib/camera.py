"""The camera model, and with it every geometric convention of the project.

World: metres, right-handed, z up, ground z = 0. Camera: OpenCV axes (x right, y down, z forward), x_camera =
R x_world + t. Pixel centres at integer coordinates: (0, 0) is the centre of the top-left pixel and the image
covers [-½, width - ½), so resizing by s maps x to s (x + ½) - ½. Points are (x, y), arrays (height, width).
Hartley & Zisserman, chapter 6.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.distortion import distort, radial_table, radius_limit, undistort
from calib.errors import CalibError

Floats = NDArray[np.float64]

# cv2.remap addresses pixels with signed 16-bit integers.
_LARGEST_SIDE = 32_767
_ORTHONORMAL_TOLERANCE = 1e-6
# Nearer than this a point is at the camera centre, apart from rounding, and has no direction.
_NEAREST_M = 1e-9
# Far enough outside any image that bilinear sampling touches none of its pixels.
_NOWHERE_PX = -16.0


def _constant(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Floats:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibError(f"camera {name} is not a table of numbers: give {shape} numbers") from error
    if array.shape != shape:
        raise CalibError(f"camera {name} has shape {array.shape}: give {shape}")
    if not np.isfinite(array).all():
        raise CalibError(f"camera {name} holds NaN or infinity: give finite numbers")
    array.setflags(write=False)
    return array


def nearest_rotation(matrix: ArrayLike) -> Floats:
    """The rotation (3, 3) closest to `matrix` in the Frobenius norm, for files that print R with few digits.

    Raises CalibError if `matrix` is further than 1e-2 from it, or mirrors (det < 0): then it is no rotation
    at all.
    """
    given = _constant("R", matrix, (3, 3))
    left, _, right = np.linalg.svd(given)
    rotation: Floats = left @ right
    if np.linalg.det(rotation) < 0 or np.abs(rotation - given).max() > 1e-2:
        raise CalibError(
            "camera R is not a rotation (R Rᵀ = 1, det R = +1): check the axes and the order of the numbers"
        )
    return rotation


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """One calibrated camera: K (3, 3) pixels, R (3, 3), t (3,) metres, distortion (5,) k1, k2, p1, p2, k3,
    size in pixels.

    Arrays are copied, read-only float64. Raises CalibError when made from anything that is not a calibrated
    camera.
    """

    K: Floats
    R: Floats
    t: Floats
    distortion: Floats
    width: int
    height: int
    _limit: float = field(init=False, repr=False)
    _table: Floats = field(init=False, repr=False)
    _inverse_K: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, shape in (("K", (3, 3)), ("R", (3, 3)), ("t", (3,)), ("distortion", (5,))):
            object.__setattr__(self, name, _constant(name, getattr(self, name), shape))
        K, R = self.K, self.R
        if K[0, 0] <= 0 or K[1, 1] <= 0 or K[1, 0] != 0 or tuple(K[2]) != (0.0, 0.0, 1.0):
            raise CalibError(
                "camera K is not [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0: check the intrinsics"
            )
        if np.abs(R @ R.T - np.eye(3)).max() > _ORTHONORMAL_TOLERANCE:
            raise CalibError(
                "camera R is not orthonormal within 1e-6: give more digits (see nearest_rotation)"
            )
        if np.linalg.det(R) < 0:
            raise CalibError(
                "camera R mirrors the world (det R = -1): the axes are left-handed, flip one of them"
            )
        for name in ("width", "height"):
            size = getattr(self, name)
            if (
                isinstance(size, bool)
                or not isinstance(size, (int, np.integer))
                or not 1 <= size <= _LARGEST_SIDE
            ):
                raise CalibError(f"camera {name} is {size!r}: give whole pixels, 1 to {_LARGEST_SIDE}")
            object.__setattr__(self, name, int(size))
        limit = radius_limit(self.distortion)
        object.__setattr__(self, "_limit", limit)
        object.__setattr__(self, "_table", radial_table(self.distortion, limit))
        object.__setattr__(self, "_inverse_K", np.linalg.inv(K))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Camera):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple[object, ...]:
        # + 0.0 so that -0.0 and 0.0, which are equal, have equal bytes.
        arrays = (self.K, self.R, self.t, self.distortion)
        return (*((array + 0.0).tobytes() for array in arrays), self.width, self.height)

    @property
    def is_pinhole(self) -> bool:
        """Whether the distortion is zero."""
        return not self.distortion.any()

    @property
    def centre(self) -> Floats:
        """(3,) the camera centre -Rᵀt in the world, metres."""
        result: Floats = -self.R.T @ self.t
        return result

    @property
    def P(self) -> Floats:
        """(3, 4) projection matrix K [R | t] of the undistorted camera."""
        result: Floats = self.K @ np.column_stack([self.R, self.t])
        return result

    def depth(self, points: ArrayLike) -> Floats:
        """World points (..., 3) -> (...) z in the camera's frame, metres; negative behind the camera."""
        result: Floats = np.asarray(points, dtype=np.float64) @ self.R[2] + self.t[2]
        return result

    def project(self, points: ArrayLike) -> Floats:
        """World points (..., 3) in metres -> pixels (..., 2).

        NaN for points behind the camera and for points so far outside the field of view that the lens model
        has no answer for them (its polynomial would fold them back into the picture).
        """
        in_camera = np.asarray(points, dtype=np.float64) @ self.R.T + self.t
        depth = in_camera[..., 2:]
        with np.errstate(divide="ignore", invalid="ignore"):
            normalised = np.where(depth > _NEAREST_M, in_camera[..., :2] / depth, np.nan)
            return self._pixels(normalised)

    def _pixels(self, normalised: Floats) -> Floats:
        if not self.is_pinhole:
            normalised = distort(self.distortion, self._limit, normalised)
        result: Floats = normalised @ self.K[:2, :2].T + self.K[:2, 2]
        return result

    def _normalised(self, pixels: ArrayLike) -> Floats:
        inverse = self._inverse_K
        normalised: Floats = np.asarray(pixels, dtype=np.float64) @ inverse[:2, :2].T + inverse[:2, 2]
        if not self.is_pinhole:
            normalised = undistort(self.distortion, self._limit, self._table, normalised)
        return normalised

    def rays(self, pixels: ArrayLike) -> Floats:
        """Pixels (..., 2) -> (..., 3) unit directions in the world, from the camera centre outwards.

        NaN where no ray of the lens model reaches the pixel.
        """
        directions = self._normalised(pixels) @ self.R[:2] + self.R[2]  # Rᵀ (x, y, 1)
        result: Floats = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        return result

    def back_project(self, pixels: ArrayLike, z: ArrayLike = 0.0) -> Floats:
        """Pixels (..., 2) -> world points (..., 3) on the horizontal plane at height `z` metres (a number, or
        one each).

        NaN where the ray never meets the plane in front of the camera (above the horizon) and where no ray of
        the lens model reaches the pixel.
        """
        normalised = self._normalised(pixels)
        rays = normalised @ self.R[:2] + self.R[2]  # Rᵀ (x, y, 1): directions in the world
        centre = self.centre
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = (np.asarray(z, dtype=np.float64) - centre[2]) / rays[..., 2]
            steps = np.where((steps > 0) & np.isfinite(steps), steps, np.nan)
        points: Floats = centre + rays * steps[..., None]
        points[..., 2] = np.where(np.isnan(steps), np.nan, z)
        return points

    def inside(self, pixels: ArrayLike) -> NDArray[np.bool_]:
        """Pixels (..., 2) -> (...) whether they lie on the image, [-½, width - ½) by [-½, height - ½); NaN is
        outside.
        """
        array = np.asarray(pixels, dtype=np.float64)
        x, y = array[..., 0], array[..., 1]
        result: NDArray[np.bool_] = (
            (x >= -0.5) & (x < self.width - 0.5) & (y >= -0.5) & (y < self.height - 0.5)
        )
        return result

    def undistorted(self) -> Self:
        """The pinhole camera with the same K, R, t and size and zero distortion."""
        return type(self)(self.K, self.R, self.t, np.zeros(5), self.width, self.height)

    def resized(self, width: int, height: int) -> Self:
        """The camera of this image resized to width × height pixels. CalibError if the aspect differs."""
        self._require_aspect(width, height)
        scale_x, scale_y = width / self.width, height / self.height
        resized_from_self = np.array(
            [[scale_x, 0.0, (scale_x - 1) / 2], [0.0, scale_y, (scale_y - 1) / 2], [0.0, 0.0, 1.0]]
        )
        return type(self)(resized_from_self @ self.K, self.R, self.t, self.distortion, width, height)

    def cropped(self, x: int, y: int, width: int, height: int) -> Self:
        """The camera of the image part whose top-left pixel is (x, y). CalibError if it is not inside this
        image.
        """
        if x < 0 or y < 0 or x + width > self.width or y + height > self.height:
            raise CalibError(
                f"crop {width}x{height} at ({x}, {y}) is not inside the {self.width}x{self.height} image: "
                "choose a part of it"
            )
        K = self.K.copy()
        K[:2, 2] -= (x, y)
        return type(self)(K, self.R, self.t, self.distortion, width, height)

    def remap_to(self, target: Self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Maps (map_x, map_y), each float32 (target.height, target.width), for `cv2.remap` of this camera's
        image.

        The result is the image that `target`, a pinhole camera at the same place, would have taken. Pixels
        that this camera does not see point outside the image. CalibError if `target` is distorted, elsewhere,
        or of another aspect ratio.
        """
        if not target.is_pinhole:
            raise CalibError(
                "remap target has lens distortion: give camera.undistorted() (resized or cropped as needed)"
            )
        if np.abs(target.R - self.R).max() > 1e-9 or np.abs(target.t - self.t).max() > 1e-9:
            raise CalibError(
                "remap target has another R or t: an image can only be remapped to a camera at the same place"
            )
        self._require_aspect(target.width, target.height)
        x, y = np.meshgrid(
            np.arange(target.width, dtype=np.float64), np.arange(target.height, dtype=np.float64)
        )
        source = self._pixels(target._normalised(np.stack([x, y], axis=-1)))
        source = np.clip(
            np.nan_to_num(source, nan=_NOWHERE_PX), _NOWHERE_PX, (self.width + 16.0, self.height + 16.0)
        )
        maps = source.astype(np.float32)
        return np.ascontiguousarray(maps[..., 0]), np.ascontiguousarray(maps[..., 1])

    def _require_aspect(self, width: int, height: int) -> None:
        # Within one pixel of the size that keeps the ratio, because whole pixels are rounded.
        if (
            width < 1
            or height < 1
            or abs(width * self.height - height * self.width) > max(self.width, self.height)
        ):
            raise CalibError(
                f"{width}x{height} has another aspect ratio than the calibrated {self.width}x{self.height}: "
                "use the stream this camera was calibrated on, or calibrate again at this size"
            )
