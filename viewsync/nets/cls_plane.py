"""`cls-plane`: camera-level synchronisation by matching few candidates instead of all places.

For each place of view i the planes at the scene's heights tell where the reference would show whoever stands
still there. View i is then searched for them around that place: candidates lie along the epipolar line, and a
little to its sides, in *relative* displacements, fractions of how far a walker gets in |δ|. So the number of
scores is the same for every offset, place and rig, and one network serves every ordered pair of views.

Shape letters: P pairs, B batch, V views (slot 0 the reference), C channels, D descriptor length, Z heights, K
candidates, H0 W0 the reference's grid, Hi Wi view i's, h w that of the flow, N = h·w.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viewsync.nets.flow import grid_size, pairs_of, reported, up_flow, warp
from viewsync.nets.synchronisers import Candidates, Moved, Timing

# Scores for a place, heights and candidates together, at most.
MOST_SCORES = 345
# Sides of the epipolar line that are looked at, as shares of the reach.
ACROSS = (-0.7, 0.0, 0.7)
# What cannot be is pushed down so far, in log odds.
_NEVER = -20.0
_LEAST = 1e-4


def unit_candidates(heights: int) -> Tensor:
    """(K, 2) relative displacements (along, across) in the unit disc: as many as MOST_SCORES allows for so
    many heights, an odd number in each row; the middle one moves nothing.
    """
    along = MOST_SCORES // heights // len(ACROSS)
    along -= 1 - along % 2
    if along < 3:
        raise ValueError(f"{heights} heights leave no candidates: at most {MOST_SCORES} scores for a place")
    rows = [
        torch.stack([torch.linspace(-1, 1, along) * (1 - y * y) ** 0.5, torch.full((along,), y)], dim=1)
        for y in ACROSS
    ]
    return torch.cat(rows)


class Descriptor(nn.Module):
    """Features (P, C, H, W) to unit descriptors (P, D, H, W) and scores (P, Z, H, W) of what is seen there
    being somebody's body at each of the heights.
    """

    def __init__(self, channels: int, heights: int, length: int = 24, width: int = 32) -> None:
        super().__init__()
        self.length = length
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, length + heights, 1),
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers(features)
        return F.normalize(x[:, : self.length], dim=1), x[:, self.length :]


@dataclass(frozen=True, slots=True)
class Search:
    """Where to look, for `centre` (N, 2) places of view i: `partner` (P, Z, N, 2) places of the reference
    through each height, `looks` (P, Z, N), 1 where that plane is in front of both; `shift` (P, K, N, 2)
    displacements of the candidates. All in places of the finest grids.
    """

    centre: Tensor
    partner: Tensor
    looks: Tensor
    shift: Tensor


class PlaneFlow(nn.Module):
    """Flow of one view towards the reference's instant, on view i's grid of `stride`.

    `log_reach`: v and σ₀ of how far a walker gets, v·|δ| + σ₀ metres, and how far where the offset is
    unknown, all trained; `across`: how much of that lies across the epipolar line, in log odds, as the ground
    is seen at a slant.
    """

    unit: Tensor
    own: Tensor

    def __init__(self, channels: int, heights: int, stride: int, width: int = 64) -> None:
        super().__init__()
        self.stride = stride
        self.heights = heights
        unit = unit_candidates(heights)
        self.register_buffer("unit", unit, persistent=False)
        self.register_buffer("own", torch.eye(heights).reshape(1, heights, heights, 1), persistent=False)
        scores = heights * len(unit)
        self.descriptor = Descriptor(channels, heights)
        self.log_reach = nn.Parameter(torch.tensor([1.4, 0.5, 3.0]).log())
        self.across = nn.Parameter(torch.tensor(0.0))
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.nobody = nn.Parameter(torch.tensor(5.0))
        self.net = nn.Sequential(
            nn.Conv2d(scores + heights, width, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.LeakyReLU(0.1),
        )
        # What the network adds to the plain sum over heights; nothing before anything is learned.
        self.add = nn.Conv2d(width, len(unit) + 1, 1)
        nn.init.zeros_(self.add.weight)
        nn.init.zeros_(self.add.bias)  # type: ignore[arg-type]

    def reach_m(self, offset_s: Tensor, known: Tensor) -> Tensor:
        """The farthest candidate, metres, for offsets (…,) s; `known` (…,) is 1 where the offset counts."""
        walk, least, unknown = self.log_reach.exp().unbind()
        return known * (walk * offset_s.abs() + least) + (1.0 - known) * unknown

    def search(self, fundamental: Tensor, planes: Tensor, reach_m: Tensor, size: tuple[int, int]) -> Search:
        """F (P, 3, 3) and plane maps (P, Z, 4, 3) (`calib.planes.plane_maps`) between places of the finest
        grids, reach (P,) m, and the size of view i's finest grid, to where to look.
        """
        centre = self._centres(size, planes)  # (N, 3)
        mapped = planes @ centre.T  # (P, Z, 4, N)
        depth, per_metre = mapped[:, :, 2], mapped[:, :, 3]
        looks = ((depth > _LEAST) & (per_metre > _LEAST)).to(planes.dtype)
        partner = mapped[:, :, :2] / depth.clamp_min(_LEAST).unsqueeze(2)
        # The line of whatever height: F maps every one of a place's partners onto it.
        middle = self.heights // 2
        line = fundamental @ mapped[:, middle, :3]  # (P, 3, N)
        across = line[:, :2] / line[:, :2].norm(dim=1, keepdim=True).clamp_min(1e-12)
        along = torch.stack([across[:, 1], -across[:, 0]], dim=1)
        far = reach_m.reshape(-1, 1) * per_metre[:, middle].clamp_min(0.0)
        u, v = self.unit[:, 0].reshape(-1, 1, 1), self.unit[:, 1].reshape(-1, 1, 1)
        side = torch.sigmoid(self.across)
        directions = u * along.transpose(1, 2).unsqueeze(1) + v * side * across.transpose(1, 2).unsqueeze(1)
        return Search(
            centre[:, :2], partner.transpose(2, 3), looks, directions * far.reshape(-1, 1, far.shape[1], 1)
        )

    def forward(
        self, reference: Tensor, other: Tensor, fundamental: Tensor, planes: Tensor, reach_m: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features (P, C, H0, W0), (P, C, Hi, Wi), geometry and reach as for `search` to the log-share of
        each candidate and of "nobody" (P, K + 1, h, w), the candidates' shifts (P, K, h, w, 2) in places of
        the flow's grid, and the flow (P, 2, h, w).
        """
        size = (other.shape[-2], other.shape[-1])
        rows, columns = grid_size(size, self.stride)
        where = self.search(fundamental, planes, reach_m, size)
        here, body = self.descriptor(reference)
        there, _ = self.descriptor(other)
        length = there.shape[1]
        partners, seen = _sample(torch.cat([here, body], dim=1), where.partner)  # (P, D + Z, Z, N)
        # Over the plane at a height counts what the reference shows of that very height.
        high = (partners[:, length:] * self.own).sum(dim=1)  # (P, Z, N)
        found, inside = _sample(there, where.centre + where.shift)  # (P, D, K, N)
        looks = where.looks * seen  # (P, Z, N)
        likeness = torch.einsum("pdzn,pdkn->pzkn", partners[:, :length], found) * looks.unsqueeze(2)
        grids = torch.cat([likeness.flatten(1, 2), high * looks], dim=1)
        added = self.add(self.net(grids.unflatten(2, (rows, columns)))).flatten(2)  # (P, K + 1, N)
        scores = likeness * self.log_scale.exp() + (high * looks + (1.0 - looks) * _NEVER).unsqueeze(2)
        scores = torch.logsumexp(scores, dim=1) + (1.0 - inside) * _NEVER + added[:, :-1]
        log_share = torch.log_softmax(torch.cat([scores, added[:, -1:] + self.nobody], dim=1), dim=1)
        sure = (1.0 - log_share[:, -1].exp()) * looks.amax(dim=1)
        # A soft arg-max that keeps to one of several candidates better than the plain mean.
        sharp = torch.softmax(2.0 * scores, dim=1).unsqueeze(3)
        shift = where.shift / float(self.stride)
        flow = ((sharp * shift).sum(dim=1) * sure.unsqueeze(2)).transpose(1, 2)
        return (
            log_share.unflatten(2, (rows, columns)),
            shift.unflatten(2, (rows, columns)),
            flow.unflatten(2, (rows, columns)),
        )

    def _centres(self, size: tuple[int, int], like: Tensor) -> Tensor:
        """(N, 3) places (x, y, 1) of the finest grid that the flow's places are the centres of."""
        rows, columns = grid_size(size, self.stride)
        middle = (self.stride - 1) / 2
        x = torch.arange(columns, dtype=like.dtype, device=like.device) * self.stride + middle
        y = torch.arange(rows, dtype=like.dtype, device=like.device) * self.stride + middle
        x = x.unsqueeze(0).expand(rows, columns)
        return torch.stack([x, y.unsqueeze(1).expand(rows, columns), torch.ones_like(x)], dim=2).flatten(0, 1)


class PlaneSynchroniser(nn.Module):
    """`PlaneFlow` for every other view, and the warp (paper, Eq. 10). One network for all pairs of views."""

    def __init__(self, channels: int, heights: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.pair = PlaneFlow(channels, heights, stride)

    def forward(self, features: Tensor, fundamental: Tensor, planes: Tensor, timing: Timing) -> Moved:
        """Features (B, V, C, h, w), F (B, V, 3, 3) and plane maps (B, V, Z, 4, 3), zero for absent views."""
        batch, others = features.shape[0], features.shape[1] - 1
        reference, other = pairs_of(features)
        reach = self.pair.reach_m(timing.offset_s[:, 1:], timing.known[:, 1:]).flatten()
        log_share, shift, flow = self.pair(
            reference, other, fundamental[:, 1:].flatten(0, 1), planes[:, 1:].flatten(0, 1), reach
        )
        moved = warp(other, up_flow(flow, (other.shape[-2], other.shape[-1]), self.stride))
        return Moved(
            torch.cat([features[:, :1], moved.unflatten(0, (batch, others))], dim=1),
            (reported(flow, batch),),
            (self.stride,),
            Candidates(log_share.unflatten(0, (batch, others)), shift.unflatten(0, (batch, others))),
        )


def evidence_of(candidates: Candidates, view_from_ground: Tensor) -> Tensor:
    """Evidence (B, V-1, 3, Hm, Wm) as of `Synchronised`: how surely whoever stands at a ground cell has a
    partner in view i, at the height where that is surest; the others are 0. Grids (B, V-1, Z, Hg, Wg, 2).
    """
    batch, others, heights, rows, columns = view_from_ground.shape[:5]
    sure = (1.0 - candidates.log_share[:, :, -1].exp()).flatten(0, 1).unsqueeze(1)
    grid = view_from_ground.flatten(0, 1).reshape(batch * others, heights * rows, columns, 2)
    on_ground = F.grid_sample(sure, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    surest = on_ground.reshape(batch * others, heights, rows, columns).amax(dim=1, keepdim=True)
    surest = F.avg_pool2d(surest, 2).unflatten(0, (batch, others))
    return torch.cat([surest, surest * 0.0, surest * 0.0], dim=2)


def _sample(features: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Features (P, D, h, w) at places (P, M, N, 2) of their grid: (P, D, M, N), and whether they are inside
    (P, M, N), 1 or 0.
    """
    rows, columns = features.shape[-2:]
    x = (places[..., 0] * 2.0 + 1.0) * (1.0 / columns) - 1.0
    y = (places[..., 1] * 2.0 + 1.0) * (1.0 / rows) - 1.0
    # Far outside is outside: nothing so large that it is not a number in the sampler.
    grid = torch.stack([x, y], dim=-1).clamp(-4.0, 4.0)
    sampled = F.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled, (grid.abs().amax(dim=-1) <= 1.0).to(features.dtype)
