"""Training snapshots: one frame per view at offsets up to κ, with every label the losses need.

Drawing is a pure function of (seed, index), so a resumed run sees what an uninterrupted one would have seen.
Shape letters: V views (slot 0 the reference), N people, Hg Wg ground grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.ground import view_from_ground
from calib.scene import Scene
from viewsync.errors import UserError
from viewsync.nets.model import UNKNOWN_OFFSET_S
from viewsync.sim.dataset import CrowdTruth, check_cameras, lacking, load_truth
from viewsync.sim.density import density_map as density_map

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One frame per slot, the reference in slot 0.

    images (V, H, W, 3) uint8; view (V,): its row in the scene; present (V,) as 0 or 1; true_offset_s (V,);
    offset_s (V,): what the model is told; xy (V, N, 2): people's places in metres at each slot's own instant;
    seen (V, N): whether that frame shows them.
    """

    images: NDArray[np.uint8]
    view: NDArray[np.int64]
    present: Floats
    true_offset_s: Floats
    offset_s: Floats
    xy: NDArray[np.float64]
    seen: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How snapshots are drawn: κ in seconds, chances that a view is missing and that offsets are unknown."""

    kappa_s: float = 3.0
    drop: float = 0.12
    unknown: float = 0.12


class SnapshotSet:
    """The crowds `seeds` of `scene`, made by `viewsync.sim.dataset` in `folder`.

    Frames come remapped to each view's pinhole camera, as the agent does it. Raises UserError where a crowd
    is missing (naming the command that makes it), damaged, or of another scene.
    """

    def __init__(
        self, scene: Scene, folder: Path, seeds: Sequence[int], sampling: Sampling | None = None
    ) -> None:
        self.sampling = sampling or Sampling()
        self._maps = [camera.remap_to(camera.undistorted()) for camera in scene.cameras.values()]
        check_cameras(folder, scene)
        missing = lacking(folder, seeds)
        if missing or not seeds:
            raise UserError(
                f"{folder}: {len(missing)} of {len(seeds)} crowds are missing, the first is {missing[:1]}; "
                f"make them with: viewsync sim dataset --scene SCENE --out {folder} "
                f"--crowds {min(seeds, default=0)}:{max(seeds, default=0) + 1}"
            )
        self.seeds = tuple(seeds)
        self.views = tuple(scene.cameras)
        sizes: set[tuple[int, ...]] = {(c.height, c.width, 3) for c in scene.cameras.values()}
        crowds = [_open_crowd(folder, seed, self.views, sizes) for seed in seeds]
        self._frames = [frames for frames, _ in crowds]
        self.truth: list[CrowdTruth] = [truth for _, truth in crowds]

    def draw(self, seed: int, index: int, crowd: int | None = None, plain: bool = False) -> Snapshot:
        """Snapshot number `index` of the stream `seed`; `plain`: all views present, all offsets known."""
        rng = np.random.default_rng([seed, index])
        number = int(rng.integers(len(self._frames))) if crowd is None else crowd
        frames, truth = self._frames[number], self.truth[number]
        count = len(truth.views)
        order = rng.permutation(count)
        picks = [(int(order[0]), int(rng.integers(frames.shape[1])))]
        start = truth.times_s[picks[0]]
        for v in order[1:]:
            # Aim at a uniform offset, then take the frame nearest to it that lies within κ.
            aim = start + rng.uniform(-self.sampling.kappa_s, self.sampling.kappa_s)
            distance = np.abs(truth.times_s[v] - aim)
            within = np.abs(truth.times_s[v] - start) <= self.sampling.kappa_s
            picks.append(
                (int(v), int(np.argmin(np.where(within, distance, 1e3 + np.abs(truth.times_s[v] - start)))))
            )
        shot = self.at(number, picks)
        if plain:
            return shot
        present, told = shot.present.copy(), shot.offset_s.copy()
        present[1:] = rng.random(count - 1) >= self.sampling.drop
        if rng.random() < self.sampling.unknown:
            told[1:] = UNKNOWN_OFFSET_S
        return replace(shot, present=present, offset_s=told)

    def at(self, crowd: int, picks: Sequence[tuple[int, int]]) -> Snapshot:
        """The snapshot of these frames, (row of the view, number of the frame) per slot with the reference
        first: every view present, every offset known.
        """
        frames, truth = self._frames[crowd], self.truth[crowd]
        offset = np.array([truth.times_s[p] - truth.times_s[picks[0]] for p in picks], np.float32)
        return Snapshot(
            images=np.stack([cv2.remap(frames[v, f], *self._maps[v], cv2.INTER_LINEAR) for v, f in picks]),
            view=np.array([p[0] for p in picks]),
            present=np.ones(len(picks), np.float32),
            true_offset_s=offset,
            offset_s=offset,
            xy=np.stack([truth.xy[p] for p in picks]),
            seen=np.stack([truth.seen[p] for p in picks]),
        )


def _open_crowd(
    folder: Path, seed: int, views: tuple[str, ...], sizes: set[tuple[int, ...]]
) -> tuple[NDArray[np.uint8], CrowdTruth]:
    """Frames (V, F, H, W, 3), read when they are looked at, and truth of one crowd. Raises UserError."""
    path = folder / f"{seed:06d}.npy"
    again = f"remove {path.with_suffix('.npz')} and make it again with: viewsync sim dataset"
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
        truth = load_truth(path.with_suffix(".npz"))
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(f"{path}: this crowd is damaged ({error}); {again}") from error
    if truth.views != views or {frames.shape[2:]} != sizes:
        raise UserError(
            f"{path} shows {', '.join(truth.views)} at {frames.shape[3]}x{frames.shape[2]}, which are not "
            f"this scene's cameras ({', '.join(views)}); choose the folder of this scene's crowds"
        )
    if frames.shape[:2] != truth.times_s.shape:
        raise UserError(f"{path}: {frames.shape[:2]} frames, but times for {truth.times_s.shape}; {again}")
    return frames, truth


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
