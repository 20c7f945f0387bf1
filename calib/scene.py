"""`scene.yaml`: calibrated cameras, the ground grid, the heights sampled above it, zones, the region of
interest and what hides people for good. Schema 1.

Written with comments, units in the key names and every digit needed to read the same numbers back; read
strictly, so that a wrong key, a missing one or an impossible number is one line that says where it is and
what to do.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera
from calib.errors import CalibError
from calib.ground import GroundGrid
from calib.polygons import checked_polygon
from calib.scene_text import Fields, read_yaml, scene_text, write_atomically

Floats = NDArray[np.float64]
SCHEMA = 1

# A corner dragged to the border of the picture may be a pixel beyond it.
_OUTSIDE_PX = 1.0
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_NAME = re.compile(NAME_PATTERN)


def checked_name(what: str, name: object) -> str:
    """`name`, if it is usable as the name of a `what`. CalibError says what is."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CalibError(
            f"{what} name {name!r} is not usable: take 1 to 64 letters, digits, _ . or -, no sign first "
            "(quote it in YAML if it reads as a number or a yes/no)"
        )
    return name


def _checked_occluders(
    view: object, cameras: Mapping[str, Camera], polygons: Mapping[str, ArrayLike]
) -> tuple[str, Mapping[str, Floats]]:
    if not isinstance(view, str) or view not in cameras:
        raise CalibError(
            f"occluders of {view!r}: there is no such camera; the cameras are {', '.join(cameras)}"
        )
    camera = cameras[view]
    checked = {}
    for name, corners in polygons.items():
        what = f"occluder {checked_name('occluder', name)} of camera {view}"
        polygon = checked_polygon(what, corners, "pixels")
        size = np.array([camera.width, camera.height])
        if (polygon < -0.5 - _OUTSIDE_PX).any() or (polygon > size - 0.5 + _OUTSIDE_PX).any():
            raise CalibError(
                f"{what} leaves the image of {camera.width}x{camera.height} pixels: keep its corners on it"
            )
        checked[name] = polygon
    return view, MappingProxyType(checked)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A calibrated site: cameras by view id (in the file's order), ground grid, heights (m, ascending),
    zones.

    A zone is a polygon (N, 2) of ground corners in metres, implicitly closed; region, the region of interest,
    is another, or None where all of the ground counts. occluders: by view, then by name, polygons (N, 2) of
    that camera's image (as delivered, pixels) in which something static hides whoever is behind it. Raises
    CalibError when made from anything that cannot be used.
    """

    name: str
    cameras: Mapping[str, Camera]
    ground: GroundGrid
    heights_m: tuple[float, ...]
    zones: Mapping[str, Floats]
    region: Floats | None = None
    occluders: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_name("scene", self.name)
        if not self.cameras:
            raise CalibError(f"scene {self.name} has no cameras: give at least one")
        cameras = {checked_name("camera", name): camera for name, camera in self.cameras.items()}
        zones = {
            checked_name("zone", name): checked_polygon(f"zone {name}", corners, "metres")
            for name, corners in self.zones.items()
        }
        if self.region is not None:
            object.__setattr__(self, "region", checked_polygon("region", self.region, "metres"))
        occluders = dict(
            _checked_occluders(view, cameras, polygons) for view, polygons in self.occluders.items()
        )
        heights = np.array(self.heights_m, dtype=np.float64)
        if (
            heights.ndim != 1
            or not heights.size
            or not np.isfinite(heights).all()
            or (np.diff(heights) <= 0).any()
        ):
            raise CalibError(
                f"scene {self.name}: heights_m must be one or more finite heights in metres, ascending"
            )
        object.__setattr__(self, "cameras", MappingProxyType(cameras))
        object.__setattr__(self, "zones", MappingProxyType(zones))
        # A view without any says nothing.
        kept = {view: polygons for view, polygons in occluders.items() if polygons}
        object.__setattr__(self, "occluders", MappingProxyType(kept))
        object.__setattr__(self, "heights_m", tuple(float(height) for height in heights))

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings cannot be pickled, and data loaders hand scenes to worker processes.
        occluders = {view: dict(polygons) for view, polygons in self.occluders.items()}
        return type(self), (
            self.name,
            dict(self.cameras),
            self.ground,
            self.heights_m,
            dict(self.zones),
            self.region,
            occluders,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scene):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple[object, ...]:
        return (
            (self.name, self.ground, self.heights_m),
            tuple(self.cameras.items()),
            _corners(self.zones),
            () if self.region is None else tuple(self.region.ravel().tolist()),
            tuple((view, _corners(polygons)) for view, polygons in self.occluders.items()),
        )


def _corners(polygons: Mapping[str, Floats]) -> tuple[object, ...]:
    return tuple((name, *polygon.ravel().tolist()) for name, polygon in polygons.items())


def load_scene(path: Path | str) -> Scene:
    """Read a scene file. CalibError names the file, the key and what to do; nothing is assumed for what is
    missing.
    """
    path = Path(path)
    top = Fields(str(path), "", read_yaml(path))
    schema = top.take("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise top.error("schema", f"is {schema!r}: this version reads schema {SCHEMA}")
    name = top.take("name")
    cameras = {key: _camera(fields) for key, fields in top.children("cameras")}
    ground_fields = top.child("ground")
    with ground_fields.naming():
        origin = ground_fields.numbers("origin_m", (2,))
        ground = GroundGrid(
            float(origin[0]),
            float(origin[1]),
            float(ground_fields.numbers("cell_m", ())),
            ground_fields.whole("columns"),
            ground_fields.whole("rows"),
        )
    ground_fields.finish()
    heights = top.numbers("heights_m", (None,))
    zones = {}
    for key, fields in top.children("zones", optional=True):
        zones[key] = fields.numbers("polygon_m", (None, 2))
        fields.finish()
    region = None
    region_fields = top.optional_child("region")
    if region_fields is not None:
        region = region_fields.numbers("polygon_m", (None, 2))
        region_fields.finish()
    occluders = {view: _occluders(fields) for view, fields in top.children("occluders", optional=True)}
    top.finish()
    with top.naming():
        return Scene(name, cameras, ground, tuple(heights.tolist()), zones, region, occluders)


def _occluders(view: Fields) -> dict[str, Floats]:
    polygons = {}
    for key, fields in view.each():
        polygons[key] = fields.numbers("polygon_px", (None, 2))
        fields.finish()
    return polygons


def _camera(fields: Fields) -> Camera:
    with fields.naming():
        camera = Camera(
            fields.numbers("intrinsics_px", (3, 3)),
            fields.numbers("rotation", (3, 3)),
            fields.numbers("translation_m", (3,)),
            fields.numbers("distortion", (5,)),
            fields.whole("width_px"),
            fields.whole("height_px"),
        )
    fields.finish()
    return camera


def save_scene(scene: Scene, path: Path | str) -> None:
    """Write a scene file, commented and with full precision. The file at `path` is replaced whole or not at
    all.
    """
    write_atomically(Path(path), scene_text(_document(scene)))


def _document(scene: Scene) -> dict[str, Any]:
    cameras = {
        name: {
            "width_px": camera.width,
            "height_px": camera.height,
            "intrinsics_px": camera.K.tolist(),
            "distortion": camera.distortion.tolist(),
            "rotation": camera.R.tolist(),
            "translation_m": camera.t.tolist(),
        }
        for name, camera in scene.cameras.items()
    }
    grid = scene.ground
    ground = {
        "origin_m": [grid.origin_x_m, grid.origin_y_m],
        "cell_m": grid.cell_m,
        "columns": grid.columns,
        "rows": grid.rows,
    }
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "name": scene.name,
        "cameras": cameras,
        "ground": ground,
        "heights_m": list(scene.heights_m),
        "zones": _polygons(scene.zones, "polygon_m"),
    }
    # Left out where there is nothing to say: files of before stay as they were, byte by byte.
    if scene.region is not None:
        document["region"] = {"polygon_m": scene.region.tolist()}
    if scene.occluders:
        document["occluders"] = {
            view: _polygons(polygons, "polygon_px") for view, polygons in scene.occluders.items()
        }
    return document


def _polygons(polygons: Mapping[str, Floats], key: str) -> dict[str, Any]:
    return {name: {key: polygon.tolist()} for name, polygon in polygons.items()}
