"""Marked points: where a point of the world appears in each view, and how far the cameras are from agreeing.

A point with a world position was surveyed: it holds the world's origin, axes and scale. One without is a
cross-view click: the same thing seen by several cameras at one moment, or something that never moves. Files
are YAML, in the pixels of the images that the cameras deliver:

    schema: 1
    points:
      door-corner:
        world: [1.2, 3.4, 0.0]   # metres; left out where it is not known
        pixels:
          north: [120.5, 88.0]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from calib.camera import Camera
from calib.errors import CalibError
from calib.scene_text import Fields, read_yaml, write_atomically
from calib.triangulation import triangulate_all

Floats = NDArray[np.float64]
SCHEMA = 1

_LONGEST_NAME = 64
_HEADER = """\
# viewsync marked points: world in metres (z up, ground z = 0; left out where it is not known), pixels [x, y]
# of the image that each camera delivers, (0, 0) the centre of its top-left pixel.
"""


def _numbers(what: str, value: Any, length: int) -> Floats:
    try:
        # Text such as 1e-5, which YAML does not read as a number, is one; a yes/no is none.
        if isinstance(value, list | tuple) and any(isinstance(item, bool) for item in value):
            raise TypeError
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (length,) or not np.isfinite(array).all():
        raise CalibError(f"{what} is {value!r}: give {length} finite numbers")
    array.setflags(write=False)
    return array


@dataclass(frozen=True, slots=True, eq=False)
class MarkedPoint:
    """One point. world: (3,) metres, or None where it is not known; pixels: by view, (2,) each, as delivered
    (with lens distortion).

    Arrays are copied and read-only. Raises CalibError when made from anything else.
    """

    name: str
    world: Floats | None
    pixels: Mapping[str, Floats]

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise CalibError(
                f"point name {name!r} is not usable: take 1 to {_LONGEST_NAME} printable characters "
                "(quote it in YAML if it reads as a number or a yes/no)"
            )
        if self.world is not None:
            object.__setattr__(self, "world", _numbers(f"world of point {name!r}", self.world, 3))
        pixels = {}
        for camera, pixel in self.pixels.items():
            if not isinstance(camera, str) or not camera:
                raise CalibError(f"point {name!r} is seen by camera {camera!r}: give the camera's name")
            pixels[camera] = _numbers(f"pixel of point {name!r} in camera {camera}", pixel, 2)
        object.__setattr__(self, "pixels", MappingProxyType(pixels))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MarkedPoint):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple[object, ...]:
        world = None if self.world is None else tuple(self.world.tolist())
        return self.name, world, tuple((camera, *pixel.tolist()) for camera, pixel in self.pixels.items())


def check_unique(points: Iterable[MarkedPoint]) -> None:
    """CalibError if two points have one name."""
    seen: set[str] = set()
    for point in points:
        if point.name in seen:
            raise CalibError(f"point {point.name!r} is given twice: rename or join them")
        seen.add(point.name)


def load_points(path: Path | str) -> tuple[MarkedPoint, ...]:
    """Read a file of marked points, in its order. CalibError names the file, the point and what to do."""
    path = Path(path)
    top = Fields(str(path), "", read_yaml(path))
    schema = top.take("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise top.error("schema", f"is {schema!r}: this version reads points of schema {SCHEMA}")
    table = top.take("points") or {}
    top.finish()
    if not isinstance(table, dict):
        raise top.error("points", "must be a mapping of names to points: write `name: {pixels: …}`")
    return tuple(_point(str(path), name, value) for name, value in table.items())


def _point(file: str, name: Any, value: Any) -> MarkedPoint:
    fields = Fields(file, f"points.{name}", value)
    world = fields.take("world") if "world" in value else None
    pixels = fields.take("pixels") if "pixels" in value else None
    fields.finish()
    if pixels is not None and not isinstance(pixels, dict):
        raise fields.error("pixels", "must be a mapping of cameras to [x, y]: write `north: [120.5, 88.0]`")
    with fields.naming():
        return MarkedPoint(name, world, pixels or {})


def save_points(points: Sequence[MarkedPoint], path: Path | str) -> None:
    """Write a file of marked points with full precision; the file at `path` is replaced whole or not at all.
    CalibError if two points have one name or the file cannot be written.
    """
    check_unique(points)
    table: dict[str, Any] = {}
    for point in points:
        entry: dict[str, Any] = {} if point.world is None else {"world": point.world.tolist()}
        entry["pixels"] = {camera: pixel.tolist() for camera, pixel in point.pixels.items()}
        table[point.name] = entry
    # None: mappings indented, lists of numbers on one line.
    body = yaml.safe_dump(
        {"schema": SCHEMA, "points": table},
        default_flow_style=None,
        sort_keys=False,
        allow_unicode=True,
        width=110,
    )
    write_atomically(Path(path), _HEADER + body)


@dataclass(frozen=True, slots=True)
class Spread:
    """Residuals of one camera or one point, pixels: how many were measured, their root mean square, median
    and largest; NaN where none was. unseen: those for which the camera model has no answer, because the point
    is behind the camera, outside its lens model, or has no known position.
    """

    count: int
    rms_px: float
    median_px: float
    worst_px: float
    unseen: int = 0

    @classmethod
    def of(cls, distances_px: Floats) -> "Spread":
        """(N,) distances, NaN where there is none -> their spread."""
        known = distances_px[np.isfinite(distances_px)]
        unseen = int(distances_px.size - known.size)
        if not known.size:
            return cls(0, np.nan, np.nan, np.nan, unseen)
        rms = float(np.sqrt(np.mean(known**2)))
        return cls(int(known.size), rms, float(np.median(known)), float(known.max()), unseen)


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """Where each click was minus where its point projects. points, cameras: (N,) names, one per click;
    offsets_px: (N, 2); NaN where the camera model has no answer.
    """

    points: tuple[str, ...]
    cameras: tuple[str, ...]
    offsets_px: Floats

    @property
    def distances_px(self) -> Floats:
        """(N,) lengths of the offsets."""
        return np.hypot(self.offsets_px[:, 0], self.offsets_px[:, 1])

    @property
    def overall(self) -> Spread:
        """Of all clicks together."""
        return Spread.of(self.distances_px)

    def by_camera(self) -> dict[str, Spread]:
        """By view, in the order they are first met."""
        return self._by(self.cameras)

    def by_point(self) -> dict[str, Spread]:
        """By point, in the order they are first met."""
        return self._by(self.points)

    def _by(self, names: tuple[str, ...]) -> dict[str, Spread]:
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            rows.setdefault(name, []).append(row)
        distances = self.distances_px
        return {name: Spread.of(distances[chosen]) for name, chosen in rows.items()}


def residuals(cameras: Mapping[str, Camera], points: Sequence[MarkedPoint]) -> Residuals:
    """How far each click is from its point, in the pixels of the images as delivered.

    A point without a world position is first placed where the cameras that see it agree best; seen by one
    camera only, it has none. Clicks in views that `cameras` does not hold are left out.
    """
    names: list[str] = []
    views: list[str] = []
    placed = iter(triangulate_all(cameras, [point.pixels for point in points if point.world is None]))
    worlds = [next(placed) if point.world is None else point.world for point in points]
    pixels: list[Floats] = []
    places: list[Floats] = []
    for point, world in zip(points, worlds, strict=True):
        for view, pixel in point.pixels.items():
            if view in cameras:
                names.append(point.name)
                views.append(view)
                pixels.append(pixel)
                places.append(world)
    offsets = np.array(pixels).reshape(-1, 2)
    for name, camera in cameras.items():
        rows = [row for row, view in enumerate(views) if view == name]
        if rows:
            offsets[rows] -= camera.project(np.array([places[row] for row in rows]))
    return Residuals(tuple(names), tuple(views), offsets)
