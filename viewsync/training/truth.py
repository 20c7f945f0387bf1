"""What a snapshot's densities should be, from positions or from density maps, and how far places are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calib.ground import GroundGrid
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
