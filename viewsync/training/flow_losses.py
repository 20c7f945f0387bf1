"""What the paper's synchronisers learn flow from, beside the task's loss: ℓW with synchronised frames (Eq. 8,
9, 19–21), ℓs without (Eq. 22).

Shape letters: B batch, V views (slot 0 the reference), C K channels, h w rows and columns of the features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from viewsync.nets.flow import coarser, warp
from viewsync.nets.model import CountingModel, Motion, MotionBefore
from viewsync.nets.synchronisers import Moved
from viewsync.nets.warp import warp_views

# Below every length that features on the wire can have but 0: where a view shows nothing, nothing is alike.
_LEAST_LENGTH = 0.01


def warp_loss(
    model: CountingModel,
    motion: Motion,
    features: Tensor,
    together: Tensor,
    view_from_ground: Tensor,
    present: Tensor,
) -> Tensor:
    """Σ_i Σ_j ℓW, mean over the batch: of a method before projection (Eq. 19–21) between features
    (B, V, C, h, w), warped, and `together`, those of every view at the reference's instant; of one after it
    (Eq. 8, 9) between their ground features.
    """
    if isinstance(motion, MotionBefore):
        per_view = camera_warp_loss(motion.moved, features, together)
    else:
        there = model.project(together, view_from_ground, present).features
        per_view = _mean_square(there[:, 1:], motion.synchronised.warped)
    return (per_view * present[:, 1:]).sum(dim=1).mean()


def camera_warp_loss(moved: Moved, features: Tensor, together: Tensor) -> Tensor:
    """(B, V-1): Σ_j mse(F_i^{t0,(j)}, W(w_i^{(j)}, F_i^{ti,(j)})) (Eq. 19, 20) of every other view."""
    batch, views = features.shape[:2]
    before, wanted = features[:, 1:].flatten(0, 1), together[:, 1:].flatten(0, 1)
    total = torch.zeros(batch, views - 1, dtype=features.dtype, device=features.device)
    for flow, stride in zip(moved.flow_px, moved.strides, strict=True):
        warped = warp(coarser(before, stride), flow.flatten(0, 1).permute(0, 3, 1, 2))
        total = total + _mean_square(coarser(wanted, stride), warped).reshape(batch, views - 1)
    return total


def similarity_loss(model: CountingModel, motion: Motion, present: Tensor) -> Tensor:
    """Σ_i ℓs, mean over the batch: mean over all places of 1 − cos(𝓕_0, 𝓕̂_i) along channels (Eq. 22).

    𝓕 is zero where a view does not look, and alike to nothing; so the mean is over places that both look at.
    """
    reference, others = ground_features(model, motion)
    alike = torch.nn.functional.cosine_similarity(reference.unsqueeze(1), others, dim=2, eps=_LEAST_LENGTH)
    both = motion.looks[:, :1] * motion.looks[:, 1:]
    mean = ((1.0 - alike) * both).sum(dim=(2, 3)) / both.sum(dim=(2, 3)).clamp_min(1.0)
    return (mean * present[:, 1:]).sum(dim=1).mean()


def ground_features(model: CountingModel, motion: Motion) -> tuple[Tensor, Tensor]:
    """What ℓs compares: 𝓕_0 (B, D, Hm, Wm), and 𝓕̂_i (B, V-1, D, Hm, Wm) of the others, synchronised: the
    numbers that fusion gets, made by weights held still. If those learned from ℓs, they would make
    everything alike.
    """
    if isinstance(motion, MotionBefore):
        return model.ground.held(motion.reference)[:, 0], model.ground.held(motion.now)
    ground = model.ground.held(motion.columns)
    cell_m = model.ground.times * model.config.cell_m
    return ground[:, 0], warp_views(ground[:, 1:], motion.synchronised.flow_m, cell_m)


def _mean_square(first: Tensor, second: Tensor) -> Tensor:
    """Mean square error over the last three dimensions."""
    return (first - second).square().mean(dim=(-3, -2, -1))
