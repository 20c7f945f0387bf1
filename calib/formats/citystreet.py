"""JSON that states its own conventions: `world_unit`, `image_size`, `world_z` and `cameras`; CityStreet's
cameras come so.

Each camera has K or fx, fy, cx, cy; Rt_world_to_camera (3×4) or rvec and tvec; and distortion under a key
that spells its order out, such as distortion_k1k2p1p2k3. CityStreet (Zhang & Chan, "Wide-Area Crowd Counting
via Ground-Plane Density Maps and Multi-View Fusion CNNs", CVPR 2019) has cameras whose z points down while
its people's points up: a right-handed world with z up takes cameras (x, -y, -z) and people's y to -y.
"""

import re
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from calib.errors import CalibError
from calib.formats.foreign import UNITS_M, Floats, Foreign, ForeignCamera, Wishes
from calib.formats.source import NotThis, Source, entry, image_size, numbers, shared_place

_ORDER = ("k1", "k2", "p1", "p2", "k3")


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """One file. world_z: "negative is up" or "down" where z points down; without it, z is up."""
    if len(sources) != 1:
        raise NotThis("one file has all cameras")
    (source,) = sources
    document = source.json()
    if not isinstance(document, dict) or not {"cameras", "world_unit"} <= document.keys():
        raise NotThis("no cameras with a world_unit")
    unit = document["world_unit"]
    if unit not in UNITS_M:
        raise CalibError(f"{source}: world_unit is {unit!r}: it must be one of {', '.join(UNITS_M)}")
    size = image_size(str(source), document.get("image_size"))
    down = re.search(r"negative is up|down", str(document.get("world_z", ""))) is not None
    cameras = document["cameras"]
    if not isinstance(cameras, list):
        raise CalibError(f"{source}: cameras is no list: get the whole file")
    read_cameras = [_camera(source, index, each, size) for index, each in enumerate(cameras)]
    notes = (
        ("axes: where people's z points up in the data set's labels, their y turns over too",) if down else ()
    )
    return Foreign(shared_place(sources), read_cameras, UNITS_M[unit], "-z" if down else "z", notes=notes)


def _camera(source: Source, index: int, fields: Any, size: tuple[int, int]) -> ForeignCamera:
    name = str(entry(f"{source}: cameras[{index}]", fields, "name"))
    place = f"{source}: camera {name}"
    if "K" in fields:
        K = numbers(f"{place}: K", fields["K"], 3, 3)
    else:
        fx, fy, cx, cy = (
            float(numbers(f"{place}: {k}", fields.get(k), 1)[0]) for k in ("fx", "fy", "cx", "cy")
        )
        K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    if "Rt_world_to_camera" in fields:
        Rt = numbers(f"{place}: Rt_world_to_camera", fields["Rt_world_to_camera"], 3, 4)
        R, t = Rt[:, :3], Rt[:, 3]
    else:
        R = cv2.Rodrigues(numbers(f"{place}: rvec", fields.get("rvec"), 3))[0].astype(np.float64)
        t = numbers(f"{place}: tvec", fields.get("tvec"), 3)
    return ForeignCamera(name, K, R, t, _distortion(place, fields), size)


def _distortion(place: str, fields: dict[str, Any]) -> Floats:
    for key, value in fields.items():
        order = re.findall(r"[kp]\d", key.removeprefix("distortion_"))
        if key.startswith("distortion_") and set(order) <= set(_ORDER) and order:
            given = dict(zip(order, numbers(f"{place}: {key}", value, len(order)), strict=True))
            return np.array([given.get(name, 0.0) for name in _ORDER])
    raise CalibError(f"{place}: has no distortion_… key that spells out its order: add distortion_k1k2p1p2k3")
