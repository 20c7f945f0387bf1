"""One training step's losses: predictions of each loss's head against the simulator's truth.

Shape letters: B batch, V views (slot 0 the reference), Z heights, H W image, Hg Wg ground grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from calib.ground import GroundGrid
from calib.scene import Scene
from viewsync.nets.encoder import STRIDE
from viewsync.nets.model import UNKNOWN_FROM_S, Answer, CountingModel, MotionBefore
from viewsync.training.config import TrainConfig
from viewsync.training.flow_losses import similarity_loss, warp_loss
from viewsync.training.inputs import (
    distances,
    encode_all,
    fundamentals,
    plane_maps,
    single_frames,
    tensors,
    true_people,
)
from viewsync.training.losses import (
    SHOWN_WITHIN_M,
    PartnerRows,
    count_loss,
    density_loss,
    mark_centres,
    mark_loss,
    mark_maps,
    partner_loss,
    partner_rows,
    subcell_loss,
    view_density,
)
from viewsync.training.plane_lessons import plane_loss
from viewsync.training.rigs import padded
from viewsync.training.snapshots import Snapshot
from viewsync.training.truth import ground_truth, views_truth
from viewsync.training.two_frames import carried_loss, walk_loss

# Told with the losses, but no part of what is minimised.
TOLD = ("matched", "walk.matched", "carried.matched", "cls-plane.matched")


def _whole(number: Tensor) -> Tensor | float:
    return 1.0


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of a step's batch this process has: from its snapshot number `first` on, the whole unless
    told. weigh: of a number of things here, what their mean counts in the mean over those of all processes.
    """

    first: int = 0
    weigh: Callable[[Tensor], Tensor | float] = _whole


WHOLE = Share()


def batch_losses(
    model: CountingModel,
    batch: Sequence[Snapshot],
    grids: Tensor,
    scene: Scene,
    config: TrainConfig,
    step: int,
    share: Share = WHOLE,
) -> dict[str, Tensor]:
    """Every loss of a step by name, weighted; `grids` (V, Z, Hg, Wg, 2) in the scene's order of views, on the
    model's device. Over several processes, each with its `share`, the mean of a loss is that of the batch.

    In stage one (`config.first_stage` of the steps) the methods' own losses are left out.
    """
    if config.reference_alone and not model.config.views:
        batch = [frame for shot in batch for frame in single_frames(shot)]
    batch = padded(batch)
    ground = scene.ground
    geometry, present, offset = tensors(batch, grids)
    second_stage = step >= config.first_stage * config.steps
    features, together, before = encode_all(model, batch, second_stage)
    methods = model.config.methods if second_stage else ()
    lines = fundamentals(model, batch, scene)
    truth, planes = true_people(model, batch, scene), plane_maps(model, batch, scene)
    places = distances(model, batch, scene)
    answer = model.fuse(features, geometry, present, offset, methods, lines, places, truth, before, planes)
    losses: dict[str, Tensor] = {}
    for method, motion in answer.motion.items():
        if config.flow_loss == "warp":
            assert together is not None
            moved, wanted = answer.features, model.gather(together, places)
            loss = warp_loss(model, motion, moved, wanted, geometry, present)
        elif config.flow_loss == "similarity":
            loss = similarity_loss(model, motion, present)
        else:
            continue
        losses[f"{method}.flow"] = config.flow_weight * loss
    device = grids.device
    target = torch.from_numpy(np.stack([ground_truth(s, ground) for s in batch])).to(device)
    for method, density in answer.density.items():
        losses[f"{method}.density"] = density_loss(density, target)
        losses[f"{method}.count"] = 0.05 * count_loss(density, target)
    seen = torch.from_numpy(np.stack([views_truth(s, ground) for s in batch])).to(device)
    there = present.bool()
    if second_stage and config.encoder == "trained":
        losses["sparsity"] = config.sparsity * answer.sent.mean()
    if batch[0].maps is not None:
        # No positions: whom a view shows is taught in its picture, and nobody can have a partner.
        if config.encoder == "trained":
            lesson = density_loss(view_density(answer.marks)[there], seen[there])
            losses["marks"] = lesson * share.weigh(there.sum())
        return losses
    shape = (answer.marks.shape[-2], answer.marks.shape[-1])
    losses["visible"] = 0.5 * density_loss(answer.visible[there], seen[there]) * share.weigh(there.sum())
    if config.encoder == "trained":
        every = list(scene.cameras.values())
        cameras = {v: every[v].undistorted() for v in {int(v) for s in batch for v in s.view}}
        maps = np.stack([mark_maps(s, cameras, shape, STRIDE) for s in batch])
        marks = torch.from_numpy(maps).to(device)[there]
        losses["marks"] = 0.1 * mark_loss(answer.marks[there], marks) * share.weigh(mark_centres(marks))
    if answer.described is not None and model.column is not None:
        coarse = ground.coarser(2)
        numbers = range(step * config.batch + share.first, step * config.batch + share.first + len(batch))
        rows = partner_rows(batch, coarse, [np.random.default_rng([config.seed, n, 1]) for n in numbers])
        known = (offset.abs() < UNKNOWN_FROM_S).float()
        true = torch.from_numpy(np.stack([s.true_offset_s for s in batch])).to(device)
        loss, matched = partner_loss(
            model.column, answer.described, rows, true, known, (coarse.rows, coarse.columns), coarse.cell_m
        )
        losses |= _weighed(("partner", "matched"), loss, matched, rows, config, share)
        losses |= _subcell(answer, batch, coarse, config, share)
        if before is not None and answer.two_frames is not None:
            again = [np.random.default_rng([config.seed, n, 2]) for n in numbers]
            own, right, walked = walk_loss(model, answer.two_frames, batch, coarse, again)
            losses |= _weighed(("walk", "walk.matched"), own, right, walked, config, share)
            loss, matched = carried_loss(model, answer.two_frames, rows, present, true, known, coarse)
            losses |= _weighed(("carried", "carried.matched"), loss, matched, rows, config, share)
    if "cls-plane" in answer.motion:
        motion = answer.motion["cls-plane"]
        assert isinstance(motion, MotionBefore)
        every = list(scene.cameras.values())
        cameras = {v: every[v].undistorted() for v in {int(v) for s in batch for v in s.view}}
        taught = plane_loss(motion.moved, batch, cameras)
        losses["cls-plane.partner"] = config.partner * taught.loss * share.weigh(taught.lessons)
        losses["cls-plane.matched"] = taught.matched * share.weigh(taught.partners)
    return losses


def _subcell(
    answer: Answer, batch: Sequence[Snapshot], grid: GroundGrid, config: TrainConfig, share: Share
) -> dict[str, Tensor]:
    """Where in a cell people stand, in all frames that are matched; {} where nothing tells it."""
    assert answer.described is not None
    shift_m, shots = answer.described.shift_m, list(batch)
    if shift_m is None:
        return {}
    if answer.two_frames is not None and (before_m := answer.two_frames.earlier.shift_m) is not None:
        # A view that is absent now has no frame before: what it would have shown was blanked.
        earlier = [
            replace(shot.earlier, present=shot.earlier.present * shot.present)
            for shot in batch
            if shot.earlier is not None
        ]
        if earlier:
            shift_m, shots = torch.cat([shift_m, before_m]), shots + earlier
    loss, lessons = subcell_loss(shift_m, shots, grid)
    return {"subcell": config.partner * loss / SHOWN_WITHIN_M * share.weigh(lessons)}


def _weighed(
    names: tuple[str, str],
    loss: Tensor,
    matched: Tensor,
    rows: PartnerRows | None,
    config: TrainConfig,
    share: Share,
) -> dict[str, Tensor]:
    """A loss of the matcher and the share of its `rows` that are right, by these names."""
    flags = np.zeros(0) if rows is None else rows.matched
    lessons, partners = (torch.tensor(int((flags > least).sum())).clamp_min(1) for least in (-1, 0))
    return {
        names[0]: config.partner * loss * share.weigh(lessons),
        names[1]: matched * share.weigh(partners),
    }
