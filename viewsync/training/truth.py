"""What a snapshot's densities should be, from positions or from density maps, and how far places are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calib.ground import GroundGrid, person_plane, place_distances
from calib.scene import Scene
from viewsync.sim.density import density_map
from viewsync.training.snapshots import Snapshot

Floats = NDArray[np.float32]


def ground_truth(shot: Snapshot, grid: GroundGrid) -> Floats:
    """Density (Hg, Wg) of everybody at the reference's instant."""
    return density_map(shot.xy[0], grid) if shot.maps is None else shot.maps.ground


def views_truth(shot: Snapshot, grid: GroundGrid) -> Floats:
    """Density of the people each slot's frame shows: on the ground (V, Hg, Wg), or as `maps` have it."""
    if shot.maps is not None:
        return shot.maps.views
    return np.stack([density_map(shot.xy[v][shot.seen[v]], grid) for v in range(len(shot.view))])


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
