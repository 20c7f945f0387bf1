"""Column matching on the ground: who stands at g for the reference, and where did view i see the same person?

All pairs of cells are one matrix product; the walker's motion prior is a distance term added to it; an extra
"nobody" outcome takes cells that have no partner (empty ground, people the other view does not see).

Shape letters: B batch, P pairs of views, D descriptor length, N ground cells of the matching grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FAR = -1e4
# Farthest that whoever a cell shows may stand from its middle (part `subcell`): people spread over cells.
REACH_M = 1.0
# Rows of scores that are worked on at a time where nobody learns: some thousand cells of each are a megabyte.
_ROWS = 128
# Variance, m², of the places that a cell's partner may be at, where its match counts half (part `sharp`).
HALF_TRUSTED_M2 = 1.0


@dataclass(frozen=True, slots=True)
class Described:
    """What the matcher knows about one view: unit descriptors (…, D, N), the score of "nobody here" (…, N),
    and `inside` (…, N), 1 for cells the view looks at, else 0. shift_m (…, N, 2): metres from a cell's middle
    to where whoever it shows stands; None: taken to be the middle.
    """

    descriptor: Tensor
    nobody: Tensor
    inside: Tensor
    shift_m: Tensor | None = None

    def each(self, of: Callable[[Tensor], Tensor]) -> Described:
        """`of` every part: for what is done to leading dimensions."""
        shift_m = None if self.shift_m is None else of(self.shift_m)
        return Described(of(self.descriptor), of(self.nobody), of(self.inside), shift_m)

    def stand(self, cells_m: Tensor) -> Tensor:
        """Where whoever the cells show stands, of their middles (…, N, 2) m."""
        return cells_m if self.shift_m is None else cells_m + self.shift_m


class ColumnDescriptor(nn.Module):
    """Columns above each ground cell to a unit descriptor of who stands there and a "nobody" score.

    columns (B, C·Z, Hg, Wg), inside (B, Z, Hg, Wg) -> `Described` with N = Hg/2 · Wg/2.
    """

    def __init__(
        self, channels: int, heights: int, length: int = 32, width: int = 48, subcell: bool = False
    ) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d((channels + 1) * heights, width, 1), nn.GroupNorm(8, width), nn.ReLU(inplace=True)
        )
        self.halve = nn.Sequential(
            nn.Conv2d(width, width, 4, stride=2, padding=1), nn.GroupNorm(8, width), nn.ReLU(inplace=True)
        )
        self.refine = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU(inplace=True)
        )
        self.out = nn.Conv2d(width, length + 1, 1)
        self.stand = _standing(width) if subcell else None

    def forward(self, columns: Tensor, inside: Tensor) -> Described:
        x = self.halve(self.reduce(torch.cat([columns, inside], dim=1)))
        return _described(x + self.refine(x), inside, self.out, self.stand)


class SharedDescriptor(nn.Module):
    """Descriptors read off the ground encoder's features instead of by layers of their own.

    ground (B, D', Hm, Wm), inside (B, Z, 2·Hm, 2·Wm) -> `Described` with N = Hm · Wm.
    """

    def __init__(self, width: int, length: int = 32, subcell: bool = False) -> None:
        super().__init__()
        self.out = nn.Conv2d(width, length + 1, 1)
        self.stand = _standing(width) if subcell else None

    def forward(self, ground: Tensor, inside: Tensor) -> Described:
        return _described(ground, inside, self.out, self.stand)


def _standing(width: int) -> nn.Conv2d:
    """What tells `shift_m` of a cell's features; nothing at first."""
    layer = nn.Conv2d(width, 2, 1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _described(x: Tensor, inside: Tensor, out: nn.Module, stand: nn.Module | None) -> Described:
    """What the last layers say of features (B, width, Hm, Wm)."""
    told = out(x)
    seen = F.max_pool2d(inside[:, :2].amin(dim=1, keepdim=True), 2)
    shift_m = None if stand is None else REACH_M * torch.tanh(stand(x)).flatten(2).transpose(1, 2)
    descriptor = F.normalize(told[:, :-1].flatten(2), dim=1)
    return Described(descriptor, told[:, -1].flatten(1), seen.flatten(1), shift_m)


class ColumnMatcher(nn.Module):
    """Scores of all pairs of cells under a Gaussian motion prior of σ = v·|δ| + σ₀ metres.

    The prior is the paper's (Fig. 3), on the ground instead of along the epipolar line.

    An unknown offset gets a σ of its own, learned like v and σ₀. everybody: without the outcome "nobody";
    every cell that a view looks at has a partner in every view that looks anywhere. mutual: partners are
    chosen by what both sides say (dual softmax: Sun et al., LoFTR, 2021, Eq. 1, 2). sharp: the flow leads to
    the best of several candidates, all the way, and a match counts less the farther they are apart.
    """

    def __init__(
        self,
        walk_m_s: float = 0.9,
        spread_m: float = 0.45,
        unknown_m: float = 1.8,
        everybody: bool = False,
        mutual: bool = False,
        sharp: bool = False,
    ) -> None:
        super().__init__()
        self.everybody = everybody
        self.mutual = mutual
        self.sharp = sharp
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        self.log_sigma = nn.Parameter(torch.tensor([walk_m_s, spread_m, unknown_m]).log())
        self.nobody = nn.Parameter(torch.zeros(2))

    def sigma_m(self, offset_s: Tensor, known: Tensor) -> Tensor:
        """Standard deviation of the prior in metres for offsets (…,) s; `known` (…,) is 1 where the offset
        counts.
        """
        walk, spread, unknown = self.log_sigma.exp().unbind()
        return known * (walk * offset_s.abs() + spread) + (1.0 - known) * unknown

    def keys(self, view: Described, cells: Tensor, sigma_m: Tensor, first: bool) -> Tensor:
        """Descriptors (P, D + 4, N) whose inner product with the other side's keys is the score of a pair of
        cells: similarity, minus squared distance over 2σ², with cells that a view doesn't look at pushed far
        down.

        cells (P, N, 2) metres, sigma (P,) m; `first` tells which side of the product this is.
        """
        steep = (1.0 / (sigma_m * sigma_m)).reshape(-1, 1)
        own = (-0.5 * steep * cells.square().sum(dim=2) + (1.0 - view.inside) * FAR).unsqueeze(1)
        one = torch.ones_like(own)
        place = cells.transpose(1, 2)
        if not first:
            return torch.cat([view.descriptor, place, one, own], dim=1)
        return torch.cat(
            [view.descriptor * self.log_scale.exp(), place * steep.unsqueeze(2), own, one], dim=1
        )

    def nobody_score(self, nobody: Tensor) -> Tensor:
        """Score (…, N) of the "nobody" outcome, from the cell's own view of itself."""
        return nobody * self.nobody[0].exp() + self.nobody[1]


@dataclass(frozen=True, slots=True)
class Matches:
    """Outcome for P pairs: similarity (P, N) that the first view's cell has a partner, which of a `sharp`
    matcher counts how sure its place is, too; moved_m (P, N, 2) metres from that cell to the partner's place,
    and flow_m (P, N, 2) what of it is applied; accounted (P, N) that the second view's cell has a partner in
    the first.
    """

    similarity: Tensor
    moved_m: Tensor
    flow_m: Tensor
    accounted: Tensor


def match_all(
    matcher: ColumnMatcher,
    first: Described,
    second: Described,
    sigma_m: Tensor,
    places_m: Tensor,
    centre_m: Tensor | None = None,
    where: bool = True,
) -> Matches:
    """Match every cell of P pairs of views; places (N, 2) metres, sigma (P,) m. centre (P, N, 2): where the
    prior expects the partner of each cell of the first view; None: where the cell is. where: as `search`.
    """
    places = places_m.unsqueeze(0).expand(sigma_m.shape[0], -1, -1)
    keys = matcher.keys(first, places if centre_m is None else centre_m, sigma_m, first=True)
    return search(
        matcher, first, second, keys, matcher.keys(second, places, sigma_m, first=False), places, where
    )


def search(
    matcher: ColumnMatcher,
    first: Described,
    second: Described,
    keys: Tensor,
    others: Tensor,
    places: Tensor,
    where: bool = True,
) -> Matches:
    """What the scores say that both sides' keys (P, K, N) make of all pairs of cells; places (P, N, 2)
    metres. where: whether to look for partners' places, too; else nothing moves.

    A partner's place is a differentiable arg-max: the mean place under the squared, renormalised match
    probabilities, which keeps to one of several candidates better than the plain mean; of a `sharp` matcher
    under their eighth power, which all but is one of them. Between two views that tell where in a cell people
    stand, it is from there to there.
    """
    pairs, cells = keys.shape[0], keys.shape[2]
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or pairs == 0:
        rises = _rises(torch.matmul(keys.transpose(1, 2), others))
        similarity, accounted, back = _ends(matcher, first, second, *rises)
        if not where:
            return Matches(similarity, places * 0.0, places * 0.0, accounted)
        led = _led(matcher, rises.weight, back, second.stand(places))
        return _matches(matcher, first, second, similarity, accounted, led, places)
    # Where nobody learns from it, some rows of one pair at a time, which stay in the processor's cache.
    found = []
    for p in range(pairs):
        one, other, at = first.each(_only(p)), second.each(_only(p)), places[p : p + 1]
        ours, theirs = keys[p : p + 1].transpose(1, 2), others[p : p + 1]
        blocks = [_rises(torch.matmul(ours[:, k : k + _ROWS], theirs)) for k in range(0, cells, _ROWS)]
        rises = _Rises(
            torch.cat([block.peak for block in blocks], dim=1),
            blocks[0].weight,
            torch.cat([block.total for block in blocks], dim=1),
            torch.stack([block.back for block in blocks]).sum(dim=0),
        )
        similarity, accounted, back = _ends(matcher, one, other, *rises)
        if not where:
            found.append(Matches(similarity, at * 0.0, at * 0.0, accounted))
            continue
        stand = other.stand(at)
        some = [_led(matcher, block.weight, back, stand) for block in blocks]
        led = torch.cat([place for place, _ in some], dim=1), torch.cat([about for _, about in some], dim=1)
        found.append(_matches(matcher, one, other, similarity, accounted, led, at))
    return Matches(
        torch.cat([one.similarity for one in found]),
        torch.cat([one.moved_m for one in found]),
        torch.cat([one.flow_m for one in found]),
        torch.cat([one.accounted for one in found]),
    )


def _only(p: int) -> Callable[[Tensor], Tensor]:
    return lambda part: part[p : p + 1]


class _Rises(NamedTuple):
    """Scores (P, R, N) of some rows of cells: each row's highest `peak` (P, R, 1), `weight` (P, R, N) what
    the others come to beside it, `total` (P, R) of that, and `back` (P, N) what all rows come to.
    """

    peak: Tensor
    weight: Tensor
    total: Tensor
    back: Tensor


def _rises(scores: Tensor) -> _Rises:
    """One exponential of the scores serves both directions."""
    peak = scores.amax(dim=2, keepdim=True)
    # Floored so that nothing underflows into the denormal numbers, which are very slow; e^-38 is nothing.
    weight = scores.sub(peak).clamp_min_(-38.0).exp_()
    back = torch.matmul(torch.exp(peak.clamp(-38.0, 38.0)).transpose(1, 2), weight).squeeze(1)
    return _Rises(peak, weight, weight.sum(dim=2), back)


def _ends(
    matcher: ColumnMatcher,
    first: Described,
    second: Described,
    peak: Tensor,
    weight: Tensor,
    total: Tensor,
    back: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Who has a partner at all: similarity, accounted (P, N), and `back` with the outcome "nobody"."""
    if matcher.everybody:
        similarity = first.inside * second.inside.amax(dim=1, keepdim=True)
        return similarity, second.inside * first.inside.amax(dim=1, keepdim=True), back
    here, there = matcher.nobody_score(first.nobody), matcher.nobody_score(second.nobody)
    similarity = torch.sigmoid(peak.squeeze(2) + total.log() - here) * first.inside
    accounted = torch.sigmoid(back.clamp_min(1e-30).log() - there) * second.inside
    return similarity, accounted, back + torch.exp(there.clamp(-38.0, 38.0))


def _led(matcher: ColumnMatcher, weight: Tensor, back: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Where partners are, of some rows of weights (P, R, N): places (P, R, 2) m, and of a `sharp` matcher how
    far apart candidates are (P, R) m².
    """
    if matcher.mutual:
        # The root of both directions' shares, but for what is the same along a row.
        weight = weight * back.clamp_min(1e-30).rsqrt().unsqueeze(1)
        weight = (weight / weight.amax(dim=2, keepdim=True).clamp_min(1e-30)).clamp_min_(math.exp(-38.0))
    shares = weight * weight
    if not matcher.sharp:
        mean = _mean(shares, places)
        return mean, mean[..., 0] * 0.0
    square = places.square().sum(dim=2, keepdim=True)
    found = _mean(shares, torch.cat([places, square], dim=2))
    variance = (found[..., 2] - found[..., :2].square().sum(dim=2)).clamp_min(0.0)
    return _mean(shares.clamp_min(5e-9).square().square(), places), variance  # floored as above


def _matches(
    matcher: ColumnMatcher,
    first: Described,
    second: Described,
    similarity: Tensor,
    accounted: Tensor,
    led: tuple[Tensor, Tensor],
    places: Tensor,
) -> Matches:
    place, variance = led
    moved = place - first.stand(places)
    if not matcher.sharp:
        return Matches(similarity, moved, moved * similarity.unsqueeze(2), accounted)
    # A view that looks nowhere leads nowhere.
    moved = moved * (first.inside * second.inside.amax(dim=1, keepdim=True)).unsqueeze(2)
    return Matches(similarity / (1.0 + variance / HALF_TRUSTED_M2), moved, moved, accounted)


def _mean(weight: Tensor, values: Tensor) -> Tensor:
    """Mean (P, R, K) of values (P, N, K) under every row of weights (P, R, N)."""
    total = weight.sum(dim=2, keepdim=True)
    if torch.compiler.is_compiling():
        return torch.matmul(weight, values) / total
    # The same product the other way round: torch is ten times slower with so few columns.
    return torch.matmul(values.transpose(1, 2).contiguous(), weight.transpose(1, 2)).transpose(1, 2) / total
