"""Qualisys: the XML that QTM exports (`.qca.txt`); mm, z up by QTM's default.

Rows r1x, r2x, r3x are the camera's axes in the world (right, up, backwards) and x, y, z its centre. Lengths
on the sensor are in 1/64 pixel; so is sensorMaxU = 64·(width - 1), which puts pixel centres at integers.
Distortion is dimensionless and in OpenCV's sense: the calibration boards of Pose2Sim's demo give k1 = -0.05,
k2 = 0.12 where its file says -0.048, 0.137. Layout and axes: docs.qualisys.com (QTM real-time protocol,
"calibration") and github.com/perfanalytics/pose2sim, which reads it too.
"""

from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np

from calib.errors import CalibError
from calib.formats.foreign import UNITS_M, Foreign, ForeignCamera, Wishes
from calib.formats.source import NotThis, Source, numbers, shared_place

_SUBPIXELS = 64.0
_OPENCV_FROM_QTM = np.diag([1.0, -1.0, -1.0])


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """One file. Where some cameras are video cameras, the marker cameras are left out."""
    if len(sources) != 1:
        raise NotThis("one file has all cameras")
    (source,) = sources
    root = source.xml()
    elements = root.findall("cameras/camera")
    if root.tag != "calibration" or not any(element.find("intrinsic") is not None for element in elements):
        raise NotThis("no <calibration><cameras><camera> with <intrinsic>")
    video = [element for element in elements if "video" in (element.get("model") or "").lower()]
    notes: tuple[str, ...] = ()
    if video and len(video) < len(elements):
        notes = (f"cameras: {len(elements) - len(video)} marker cameras are left out",)
    return Foreign(
        shared_place(sources),
        [_camera(source, element) for element in video or elements],
        UNITS_M["mm"],
        "z",
        notes=notes,
    )


def _camera(source: Source, element: ElementTree.Element) -> ForeignCamera:
    name = element.get("serial") or "camera"
    place = f"{source}: camera {name}"

    def take(tag: str, *keys: str) -> list[float]:
        part = element.find(tag)
        if part is None:
            raise CalibError(f"{place}: has no <{tag}>: export the calibration from QTM again")
        return [float(numbers(f"{place}: {tag} {key}", part.get(key), 1)[0]) for key in keys]

    axes = take("transform", *(f"r{row}{column}" for row in "123" for column in "123"))
    centre = take("transform", "x", "y", "z")
    left, top, right, bottom = take("fov_video", "left", "top", "right", "bottom")
    fx, fy, cx, cy, skew = (
        np.array(take("intrinsic", "focalLengthU", "focalLengthV", "centerPointU", "centerPointV", "skew"))
        / _SUBPIXELS
    )
    k1, k2, k3 = take("intrinsic", "radialDistortion1", "radialDistortion2", "radialDistortion3")
    p1, p2 = take("intrinsic", "tangentalDistortion1", "tangentalDistortion2")
    K = np.array([[fx, skew, cx - left], [0.0, fy, cy - top], [0.0, 0.0, 1.0]])
    R = _OPENCV_FROM_QTM @ np.reshape(axes, (3, 3))
    # The last pixel is counted in.
    size = (round(right - left) + 1, round(bottom - top) + 1)
    return ForeignCamera(name, K, R, -R @ centre, (k1, k2, p1, p2, k3), size)
