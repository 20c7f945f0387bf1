"""One training step's losses: snapshots to tensors, through the model, against the simulator's truth.

Shape letters: B batch, V views (slot 0 the reference), Z heights, H W image, Hg Wg ground grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calib.scene import Scene
from viewsync.nets.config import BOUNDS
from viewsync.nets.encoder import STRIDE
from viewsync.nets.model import UNKNOWN_FROM_S, CountingModel
from viewsync.nets.perfect import People
from viewsync.nets.two_frames import Before
from viewsync.training.config import TrainConfig
from viewsync.training.flow_losses import similarity_loss, warp_loss
from viewsync.training.losses import (
    PartnerRows,
    count_loss,
    density_loss,
    mark_centres,
    mark_loss,
    mark_maps,
    partner_loss,
    partner_rows,
    view_density,
)
from viewsync.training.plane_lessons import plane_loss
from viewsync.training.rigs import padded
from viewsync.training.snapshots import Maps, Snapshot, scene_fundamentals, scene_planes
from viewsync.training.truth import ground_truth, scene_distances, views_truth
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
            loss = similarity_loss(motion, present)
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
        if before is not None and answer.two_frames is not None:
            again = [np.random.default_rng([config.seed, n, 2]) for n in numbers]
            own, right, walked = walk_loss(model, answer.two_frames, batch, coarse, again)
            losses |= _weighed(("walk", "walk.matched"), own, right, walked, config, share)
            loss, matched = carried_loss(model, answer.two_frames, rows, present, true, known, coarse)
            losses |= _weighed(("carried", "carried.matched"), loss, matched, rows, config, share)
    if "cls-plane" in answer.motion:
        found = answer.motion["cls-plane"].moved
        assert found is not None
        every = list(scene.cameras.values())
        cameras = {v: every[v].undistorted() for v in {int(v) for s in batch for v in s.view}}
        taught = plane_loss(found, batch, cameras)
        losses["cls-plane.partner"] = config.partner * taught.loss * share.weigh(taught.lessons)
        losses["cls-plane.matched"] = taught.matched * share.weigh(taught.partners)
    return losses


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


def tensors(batch: Sequence[Snapshot], grids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """grids (B, V, Z, Hg, Wg, 2), present (B, V), offsets as told (B, V), all where the grids are."""
    device = grids.device
    geometry = torch.stack([grids[torch.from_numpy(s.view).to(device)] for s in batch])
    present = torch.from_numpy(np.stack([s.present for s in batch])).to(device)
    return geometry, present, torch.from_numpy(np.stack([s.offset_s for s in batch])).to(device)


def pictures(images: Sequence[NDArray[np.uint8]], device: torch.device | None = None) -> Tensor:
    """Images (V, H, W, 3) of B snapshots as (B, V, 3, H, W) in 0..1, on the CPU unless told."""
    # They travel as bytes.
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 1, 4, 2, 3).float() / 255.0


def device_of(model: CountingModel) -> torch.device:
    """Where a model's weights are."""
    return next(model.parameters()).device


def encode(model: CountingModel, batch: Sequence[Snapshot]) -> Tensor:
    """Features (B, V, C, h, w) of the snapshots' frames: kept ones, or those of their images; zero in slots
    without a frame.
    """
    kept = [shot.features for shot in batch if shot.features is not None]
    frames = kept or [shot.images for shot in batch]
    counts = [len(some) for some in frames]
    if len(set(counts)) == 1:
        return from_levels(model, kept) if kept else model.encode(pictures(frames, device_of(model)))
    # Only frames there are: one made up would shift the normalisation of all others.
    every = [np.concatenate(frames)]
    flat = from_levels(model, every) if kept else model.encode(pictures(every, device_of(model)))
    return torch.nn.utils.rnn.pad_sequence(list(flat[0].split(counts)), batch_first=True)


def before_of(model: CountingModel, batch: Sequence[Snapshot]) -> Before | None:
    """The frames before of the snapshots, encoded; None where they come without."""
    earlier = [shot.earlier for shot in batch if shot.earlier is not None]
    return _before(encode(model, earlier), earlier) if earlier else None


def encode_all(
    model: CountingModel, batch: Sequence[Snapshot], synchronous: bool
) -> tuple[Tensor, Tensor | None, Before | None]:
    """`encode_with_synchronous` and the frames before, which go through the encoder together with the newest
    ones where there are no synchronous ones.
    """
    earlier = [shot.earlier for shot in batch if shot.earlier is not None]
    first = batch[0]
    together = first.synchronous is not None or first.synchronous_features is not None
    if not earlier or (synchronous and together):
        return (*encode_with_synchronous(model, batch, synchronous), before_of(model, batch))
    features, others = encode(model, [*batch, *earlier]).split(len(batch))
    return features, None, _before(others, earlier)


def _before(features: Tensor, earlier: Sequence[Snapshot]) -> Before:
    present, offset_s = (
        torch.from_numpy(np.stack(part)).to(features.device)
        for part in ([shot.present for shot in earlier], [shot.offset_s for shot in earlier])
    )
    return Before(features, present, -offset_s)


def from_levels(model: CountingModel, kept: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Features (V, C, h, w) of B snapshots, kept as levels on the wire, as (B, V, C, h, w) in 0..1."""
    return torch.from_numpy(np.stack(kept)).to(device_of(model)).float() / float(model.config.levels - 1)


def encode_with_synchronous(
    model: CountingModel, batch: Sequence[Snapshot], synchronous: bool
) -> tuple[Tensor, Tensor | None]:
    """Features (B, V, C, h, w) and, where the snapshots come with them and they are wanted, of every view at
    the reference's instant.

    All go through the encoder together: its normalisation is over the batch, so that what is the same in two
    pictures would come out different in two batches.
    """
    frames = [shot.synchronous[1:] for shot in batch if shot.synchronous is not None]
    kept = [shot.synchronous_features[1:] for shot in batch if shot.synchronous_features is not None]
    if not synchronous or not (frames or kept):
        return encode(model, batch), None
    if kept:
        features, others = encode(model, batch), from_levels(model, kept)
    else:
        shown, device = [shot.images for shot in batch], device_of(model)
        every = torch.cat([pictures(shown, device), pictures(frames, device)], dim=1)
        views = len(batch[0].view)
        both = model.encode(every, (*range(views), *range(1, views)))
        features, others = both.split([views, views - 1], dim=1)
    return features, torch.cat([features[:, :1], others], dim=1)


def fundamentals(model: CountingModel, batch: Sequence[Snapshot], scene: Scene) -> Tensor | None:
    """F (B, V, 3, 3) between places of the features, from each snapshot's reference to its views, as
    `scene_fundamentals`; None for a model that does not look at it.
    """
    if not {"cls-epi", "cls-plane"} & {*model.config.methods}:
        return None
    every = scene_fundamentals(_of_these(batch, scene), *_feature_size(model, scene))
    return _between(every, batch).to(device_of(model))


def true_people(model: CountingModel, batch: Sequence[Snapshot], scene: Scene) -> People | None:
    """The simulator's truth of each snapshot; None for a model that is not told. Crowds of different size are
    filled up with people whom nobody sees.
    """
    if not set(BOUNDS) & set(model.config.methods):
        return None
    most = max(1, *(shot.xy.shape[1] for shot in batch))
    shape = (len(batch), len(batch[0].view), most)
    place, seen = np.full((*shape, 2), np.nan, np.float32), np.zeros(shape, np.bool_)
    for b, shot in enumerate(batch):
        place[b, :, : shot.xy.shape[1]] = shot.xy - (scene.ground.origin_x_m, scene.ground.origin_y_m)
        seen[b, :, : shot.xy.shape[1]] = shot.seen
    device = device_of(model)
    return People(torch.from_numpy(place).to(device), torch.from_numpy(seen).to(device))


def distances(model: CountingModel, batch: Sequence[Snapshot], scene: Scene) -> Tensor | None:
    """Distance (B, V, h, w) of every place of the features, as `scene_distances`; None for a model that does
    not look at it.
    """
    if not model.gather.needs_distance:
        return None
    rows, columns = model.config.grid
    wanted = sorted({int(view) for shot in batch for view in shot.view})
    known = dict(zip(wanted, scene_distances(scene, columns, rows, wanted), strict=True))
    every = np.stack([[known[int(view)] for view in shot.view] for shot in batch])
    return torch.from_numpy(every).to(device_of(model))


def plane_maps(model: CountingModel, batch: Sequence[Snapshot], scene: Scene) -> Tensor | None:
    """Plane maps (B, V, Z, 4, 3) between places of the features, from each snapshot's views to its reference,
    as `scene_planes`; None for a model that does not look at them.
    """
    if "cls-plane" not in model.config.methods:
        return None
    every = scene_planes(_of_these(batch, scene), *_feature_size(model, scene))
    return _between(every, batch).to(device_of(model))


def _of_these(batch: Sequence[Snapshot], scene: Scene) -> Scene:
    """The scene with the cameras of these snapshots only: random rigs together have hundreds."""
    cameras = list(scene.cameras.items())
    kept = np.unique([int(v) for shot in batch for v in shot.view])
    return replace(scene, cameras=dict(cameras[v] for v in kept), occluders={})


def _between(every: NDArray[np.float32], batch: Sequence[Snapshot]) -> Tensor:
    """(B, V, …) of each snapshot's reference and its views, from `every` (V, V, …) of `_of_these` cameras."""
    kept = np.unique([int(v) for shot in batch for v in shot.view])
    slots = [np.searchsorted(kept, shot.view) for shot in batch]
    return torch.from_numpy(np.stack([every[at[0]][at] for at in slots]))


def _feature_size(model: CountingModel, scene: Scene) -> tuple[int, int]:
    """Columns and rows of the features of the scene's pictures."""
    if min(model.config.grid) > 0:
        rows, columns = model.config.grid
        return columns, rows
    camera = next(iter(scene.cameras.values()))
    return -(-camera.width // STRIDE), -(-camera.height // STRIDE)


def single_frames(shot: Snapshot) -> list[Snapshot]:
    """Every frame of a snapshot as a snapshot of its own, with that frame as the reference and nothing else.

    A model that looks at the reference alone would throw away all frames but one: it learns from all of them.
    """
    alone, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    return [
        replace(
            shot,
            images=shot.images[v : v + 1],
            features=None if shot.features is None else shot.features[v : v + 1],
            view=shot.view[v : v + 1],
            present=alone,
            true_offset_s=zero,
            offset_s=zero,
            xy=shot.xy[v : v + 1],
            seen=shot.seen[v : v + 1],
            synchronous=None,
            synchronous_features=None,
            maps=None if shot.maps is None else Maps(shot.maps.ground, shot.maps.views[:1]),
            earlier=None,
        )
        # Density maps of the ground are known at the reference's instant only.
        for v in range(len(shot.view) if shot.maps is None else 1)
    ]
