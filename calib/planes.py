"""Planes above the ground, from one view to another: where a place shows, if what is seen there is so high.

Shape letters: Z heights.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.ground import ground_from_image


def plane_maps(view: Camera, reference: Camera, heights_m: Sequence[float]) -> NDArray[np.float32]:
    """float32 (Z, 4, 3): for every height, the rows that a pixel (x, y, 1) of `view` is multiplied with.

    Rows 0–2 are the homography over that plane to pixels of `reference`; its third value is the ratio of the
    depths, reference over view. Row 3 gives pixels of `view` per metre across the line of sight there,
    positive where the plane is in front of the camera. CalibError for a camera that is distorted, or lies in
    one of the planes.
    """
    focal_px = float(np.sqrt(view.K[0, 0] * view.K[1, 1]))
    P = reference.P
    maps = np.empty((len(heights_m), 4, 3))
    for row, z in enumerate(heights_m):
        plane_from_view = ground_from_image(view, z)
        maps[row, :3] = np.column_stack([P[:, 0], P[:, 1], P[:, 2] * z + P[:, 3]]) @ plane_from_view
        maps[row, 3] = focal_px * plane_from_view[2]
    return maps.astype(np.float32)
