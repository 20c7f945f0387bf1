"""Where view synchronisation plugs into any model of shape encode → project → fuse → decode.

A *camera-level* synchroniser changes view i's features before projection, a *scene-level* one after it
(paper, Fig. 2). Both see only features, geometry and offsets, never the encoder, fusion or decoder around
them.

Shape letters: B batch, V views (slot 0 the reference), D channels, Hm Wm ground rows and columns of the
matching grid.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from viewsync.nets.descriptors import ColumnDescriptor, Described, SharedDescriptor, Subcell
from viewsync.nets.matching import ColumnMatcher
from viewsync.nets.rounds import match_in_rounds
from viewsync.nets.warp import ground_places, speed_limit, warp_views


@dataclass(frozen=True, slots=True)
class Columns:
    """One snapshot on the ground: `sampled` columns (B, V, C·Z, Hg, Wg), and `inside` (B, V, Z, Hg, Wg), 1
    where the view looks, else 0.
    """

    sampled: Tensor
    inside: Tensor


@dataclass(frozen=True, slots=True)
class Timing:
    """All (B, V): `present` as 0 or 1, `offset_s` to the reference, `known` 1 where that counts, else 0.

    Where an offset is not known, or the view absent, `offset_s` is 0.
    """

    present: Tensor
    offset_s: Tensor
    known: Tensor


@dataclass(frozen=True, slots=True)
class Synchronised:
    """The other views' ground features at the reference's instant, and why to believe it.

    warped, unmoved: (B, V-1, D, Hm, Wm). evidence (B, V-1, 3, Hm, Wm), each in 0..1 or a sum of such: the
    reference's cell has a partner in view i; view i's cell is accounted for by the reference; and by the
    other views. flow_m (B, V-1, Hm, Wm, 2): metres (x, y) from the reference's cell to the place in view i.
    """

    warped: Tensor
    unmoved: Tensor
    evidence: Tensor
    flow_m: Tensor


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a matching method chose among: the log-share of every candidate and, last, of "nobody",
    `log_share` (B, V-1, K + 1, hj, wj), and how far off each lies, `shift_px` (B, V-1, K, hj, wj, 2) in
    places of that grid.
    """

    log_share: Tensor
    shift_px: Tensor


@dataclass(frozen=True, slots=True)
class Moved:
    """All views' features (B, V, C, h, w) at the reference's instant, its own as they were, and the flows
    that moved them: `flow_px` (B, V-1, hj, wj, 2) on view i's grid of each of `strides`, coarse to fine, in
    places (x, y) of that grid from a place to where view i's features for it are. `candidates`: of the finest
    flow, where it was chosen among such.
    """

    features: Tensor
    flow_px: tuple[Tensor, ...]
    strides: tuple[int, ...]
    candidates: Candidates | None = None


class CameraLevel(Protocol):
    """Before projection: features (B, V, C, h, w); `fundamental` (B, V, 3, 3) from the reference's places to
    lines among view i's, x_iᵀ F x_0 = 0.
    """

    def __call__(self, features: Tensor, fundamental: Tensor, timing: Timing) -> Moved: ...


class PlaneLevel(Protocol):
    """Before projection, too, with `planes` (B, V, Z, 4, 3) from view i's places over each height to the
    reference's (`calib.planes.plane_maps`).
    """

    def __call__(self, features: Tensor, fundamental: Tensor, planes: Tensor, timing: Timing) -> Moved: ...


class SceneLevel(Protocol):
    """After projection: `ground` features (B, V, D, Hm, Wm) on cells of `cell_m` metres."""

    def __call__(self, columns: Columns, ground: Tensor, timing: Timing, cell_m: float) -> Synchronised: ...


class NoSynchroniser(nn.Module):
    """Takes every view as if captured with the reference (the paper's BaseU); evidence and flow are zero."""

    def forward(self, columns: Columns, ground: Tensor, timing: Timing, cell_m: float) -> Synchronised:
        others = ground[:, 1:]
        evidence = others[:, :, :3] * 0.0
        flow = torch.stack([evidence[:, :, 0], evidence[:, :, 0]], dim=-1)
        return Synchronised(others, others, evidence, flow)


class ColumnSynchroniser(nn.Module):
    """Matches columns on the ground and warps view i's ground features by the metric flow found.

    parts, of `COLUMN_PARTS`, change one thing each. `end_to_end` lets the task's loss reach the matcher
    through the flow; otherwise the matcher learns from its own loss only, which needs far less memory and
    time. width: channels of the ground features, which `shared` descriptors are read off.
    """

    def __init__(
        self, channels: int, heights: int, length: int = 32, width: int = 48, parts: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.parts = frozenset(parts)
        self.descriptor = (
            SharedDescriptor(width, length)
            if "shared" in parts
            else ColumnDescriptor(channels, heights, length)
        )
        self.subcell = Subcell(width) if "subcell" in parts else None
        self.matcher = ColumnMatcher(
            everybody="everybody" in parts, mutual="mutual" in parts, sharp="sharp" in parts
        )
        self.end_to_end = "end-to-end" in parts

    @property
    def on_ground(self) -> bool:
        """Whether `describe` looks at ground features."""
        return "shared" in self.parts or self.subcell is not None

    def describe(self, columns: Columns, ground: Tensor | None) -> Described:
        """Descriptors of all views: `Described` with leading dimensions (B, V). ground: their ground features
        (B, V, D, Hm, Wm), None where it is not `on_ground`; `subcell` teaches them nothing.
        """
        batch, views = columns.sampled.shape[:2]
        assert ground is not None or not self.on_ground
        looked_at = ground if ground is not None and "shared" in self.parts else columns.sampled
        flat: Described = self.descriptor(looked_at.flatten(0, 1), columns.inside.flatten(0, 1))
        if self.subcell is not None and ground is not None:
            flat = replace(flat, shift_m=self.subcell(ground.detach().flatten(0, 1)))
        return flat.each(lambda part: part.unflatten(0, (batch, views)))

    def forward(self, columns: Columns, ground: Tensor, timing: Timing, cell_m: float) -> Synchronised:
        described = self.describe(columns, ground)
        with torch.set_grad_enabled(self.end_to_end and torch.is_grad_enabled()):
            return self.synchronise(described, ground, timing, cell_m)

    def synchronise(
        self, described: Described, ground: Tensor, timing: Timing, cell_m: float
    ) -> Synchronised:
        """Match the reference against every other view, and the other views among themselves, then warp."""
        batch, views, _, rows, columns = ground.shape
        others = views - 1
        places = ground_places(rows, columns, cell_m, ground)

        def pick(view: Described, index: Tensor, present: Tensor) -> Described:
            """Rows `index` (P,) of the flattened (B, V) views; an absent view looks nowhere."""
            some = view.each(lambda part: part.flatten(0, 1)[index])
            return replace(some, inside=some.inside * present.flatten()[index].unsqueeze(1))

        base = torch.arange(batch, device=ground.device) * views
        slot = torch.arange(others, device=ground.device) + 1
        other = (base.unsqueeze(1) + slot.unsqueeze(0)).flatten()
        reference = (base.unsqueeze(1) + torch.zeros_like(slot).unsqueeze(0)).flatten()
        sigma = self.matcher.sigma_m(timing.offset_s[:, 1:], timing.known[:, 1:]).flatten()
        found = match_in_rounds(
            self.matcher,
            pick(described, reference, timing.present),
            pick(described, other, timing.present),
            sigma,
            places,
            (rows, columns),
            self.parts,
        )
        # Between the other views: sharing out people whom the reference cannot see but several of them can.
        # Pair p of view `mine` with each of the others - 1 remaining views; needs at least three slots.
        rest = others - 1
        pair = torch.arange(others * rest, device=ground.device)
        mine = torch.div(pair, rest, rounding_mode="floor")
        theirs = pair - mine * rest
        theirs = theirs + (theirs >= mine).to(theirs.dtype)
        known = timing.known[:, 1:]
        offset = timing.offset_s[:, 1:]
        peers = match_in_rounds(
            self.matcher,
            pick(described, (base.unsqueeze(1) + 1 + theirs).flatten(), timing.present),
            pick(described, (base.unsqueeze(1) + 1 + mine).flatten(), timing.present),
            self.matcher.sigma_m(
                offset[:, theirs] - offset[:, mine], known[:, theirs] * known[:, mine]
            ).flatten(),
            places,
            (rows, columns),
            self.parts,
            where=False,
        )
        if others > 1:
            by_peers = peers.accounted.reshape(batch, others, rest, -1).sum(dim=2)
        else:
            by_peers = torch.zeros_like(found.accounted).reshape(batch, others, -1)
        evidence = torch.stack(
            [
                found.similarity.reshape(batch, others, -1),
                found.accounted.reshape(batch, others, -1),
                by_peers,
            ],
            dim=2,
        ).reshape(batch, others, 3, rows, columns)
        flow = found.flow_m.reshape(batch, others, rows, columns, 2)
        if "speed-limit" in self.parts:
            flow = speed_limit(flow, offset, known)
        return self.moved(ground[:, 1:], evidence, flow, cell_m)

    def moved(self, others: Tensor, evidence: Tensor, flow_m: Tensor, cell_m: float) -> Synchronised:
        """The other views' ground features (B, V-1, D, Hm, Wm) moved by what was found; `sharp` flow leads
        everywhere to somebody, so what it brings weighs as much as the match.
        """
        warped = warp_views(others, flow_m, cell_m)
        if self.matcher.sharp:
            warped = warped * evidence[:, :, :1]
        return Synchronised(warped, others, evidence, flow_m)
