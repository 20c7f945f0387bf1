"""What `cls-plane` learns from directly: where in view i's frame the person is whom the reference shows.

A lesson is a place of view i where somebody *would* be seen at the reference's instant, at some height of the
body, and the place where view i's own frame shows the same height of them.

Shape letters: B batch, V views (slot 0 the reference), N lessons, K candidates, hj wj the flow's grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calib.camera import Camera
from viewsync.nets.cls_plane import ACROSS
from viewsync.nets.encoder import STRIDE
from viewsync.nets.synchronisers import Moved
from viewsync.training.snapshots import Snapshot

# Heights of a body that lessons are about, metres.
HEIGHTS_M = (0.3, 0.9, 1.5)
# A candidate so near the true place, in places of the flow's grid, counts as the right one.
NEAR = 1.0
_SIGMA = 0.6


@dataclass(frozen=True, slots=True)
class Lessons:
    """N places of views' flow grids: `sample`, `slot` (≥ 1), `row`, `column` (N,), and the true `shift`
    (N, 2) in places (x, y) where `matched` (N,), else nobody's.
    """

    sample: NDArray[np.int64]
    slot: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    shift: NDArray[np.float32]
    matched: NDArray[np.bool_]


def lessons(
    batch: Sequence[Snapshot], cameras: Mapping[int, Camera], size: tuple[int, int], stride: int
) -> Lessons:
    """Every place at which somebody whom the reference shows belongs, whoever is nearest first, and as many
    that nobody has anything to do with; drawn from what the snapshots hold, so that it is the same each time.

    cameras: the pinhole camera of every row of the scene that is in a snapshot; size: rows and columns of the
    flow's grid, whose places are `stride` places of the features.
    """
    rows, columns = size
    parts: list[tuple[NDArray[np.float64], ...]] = []
    for b, shot in enumerate(batch):
        for slot in np.flatnonzero(shot.present > 0):
            if slot == 0:
                continue
            camera = cameras[int(shot.view[slot])]
            here, shift, seen = _displacements(shot, int(slot), camera, STRIDE * stride)
            cell = np.rint(here)
            fits = (
                np.isfinite(here).all(axis=1) & (cell >= 0).all(axis=1) & (cell < (columns, rows)).all(axis=1)
            )
            flat = np.where(fits, cell[:, 1] * columns + cell[:, 0], -1).astype(np.int64)
            taught = np.flatnonzero(fits & shot.seen[0][_whose(shot)])
            depth = np.linalg.norm(shot.xy[0][_whose(shot)] - camera.centre[:2], axis=1)
            taught = taught[np.argsort(depth[taught], kind="stable")]
            taught = taught[np.unique(flat[taught], return_index=True)[1]]
            free = np.setdiff1d(np.arange(rows * columns), flat)
            rng = np.random.default_rng([int(abs(shot.true_offset_s[slot]) * 1e6), int(slot), len(taught)])
            free = rng.permutation(free)[: max(len(taught), 8)]
            place = np.concatenate([flat[taught], free])
            parts.append(
                (
                    np.full(len(place), b),
                    np.full(len(place), slot),
                    place,
                    np.concatenate([shift[taught], np.zeros((len(free), 2))]),
                    np.concatenate([seen[taught], np.zeros(len(free), bool)]),
                )
            )
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Lessons(nothing, nothing, nothing, nothing, np.zeros((0, 2), np.float32), nothing > 0)
    sample, slots, place, shifts, matched = (np.concatenate(column) for column in zip(*parts, strict=True))
    place = place.astype(np.int64)
    return Lessons(
        sample.astype(np.int64),
        slots.astype(np.int64),
        place // columns,
        place % columns,
        shifts.astype(np.float32),
        matched.astype(bool),
    )


@dataclass(frozen=True, slots=True)
class Taught:
    """Loss of a batch, the share of matched lessons that were found, and how many lessons and matched ones
    these are means over, 1 where there are none.
    """

    loss: Tensor
    matched: Tensor
    lessons: Tensor
    partners: Tensor


def plane_loss(found: Moved, batch: Sequence[Snapshot], cameras: Mapping[int, Camera]) -> Taught:
    """Cross-entropy of every lesson over the candidates and "nobody", with a Gaussian around the true place
    as target; whoever is out of reach teaches nothing. Also the share of matched lessons, those out of reach
    with them, whose best candidate is within NEAR of the truth.
    """
    assert found.candidates is not None
    log_share, shift = found.candidates.log_share, found.candidates.shift_px
    size = (log_share.shape[-2], log_share.shape[-1])
    given = lessons(batch, cameras, size, found.strides[-1])
    device = log_share.device
    sample, other, row, column, true, matched = (
        torch.from_numpy(a).to(device)
        for a in (given.sample, given.slot - 1, given.row, given.column, given.shift, given.matched)
    )
    share = log_share[sample, other, :, row, column]  # (N, K + 1)
    apart = (shift[sample, other, :, row, column] - true.unsqueeze(1)).square().sum(dim=2).detach()
    target = torch.softmax(-0.5 * apart / _SIGMA**2, dim=1)
    reached = apart.amin(dim=1) <= (2 * NEAR) ** 2
    hit = apart.gather(1, share[:, :-1].argmax(dim=1, keepdim=True)).squeeze(1) <= NEAR**2
    each = torch.where(matched, -(target * share[:, :-1].clamp_min(-30.0)).sum(dim=1), -0.7 * share[:, -1])
    counts = ~matched | reached
    lessons_, partners = counts.sum().clamp_min(1), matched.sum().clamp_min(1)
    return Taught((each * counts).sum() / lessons_, (hit & matched).sum() / partners, lessons_, partners)


@dataclass(frozen=True, slots=True)
class Reach:
    """How many people were looked for, whom the reference and view i both show, and how many of them lie
    within `cls-plane`'s reach in view i's frame; the same of those whom |δ| ≥ κ/2 makes hard.
    """

    people: int
    within: int
    late: int
    late_within: int


def within_reach(
    shots: Iterator[Snapshot],
    cameras: Mapping[int, Camera],
    walk_m_s: float,
    least_m: float,
    side: float,
    kappa_s: float,
    geometry: NDArray[np.float32],
) -> Reach:
    """Count people whose true displacement at chest height lies within the hull of the candidates, which go
    v·|δ| + σ₀ along the epipolar line and `side` of that across it, in metres of the picture at their depth.
    geometry: F (V, V, 3, 3) between places of the features, in the scene's order.
    """
    people = within = late = late_within = 0
    for shot in shots:
        for slot in range(1, len(shot.view)):
            reference, camera = (cameras[int(shot.view[s])] for s in (0, slot))
            both = shot.seen[0] & shot.seen[slot]
            if not both.any():
                continue
            chest = [np.column_stack([shot.xy[s][both], np.full(both.sum(), 0.9)]) for s in (0, slot)]
            here, there = (_places(camera, points, STRIDE) for points in chest)
            partner = np.column_stack([_places(reference, chest[0], STRIDE), np.ones(both.sum())])
            line = partner @ geometry[shot.view[0], shot.view[slot]].T.astype(np.float64)
            across = line[:, :2] / np.linalg.norm(line[:, :2], axis=1, keepdims=True)
            depth = (chest[0] - camera.centre) @ camera.R[2]
            far = walk_m_s * abs(float(shot.true_offset_s[slot])) + least_m
            relative = (there - here) / (far * camera.K[0, 0] / STRIDE / depth)[:, None]
            beside = (relative * across).sum(axis=1) / side
            along = relative[:, 1] * across[:, 0] - relative[:, 0] * across[:, 1]
            fine = np.isfinite(relative).all(axis=1)
            edge = max(ACROSS)
            narrower = (1.0 - (1.0 - edge * edge) ** 0.5) / edge
            ok = fine & (abs(beside) <= edge) & (abs(along) <= 1.0 - narrower * abs(beside))
            people += int(fine.sum())
            within += int(ok.sum())
            if abs(float(shot.true_offset_s[slot])) >= kappa_s / 2:
                late += int(fine.sum())
                late_within += int(ok.sum())
    return Reach(people, within, late, late_within)


def _whose(shot: Snapshot) -> NDArray[np.int64]:
    """Number of the person that each of `_displacements` is of."""
    return np.tile(np.arange(shot.xy.shape[1]), len(HEIGHTS_M))


def _displacements(
    shot: Snapshot, slot: int, camera: Camera, stride: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """For all people at all HEIGHTS_M: the place of view `slot` where they belong at the reference's instant,
    how far off its frame shows them, and whether it does; places of a grid of `stride` pixels.
    """
    points = [
        np.concatenate([np.column_stack([shot.xy[s], np.full(shot.xy.shape[1], z)]) for z in HEIGHTS_M])
        for s in (0, slot)
    ]
    here, there = (_places(camera, p, stride) for p in points)
    limit = (camera.width / stride, camera.height / stride)
    inside = ((there > -0.5) & (there < np.array(limit) - 0.5)).all(axis=1)
    seen = np.tile(shot.seen[slot], len(HEIGHTS_M)) & inside & np.isfinite(there).all(axis=1)
    return here, np.where(seen[:, None], there - here, 0.0), seen


def _places(camera: Camera, points: NDArray[np.float64], stride: int) -> NDArray[np.float64]:
    """World points (N, 3) as places (x, y) of a grid of `stride` pixels."""
    places: NDArray[np.float64] = (camera.project(points) + 0.5) / stride - 0.5
    return places
