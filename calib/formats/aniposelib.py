"""aniposelib's and caliscope's TOML: a table per camera: size, matrix, distortions, rotation, translation.

aniposelib (github.com/lambdaloop/aniposelib, `CameraGroup.load`): tables cam_0, cam_1, … with a name, and
rotation as a Rodrigues vector; its unit is that of the board's squares, which the file does not state.
caliscope (github.com/mprib/caliscope, camera_array.toml): tables cameras.0, …, rotation as a vector or a
matrix, metres. x_camera = R x_world + t in both; the axes are those of whatever board or frame was chosen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from calib.errors import CalibError
from calib.formats.foreign import WORLD, Foreign, ForeignCamera, Wishes
from calib.formats.source import NotThis, Source, entry, image_size, numbers, shared_place
from calib.rig import Rig

_KEYS = {"matrix", "distortions"}


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """One file. Cameras that caliscope ignores are left out; fisheye cameras are refused."""
    if len(sources) != 1:
        raise NotThis("one file has all cameras")
    (source,) = sources
    document = source.toml()
    nested = document.get("cameras")
    tables = nested if isinstance(nested, dict) else document
    found = {
        key: fields for key, fields in tables.items() if isinstance(fields, dict) and fields.keys() >= _KEYS
    }
    if not found:
        raise NotThis("no camera's table with matrix and distortions")
    ignored = [key for key, fields in found.items() if fields.get("ignore") is True]
    notes = [f"cameras: {key} is marked as ignored and left out" for key in ignored]
    cameras = [_camera(source, key, found[key]) for key in found if key not in ignored]
    metadata = document.get("metadata")
    ours = isinstance(metadata, dict) and metadata.get("world") == WORLD
    metres = ours or tables is nested
    return Foreign(
        shared_place(sources), cameras, 1.0 if metres else None, "z" if ours else None, notes=tuple(notes)
    )


def _camera(source: Source, key: str, fields: dict[str, Any]) -> ForeignCamera:
    name = str(fields.get("name") or (f"cam_{key}" if key.isdigit() else key))
    place = f"{source}: camera {name}"
    if fields.get("fisheye") is True:
        raise CalibError(f"{place}: is a fisheye camera, which is not read: undistort its pictures first")
    rotation = np.array(entry(place, fields, "rotation", "rvec"), dtype=object)
    matrix = numbers(f"{place}: rotation", rotation.tolist(), 3, 3) if rotation.size == 9 else None
    if matrix is None:
        matrix = np.asarray(cv2.Rodrigues(numbers(f"{place}: rotation", rotation.tolist(), 3))[0], np.float64)
    distortion = fields["distortions"]
    count = len(distortion) if isinstance(distortion, list) else 5
    return ForeignCamera(
        name,
        numbers(f"{place}: matrix", fields["matrix"], 3, 3),
        matrix,
        numbers(f"{place}: translation", entry(place, fields, "translation", "tvec"), 3),
        numbers(f"{place}: distortions", distortion, count),
        image_size(place, entry(place, fields, "size")),
    )


def texts(rig: Rig, path: Path) -> dict[Path, str]:
    """The one file of a rig. aniposelib takes tables in the order of their names: cam_0, cam_1, …"""
    import tomli_w
    from scipy.spatial.transform import Rotation

    digits = len(str(len(rig.cameras) - 1))
    document: dict[str, Any] = {
        f"cam_{number:0{digits}}": {
            "name": name,
            "size": [camera.width, camera.height],
            "matrix": camera.K.tolist(),
            "distortions": camera.distortion.tolist(),
            "rotation": Rotation.from_matrix(camera.R).as_rotvec().tolist(),
            "translation": camera.t.tolist(),
        }
        for number, (name, camera) in enumerate(rig.cameras.items())
    }
    document["metadata"] = {"world": WORLD}
    return {path: tomli_w.dumps(document)}
