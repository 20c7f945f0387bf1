"""What a graph may ask for of the scene: its geometry for one reference, as arrays.

The reference is in slot 0, the other views after it in the bundle's order.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from calib.epipolar import fundamental_matrix
from calib.ground import person_plane, place_distances, view_from_ground
from calib.planes import plane_maps
from viewsync.bundle import Bundle

Floats = NDArray[np.float32]


def _view_from_ground(bundle: Bundle, slots: tuple[str, ...]) -> Floats:
    """(V, Z, Hg, Wg, 2): where each ground cell at each height is seen, `grid_sample` coordinates."""
    scene = bundle.scene
    return np.stack([view_from_ground(bundle.pinhole(view), scene.ground, scene.heights_m) for view in slots])


def _fundamental(bundle: Bundle, slots: tuple[str, ...]) -> Floats:
    """(V, 3, 3): x_viewᵀ F x_reference = 0 in feature pixels; zero for the reference itself."""
    spec = bundle.manifest.features
    cameras = [bundle.pinhole(view).resized(spec.width, spec.height) for view in slots]
    others = [fundamental_matrix(cameras[0], camera) for camera in cameras[1:]]
    return np.stack([np.zeros((3, 3)), *others]).astype(np.float32)


def _distance(bundle: Bundle, slots: tuple[str, ...]) -> Floats:
    """(V, h, w): how far the plane at a person's height is in each place of a view's features, metres."""
    spec, heights = bundle.manifest.features, bundle.scene.heights_m
    cameras = [bundle.pinhole(view).resized(spec.width, spec.height) for view in slots]
    return np.stack([place_distances(camera, heights[person_plane(heights)]) for camera in cameras])


def _planes(bundle: Bundle, slots: tuple[str, ...]) -> Floats:
    """(V, Z, 4, 3): over the plane at each height, from a view's feature pixels to the reference's."""
    spec = bundle.manifest.features
    cameras = [bundle.pinhole(view).resized(spec.width, spec.height) for view in slots]
    return np.stack([plane_maps(camera, cameras[0], bundle.scene.heights_m) for camera in cameras])


# By the name of the graph's input; a further kind of geometry is one more line.
GEOMETRY: dict[str, Callable[[Bundle, tuple[str, ...]], Floats]] = {
    "view_from_ground": _view_from_ground,
    "fundamental": _fundamental,
    "distance_m": _distance,
    "planes": _planes,
}
