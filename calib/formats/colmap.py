"""COLMAP's text model: cameras.txt and images.txt; any unit, any axes.

https://colmap.github.io/format.html: one line per camera (id, model, width, height, parameters), two per
image (id, qw, qx, qy, qz, tx, ty, tz, camera id, name; then its points, which are skipped). x_camera =
R x_world + t. COLMAP's pixel (0, 0) is the corner of the top-left pixel, ours its centre, so principal points
move by half a pixel. Each image is one view, called as its file without folder and ending.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.errors import CalibError
from calib.formats.foreign import WORLD, Foreign, ForeignCamera, Wishes
from calib.formats.source import NotThis, Source, numbers, shared_place
from calib.rig import Rig

Floats = NDArray[np.float64]

# Parameters of each camera model, in COLMAP's words; radial k is k1.
_MODELS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
}
_OTHERS = (
    r"SIMPLE_RADIAL_FISHEYE|RADIAL_FISHEYE|OPENCV_FISHEYE|FOV|THIN_PRISM_FISHEYE|RAD_TAN_THIN_PRISM_FISHEYE"
)
_CAMERA = re.compile(rf"^\d+\s+({'|'.join(_MODELS)}|{_OTHERS})\s+\d+\s+\d+\s", re.MULTILINE)
_IMAGE = re.compile(r"^\d+(?:\s+[-+\d.eE]+){7}\s+\d+\s+\S.*$", re.MULTILINE)
_REST = re.compile(r"^#.*(?:3D point list|frame list|rig calib)", re.IGNORECASE | re.MULTILINE)


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """cameras.txt and images.txt, or their folder; points, frames and rigs beside them are not needed."""
    lists: dict[str, Source] = {}
    for source in sources:
        if source.text.lstrip().startswith(("<", "{", "[", "%YAML")):
            raise NotThis("no list of cameras or images")
        if _REST.search(source.text[:2000]):
            continue
        kind = "cameras" if _CAMERA.search(source.text) else "images" if _IMAGE.search(source.text) else None
        if kind is None:
            raise NotThis("no list of cameras or images")
        if kind in lists:
            raise NotThis(f"two lists of {kind}")
        lists[kind] = source
    if not lists:
        raise NotThis("no list of cameras or images")
    for kind in ("cameras", "images"):
        if kind not in lists:
            (other,) = lists.values()
            raise CalibError(f"{other}: is half a COLMAP model: give {kind}.txt too, or the folder of both")
    lenses = dict(_lens(lists["cameras"], line) for line in _lines(lists["cameras"]))
    # Every second line is the image's points, and may be empty.
    lines = [line for line in lists["images"].text.splitlines() if not line.lstrip().startswith("#")]
    while lines and not lines[0].strip():
        del lines[0]
    cameras = [_camera(lists["images"], line, lenses) for line in lines[::2] if line.strip()]
    ours = WORLD in lists["images"].text
    return Foreign(
        shared_place(sources),
        cameras,
        1.0 if ours else None,
        "z" if ours else None,
        scale_is_free=True,
    )


def _lines(source: Source) -> list[str]:
    return [line for line in source.text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _lens(source: Source, line: str) -> tuple[str, tuple[Floats, Floats, tuple[int, int]]]:
    identity, model, *rest = line.split()
    place = f"{source}: camera {identity}"
    if model not in _MODELS:
        raise CalibError(
            f"{place}: is of model {model}, which is not read: undistort the images in COLMAP, or take OPENCV"
        )
    words = _MODELS[model].split()
    wide, high, *values = numbers(f"{place} ({model})", rest, 2 + len(words))
    given = dict(zip(words, values, strict=True))
    fx, fy = given.get("fx", given.get("f", 0.0)), given.get("fy", given.get("f", 0.0))
    K = np.array([[fx, 0.0, given["cx"] - 0.5], [0.0, fy, given["cy"] - 0.5], [0.0, 0.0, 1.0]])
    distortion = np.array([given.get(word, 0.0) for word in ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")])
    return identity, (K, distortion, (int(wide), int(high)))


def _camera(
    source: Source, line: str, lenses: dict[str, tuple[Floats, Floats, tuple[int, int]]]
) -> ForeignCamera:
    words = line.split(maxsplit=9)
    if len(words) < 10:
        raise CalibError(
            f"{source}: the line {line[:40]!r} is no image (id, qw, qx, qy, qz, tx, ty, tz, camera id, name; "
            "its points on the line after, even if there are none): get the whole file"
        )
    name = PurePosixPath(words[9]).stem
    place = f"{source}: image {name}"
    pose = numbers(place, words[1:8], 7)
    if words[8] not in lenses:
        raise CalibError(f"{place}: its camera {words[8]} is not in cameras.txt: get both files again")
    K, distortion, size = lenses[words[8]]
    return ForeignCamera(name, K, _rotation(place, pose[:4]), pose[4:], distortion, size)


def _rotation(place: str, quaternion: Floats) -> Floats:
    """(4,) w, x, y, z, Hamilton's convention -> (3, 3)."""
    length = np.linalg.norm(quaternion)
    if not 0.9 < length < 1.1:
        raise CalibError(f"{place}: its quaternion has length {length:.3g}, not 1: get the whole file")
    w, x, y, z = quaternion / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def texts(rig: Rig, path: Path) -> dict[Path, str]:
    """The files of a model in the folder `path`: cameras, images without points, and no 3D points."""
    from scipy.spatial.transform import Rotation

    cameras, images = [], []
    for number, (name, camera) in enumerate(rig.cameras.items(), 1):
        cameras.append(f"{number} {_model(camera)}")
        quaternion = Rotation.from_matrix(camera.R).as_quat(scalar_first=True)
        pose = " ".join(repr(float(value)) for value in (*quaternion, *camera.t))
        images.append(f"{number} {pose} {number} {name}.png\n")
    counts = f"# Number of cameras and images: {len(cameras)}\n"
    return {
        path / "cameras.txt": "# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n" + counts + _joined(cameras),
        path / "images.txt": (
            f"# {WORLD}\n# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n# POINTS2D[] (none)\n"
            + counts
            + _joined(images)
        ),
        path / "points3D.txt": "# 3D point list: none\n",
    }


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _model(camera: Camera) -> str:
    k1, k2, p1, p2, k3 = camera.distortion
    values = [camera.K[0, 0], camera.K[1, 1], camera.K[0, 2] + 0.5, camera.K[1, 2] + 0.5]
    if camera.is_pinhole:
        model = "PINHOLE"
    elif k3 == 0:
        model = "OPENCV"
        values += [k1, k2, p1, p2]
    else:
        model = "FULL_OPENCV"
        values += [k1, k2, p1, p2, k3, 0.0, 0.0, 0.0]
    return f"{model} {camera.width} {camera.height} " + " ".join(repr(float(value)) for value in values)
