"""OpenCV's FileStorage in YAML, XML or JSON, in the layouts people store cameras in; unit and axes unstated.

https://docs.opencv.org/4.x/da/d56/classcv_1_1FileStorage.html. OpenCV fixes how matrices are written, not
what they are called, so the usual names are known (camera_matrix, K, cameraMatrix, …; case and underscores do
not matter). Three layouts: one file per camera; EasyMocap's `names` with K_<name>, dist_<name>, Rot_<name>
(or R_<name>, a vector), T_<name>, in one file or two (intri.yml, extri.yml); and ours, a list `cameras` of
such cameras with their names, which `texts` writes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from calib.camera import Camera
from calib.errors import CalibError
from calib.formats.foreign import WORLD, Foreign, ForeignCamera, Wishes
from calib.formats.source import NotThis, Source, image_size, numbers, shared_place
from calib.rig import Rig

_K = ("cameramatrix", "k", "intrinsicmatrix", "intrinsics", "m", "mtx")
_DISTORTION = ("distortioncoefficients", "distcoeffs", "distortioncoeffs", "dist", "distortion", "d")
_R = ("rotationmatrix", "rotation", "rot", "r", "rvec", "rh")
_T = ("translationvector", "translation", "tvec", "t")
_RT = ("extrinsicmatrix", "extrinsic", "extrinsics", "rt")
_WIDTH, _HEIGHT = ("imagewidth", "width", "w"), ("imageheight", "height", "h")
_SIZE = ("imagesize", "size", "resolution")
_SUFFIXES = {".yaml": ".yaml", ".yml": ".yaml", ".xml": ".xml", ".json": ".json"}


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """Files of one camera each, or one or two files of all cameras."""
    documents = [_document(source) for source in sources]
    world = any(document.get("world") == WORLD for document in documents)
    merged: dict[str, Any] = {}
    for source, document in zip(sources, documents, strict=True):
        for key, value in document.items():
            if "names" in document and key in merged and key != "names":
                raise CalibError(f"{source}: gives {key} again: each entry belongs into one file")
            merged.setdefault(key, value)
    listed = merged.get("cameras")
    if isinstance(listed, list):
        cameras = [
            _camera(f"{sources[0]}: cameras[{index}]", fields, None) for index, fields in enumerate(listed)
        ]
    elif "names" in merged:
        names = [str(name) for name in np.ravel(np.array(merged["names"], dtype=object))]
        cameras = [_camera(f"{sources[0].path}: camera {name}", _of(merged, name), name) for name in names]
    else:
        cameras = [
            _camera(str(source), document, source.path.stem)
            for source, document in zip(sources, documents, strict=True)
        ]
    return Foreign(shared_place(sources), cameras, 1.0 if world else None, "z" if world else None)


def _document(source: Source) -> dict[str, Any]:
    text = source.text.lstrip()
    if text.startswith("<"):
        if source.xml().tag != "opencv_storage":
            raise NotThis("no <opencv_storage>")
    elif text.startswith("{"):
        source.json()
        if '"opencv-matrix"' not in text:
            raise NotThis("no opencv-matrix")
    elif not text.startswith("%YAML"):
        raise NotThis("no %YAML line, no <opencv_storage>, no opencv-matrix")
    try:
        storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        document = _plain(storage.root())
        storage.release()
    except (cv2.error, SystemError, UnicodeDecodeError) as error:
        reason = " ".join(str(getattr(error, "err", None) or error).split())
        raise NotThis(f"OpenCV cannot read it ({reason}): get the file again") from None
    if not isinstance(document, dict) or not document:
        raise NotThis("nothing in it that OpenCV reads")
    return document


def _plain(node: Any) -> Any:
    """A FileStorage node as Python's own: dicts, lists, numbers, text; matrices as arrays."""
    if node.isMap():
        keys = node.keys()
        if {"rows", "cols", "dt", "data"} <= set(keys):
            return np.asarray(node.mat(), dtype=np.float64)
        return {key: _plain(node.getNode(key)) for key in keys}
    if node.isSeq():
        return [_plain(node.at(index)) for index in range(node.size())]
    if node.isInt() or node.isReal():
        return node.real()
    return node.string() if node.isString() else None


def _of(merged: dict[str, Any], name: str) -> dict[str, Any]:
    """The entries that end in _<name>, without it; heights and widths as H_<name>, W_<name>."""
    return {key.removesuffix(f"_{name}"): value for key, value in merged.items() if key.endswith(f"_{name}")}


def _camera(place: str, fields: Any, name: str | None) -> ForeignCamera:
    if not isinstance(fields, dict):
        raise CalibError(f"{place} is no table of entries: get the whole file")
    flat = {key.replace("_", "").lower(): value for key, value in fields.items()}

    def first(keys: tuple[str, ...]) -> Any:
        return next((flat[key] for key in keys if flat.get(key) is not None), None)

    called = flat.get("cameraname") or flat.get("name") or name
    if called is None:
        raise CalibError(f"{place}: has no name: add one")
    if first(_K) is None:
        has = ", ".join(list(fields)[:12]) or "nothing"
        raise CalibError(f"{place}: has no camera matrix among {has}: call it camera_matrix")
    rigid = first(_RT)
    rotation, translation = (
        (first(_R), first(_T)) if rigid is None else (np.ravel(rigid)[:12].reshape(3, 4), None)
    )
    if rotation is None or (rigid is None and translation is None):
        raise CalibError(
            f"{place}: has intrinsics but no rotation and translation, and a scene needs both: solve them "
            "from marked points with viewsync calib extrinsics"
        )
    if rigid is not None:
        R, t = rotation[:, :3], rotation[:, 3]
    else:
        matrix = np.size(rotation) == 9
        R = (
            numbers(f"{place}: rotation", rotation, 3, 3)
            if matrix
            else np.asarray(cv2.Rodrigues(numbers(f"{place}: rotation", rotation, 3))[0], dtype=np.float64)
        )
        t = numbers(f"{place}: translation", translation, 3)
    distortion = first(_DISTORTION)
    return ForeignCamera(
        str(called),
        numbers(f"{place}: camera matrix", first(_K), 3, 3),
        R,
        t,
        () if distortion is None else numbers(f"{place}: distortion", distortion, np.size(distortion)),
        _size(place, first(_SIZE), first(_WIDTH), first(_HEIGHT)),
    )


def _size(place: str, both: Any, width: Any, height: Any) -> tuple[int, int] | None:
    if both is None and (width is None or height is None):
        return None
    return image_size(place, both if both is not None else [width, height])


def texts(rig: Rig, path: Path) -> dict[Path, str]:
    """The one file of a rig, in the format that its ending says: .yaml, .yml, .xml or .json."""
    if path.suffix.lower() not in _SUFFIXES:
        raise CalibError(f"{path}: OpenCV's formats end in .yaml, .yml, .xml or .json: choose one")
    storage = cv2.FileStorage(
        _SUFFIXES[path.suffix.lower()], cv2.FILE_STORAGE_WRITE | cv2.FILE_STORAGE_MEMORY
    )
    storage.write("world", WORLD)
    storage.startWriteStruct("cameras", cv2.FILE_NODE_SEQ)
    for name, camera in rig.cameras.items():
        storage.startWriteStruct("", cv2.FILE_NODE_MAP)
        _write(storage, name, camera)
        storage.endWriteStruct()
    storage.endWriteStruct()
    return {path: storage.releaseAndGetString()}


def _write(storage: Any, name: str, camera: Camera) -> None:
    storage.write("name", name)
    storage.write("image_width", camera.width)
    storage.write("image_height", camera.height)
    storage.write("camera_matrix", camera.K)
    storage.write("distortion_coefficients", camera.distortion.reshape(1, 5))
    storage.write("R", camera.R)
    storage.write("T", camera.t.reshape(3, 1))
