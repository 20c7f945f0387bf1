"""Fusion U and decoder D: synchronised ground features to a density map, of any subset of views (`masked`) or
of all views in their places (`concat`, the paper's).

Shape letters: B batch, V views (slot 0 the reference), D channels, Hm Wm matching grid, Hg = 2·Hm, Wg = 2·Wm
ground grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viewsync.nets.synchronisers import Synchronised, Timing


class MaskedFusion(nn.Module):
    """The reference marked, the other views pooled symmetrically; absent views change nothing.

    Returns (B, 3·D + 3, Hm, Wm): reference, sum and maximum over the others, where the reference looks, how
    many others look there and how many are present. extra: channels of evidence beside the three that every
    `Synchronised` has.
    """

    def __init__(self, width: int, extra: int = 0) -> None:
        super().__init__()
        # Leaky, because plain rectifiers that shut early made a method ignore the other views for good.
        self.mix = nn.Sequential(nn.Conv2d(3 * width + 6 + extra, width, 3, padding=1), nn.LeakyReLU(0.1))

    def forward(
        self, reference: Tensor, synchronised: Synchronised | None, looks: Tensor, timing: Timing
    ) -> Tensor:
        """reference (B, D, Hm, Wm), looks (B, V, Hm, Wm) as 0 or 1; None fuses the reference alone."""
        nothing = reference * 0.0
        if synchronised is None:
            flat = nothing[:, :1]
            return torch.cat([reference, nothing, nothing, looks[:, :1], flat, flat], dim=1)
        batch, others = synchronised.warped.shape[:2]
        present = timing.present[:, 1:].reshape(batch, others, 1, 1, 1)
        known = timing.known[:, 1:].reshape(batch, others, 1, 1, 1)
        distance = timing.offset_s[:, 1:].abs().reshape(batch, others, 1, 1, 1) * known / 3.0
        like = torch.ones_like(synchronised.warped[:, :, :1])
        # Explaining away: view i's people without those whom the reference has already, shared out among the
        # other views that see them, too.
        accounted, by_peers = synchronised.evidence[:, :, 1:2], synchronised.evidence[:, :, 2:3]
        left = synchronised.unmoved * ((1.0 - accounted) / (1.0 + by_peers))
        stacked = torch.cat(
            [
                synchronised.warped,
                synchronised.unmoved,
                left,
                synchronised.evidence,
                looks[:, 1:].unsqueeze(2),
                distance * like,
                known * like,
            ],
            dim=2,
        )
        mixed = self.mix(stacked.flatten(0, 1)).unflatten(0, (batch, others))
        # An absent view is left out of the maximum, too; where all are absent that is 0, like the sum.
        largest = (mixed + (present - 1.0) * 1e4).amax(dim=1) * present.amax(dim=1)
        seen_by = (looks[:, 1:] * present[:, :, 0]).sum(dim=1, keepdim=True)
        attending = present.sum(dim=1)[:, :, 0, 0].reshape(batch, 1, 1, 1) * torch.ones_like(seen_by)
        return torch.cat(
            [reference, (mixed * present).sum(dim=1), largest, looks[:, :1], seen_by, attending], dim=1
        )


def with_extra_evidence(weight: Tensor, extra: int) -> Tensor:
    """First weights (D, 3·D + 6, 3, 3) of a `MaskedFusion` without extra evidence, as those of one with
    `extra` channels of it that it does not look at yet: the same answers.
    """
    before = 3 * weight.shape[0] + 3
    blind = weight.new_zeros(weight.shape[0], extra, *weight.shape[2:])
    return torch.cat([weight[:, :before], blind, weight[:, before:]], dim=1)


class ConcatFusion(nn.Module):
    """The paper's U (Eq. 3): all views side by side, so every view has its own place and none may be absent.

    Returns (B, V·(D + 1) + 3·(V - 1), Hm, Wm): each view's features and where it looks, and of each other
    view the synchroniser's evidence. Offsets are not looked at.
    """

    def __init__(self, views: int) -> None:
        super().__init__()
        self.others = views - 1

    def channels(self, width: int) -> int:
        """How many it returns for features of `width` channels."""
        return width + 1 + self.others * (width + 4)

    def forward(
        self, reference: Tensor, synchronised: Synchronised | None, looks: Tensor, timing: Timing
    ) -> Tensor:
        """reference (B, D, Hm, Wm), looks (B, V, Hm, Wm) as 0 or 1; None leaves the others' places empty."""
        if synchronised is None:
            width = self.channels(reference.shape[1]) - reference.shape[1] - 1
            empty = reference[:, :1].expand(-1, width, -1, -1) * 0.0
            return torch.cat([reference, looks[:, :1], empty], dim=1)
        if synchronised.warped.shape[1] != self.others:
            raise ValueError(
                f"concat fusion of {self.others + 1} views was given {synchronised.warped.shape[1] + 1}"
            )
        others = torch.cat([synchronised.warped, synchronised.evidence, looks[:, 1:].unsqueeze(2)], dim=2)
        return torch.cat([reference, looks[:, :1], others.flatten(1, 2)], dim=1)


class DensityDecoder(nn.Module):
    """Fused features (B, F, Hm, Wm) to people per cell of the ground grid (B, Hg, Wg), never negative."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True))
        self.wide = nn.Sequential(nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.ReLU(inplace=True))
        self.near = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True))
        self.out = nn.Conv2d(width, 4, 1)
        nn.init.constant_(self.out.bias, -2.0)  # type: ignore[arg-type]

    def forward(self, fused: Tensor) -> Tensor:
        x = self.enter(fused)
        x = x + self.wide(x)
        x = x + self.near(x)
        return F.softplus(F.pixel_shuffle(self.out(x), 2)).squeeze(1) * 0.02


class FusionHead(nn.Module):
    """One way to answer: fuse, then decode. Every synchroniser gets one of the same size.

    views: how many there are in `concat` fusion; 0 for `masked`. extra: as `MaskedFusion`.
    """

    def __init__(self, width: int, views: int = 0, extra: int = 0) -> None:
        super().__init__()
        self.fusion: MaskedFusion | ConcatFusion
        if views:
            self.fusion = ConcatFusion(views)
            channels = self.fusion.channels(width)
        else:
            self.fusion, channels = MaskedFusion(width, extra), 3 * width + 3
        self.decoder = DensityDecoder(channels, width)

    def forward(
        self, reference: Tensor, synchronised: Synchronised | None, looks: Tensor, timing: Timing
    ) -> Tensor:
        density: Tensor = self.decoder(self.fusion(reference, synchronised, looks, timing))
        return density
