"""What networks are told of a scene's cameras, in arrays: grids, lines, planes and distances of its views.

Shape letters: V views in the scene's order, Z heights, Hg Wg ground grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calib.epipolar import fundamental_matrix
from calib.ground import person_plane, place_distances, view_from_ground
from calib.planes import plane_maps
from calib.scene import Scene

Floats = NDArray[np.float32]


def scene_grids(scene: Scene, width: int, height: int) -> Floats:
    """Sampling grids (V, Z, Hg, Wg, 2) of every view's pinhole camera at `width` × `height`, in the scene's
    order.
    """
    return np.stack(
        [
            view_from_ground(camera.undistorted().resized(width, height), scene.ground, scene.heights_m)
            for camera in scene.cameras.values()
        ]
    )


def scene_fundamentals(scene: Scene, width: int, height: int) -> Floats:
    """F (V, V, 3, 3) between pixels of `width` × `height`, in the scene's order: [r, i] leads from the
    reference r to lines in view i, x_iᵀ F x_r = 0; zero for a view and itself.
    """
    cameras = [camera.undistorted().resized(width, height) for camera in scene.cameras.values()]
    out = np.zeros((len(cameras), len(cameras), 3, 3), np.float32)
    for r, i in itertools.permutations(range(len(cameras)), 2):
        out[r, i] = fundamental_matrix(cameras[r], cameras[i])
    return out


def scene_planes(scene: Scene, width: int, height: int) -> Floats:
    """Plane maps (V, V, Z, 4, 3) between pixels of `width` × `height`, in the scene's order: [r, i] leads
    from view i over the scene's heights to the reference r (`calib.planes.plane_maps`).
    """
    cameras = [camera.undistorted().resized(width, height) for camera in scene.cameras.values()]
    return np.stack([[plane_maps(i, r, scene.heights_m) for i in cameras] for r in cameras])


def scene_distances(scene: Scene, width: int, height: int, rows: Sequence[int] | None = None) -> Floats:
    """How far the plane at a person's height is in every place of `width` × `height` of the views `rows` of
    the scene, in this order, else of all (V, height, width), metres.
    """
    plane = scene.heights_m[person_plane(scene.heights_m)]
    every = list(scene.cameras.values())
    cameras = every if rows is None else [every[row] for row in rows]
    return np.stack(
        [place_distances(camera.undistorted().resized(width, height), plane) for camera in cameras]
    )
