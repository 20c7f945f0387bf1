"""The whole counting model: encode → project → synchronise → fuse → decode, answered in one or several ways.

Shape letters: B batch, V views (slot 0 the reference), C channels, H W image, h w features, Z heights, Hg Wg
ground.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viewsync.nets.encoder import Encoder, quantise
from viewsync.nets.heads import FusionHead
from viewsync.nets.matching import Described
from viewsync.nets.projection import GroundEncoder, project_columns
from viewsync.nets.synchronisers import (
    Columns,
    ColumnSynchroniser,
    NoSynchroniser,
    Synchronised,
    Timing,
    warp_ground,
)

# The offset that stands for "unknown"; anything beyond ±UNKNOWN_FROM_S is read as unknown.
UNKNOWN_OFFSET_S = 1000.0
UNKNOWN_FROM_S = 500.0
METHODS = ("column", "none", "reference-only")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a model. `methods` names the heads trained over the shared encoder; `levels` the values on the
    wire.
    """

    methods: tuple[str, ...] = METHODS
    channels: int = 16
    levels: int = 16
    heights: int = 6
    width: int = 48
    cell_m: float = 0.2

    def __post_init__(self) -> None:
        unknown = [m for m in self.methods if m not in METHODS]
        if unknown or not self.methods:
            raise ValueError(
                f"unknown method {', '.join(unknown) or '(none given)'}: choose from {', '.join(METHODS)}"
            )

    def as_dict(self) -> dict[str, object]:
        """Plain values, for checkpoints and manifests."""
        return {**asdict(self), "methods": list(self.methods)}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a forward pass gives: `density` (B, Hg, Wg) in people per cell for each method, and what the
    training losses need.

    visible (B, V, Hg, Wg): density of the people each view sees. marks (B, V, 2, h, w): scores of heads and
    feet in the picture. described, synchronised: of the column method, where it was asked for. features
    (B, V, C, h, w).
    """

    density: dict[str, Tensor]
    visible: Tensor
    marks: Tensor
    described: Described | None
    synchronised: Synchronised | None
    features: Tensor


class CountingModel(nn.Module):
    """One shared encoder and ground encoder under a fusion head per method."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.channels)
        self.ground = GroundEncoder(config.channels, config.heights, config.width)
        self.visible = nn.Conv2d(config.width, 4, 1)
        # Heads and feet in the picture: a lesson for the encoder only, never exported.
        self.marks = nn.Conv2d(config.channels, 2, 1)
        nn.init.constant_(self.marks.bias, -4.0)  # type: ignore[arg-type]
        self.heads = nn.ModuleDict({m: FusionHead(config.width) for m in config.methods})
        self.column = (
            ColumnSynchroniser(config.channels, config.heights) if "column" in config.methods else None
        )
        self.none = NoSynchroniser()

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, V, 3, H, W) in 0..1 to wire-quantised features (B, V, C, h, w)."""
        batch, views = images.shape[:2]
        flat = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features: Tensor = quantise(self.encoder(flat), self.config.levels).unflatten(0, (batch, views))
        return features

    def forward(self, images: Tensor, view_from_ground: Tensor, present: Tensor, offset_s: Tensor) -> Answer:
        """Images (B, V, 3, H, W) in 0..1, grids (B, V, Z, Hg, Wg, 2), present (B, V) as 0 or 1, and offsets
        (B, V) in seconds or UNKNOWN_OFFSET_S, to the answers of every method.
        """
        features = self.encode(images)
        return self.fuse(features, view_from_ground, present, offset_s, self.config.methods)

    def describe(self, images: Tensor, view_from_ground: Tensor, present: Tensor, offset_s: Tensor) -> Answer:
        """Stage one of training: like `forward` without any method's answer."""
        return self.fuse(self.encode(images), view_from_ground, present, offset_s, ())

    def fuse(
        self,
        features: Tensor,
        view_from_ground: Tensor,
        present: Tensor,
        offset_s: Tensor,
        methods: tuple[str, ...],
    ) -> Answer:
        """Features (B, V, C, h, w) to the answers of `methods`.

        Whatever an absent slot holds, NaN included, is replaced before anything is computed from it.
        """
        batch, views = features.shape[:2]
        there = present.reshape(batch, views, 1, 1, 1)
        features = torch.where(there > 0, features, torch.zeros_like(features))
        nowhere = torch.full_like(view_from_ground, -2.0)
        view_from_ground = torch.where(there.unsqueeze(-1) > 0, view_from_ground, nowhere)
        sampled, inside = project_columns(features.flatten(0, 1), view_from_ground.flatten(0, 1))
        sampled, inside = sampled.unflatten(0, (batch, views)), inside.unflatten(0, (batch, views))
        inside = inside * there
        ground = self.ground(sampled.flatten(0, 1), inside.flatten(0, 1)).unflatten(0, (batch, views))
        looks = F.max_pool2d(inside[:, :, :2].amin(dim=2), 2)
        counts = (offset_s.abs() < UNKNOWN_FROM_S) & (present > 0)
        timing = Timing(
            present, torch.where(counts, offset_s, torch.zeros_like(offset_s)), counts.to(features.dtype)
        )
        columns = Columns(sampled, inside)
        density: dict[str, Tensor] = {}
        described: Described | None = None
        if self.column is not None and (self.training or not methods):
            described = self.column.describe(columns)
        synchronised: Synchronised | None = None
        coarse_m = 2.0 * self.config.cell_m
        for method in methods:
            moved: Synchronised | None = None
            if method == "column":
                assert self.column is not None
                if described is None:
                    described = self.column.describe(columns)
                moved = synchronised = self._synchronise(described, ground, timing, coarse_m)
            elif method == "none":
                moved = self.none(columns, ground, timing, coarse_m)
            density[method] = self.heads[method](ground[:, 0], moved, looks, timing)
        visible = F.softplus(F.pixel_shuffle(self.visible(ground.flatten(0, 1)), 2) - 2.0) * 0.02
        marks = self.marks(features.flatten(0, 1)).unflatten(0, (batch, views))
        return Answer(
            density,
            visible.reshape(batch, views, *visible.shape[-2:]),
            marks,
            described,
            synchronised,
            features,
        )

    def _synchronise(
        self, described: Described, ground: Tensor, timing: Timing, cell_m: float
    ) -> Synchronised:
        """Column synchronisation; in training, flow is found without gradients and applied with them."""
        assert self.column is not None
        if self.column.end_to_end or not torch.is_grad_enabled():
            return self.column.synchronise(described, ground, timing, cell_m)
        with torch.no_grad():
            found = self.column.synchronise(described, ground, timing, cell_m)
        others = ground[:, 1:]
        warped = warp_ground(others.flatten(0, 1), found.flow_m.flatten(0, 1), cell_m)
        return Synchronised(warped.unflatten(0, others.shape[:2]), others, found.evidence, found.flow_m)
