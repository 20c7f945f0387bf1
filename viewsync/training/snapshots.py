"""Training snapshots: one frame per view at offsets up to κ, with every label the losses need.

Drawing is a pure function of (seed, index), so a resumed run sees what an uninterrupted one would have seen.
Shape letters: V views (slot 0 the reference), N people, Hg Wg ground grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.scene import Scene
from viewsync.errors import UserError
from viewsync.nets.model import UNKNOWN_OFFSET_S
from viewsync.sim.dataset import CrowdTruth, check_cameras, filming_of, lacking, load_truth
from viewsync.sim.density import density_map as density_map

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Maps:
    """What is known of people where a set has no positions: their density on the ground at the instant of
    slot 0 (Hg, Wg), and in each slot's picture, on the grid of its features (V, h, w).
    """

    ground: Floats
    views: Floats


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One frame per slot, the reference in slot 0.

    images (V, H, W, 3) uint8, or, where a frozen encoder has seen them, no rows and columns of images but
    `features` (V, C, h, w) as levels on the wire; synchronous likewise, at the reference's instant. view
    (V,): its row in the scene; present (V,) as 0 or 1; true_offset_s (V,); offset_s (V,): what the model is
    told; xy (V, N, 2): people's places in metres at each slot's own instant, NaN of whoever is not about;
    seen (V, N): whether that frame shows them; start_s: when the reference's was taken, in its crowd's time.
    earlier: the frame before of every slot's view, whose offsets are from that slot's frame, and so negative;
    present where there is one.
    """

    images: NDArray[np.uint8]
    view: NDArray[np.int64]
    present: Floats
    true_offset_s: Floats
    offset_s: Floats
    xy: NDArray[np.float64]
    seen: NDArray[np.bool_]
    synchronous: NDArray[np.uint8] | None = None
    features: NDArray[np.uint8] | None = None
    synchronous_features: NDArray[np.uint8] | None = None
    start_s: float = 0.0
    maps: Maps | None = None
    earlier: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How snapshots are drawn.

    Offsets are random, U(−κ, κ) (κ = 0: synchronised frames), or constant with tau_s, seconds per row of the
    scene's views, of which the reference's is taken off (paper, Section IV-B). drop, unknown: chances that a
    view is missing and that offsets are unknown; unknown of 1: no model is ever told one. reference: the row
    that always is the reference, the others follow in the scene's order; None: any, in any order.
    synchronous: snapshots come with those frames, too. together_s: frames so near in time count as taken at
    one instant. before_s: how far back each view's frame before lies, one of these for each snapshot, give or
    take half of it; (): none are wanted.
    """

    kappa_s: float = 3.0
    drop: float = 0.12
    unknown: float = 0.12
    tau_s: tuple[float, ...] | None = None
    reference: int | None = None
    synchronous: bool = False
    together_s: float = 0.05
    before_s: tuple[float, ...] = ()


class SnapshotSet:
    """The crowds `seeds` of `scene`, made by `viewsync.sim.dataset` in `folder`.

    Frames come remapped to each view's pinhole camera, as the agent does it. Raises UserError where a crowd
    is missing (naming the command that makes it), damaged, of another scene, or too short for the sampling.
    """

    def __init__(
        self, scene: Scene, folder: Path, seeds: Sequence[int], sampling: Sampling | None = None
    ) -> None:
        self.sampling = sampling or Sampling()
        self._maps = [camera.remap_to(camera.undistorted()) for camera in scene.cameras.values()]
        check_cameras(folder, scene)
        missing, filmed = lacking(folder, seeds), filming_of(folder)
        if missing or not seeds:
            raise UserError(
                f"{folder}: {len(missing)} of {len(seeds)} crowds are missing, the first is {missing[:1]}; "
                f"make them with: viewsync sim dataset --scene SCENE --out {folder} "
                f"--crowds {min(seeds, default=0)}:{max(seeds, default=0) + 1}"
                f"{'' if filmed is None else f' {filmed.flags}'}"
            )
        self.seeds = tuple(seeds)
        self.views = tuple(scene.cameras)
        sizes: set[tuple[int, ...]] = {(c.height, c.width, 3) for c in scene.cameras.values()}
        crowds = [_open_crowd(folder, seed, self.views, sizes) for seed in seeds]
        self._frames = [frames for frames, _ in crowds]
        self._features: list[NDArray[np.uint8]] = []
        self.truth: list[CrowdTruth] = [truth for _, truth in crowds]
        self._starts = [
            _starts(truth, self.sampling, folder, n) for n, truth in zip(seeds, self.truth, strict=True)
        ]

    @property
    def span_s(self) -> float:
        """How long the shortest crowd lasts, seconds."""
        return min(float(np.ptp(truth.times_s)) for truth in self.truth)

    @property
    def instants(self) -> int:
        """How many instants there are, all views of each: what `encode_once` asks for."""
        return sum(frames.shape[1] for frames in self._frames)

    def encode_once(self, encode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> None:
        """From now on snapshots come with features instead of images: `encode` gives (V, C, h, w), as levels
        on the wire, for pinhole images (V, H, W, 3).
        """
        self._features = []
        for number, frames in enumerate(self._frames):
            instants = range(frames.shape[1])
            seen = [encode(self._images(number, [(v, f) for v in range(len(self.views))])) for f in instants]
            self._features.append(np.stack(seen, axis=1))

    def possible(self, crowd: int, row: int) -> NDArray[np.int64]:
        """Numbers of the frames of view `row` that can be the reference's in a crowd."""
        return self._starts[crowd][row]

    def draw(self, seed: int, index: int, crowd: int | None = None, plain: bool = False) -> Snapshot:
        """Snapshot number `index` of the stream `seed`; `plain`: all views present, and all offsets
        known unless they never are.
        """
        rng = np.random.default_rng([seed, index])
        number = int(rng.integers(len(self._frames))) if crowd is None else crowd
        truth = self.truth[number]
        count = len(truth.views)
        order = [int(v) for v in rng.permutation(count)]
        first = self.sampling.reference
        if first is not None:
            order = [first, *(v for v in range(count) if v != first)]
        starts = self._starts[number][order[0]]
        picks = [(order[0], int(starts[rng.integers(len(starts))]))]
        start = truth.times_s[picks[0]]
        for v in order[1:]:
            if self.sampling.tau_s is not None:
                aim = start + self.sampling.tau_s[v] - self.sampling.tau_s[order[0]]
                picks.append((v, int(np.argmin(np.abs(truth.times_s[v] - aim)))))
                continue
            # Aim at a uniform offset, then take the frame nearest to it that lies within κ.
            aim = start + rng.uniform(-self.sampling.kappa_s, self.sampling.kappa_s)
            distance = np.abs(truth.times_s[v] - aim)
            within = np.abs(truth.times_s[v] - start) <= self.sampling.kappa_s
            picks.append(
                (v, int(np.argmin(np.where(within, distance, 1e3 + np.abs(truth.times_s[v] - start)))))
            )
        choices = self.sampling.before_s
        shot = self.at(number, picks, choices[int(rng.integers(len(choices)))] if choices else None)
        if plain:
            return shot
        present, told = shot.present.copy(), shot.offset_s.copy()
        present[1:] = rng.random(count - 1) >= self.sampling.drop
        if rng.random() < self.sampling.unknown:
            told[1:] = UNKNOWN_OFFSET_S
        if shot.earlier is not None:
            kept = shot.earlier.present * (rng.random(count) >= self.sampling.drop)
            shot = replace(shot, earlier=replace(shot.earlier, present=kept.astype(np.float32)))
        return replace(shot, present=present, offset_s=told)

    def at(self, crowd: int, picks: Sequence[tuple[int, int]], before_s: float | None = None) -> Snapshot:
        """The snapshot of these frames, (row of the view, number of the frame) per slot with the reference
        first: every view present, every offset known unless they never are. before_s: how far back the frames
        before lie; else the first that the sampling has.
        """
        shot = self._at(crowd, picks)
        if not self.sampling.before_s:
            return shot
        times = self.truth[crowd].times_s
        back_s = self.sampling.before_s[0] if before_s is None else before_s
        found = [frame_before(times[v], f, back_s) for v, f in picks]
        some = [(v, f if g is None else g) for (v, f), g in zip(picks, found, strict=True)]
        ages = np.array([times[p] - times[q] for p, q in zip(some, picks, strict=True)], np.float32)
        present = np.array([g is not None for g in found], np.float32)
        earlier = replace(self._at(crowd, some), present=present, offset_s=ages, true_offset_s=ages)
        return replace(shot, earlier=earlier)

    def _at(self, crowd: int, picks: Sequence[tuple[int, int]]) -> Snapshot:
        """`at` without the frames before."""
        truth = self.truth[crowd]
        offset = np.array([truth.times_s[p] - truth.times_s[picks[0]] for p in picks], np.float32)

        told = offset.copy()
        if self.sampling.unknown >= 1:
            told[1:] = UNKNOWN_OFFSET_S
        together: list[tuple[int, int]] = []
        if self.sampling.synchronous:
            start = truth.times_s[picks[0]]
            together = [(v, int(np.argmin(np.abs(truth.times_s[v] - start)))) for v, _ in picks]
        shot = Snapshot(
            images=self._images(crowd, () if self._features else picks),
            view=np.array([p[0] for p in picks]),
            present=np.ones(len(picks), np.float32),
            true_offset_s=offset,
            offset_s=told,
            xy=np.stack([truth.xy[p] for p in picks]),
            seen=np.stack([truth.seen[p] for p in picks]),
            start_s=float(truth.times_s[picks[0]]),
        )
        if not self._features:
            return replace(shot, synchronous=self._images(crowd, together) if together else None)
        features = self._features[crowd]
        return replace(
            shot,
            features=np.stack([features[p] for p in picks]),
            synchronous_features=np.stack([features[p] for p in together]) if together else None,
        )

    def _images(self, crowd: int, chosen: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
        """Pinhole images (N, H, W, 3) of frames (row of the view, number of the frame)."""
        if not chosen:
            return np.zeros((0, 0, 0, 3), np.uint8)
        frames = self._frames[crowd]
        return np.stack([cv2.remap(frames[v, f], *self._maps[v], cv2.INTER_LINEAR) for v, f in chosen])


def frame_before(times_s: NDArray[np.float64], frame: int, back_s: float) -> int | None:
    """The frame of a view whose frames are of `times_s` that lies nearest to `back_s` before `frame`; None
    where none lies within half of that.
    """
    age_s = times_s[frame] - times_s
    wrong = np.where(age_s > 0, np.abs(age_s - back_s), np.inf)
    best = int(np.argmin(wrong))
    return best if wrong[best] <= 0.5 * back_s + 1e-9 else None


def _starts(truth: CrowdTruth, sampling: Sampling, folder: Path, seed: int) -> list[NDArray[np.int64]]:
    """For every row, the numbers of the frames that may be the reference's. Raises UserError where there are
    none: the crowd is too short, or its views were never caught at one instant.
    """
    views, frames = truth.times_s.shape
    possible = []
    for row in range(views):
        fits = np.ones(frames, dtype=bool)
        for v in range(views):
            if sampling.tau_s is not None:
                aim = truth.times_s[row] + sampling.tau_s[v] - sampling.tau_s[row]
                fits &= (aim >= truth.times_s[v].min() - 1e-6) & (aim <= truth.times_s[v].max() + 1e-6)
            if sampling.synchronous or (sampling.kappa_s == 0 and sampling.tau_s is None):
                apart = np.abs(truth.times_s[row][:, None] - truth.times_s[v][None]).min(axis=1)
                fits &= apart <= sampling.together_s + 1e-9
        possible.append(np.flatnonzero(fits))
    wanted = range(views) if sampling.reference is None else (sampling.reference,)
    if all(len(possible[row]) for row in wanted):
        return possible
    span = float(np.ptp(truth.times_s))
    if sampling.tau_s is not None:
        raise UserError(
            f"{folder}: crowd {seed} lasts {span:.1f} s, too short for the constant offsets "
            f"{', '.join(f'{t:g}' for t in sampling.tau_s)} s; choose a smaller tau_s, or crowds with more "
            "frames"
        )
    raise UserError(
        f"{folder}: in crowd {seed} the views have no frames within {sampling.together_s:g} s of each other; "
        "make crowds with: viewsync sim dataset --together, or raise together_s"
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
