"""Where unknown things are to begin with: clicked points, and boards that rest somewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.errors import CalibError
from calib.points import MarkedPoint
from calib.solve.extrinsics import pose_from_points
from calib.triangulation import triangulate_all

Floats = NDArray[np.float64]

# Points thinner than this share of their extent are on a line.
_THINNEST = 1e-3
_FAR_M = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class BoardView:
    """One camera's view of a board. corners: (N, 3) metres in the board's frame; pixels: (N, 2).

    placement names where the board was: views of one placement, in whatever cameras and at whatever times,
    are of a board that did not move between them. One in the hand has a placement of its own in every frame
    of every camera. CalibError when made from fewer than 4 corners or from corners on a line.
    """

    camera: str
    placement: str
    corners: Floats
    pixels: Floats

    def __post_init__(self) -> None:
        for name, width in (("corners", 3), ("pixels", 2)):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.ndim != 2 or array.shape[1] != width or not np.isfinite(array).all():
                raise CalibError(
                    f"board {self.placement} in camera {self.camera}: {name} must be (N, {width}) numbers"
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if len(self.corners) != len(self.pixels) or len(self.corners) < 4 or not is_spread(self.corners):
            raise CalibError(
                f"board {self.placement} in camera {self.camera}: give at least 4 corners off one line, with "
                "a pixel each"
            )


def is_spread(places: Sequence[Floats] | Floats) -> bool:
    """Whether (N, 3) places fix a frame: three or more, off one line."""
    array = np.asarray(places, dtype=np.float64).reshape(-1, 3)
    if len(array) < 3:
        return False
    extent = np.linalg.svd(array - array.mean(axis=0), compute_uv=False)
    return bool(extent[1] > _THINNEST * extent[0])


def start_places(cameras: Mapping[str, Camera], points: Sequence[MarkedPoint]) -> Floats:
    """(P, 3) where points were surveyed, or where their rays meet; where they do not, a place in front of the
    first camera that sees it.
    """
    met = triangulate_all(cameras, [point.pixels for point in points], exact=False)
    return np.array(
        [
            point.world
            if point.world is not None
            else place
            if np.isfinite(place).all()
            else _in_front(cameras, point.pixels)
            for point, place in zip(points, met, strict=True)
        ]
    ).reshape(-1, 3)


def _in_front(cameras: Mapping[str, Camera], pixels: Mapping[str, Floats]) -> Floats:
    for view, pixel in pixels.items():
        ray = cameras[view].rays(pixel) if view in cameras else np.full(3, np.nan)
        if np.isfinite(ray).all():
            centres = np.stack([camera.centre for camera in cameras.values()])
            far = float(np.linalg.norm(np.ptp(centres, axis=0))) / 2 or _FAR_M
            return np.asarray(cameras[view].centre + far * ray, dtype=np.float64)
    clicked = ", ".join(f"{view} {pixel.tolist()}" for view, pixel in pixels.items())
    raise CalibError(
        f"a point at {clicked} is outside what any lens model reaches: check the click, or the camera's "
        "distortion"
    )


def placed_boards(
    cameras: Mapping[str, Camera], boards: Sequence[BoardView]
) -> dict[str, tuple[Floats, Floats]]:
    """By placement: rotation (3, 3) and shift (3,) with x_world = R x_board + s, from the camera that sees
    most of it. Placements whose pose nobody's view tells, such as edge-on, are left out.
    """
    placed: dict[str, tuple[Floats, Floats]] = {}
    for view in sorted(boards, key=lambda view: -len(view.corners)):
        camera = cameras[view.camera]
        if view.placement in placed:
            continue
        try:
            seen = pose_from_points(view.corners, view.pixels, (camera.width, camera.height), camera).camera
        except CalibError:
            continue
        placed[view.placement] = (camera.R.T @ seen.R, camera.R.T @ (seen.t - camera.t))
    return placed
