"""Positions without identities as tracks: who is who from one frame to the next, by assignment.

CityStreet and WILDTRACK say where people stand in each frame, not who they are. Two frames are linked by the
one-to-one assignment of smallest total distance (Hungarian method) between where people should be by now, at
the velocity they had, and where somebody is; nobody is linked beyond what a person can walk meanwhile. Who is
not found ends there; who belongs to nobody begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from viewsync.sim.tracks import Tracks

Floats = NDArray[np.float64]

# The fastest that people on foot are taken to be, and how far an annotated place may be off.
FASTEST_M_S, SLACK_M = 2.4, 0.3
_NEVER = 1e6


def link(positions: Sequence[Floats], fps: float) -> Tracks:
    """Positions (N_k, 2) in metres of every frame k, `fps` frames per second, as tracks with identities.

    Velocities are central differences along each track, 0 for somebody who is seen only once. Raises
    ValueError without any frame.
    """
    if not positions or fps <= 0:
        raise ValueError(f"linking needs frames and fps > 0, got {len(positions)} frames, fps {fps}")
    reach_m = FASTEST_M_S / fps + SLACK_M
    paths: list[tuple[int, list[Floats]]] = []  # first frame, places
    walking: list[int] = []
    for frame, places in enumerate(positions):
        linked = _pairs([paths[path][1] for path in walking], places, reach_m)
        now = []
        for row, place in enumerate(places):
            if row in linked:
                path = walking[linked[row]]
                paths[path][1].append(place)
            else:
                path = len(paths)
                paths.append((frame, [place]))
            now.append(path)
        walking = now
    xy = np.full((len(positions), len(paths), 2), np.nan)
    velocity = np.full_like(xy, np.nan)
    for column, (first, places_of) in enumerate(paths):
        there = slice(first, first + len(places_of))
        xy[there, column] = np.array(places_of)
        velocity[there, column] = np.gradient(xy[there, column], axis=0) * fps if len(places_of) > 1 else 0.0
    return Tracks(fps, len(positions), np.arange(len(paths)), xy, velocity)


def _pairs(paths: Sequence[Sequence[Floats]], places: Floats, reach_m: float) -> dict[int, int]:
    """Row of `places` (N, 2) -> number of the path that goes on there."""
    if not paths or not len(places):
        return {}
    # A program of the field imports this folder without scipy.
    from scipy.optimize import linear_sum_assignment

    last = np.array([path[-1] for path in paths])
    step = np.array([path[-1] - path[-2] if len(path) > 1 else np.zeros(2) for path in paths])
    walked = np.linalg.norm(places[None] - last[:, None], axis=2)
    miss = np.linalg.norm(places[None] - (last + step)[:, None], axis=2)
    cost = np.where(walked <= reach_m, miss, _NEVER)
    rows, columns = linear_sum_assignment(cost)
    return {int(c): int(r) for r, c in zip(rows, columns, strict=True) if cost[r, c] < _NEVER}
