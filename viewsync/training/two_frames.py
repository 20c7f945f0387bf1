"""The losses of `column-2`'s matcher: between a view's own two frames, and where both sides' people walk.

Shape letters: B batch, V views (slot 0 the reference), P pairs of views, K rows drawn per pair, N cells of
the matching grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from calib.ground import GroundGrid
from viewsync.nets.descriptors import Described
from viewsync.nets.model import CountingModel
from viewsync.nets.two_frames import TwoFrames, Walk, flat
from viewsync.nets.warp import ground_places
from viewsync.training.losses import PartnerRows, partner_loss, partner_rows, rows_loss
from viewsync.training.snapshots import Snapshot


def walk_loss(
    model: CountingModel,
    found: TwoFrames,
    batch: Sequence[Snapshot],
    grid: GroundGrid,
    rngs: Sequence[np.random.Generator],
) -> tuple[Tensor, Tensor, PartnerRows | None]:
    """`partner_loss` between every view's own two frames, which is what velocities come from, and the share
    of its rows that are right, and those rows; nought and None where no view has two.
    """
    pairs, index, ages, draws = [], [], [], []
    for b, (shot, rng) in enumerate(zip(batch, rngs, strict=True)):
        earlier = shot.earlier
        assert earlier is not None
        for v in np.flatnonzero((shot.present > 0) & (earlier.present > 0)):
            xy, seen = (np.stack([a[v], b[v]]) for a, b in ((shot.xy, earlier.xy), (shot.seen, earlier.seen)))
            pairs.append(replace(shot, present=np.ones(2, np.float32), xy=xy, seen=seen))
            index.append(b * len(shot.view) + int(v))
            draws.append(rng)
            ages.append([0.0, float(earlier.true_offset_s[v])])
    if not pairs:
        nought = found.described.descriptor.sum() * 0.0
        return nought, nought.detach(), None
    assert model.column is not None
    which = torch.tensor(index, device=found.described.descriptor.device)
    now, then = (
        side.each(lambda part: part.flatten(0, 1)[which]) for side in (found.described, found.earlier)
    )
    both = Described(
        torch.stack([now.descriptor, then.descriptor], dim=1),
        torch.stack([now.nobody, then.nobody], dim=1),
        torch.stack([now.inside, then.inside], dim=1),
    )
    offset = torch.tensor(ages, device=which.device)
    rows = partner_rows(pairs, grid, draws)
    shape, known = (grid.rows, grid.columns), torch.ones_like(offset)
    loss, share = partner_loss(model.column, both, rows, offset, known, shape, grid.cell_m)
    return loss, share, rows


def carried_loss(
    model: CountingModel,
    found: TwoFrames,
    rows: PartnerRows,
    present: Tensor,
    offset_s: Tensor,
    known: Tensor,
    grid: GroundGrid,
) -> tuple[Tensor, Tensor]:
    """`partner_loss` where the search is narrowed by how both views' people walk: what `column-2` matches by.

    present, offset_s, known (B, V). The walks themselves are taken as found.
    """
    assert model.column is not None and model.walking is not None
    matcher, views = model.column.matcher, present.shape[1]
    places = ground_places(grid.rows, grid.columns, grid.cell_m, found.described.descriptor)
    everybody = flat(found.described, present.flatten())
    sample, first, second, row, place, matched = (
        torch.as_tensor(part, device=places.device)
        for part in (rows.sample, rows.first, rows.second, rows.row, rows.place, rows.matched)
    )
    offset = offset_s[sample, second] - offset_s[sample, first]
    both_known = known[sample, first] * known[sample, second]

    def side(slot: Tensor) -> tuple[Described, Walk]:
        index = sample * views + slot
        return everybody.each(lambda part: part[index]), found.walks.take(index)

    ours, theirs = side(first), side(second)
    keys = model.walking.keys(matcher, *ours, offset, both_known, places, first=True)
    picked = torch.gather(keys, 2, row.unsqueeze(1).expand(-1, keys.shape[1], -1))
    others = model.walking.keys(matcher, *theirs, -offset, both_known, places, first=False)
    scores = torch.matmul(picked.transpose(1, 2), others)
    nobody = matcher.nobody_score(torch.gather(ours[0].nobody, 1, row))
    return rows_loss(scores, nobody, place, matched, places)
