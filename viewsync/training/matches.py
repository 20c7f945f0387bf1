"""Whether a method finds people again: its flow against the simulator's truth, by how far off frames are.

Shape letters: V views (slot 0 the reference), Hm Wm ground rows and columns of the matching grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.ground import GroundGrid
from viewsync.training.runners import Runner
from viewsync.training.snapshots import Snapshot

Floats = NDArray[np.float64]
# A partner is found where the flow leads this near, metres: a body.
NEAR_M = 0.75


@dataclass(frozen=True, slots=True)
class Sought:
    """Everybody whom a reference shows, once for every other view: offset_s (N,) seconds, how far off that
    view's frame is; moved_m (N,) metres that they walked until then, NaN where that view does not show them
    on the grid; missed_m (N,) metres between where the flow leads and where they are, NaN likewise; match
    (N,) in 0..1, what the method says of their having a partner there.
    """

    offset_s: Floats
    moved_m: Floats
    missed_m: Floats
    match: Floats

    @classmethod
    def of(cls, rows: Sequence[Floats]) -> Sought:
        """From rows of the four."""
        return cls(*np.concatenate([*rows, np.zeros((0, 4))]).T)

    def between(self, least_s: float, most_s: float) -> Sought:
        """Those with an offset from `least_s` to below `most_s`, seconds."""
        kept = (self.offset_s >= least_s) & (self.offset_s < most_s)
        return Sought(self.offset_s[kept], self.moved_m[kept], self.missed_m[kept], self.match[kept])

    @property
    def partners(self) -> int:
        """How many the other view shows, too."""
        return int(np.isfinite(self.moved_m).sum())

    def found(self) -> float:
        """Share of partners that the flow leads to within NEAR_M; NaN: there are none."""
        return _share(self.missed_m)

    def still(self) -> float:
        """Share of partners who are that near to where they were: what zero flow finds."""
        return _share(self.moved_m)

    def matched(self, partner: bool) -> float:
        """Mean match of those who have a partner, or of those who have none; NaN: there are none."""
        those = self.match[np.isfinite(self.moved_m) == partner]
        return float(those.mean()) if len(those) else float("nan")


def _share(away_m: Floats) -> float:
    known = away_m[np.isfinite(away_m)]
    return float((known <= NEAR_M).mean()) if len(known) else float("nan")


def seek(runner: Runner, shots: Iterable[Snapshot]) -> dict[str, Sought]:
    """What every graph that publishes metric flow says of the people in these snapshots."""
    ground = runner.scene.ground
    rows: dict[str, list[Floats]] = {}
    for shot in shots:
        outputs = runner.fuse(_encoded(runner, shot), shot, _earlier(runner, shot))
        for graph, out in outputs.items():
            if "flow_m" in out and "match" in out:
                rows.setdefault(graph, []).append(of_snapshot(out, shot, ground))
    return {graph: Sought.of(some) for graph, some in rows.items()}


def of_snapshot(out: Mapping[str, NDArray[np.float32]], shot: Snapshot, ground: GroundGrid) -> Floats:
    """Rows (N, 4) of `Sought`, from flow_m (V, Hm, Wm, 2) and match (V, Hm, Wm)."""
    flow, match = out["flow_m"].astype(np.float64), out["match"].astype(np.float64)
    grid = ground.coarser(ground.rows // flow.shape[1])
    shown = np.flatnonzero(shot.seen[0] & grid.contains(shot.xy[0]))
    here = shot.xy[0][shown]
    row, column = grid.cell_of(here).reshape(-1, 2).T
    parts = []
    for slot in np.flatnonzero(shot.present[1:] > 0) + 1:
        seen = shot.seen[slot] & grid.contains(shot.xy[slot])
        there = np.where(seen[shown, None], shot.xy[slot][shown], np.nan)
        missed = np.linalg.norm(here + flow[slot, row, column] - there, axis=1)
        offset = np.full(len(shown), abs(float(shot.true_offset_s[slot])))
        walked = np.linalg.norm(there - here, axis=1)
        parts.append(np.column_stack([offset, walked, missed, match[slot, row, column]]))
    return np.concatenate([*parts, np.zeros((0, 4))])


def _encoded(runner: Runner, shot: Snapshot) -> NDArray[np.generic]:
    return np.stack([runner.encode(i, int(v)) for i, v in zip(shot.images, shot.view, strict=True)])


def _earlier(runner: Runner, shot: Snapshot) -> NDArray[np.generic] | None:
    return None if shot.earlier is None else _encoded(runner, shot.earlier)
