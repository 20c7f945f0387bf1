"""Projection P: camera-view features to columns above the ground (paper, Section III; several heights are
ours).

Shape letters: B batch, V views, C channels, Z heights, Hg Wg ground rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viewsync.nets.synchronisers import Columns


@dataclass(frozen=True, slots=True)
class OnGround:
    """What all views show on the ground: their columns, for methods that match those; ground features 𝓕
    (B, V, D, Hm, Wm); and where each view looks (B, V, Hm, Wm), as 0 or 1.
    """

    columns: Columns
    features: Tensor
    looks: Tensor


def project_columns(features: Tensor, view_from_ground: Tensor) -> tuple[Tensor, Tensor]:
    """Sample features (B, C, h, w) above each ground cell at grids (B, Z, Hg, Wg, 2) in grid_sample
    coordinates.

    Returns columns (B, C·Z, Hg, Wg), zero where the view does not look, and inside (B, Z, Hg, Wg) as 0 or 1.
    """
    batch, channels = features.shape[:2]
    heights, rows, columns = view_from_ground.shape[1:4]
    flat = view_from_ground.reshape(batch, heights * rows, columns, 2)
    sampled = F.grid_sample(features, flat, mode="bilinear", padding_mode="zeros", align_corners=False)
    inside = (view_from_ground.abs().amax(dim=-1) <= 1.0).to(features.dtype)
    sampled = sampled.reshape(batch, channels, heights, rows, columns) * inside.unsqueeze(1)
    return sampled.reshape(batch, channels * heights, rows, columns), inside


class GroundEncoder(nn.Module):
    """Columns of one view to ground features at half the ground grid's resolution.

    columns (B, C·Z, Hg, Wg), inside (B, Z, Hg, Wg) -> features (B, D, Hg/2, Wg/2).
    """

    times = 2

    def __init__(self, channels: int, heights: int, width: int = 48, reduced: int = 24) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d((channels + 1) * heights, reduced, 1), nn.ReLU(inplace=True))
        self.halve = nn.Sequential(
            nn.Conv2d(reduced, width, 4, stride=2, padding=1), nn.GroupNorm(8, width), nn.ReLU(inplace=True)
        )
        self.refine = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True))

    def forward(self, columns: Tensor, inside: Tensor) -> Tensor:
        x = self.halve(self.reduce(torch.cat([columns, inside], dim=1)))
        refined: Tensor = x + self.refine(x)
        return refined

    def held(self, columns: Columns) -> Tensor:
        """Ground features (B, V, D, Hm, Wm) of columns of any views, by the weights as they are."""
        sampled, inside = columns.sampled, columns.inside
        weights = {name: weight.detach() for name, weight in self.named_parameters()}
        given = sampled.flatten(0, 1), inside.flatten(0, 1)
        made: Tensor = torch.func.functional_call(self, weights, given)
        ground: Tensor = made.unflatten(0, sampled.shape[:2])
        return ground

    def project(self, features: Tensor, view_from_ground: Tensor, there: Tensor) -> OnGround:
        """P of all views: features (B, V, C, h, w), grids (B, V, Z, Hg, Wg, 2), there (B, V, 1, 1, 1) as 0
        or 1.
        """
        batch, views = features.shape[:2]
        sampled, inside = project_columns(features.flatten(0, 1), view_from_ground.flatten(0, 1))
        sampled, inside = sampled.unflatten(0, (batch, views)), inside.unflatten(0, (batch, views))
        inside = inside * there
        ground = self(sampled.flatten(0, 1), inside.flatten(0, 1)).unflatten(0, (batch, views))
        looks = F.max_pool2d(inside[:, :, :2].amin(dim=2), 2)
        return OnGround(Columns(sampled, inside), ground, looks)
