"""The whole counting model: encode → project → synchronise → fuse → decode, answered in one or several ways.

Shape letters: B batch, V views (slot 0 the reference), C channels, H W image, h w features, Z heights, Hg Wg
ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viewsync.nets.base import base_of
from viewsync.nets.camera_level import CameraSynchroniser
from viewsync.nets.cls_plane import PlaneSynchroniser, evidence_of
from viewsync.nets.config import BOUNDS, PLANE_LEVEL, TWO_FRAMES
from viewsync.nets.config import METHODS as METHODS
from viewsync.nets.config import UNKNOWN_FROM_S as UNKNOWN_FROM_S
from viewsync.nets.config import UNKNOWN_OFFSET_S as UNKNOWN_OFFSET_S
from viewsync.nets.config import ModelConfig as ModelConfig
from viewsync.nets.descriptors import Described
from viewsync.nets.encoder import quantise
from viewsync.nets.heads import FusionHead
from viewsync.nets.perfect import People, perfect_matching
from viewsync.nets.projection import OnGround
from viewsync.nets.scene_level import SceneSynchroniser
from viewsync.nets.synchronisers import (
    Columns,
    ColumnSynchroniser,
    Moved,
    NoSynchroniser,
    Synchronised,
    Timing,
)
from viewsync.nets.two_frames import EXTRA_EVIDENCE, Before, TwoFrames, TwoFrameSynchroniser


@dataclass(frozen=True, slots=True)
class MotionBefore:
    """What a method moved before projection. reference: its columns; now: those of the other views, of what
    was moved; looks (B, V, Hm, Wm): 1 where a view looks there, else 0.
    """

    moved: Moved
    reference: Columns
    now: Columns
    looks: Tensor


@dataclass(frozen=True, slots=True)
class MotionAfter:
    """What a method moved after projection. columns: of all views, as they were; looks as above."""

    synchronised: Synchronised
    columns: Columns
    looks: Tensor


Motion = MotionBefore | MotionAfter


@dataclass(frozen=True, slots=True)
class Answer:
    """What a forward pass gives: `density` (B, Hg, Wg) in people per cell for each method, and what the
    training losses need.

    visible (B, V, Hg, Wg): density of the people each view sees. marks (B, V, 2, h, w): scores of heads and
    feet in the picture. described, synchronised: of the column method, where it was asked for. motion: of
    each of the paper's methods. features (B, V, C, h, w), and sent (B, V, S, h, w) what they were made of.
    two_frames: of `column-2`.
    """

    density: dict[str, Tensor]
    visible: Tensor
    marks: Tensor
    described: Described | None
    synchronised: Synchronised | None
    motion: dict[str, Motion]
    features: Tensor
    sent: Tensor
    two_frames: TwoFrames | None = None


class CountingModel(nn.Module):
    """The parts of a base model with a head for every method, and the methods' synchronisers between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        base = base_of(config)
        self.encoder = base.encoder
        self.gather = base.gather
        self.ground = base.ground
        self.visible = nn.Conv2d(base.width, base.ground.times**2, 1)
        # Heads and feet in the picture: a lesson for the encoder only, never exported.
        self.marks = nn.Conv2d(config.channels, 2, 1)
        nn.init.constant_(self.marks.bias, -4.0)  # type: ignore[arg-type]
        self.heads = nn.ModuleDict(
            {
                m: FusionHead(config.width, extra=EXTRA_EVIDENCE) if m in TWO_FRAMES else base.head()
                for m in config.methods
            }
        )
        matched = config.two_frames or "column" in config.methods
        self.column = (
            ColumnSynchroniser(config.channels, config.heights, width=base.width, parts=config.column_parts)
            if matched
            else None
        )
        self.walking = TwoFrameSynchroniser() if config.two_frames else None
        self.none = NoSynchroniser()
        # The paper's, at the seams CameraLevel and SceneLevel.
        self.before = nn.ModuleDict(
            {
                m: CameraSynchroniser(
                    m.removeprefix("cls-"),
                    config.channels,
                    config.grid,
                    config.flow_strides,
                    config.networks,
                    config.sigma_px,
                )
                for m in config.camera_level
            }
        )
        self.after = nn.ModuleDict(
            {m: SceneSynchroniser(base.width, config.networks) for m in config.methods if m == "sls"}
        )
        self.over_planes = nn.ModuleDict(
            {
                m: PlaneSynchroniser(config.channels, config.heights, config.flow_strides[-1])
                for m in config.methods
                if m in PLANE_LEVEL
            }
        )

    def encode(self, images: Tensor, slots: Sequence[int] | None = None) -> Tensor:
        """Images (B, V, 3, H, W) in 0..1 to what crosses the wire, quantised (B, V, S, h, w).

        slots: which of the model's views each is, where every view has an encoder; else in their order.
        """
        batch, views = images.shape[:2]
        if isinstance(self.encoder, nn.ModuleList):
            single = [self.encoder[k](images[:, n]) for n, k in enumerate(slots or range(views))]
            return quantise(torch.stack(single, dim=1), self.config.levels)
        flat = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features: Tensor = quantise(self.encoder(flat), self.config.levels).unflatten(0, (batch, views))
        return features

    def forward(
        self,
        images: Tensor,
        view_from_ground: Tensor,
        present: Tensor,
        offset_s: Tensor,
        fundamental: Tensor | None = None,
        distance_m: Tensor | None = None,
        people: People | None = None,
        before: Before | None = None,
        planes: Tensor | None = None,
    ) -> Answer:
        """Images (B, V, 3, H, W) in 0..1, grids (B, V, Z, Hg, Wg, 2), present (B, V) as 0 or 1, offsets
        (B, V) in seconds or UNKNOWN_OFFSET_S, for camera-level methods F (B, V, 3, 3) from the reference's
        features to view i's, and for a base that chooses scales the distance (B, V, h, w) of every place, to
        the answers of every method. people: the truth, for BOUNDS; before: as `fuse`.
        planes: for `cls-plane`, maps (B, V, Z, 4, 3) from view i's features to the reference's.
        """
        geometry = view_from_ground, present, offset_s, self.config.methods
        return self.fuse(self.encode(images), *geometry, fundamental, distance_m, people, before, planes)

    def project(self, features: Tensor, view_from_ground: Tensor, present: Tensor) -> OnGround:
        """Features (B, V, C, h, w), grids (B, V, Z, Hg, Wg, 2) and present (B, V) to what they show on the
        ground.
        """
        return self.ground.project(features, view_from_ground, present.reshape(*present.shape, 1, 1, 1))

    def fuse(
        self,
        features: Tensor,
        view_from_ground: Tensor,
        present: Tensor,
        offset_s: Tensor,
        methods: tuple[str, ...],
        fundamental: Tensor | None = None,
        distance_m: Tensor | None = None,
        people: People | None = None,
        before: Before | None = None,
        planes: Tensor | None = None,
    ) -> Answer:
        """What every view sent (B, V, S, h, w) to the answers of `methods`; before: what they sent of their
        earlier frames, for `column-2` (None: no view has one).

        Whatever an absent slot holds, NaN included, is replaced before anything is computed from it.
        """
        batch, views = features.shape[:2]
        there = present.reshape(batch, views, 1, 1, 1)
        sent = torch.where(there > 0, features, torch.zeros_like(features))
        if distance_m is not None:
            distance_m = torch.where(there[:, :, 0] > 0, distance_m, torch.ones_like(distance_m))
        features = self.gather(sent, distance_m)
        nowhere = torch.full_like(view_from_ground, -2.0)
        view_from_ground = torch.where(there.unsqueeze(-1) > 0, view_from_ground, nowhere)
        projected = self.ground.project(features, view_from_ground, there)
        columns, ground, looks = projected.columns, projected.features, projected.looks
        counts = (offset_s.abs() < UNKNOWN_FROM_S) & (present > 0)
        timing = Timing(
            present, torch.where(counts, offset_s, torch.zeros_like(offset_s)), counts.to(features.dtype)
        )

        density: dict[str, Tensor] = {}
        motion: dict[str, Motion] = {}
        described: Described | None = None
        if self.column is not None and (self.training or not methods):
            described = self.column.describe(columns, ground)
        synchronised: Synchronised | None = None
        coarse_m = self.ground.times * self.config.cell_m
        two_frames: TwoFrames | None = None
        if self.walking is not None and (described is not None or "column-2" in methods):
            assert self.column is not None
            described = described or self.column.describe(columns, ground)
            given = (before or Before.none(features, present)).clean(present)
            seen_through = view_from_ground, coarse_m, self.ground.held
            two_frames = self.walking.look(self.column, described, given, *seen_through)
        for method in methods:
            moved: Synchronised | None = None
            if method == "column":
                assert self.column is not None
                if described is None:
                    described = self.column.describe(columns, ground)
                moved = synchronised = self._synchronise(described, ground, timing, coarse_m)
            elif method == "column-2":
                assert self.walking is not None and self.column is not None and two_frames is not None
                moved = synchronised = self.walking(self.column.matcher, two_frames, ground, timing, coarse_m)
            elif method == "none":
                moved = self.none(columns, ground, timing, coarse_m)
            elif method in BOUNDS:
                if people is None:
                    raise ValueError(f"{method} needs the truth: where people are, and who is seen")
                moved = perfect_matching(people, ground, timing, coarse_m, method == "perfect-flow")
            elif method in self.before or method in self.over_planes:
                lines = self._lines(method, fundamental, features, present)
                shifted: Moved
                if method in self.before:
                    shifted = self.before[method](features, lines, timing)
                else:
                    shifted = self.over_planes[method](features, lines, self._planes(planes, present), timing)
                others = shifted.features[:, 1:], view_from_ground[:, 1:], there[:, 1:]
                now = self.ground.project(*others)
                moved = self.none(columns, torch.cat([ground[:, :1], now.features], dim=1), timing, coarse_m)
                first = Columns(columns.sampled[:, :1], columns.inside[:, :1])
                motion[method] = MotionBefore(shifted, first, now.columns, looks)
                if shifted.candidates is not None:
                    moved = replace(moved, evidence=evidence_of(shifted.candidates, view_from_ground[:, 1:]))
            elif method in self.after:
                moved = after = self.after[method](columns, ground, timing, coarse_m)
                motion[method] = MotionAfter(after, columns, looks)
            density[method] = self.heads[method](ground[:, 0], moved, looks, timing)
        seen = F.pixel_shuffle(self.visible(ground.flatten(0, 1)), self.ground.times)
        visible = F.softplus(seen - 2.0) * 0.02
        marks = self.marks(features.flatten(0, 1)).unflatten(0, (batch, views))
        return Answer(
            density,
            visible.reshape(batch, views, *visible.shape[-2:]),
            marks,
            described,
            synchronised,
            motion,
            features,
            sent,
            two_frames,
        )

    def _lines(self, method: str, fundamental: Tensor | None, features: Tensor, present: Tensor) -> Tensor:
        """F of the views that are there, zero for the others; zero where the method does not look at it."""
        if fundamental is None:
            if method == "cls-epi" or method in PLANE_LEVEL:
                raise ValueError(f"{method} needs the fundamental matrices of the reference and every view")
            return features.new_zeros(*features.shape[:2], 3, 3)
        there = present.reshape(*present.shape, 1, 1) > 0
        return torch.where(there, fundamental, torch.zeros_like(fundamental))

    def _planes(self, planes: Tensor | None, present: Tensor) -> Tensor:
        """Plane maps of the views that are there, zero for the others."""
        if planes is None:
            raise ValueError("cls-plane needs the maps over every plane from each view to the reference")
        there = present.reshape(*present.shape, 1, 1, 1) > 0
        return torch.where(there, planes, torch.zeros_like(planes))

    def _synchronise(
        self, described: Described, ground: Tensor, timing: Timing, cell_m: float
    ) -> Synchronised:
        """Column synchronisation; in training, flow is found without gradients and applied with them."""
        assert self.column is not None
        if self.column.end_to_end or not torch.is_grad_enabled():
            return self.column.synchronise(described, ground, timing, cell_m)
        with torch.no_grad():
            found = self.column.synchronise(described, ground, timing, cell_m)
        return self.column.moved(ground[:, 1:], found.evidence, found.flow_m, cell_m)
