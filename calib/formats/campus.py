"""Campus and Shelf: JSON of cameras by number with fx, fy, cx, cy, R, T, k, p; mm, z up.

The layout in which VoxelPose (github.com/microsoft/voxelpose-pytorch) gives the cameras of these two data
sets (Belagiannis et al., "3D Pictorial Structures for Multiple Human Pose Estimation", CVPR 2014). T is the
camera's centre: x_camera = R (x_world - T). Distortion is k1, k2, k3 and p1, p2. Image sizes are not in the
files: Campus has 360×288, Shelf 1032×776.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from calib.errors import CalibError
from calib.formats.foreign import UNITS_M, Foreign, ForeignCamera, Wishes
from calib.formats.source import NotThis, Source, numbers, shared_place

_SIZES = ((360, 288), (1032, 776))
_KEYS = {"R", "T", "fx", "fy", "cx", "cy", "k", "p"}


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """One file; camera `0` is called cam0."""
    if len(sources) != 1:
        raise NotThis("one file has all cameras")
    (source,) = sources
    document = source.json()
    recognised = isinstance(document, dict) and any(
        isinstance(fields, dict) and len(_KEYS & fields.keys()) > 5 for fields in document.values()
    )
    if not recognised:
        raise NotThis("no cameras with R, T, fx, fy, cx, cy, k and p")
    size = wishes.size
    notes: tuple[str, ...] = ()
    cameras = [_camera(source, key, fields) for key, fields in document.items()]
    if size is None:
        size = _known_size(source, np.array([camera[1][:2, 2] for camera in cameras]))
        notes = (f"image size: not in the file; {size[0]}x{size[1]}, by the principal points",)
    made = [ForeignCamera(name, K, R, t, distortion, size) for name, K, R, t, distortion in cameras]
    return Foreign(shared_place(sources), made, UNITS_M["mm"], "z", notes=notes)


def _camera(source: Source, key: str, fields: Any) -> tuple[str, Any, Any, Any, Any]:
    place = f"{source}: camera {key}"
    if not isinstance(fields, dict):
        raise CalibError(f"{place} is no table of entries: get the whole file")
    fx, fy, cx, cy = (float(numbers(f"{place}: {k}", fields.get(k), 1)[0]) for k in ("fx", "fy", "cx", "cy"))
    R = numbers(f"{place}: R", fields.get("R"), 3, 3)
    centre = numbers(f"{place}: T", fields.get("T"), 3)
    (k1, k2, k3), (p1, p2) = (
        numbers(f"{place}: k", fields.get("k"), 3),
        numbers(f"{place}: p", fields.get("p"), 2),
    )
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return (f"cam{key}" if key.isdigit() else key), K, R, -R @ centre, (k1, k2, p1, p2, k3)


def _known_size(source: Source, principal_points: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[int, int]:
    """The one of the two data sets whose images all principal points are near the middle of."""
    for size in _SIZES:
        if (np.abs(principal_points / size - 0.5) < 0.15).all():
            return size
    raise CalibError(
        f"{source}: does not state the image size, and its principal points fit neither Campus nor Shelf: "
        "say it with --size, such as 1032x776"
    )
