"""What the model learns from: density of everybody, density of whom each view sees, and true partners of
ground cells.

Shape letters: B batch, V views (slot 0 the reference), K rows drawn per pair, N cells of the matching grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional as F

from calib.camera import Camera
from calib.ground import GroundGrid
from viewsync.nets.descriptors import Described
from viewsync.nets.matching import FAR
from viewsync.nets.synchronisers import ColumnSynchroniser
from viewsync.nets.warp import ground_places
from viewsync.training.snapshots import Snapshot

# Densities are of the order 0.05 people per 0.2 m cell; this brings their squares to the order of one.
DENSITY_GAIN = 50.0
PARTNER_SIGMA_M = 0.35
# Cells whose middle is this near to somebody are to tell where that is.
SHOWN_WITHIN_M = 0.6


def density_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """ℓp: mean-square error of density maps (…, Hg, Wg), scaled by DENSITY_GAIN² (paper, Section III-A2)."""
    return ((predicted - target) * DENSITY_GAIN).square().mean()


def count_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Absolute count error over the root of the count, so that full and empty scenes weigh alike."""
    count = target.sum(dim=(-2, -1))
    return ((predicted.sum(dim=(-2, -1)) - count).abs() / (count + 4.0).sqrt()).mean()


def mark_maps(
    shot: Snapshot, cameras: Mapping[int, Camera] | Sequence[Camera], shape: tuple[int, int], stride: int
) -> NDArray[np.float32]:
    """Targets (V, 2, h, w) in 0..1: a small Gaussian on the head and on the feet of everybody seen in each
    frame.

    `cameras` are the views' pinhole cameras, by rows in the scene, at `stride` times the feature resolution.
    """
    height, width = shape
    maps = np.zeros((len(shot.view), 2, height, width), np.float32)
    rows, columns = np.arange(height)[None, :], np.arange(width)[None, :]
    for slot, view in enumerate(shot.view):
        people = shot.xy[slot][shot.seen[slot]]
        for part, z in enumerate((1.62, 0.05)):
            pixels = cameras[int(view)].project(np.column_stack([people, np.full(len(people), z)]))
            pixels = pixels[np.isfinite(pixels).all(axis=1)]
            x, y = ((pixels + 0.5) / stride - 0.5).T[:, :, None]
            spots = np.exp(-0.5 * (y - rows) ** 2)[:, :, None] * np.exp(-0.5 * (x - columns) ** 2)[:, None, :]
            if len(spots):
                maps[slot, part] = spots.max(axis=0)
    return maps


def mark_loss(scores: Tensor, target: Tensor) -> Tensor:
    """Focal loss of heat maps (…, h, w), per person (Zhou et al., "Objects as Points", 2019, Eq. 1)."""
    share = torch.sigmoid(scores).clamp(1e-4, 1 - 1e-4)
    centre = _centres(target).to(scores.dtype)
    hit = centre * (1 - share).square() * share.log()
    miss = (1 - centre) * (1 - target).pow(4) * share.square() * (1 - share).log()
    return -(hit + miss).sum() / centre.sum().clamp_min(1.0)


def mark_centres(target: Tensor) -> Tensor:
    """How many people `mark_loss` divides by."""
    return _centres(target).sum().clamp_min(1)


def _centres(target: Tensor) -> Tensor:
    return target > 0.88


def view_density(marks: Tensor) -> Tensor:
    """People per place of the features (B, V, h, w) that scores of heads (B, V, 2, h, w) stand for, where a
    set has density maps of its pictures instead of positions.
    """
    return F.softplus(marks[:, :, 0])


@dataclass(frozen=True, slots=True)
class PartnerRows:
    """Rows of the matching problem: for pair p, cell `row` (P, K) of slot `first` (P,) should find its
    partner at `place` (P, K, 2) m in slot `second` (P,), or nobody where `matched` (P, K) is 0. `sample` (P,)
    is the batch index.
    """

    sample: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    row: NDArray[np.int64]
    place: NDArray[np.float32]
    matched: NDArray[np.float32]


def partner_rows(
    batch: Sequence[Snapshot], grid: GroundGrid, rngs: Sequence[np.random.Generator], rows: int = 72
) -> PartnerRows:
    """Draw `rows` cells per ordered pair of present views: cells of people, seen or hidden, and a third empty
    ground. rngs: one for each snapshot.
    """
    out: list[tuple[int, int, int, NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]] = []
    for b, (shot, rng) in enumerate(zip(batch, rngs, strict=True)):
        slots = np.flatnonzero(shot.present > 0)
        on_grid = grid.contains(shot.xy)
        for first in slots:
            for second in slots:
                if first == second:
                    continue
                here = np.flatnonzero(on_grid[first])
                people = rng.permutation(here)[: rows - rows // 3]
                cell = grid.cell_of(shot.xy[first, people]).reshape(-1, 2)
                matched = shot.seen[first, people] & shot.seen[second, people] & on_grid[second, people]
                empty = rows - len(people)
                row = np.concatenate(
                    [
                        cell[:, 0] * grid.columns + cell[:, 1],
                        rng.integers(grid.rows * grid.columns, size=empty),
                    ]
                )
                taken = grid.cell_of(shot.xy[first, here]).reshape(-1, 2)
                occupied = np.isin(row[len(people) :], taken[:, 0] * grid.columns + taken[:, 1])
                keep = np.concatenate([np.ones(len(people)), ~occupied])
                # Whoever is not about at the second instant has no place: NaN, which must not reach a loss.
                there = np.where(matched[:, None], shot.xy[second, people], 0.0)
                place = np.concatenate([there, np.zeros((empty, 2))]) - (grid.origin_x_m, grid.origin_y_m)
                flag = np.concatenate([matched, np.zeros(empty)])
                flag[keep == 0] = -1.0  # an empty-ground row that hit somebody: no lesson
                out.append(
                    (b, int(first), int(second), row, place.astype(np.float32), flag.astype(np.float32))
                )
    # There may be no pair: whatever was drawn shows the reference alone.
    sample, first_slot, second_slot = (np.array([o[k] for o in out], np.int64) for k in range(3))
    pairs = len(out)
    return PartnerRows(
        sample,
        first_slot,
        second_slot,
        np.array([o[3] for o in out], np.int64).reshape(pairs, rows),
        np.array([o[4] for o in out], np.float32).reshape(pairs, rows, 2),
        np.array([o[5] for o in out], np.float32).reshape(pairs, rows),
    )


def partner_loss(
    synchroniser: ColumnSynchroniser,
    described: Described,
    rows: PartnerRows,
    offset_s: Tensor,
    known: Tensor,
    shape: tuple[int, int],
    cell_m: float,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each row over all cells and "nobody", with a Gaussian around the true partner as
    target.

    Also returns the share of matched rows whose best cell lies within 0.5 m of the partner.
    """
    device = described.descriptor.device
    sample, first, second = (
        torch.as_tensor(a, device=device) for a in (rows.sample, rows.first, rows.second)
    )
    row, place, matched = (torch.as_tensor(a, device=device) for a in (rows.row, rows.place, rows.matched))
    places = ground_places(*shape, cell_m, described.descriptor)
    ours = described.descriptor[sample, first]
    picked = Described(
        torch.gather(ours, 2, row.unsqueeze(1).expand(-1, ours.shape[1], -1)),
        torch.gather(described.nobody[sample, first], 1, row),
        torch.ones_like(row, dtype=ours.dtype),
    )
    other = described.each(lambda part: part[sample, second])
    matcher = synchroniser.matcher
    sigma = matcher.sigma_m(
        offset_s[sample, second] - offset_s[sample, first], known[sample, second] * known[sample, first]
    )
    everywhere = places.unsqueeze(0).expand(len(row), -1, -1)
    keys = matcher.keys(picked, places[row.flatten()].reshape(*row.shape, 2), sigma, first=True)
    scores = torch.matmul(keys.transpose(1, 2), matcher.keys(other, everywhere, sigma, first=False))
    alone = matcher.nobody_score(picked.nobody)
    if matcher.everybody:  # whoever has no partner teaches nothing
        alone, matched = torch.full_like(alone, FAR), torch.where(matched > 0, matched, -1.0)
    return rows_loss(scores, alone, place, matched, places)


def subcell_loss(shift_m: Tensor, batch: Sequence[Snapshot], grid: GroundGrid) -> tuple[Tensor, Tensor]:
    """How far from where they stand the cells around people whom a view shows take them to be, metres, mean
    over those cells, as L1 distance; and how many cells they are.

    shift_m (B, V, N, 2) as in `Described`, on the matching `grid`.
    """
    cells = grid.centres().reshape(-1, 2)
    wanted = np.zeros((*shift_m.shape[:2], len(cells), 2), np.float32)
    taken = np.zeros(wanted.shape[:3], np.bool_)
    for b, shot in enumerate(batch):
        for v in np.flatnonzero(shot.present > 0):
            people = shot.xy[v][shot.seen[v] & grid.contains(shot.xy[v])]
            if len(people):
                distance, who = cKDTree(people).query(cells, distance_upper_bound=SHOWN_WITHIN_M)
                near = np.isfinite(distance)
                wanted[b, v, near] = people[who[near]] - cells[near]
                taken[b, v] = near
    device = shift_m.device
    missed = (shift_m - torch.from_numpy(wanted).to(device)).abs().sum(dim=3)
    lessons = torch.from_numpy(taken).to(device)
    return (missed * lessons).sum() / lessons.sum().clamp_min(1), lessons.sum()


def rows_loss(
    scores: Tensor, nobody: Tensor, place: Tensor, matched: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """`partner_loss` of rows whose scores (P, K, N) and whose score of "nobody" (P, K) are known; place
    (P, K, 2) m and matched (P, K) as in `PartnerRows`, places (N, 2) m.
    """
    log_share = torch.log_softmax(torch.cat([scores, nobody.unsqueeze(2)], dim=2), dim=2)
    # The target is normalised over the cells the other view looks at.
    near = -0.5 * torch.cdist(place, places.unsqueeze(0)).square() / PARTNER_SIGMA_M**2
    target = torch.softmax(near, dim=2)
    found = -(target * log_share[:, :, :-1].clamp_min(-30.0)).sum(dim=2)
    alone = -log_share[:, :, -1]
    loss = torch.where(matched > 0, found, 0.7 * alone) * (matched >= 0)
    best = places[scores.argmax(dim=2)]
    hit = ((best - place).norm(dim=2) < 0.5).float()
    share = (hit * (matched > 0)).sum() / (matched > 0).sum().clamp_min(1)
    return loss.sum() / (matched >= 0).sum().clamp_min(1), share.detach()
