"""Kalibr's camchain.yaml: cam0, cam1, … with intrinsics, distortion_coeffs, resolution and T_cn_cnm1; metres.

Layout: github.com/ethz-asl/kalibr/wiki/yaml-formats. T_cn_cnm1 takes the camera before into this one; the
world is cam0's own frame, so that the ground is not in the file: `--up -y` (found from the pictures) makes it
a level world whose height 0 is cam0's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from calib.errors import CalibError
from calib.formats.foreign import UNITS_M, Foreign, ForeignCamera, Wishes
from calib.formats.source import NotThis, Source, entry, image_size, numbers, shared_place


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """One file, pinhole cameras with radtan distortion or none."""
    if len(sources) != 1:
        raise NotThis("one file has all cameras")
    (source,) = sources
    document = source.yaml()
    recognised = isinstance(document, dict) and any(
        isinstance(fields, dict) and {"camera_model", "intrinsics"} <= fields.keys()
        for fields in document.values()
    )
    if not recognised:
        raise NotThis("no cam0 with camera_model and intrinsics")
    cameras = []
    pose = np.eye(4)
    for number in range(len(document)):
        name = f"cam{number}"
        if name not in document:
            raise CalibError(f"{source}: has {len(document)} cameras but no {name}: a chain has no gaps")
        place = f"{source}: {name}"
        fields = document[name]
        if number:
            pose = numbers(f"{place}: T_cn_cnm1", entry(place, fields, "T_cn_cnm1"), 4, 4) @ pose
        cameras.append(_camera(place, name, fields, pose))
    notes = ("ground: cam0's own height is 0 here, because the file knows no ground",)
    return Foreign(shared_place(sources), cameras, UNITS_M["m"], None, notes=notes)


def _camera(place: str, name: str, fields: Any, pose: np.ndarray[Any, np.dtype[np.float64]]) -> ForeignCamera:
    model, lens = entry(place, fields, "camera_model"), fields.get("distortion_model", "none")
    if model != "pinhole" or lens not in ("radtan", "none", None):
        raise CalibError(
            f"{place}: is {model} with {lens} distortion: calibrate it with Kalibr's model pinhole-radtan"
        )
    fx, fy, cx, cy = numbers(f"{place}: intrinsics", entry(place, fields, "intrinsics"), 4)
    distortion = (
        numbers(f"{place}: distortion_coeffs", fields["distortion_coeffs"], 4) if lens == "radtan" else ()
    )
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return ForeignCamera(
        name, K, pose[:3, :3], pose[:3, 3], distortion, image_size(place, entry(place, fields, "resolution"))
    )
