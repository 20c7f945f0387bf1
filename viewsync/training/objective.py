"""One training step's losses: snapshots to tensors, through the model, against the simulator's truth.

Shape letters: B batch, V views (slot 0 the reference), Z heights, H W image, Hg Wg ground grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from calib.scene import Scene
from viewsync.nets.encoder import STRIDE
from viewsync.nets.model import UNKNOWN_FROM_S, CountingModel
from viewsync.training.config import TrainConfig
from viewsync.training.flow_losses import similarity_loss, warp_loss
from viewsync.training.losses import (
    count_loss,
    density_loss,
    mark_loss,
    mark_maps,
    partner_loss,
    partner_rows,
)
from viewsync.training.snapshots import Snapshot, density_map, scene_fundamentals

# Told with the losses, but no part of what is minimised.
TOLD = ("matched",)


def batch_losses(
    model: CountingModel,
    batch: Sequence[Snapshot],
    grids: Tensor,
    scene: Scene,
    config: TrainConfig,
    step: int,
) -> dict[str, Tensor]:
    """Every loss of a step by name, weighted; `grids` (V, Z, Hg, Wg, 2) in the scene's order of views.

    In stage one (`config.first_stage` of the steps) the methods' own losses are left out.
    """
    if config.reference_alone and not model.config.views:
        batch = [frame for shot in batch for frame in single_frames(shot)]
    ground = scene.ground
    images, geometry, present, offset = tensors(batch, grids)
    second_stage = step >= config.first_stage * config.steps
    features, together = encode_with_synchronous(model, images, batch if second_stage else ())
    methods = model.config.methods if second_stage else ()
    lines = fundamentals(model, batch, scene)
    answer = model.fuse(features, geometry, present, offset, methods, lines)
    losses: dict[str, Tensor] = {}
    for method, motion in answer.motion.items():
        if config.flow_loss == "warp":
            assert together is not None
            loss = warp_loss(model, motion, features, together, geometry, present)
        elif config.flow_loss == "similarity":
            loss = similarity_loss(motion, present)
        else:
            continue
        losses[f"{method}.flow"] = config.flow_weight * loss
    target = torch.from_numpy(np.stack([density_map(s.xy[0], ground) for s in batch]))
    for method, density in answer.density.items():
        losses[f"{method}.density"] = density_loss(density, target)
        losses[f"{method}.count"] = 0.05 * count_loss(density, target)
    seen = torch.from_numpy(
        np.stack([[density_map(s.xy[v][s.seen[v]], ground) for v in range(len(s.view))] for s in batch])
    )
    there = present.bool()
    cameras = [camera.undistorted() for camera in scene.cameras.values()]
    shape = (answer.marks.shape[-2], answer.marks.shape[-1])
    marks = torch.from_numpy(np.stack([mark_maps(s, cameras, shape, STRIDE) for s in batch]))
    losses["marks"] = 0.1 * mark_loss(answer.marks[there], marks[there])
    losses["visible"] = 0.5 * density_loss(answer.visible[there], seen[there])
    if second_stage:
        losses["sparsity"] = config.sparsity * answer.features.mean()
    if answer.described is not None and model.column is not None:
        coarse = ground.coarser(2)
        rows = partner_rows(batch, coarse, np.random.default_rng([config.seed, step, 1]))
        known = (offset.abs() < UNKNOWN_FROM_S).float()
        true = torch.from_numpy(np.stack([s.true_offset_s for s in batch]))
        loss, share = partner_loss(
            model.column, answer.described, rows, true, known, (coarse.rows, coarse.columns), coarse.cell_m
        )
        losses["partner"], losses["matched"] = config.partner * loss, share
    return losses


def tensors(batch: Sequence[Snapshot], grids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """images (B, V, 3, H, W) in 0..1, grids (B, V, Z, Hg, Wg, 2), present (B, V), offsets as told (B, V)."""
    images = torch.from_numpy(np.stack([s.images for s in batch])).permute(0, 1, 4, 2, 3).float() / 255.0
    geometry = torch.stack([grids[torch.from_numpy(s.view)] for s in batch])
    present = torch.from_numpy(np.stack([s.present for s in batch]))
    return images, geometry, present, torch.from_numpy(np.stack([s.offset_s for s in batch]))


def encode_with_synchronous(
    model: CountingModel, images: Tensor, batch: Sequence[Snapshot]
) -> tuple[Tensor, Tensor | None]:
    """Features (B, V, C, h, w) of `images` and, where the snapshots come with them, of every view at the
    reference's instant.

    All go through the encoder together: its normalisation is over the batch, so that what is the same in two
    pictures would come out different in two batches.
    """
    views = images.shape[1]
    if not batch or batch[0].synchronous is None:
        return model.encode(images), None
    pictures = np.stack([shot.synchronous[1:] for shot in batch if shot.synchronous is not None])
    together = torch.from_numpy(pictures).permute(0, 1, 4, 2, 3).float() / 255.0
    features = model.encode(torch.cat([images, together], dim=1))
    return features[:, :views], torch.cat([features[:, :1], features[:, views:]], dim=1)


def fundamentals(model: CountingModel, batch: Sequence[Snapshot], scene: Scene) -> Tensor | None:
    """F (B, V, 3, 3) between places of the features, from each snapshot's reference to its views, as
    `scene_fundamentals`; None for a model that does not look at it.
    """
    if "cls-epi" not in model.config.methods:
        return None
    rows, columns = model.config.grid
    every = torch.from_numpy(scene_fundamentals(scene, columns, rows))
    return torch.stack([every[int(shot.view[0])][torch.from_numpy(shot.view)] for shot in batch])


def single_frames(shot: Snapshot) -> list[Snapshot]:
    """Every frame of a snapshot as a snapshot of its own, with that frame as the reference and nothing else.

    A model that looks at the reference alone would throw away all frames but one: it learns from all of them.
    """
    alone, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    return [
        replace(
            shot,
            images=shot.images[v : v + 1],
            view=shot.view[v : v + 1],
            present=alone,
            true_offset_s=zero,
            offset_s=zero,
            xy=shot.xy[v : v + 1],
            seen=shot.seen[v : v + 1],
            synchronous=None,
        )
        for v in range(len(shot.view))
    ]
