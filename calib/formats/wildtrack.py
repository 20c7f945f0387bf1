"""WILDTRACK: `intr_*.xml` with camera_matrix, `extr_*.xml` with rvec and tvec as plain lists of numbers; cm,
z up.

The layout of the data set's own calibration folder (Chavdarova et al., "WILDTRACK: A Multi-camera HD Dataset
for Dense Unscripted Pedestrian Detection", CVPR 2018), which states neither unit nor image size: they are the
data set's, 1920×1080 and centimetres.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from calib.errors import CalibError
from calib.formats.foreign import UNITS_M, Foreign, ForeignCamera, Wishes
from calib.formats.source import NotThis, Source, numbers, shared_place

_SIZE = (1920, 1080)


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """Pairs of files, which belong together by their names after the first `_`: intr_CVLab1, extr_CVLab1."""
    intrinsics: dict[str, Source] = {}
    extrinsics: dict[str, Source] = {}
    for source in sources:
        root = source.xml()
        if root.tag != "opencv_storage":
            raise NotThis("no <opencv_storage>")
        names = {child.tag for child in root}
        rvec = root.find("rvec")
        if rvec is not None and "tvec" in names and "camera_matrix" not in names and not len(rvec):
            group = extrinsics
        elif "camera_matrix" in names and "rvec" not in names:
            group = intrinsics
        else:
            raise NotThis("no pair of files, one with camera_matrix, one with rvec and tvec as plain numbers")
        name = source.path.stem.partition("_")[2] or source.path.stem
        if name in group:
            raise CalibError(f"{source}: is a second file for camera {name}, beside {group[name]}: give one")
        group[name] = source
    if not extrinsics:
        raise NotThis("no file with rvec and tvec as plain numbers")
    for name in intrinsics.keys() ^ extrinsics.keys():
        have, lack = ("intr", "extr") if name in intrinsics else ("extr", "intr")
        source = intrinsics.get(name) or extrinsics[name]
        raise CalibError(f"{source}: its other half, {lack}_{name}.xml, is missing: give {have} and {lack}")
    size = wishes.size or _SIZE
    note = () if wishes.size else (f"image size: not in the files; the data set's {size[0]}x{size[1]}",)
    cameras = [_camera(name, source, extrinsics[name], size) for name, source in intrinsics.items()]
    return Foreign(shared_place(sources), cameras, UNITS_M["cm"], "z", notes=note)


def _camera(name: str, intrinsic: Source, extrinsic: Source, size: tuple[int, int]) -> ForeignCamera:
    def take(source: Source, path: str, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        element = source.xml().find(path)
        text = None if element is None else (element.text or "").split()
        return numbers(f"{source}: {path}", text, *shape)

    K = take(intrinsic, "camera_matrix/data", 3, 3)
    distortion = take(intrinsic, "distortion_coefficients/data", 5)
    R = cv2.Rodrigues(take(extrinsic, "rvec", 3))[0]
    return ForeignCamera(name, K, R, take(extrinsic, "tvec", 3), distortion, size)
