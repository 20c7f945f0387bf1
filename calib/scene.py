"""`scene.yaml`: calibrated cameras, the ground grid, the heights sampled above it, and named zones. Schema 1.

Written with comments, units in the key names and every digit needed to read the same numbers back; read
strictly, so that a wrong key, a missing one or an impossible number is one line that says where it is and
what to do.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera
from calib.errors import CalibError
from calib.ground import GroundGrid
from calib.scene_text import Fields, read_yaml, scene_text, write_atomically

Floats = NDArray[np.float64]
SCHEMA = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _checked_name(what: str, name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CalibError(
            f"{what} name {name!r} is not usable: take 1 to 64 letters, digits, _ . or -, no sign first "
            "(quote it in YAML if it reads as a number or a yes/no)"
        )
    return name


def _polygon(name: str, corners: ArrayLike) -> Floats:
    try:
        polygon = np.array(corners, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibError(f"zone {name} is not a list of [x, y] corners in metres") from error
    if polygon.ndim != 2 or polygon.shape[1] != 2 or len(polygon) < 3 or not np.isfinite(polygon).all():
        raise CalibError(f"zone {name} is not a polygon: give at least three finite [x, y] corners in metres")
    following = np.roll(polygon, -1, axis=0)
    area = 0.5 * np.sum(polygon[:, 0] * following[:, 1] - following[:, 0] * polygon[:, 1])
    if abs(area) < 1e-6:
        raise CalibError(f"zone {name} covers no area: give its corners in order along its border")
    polygon.setflags(write=False)
    return polygon


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A calibrated site: cameras by view id (in the file's order), ground grid, heights (m, ascending),
    zones.

    A zone is a polygon (N, 2) of ground corners in metres, implicitly closed. Raises CalibError when made
    from anything that cannot be used.
    """

    name: str
    cameras: Mapping[str, Camera]
    ground: GroundGrid
    heights_m: tuple[float, ...]
    zones: Mapping[str, Floats]

    def __post_init__(self) -> None:
        _checked_name("scene", self.name)
        if not self.cameras:
            raise CalibError(f"scene {self.name} has no cameras: give at least one")
        cameras = {_checked_name("camera", name): camera for name, camera in self.cameras.items()}
        zones = {_checked_name("zone", name): _polygon(name, corners) for name, corners in self.zones.items()}
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
        object.__setattr__(self, "heights_m", tuple(float(height) for height in heights))

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings cannot be pickled, and data loaders hand scenes to worker processes.
        return type(self), (self.name, dict(self.cameras), self.ground, self.heights_m, dict(self.zones))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scene):
            return NotImplemented
        return (
            (self.name, self.ground, self.heights_m) == (other.name, other.ground, other.heights_m)
            and list(self.cameras.items()) == list(other.cameras.items())
            and list(self.zones) == list(other.zones)
            and all(np.array_equal(polygon, other.zones[name]) for name, polygon in self.zones.items())
        )

    def __hash__(self) -> int:
        return hash((self.name, self.ground, self.heights_m, *self.cameras.items(), *self.zones))


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
    top.finish()
    with top.naming():
        return Scene(name, cameras, ground, tuple(heights.tolist()), zones)


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
    zones = {name: {"polygon_m": polygon.tolist()} for name, polygon in scene.zones.items()}
    return {
        "schema": SCHEMA,
        "name": scene.name,
        "cameras": cameras,
        "ground": ground,
        "heights_m": list(scene.heights_m),
        "zones": zones,
    }
