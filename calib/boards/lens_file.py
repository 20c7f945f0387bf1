"""A camera's intrinsics in a file of their own, before anybody knows where the camera stands."""

from pathlib import Path

import numpy as np

from calib.camera import Camera
from calib.errors import CalibError
from calib.scene import load_scene
from calib.scene_text import Fields, read_yaml, write_atomically

SCHEMA = 1


def save_lens(camera: Camera, path: Path | str, how: str) -> None:
    """Write the intrinsics of `camera`; how: one line for people, where they come from. The file at `path` is
    replaced whole or not at all.
    """
    K = camera.K.tolist()
    lines = [
        f"# viewsync intrinsics: {how}",
        f"schema: {SCHEMA}",
        "lens:",
        f"  width_px: {camera.width}  # image size that they hold for",
        f"  height_px: {camera.height}",
        "  intrinsics_px:  # K: [[fx, skew, cx], [0, fy, cy], [0, 0, 1]]",
        *(f"    - {row}" for row in K),
        f"  distortion: {camera.distortion.tolist()}  # Brown-Conrady k1, k2, p1, p2, k3 (OpenCV order)",
    ]
    write_atomically(Path(path), "\n".join(lines) + "\n")


def load_lens(path: Path | str, view: str) -> Camera:
    """The intrinsics for `view`, as a camera at the world's origin: from a file of `save_lens`, or from a
    scene that has a camera of that name. CalibError names the file, the key and what to do.
    """
    path = Path(path)
    document = read_yaml(path)
    if isinstance(document, dict) and "cameras" in document:
        cameras = load_scene(path).cameras
        if view not in cameras:
            raise CalibError(f"{path}: has no camera {view!r}; it has {', '.join(cameras)}")
        camera = cameras[view]
        return Camera(camera.K, np.eye(3), np.zeros(3), camera.distortion, camera.width, camera.height)
    top = Fields(str(path), "", document)
    schema = top.take("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise top.error("schema", f"is {schema!r}: this version reads intrinsics of schema {SCHEMA}")
    fields = top.child("lens")
    top.finish()
    with fields.naming():
        camera = Camera(
            fields.numbers("intrinsics_px", (3, 3)),
            np.eye(3),
            np.zeros(3),
            fields.numbers("distortion", (5,)),
            fields.whole("width_px"),
            fields.whole("height_px"),
        )
    fields.finish()
    return camera
