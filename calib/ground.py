"""The ground plane: grids with a metric origin, sampling grids from ground to view, homographies.

Shape letters: Hg, Wg rows and columns of the ground grid, Z heights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera
from calib.errors import CalibError

Floats = NDArray[np.float64]

# Average height of a person, where all of one is projected onto a single plane (Zhang & Chan, CVPR 2019).
PERSON_M = 1.75
# Stands for the distance of what a camera sees above the horizon.
FAR_M = 1e6


@dataclass(frozen=True, slots=True)
class GroundGrid:
    """Cells on the ground z = 0: row r and column c cover [origin + (c, r)·cell, origin + (c + 1, r +
    1)·cell) in (x, y).

    The origin is the grid's corner of smallest x and y, in metres; rows run along y, columns along x.
    """

    origin_x_m: float
    origin_y_m: float
    cell_m: float
    columns: int
    rows: int

    def __post_init__(self) -> None:
        for name in ("origin_x_m", "origin_y_m", "cell_m"):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float, np.number))
                or not math.isfinite(value)
            ):
                raise CalibError(f"ground {name} is {value!r}: give a finite number of metres")
            object.__setattr__(self, name, float(value))
        if self.cell_m <= 0:
            raise CalibError(f"ground cell_m is {self.cell_m!r}: give a positive size in metres, such as 0.2")
        for name in ("columns", "rows"):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, np.integer))
                or not 1 <= value <= 100_000
            ):
                raise CalibError(f"ground {name} is {value!r}: give a whole number of cells from 1")
            object.__setattr__(self, name, int(value))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns

    def centres(self) -> Floats:
        """(rows, columns, 2) metres (x, y): the centre of cell (r, c) is origin + ((c + ½)·cell, (r +
        ½)·cell).
        """
        x = self.origin_x_m + (np.arange(self.columns) + 0.5) * self.cell_m
        y = self.origin_y_m + (np.arange(self.rows) + 0.5) * self.cell_m
        return np.stack(np.meshgrid(x, y), axis=-1)

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Points (..., ≥2) in metres, (x, y) first -> (...) whether they lie on the grid; NaN does not."""
        row, column = self._row_column(points)
        result: NDArray[np.bool_] = (row >= 0) & (row < self.rows) & (column >= 0) & (column < self.columns)
        return result

    def cell_of(self, points: ArrayLike) -> NDArray[np.int64]:
        """Points (..., ≥2) in metres -> (..., 2) the (row, column) they lie in, which may be off the grid;
        NaN gives -1.
        """
        cells = np.stack(self._row_column(points), axis=-1)
        finite = np.isfinite(cells).all(axis=-1, keepdims=True)
        return np.where(finite, np.clip(np.where(finite, cells, 0), -1e9, 1e9), -1).astype(np.int64)

    def _row_column(self, points: ArrayLike) -> tuple[Floats, Floats]:
        array = np.asarray(points, dtype=np.float64)
        row = np.floor((array[..., 1] - self.origin_y_m) / self.cell_m)
        column = np.floor((array[..., 0] - self.origin_x_m) / self.cell_m)
        return row, column

    def coarser(self, factor: int) -> Self:
        """The grid of the same extent with cells `factor` times as large. CalibError if rows or columns don't
        divide.
        """
        if factor < 1 or self.columns % factor or self.rows % factor:
            raise CalibError(
                f"ground grid of {self.rows}x{self.columns} cells cannot be made {factor} times coarser: "
                f"choose rows and columns that {factor} divides"
            )
        return type(self)(
            self.origin_x_m,
            self.origin_y_m,
            self.cell_m * factor,
            self.columns // factor,
            self.rows // factor,
        )

    def with_cells(self, cell_m: float) -> Self:
        """About the same piece of ground, not less, in cells of `cell_m` metres: as many rows and columns as
        it takes, even numbers of both, around the same middle.
        """
        sides = [2 * math.ceil(n * self.cell_m / cell_m / 2 - 1e-9) for n in (self.columns, self.rows)]
        corner = (
            self.origin_x_m + (self.columns * self.cell_m - sides[0] * cell_m) / 2,
            self.origin_y_m + (self.rows * self.cell_m - sides[1] * cell_m) / 2,
        )
        return type(self)(*corner, cell_m, *sides)


def _require_pinhole(camera: Camera, wanted_by: str) -> None:
    if not camera.is_pinhole:
        raise CalibError(
            f"{wanted_by} needs a pinhole camera but this one has lens distortion: give camera.undistorted()"
        )


def view_from_ground(camera: Camera, grid: GroundGrid, heights_m: Sequence[float]) -> NDArray[np.float32]:
    """Where each ground cell, at each height above it, is seen: float32 (Z, Hg, Wg, 2) for `grid_sample`.

    Coordinates are normalised for align_corners=False: x_n = (2x + 1)/W - 1, so that they hold at any
    resolution of the same image. Values are clipped to [-2, 2] (outside the image is outside), and both are
    -2 for points behind the camera. CalibError if the camera has lens distortion.
    """
    _require_pinhole(camera, "view_from_ground")
    heights = np.asarray(heights_m, dtype=np.float64)
    if heights.ndim != 1 or not heights.size or not np.isfinite(heights).all():
        raise CalibError(
            "heights_m must be one or more finite heights in metres, such as [0, 0.6, 1.2, 1.75]"
        )
    points = np.empty((heights.size, grid.rows, grid.columns, 3))
    points[..., :2] = grid.centres()
    points[..., 2] = heights[:, None, None]
    pixels = camera.project(points)
    normalised = (2 * pixels + 1) / (camera.width, camera.height) - 1
    return np.clip(np.nan_to_num(normalised, nan=-2.0), -2.0, 2.0).astype(np.float32)


def person_plane(heights_m: Sequence[float]) -> int:
    """Which of a scene's heights is nearest to a person's, PERSON_M."""
    return int(np.argmin(np.abs(np.asarray(heights_m, dtype=np.float64) - PERSON_M)))


def place_distances(camera: Camera, z: float) -> NDArray[np.float32]:
    """(height, width): how far from the camera the plane at height z is along each pixel's ray, metres; FAR_M
    where the ray never meets it. CalibError if the camera has lens distortion.
    """
    _require_pinhole(camera, "place_distances")
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    seen = camera.back_project(np.stack([x, y], axis=-1), z)
    distance = np.linalg.norm(seen - camera.centre, axis=-1)
    result: NDArray[np.float32] = np.minimum(np.nan_to_num(distance, nan=FAR_M), FAR_M).astype(np.float32)
    return result


def ground_from_image(camera: Camera, z: float = 0.0) -> Floats:
    """(3, 3) homography from pixels (x, y, 1) to (x, y, 1)·w on the plane at height z, metres. Hartley &
    Zisserman 8.1.1.

    It keeps its scale: w is one over the depth of the ground point, so w > 0 exactly for pixels that see the
    plane in front of the camera. CalibError if the camera is distorted or lies in the plane.
    """
    _require_pinhole(camera, "ground_from_image")
    P = camera.P
    image_from_ground = np.column_stack([P[:, 0], P[:, 1], P[:, 2] * z + P[:, 3]])
    if abs(camera.centre[2] - z) < 1e-9:
        raise CalibError(
            f"camera centre lies in the plane z = {z} m, which it sees as a line: check the camera's height"
        )
    result: Floats = np.linalg.inv(image_from_ground).astype(np.float64)
    return result
