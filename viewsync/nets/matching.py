"""Column matching on the ground: who stands at g for the reference, and where did view i see the same person?

All pairs of cells are one matrix product; the walker's motion prior is a distance term added to it; an extra
"nobody" outcome takes cells that have no partner (empty ground, people the other view does not see).

Shape letters: B batch, P pairs of views, D descriptor length, N ground cells of the matching grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from viewsync.nets.descriptors import Described

FAR = -1e4
# Rows of scores that are worked on at a time where nobody learns: some thousand cells of each are a megabyte.
_ROWS = 128
# Variance, m², of the places that a cell's partner may be at, where its match counts half (part `sharp`).
HALF_TRUSTED_M2 = 1.0


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
    matcher counts how sure its place is, too; moved_m (P, N, 2) metres from where whoever that cell shows
    stands (its middle, unless views tell) to where the partner does, and flow_m (P, N, 2) what of it is
    applied; accounted (P, N) that the second view's cell has a partner in the first.
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
    # Where nobody learns from it, pair by pair and block by block of rows, which a CPU's cache holds.
    whole = keys.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling()
    if not whole and len(keys) > 1:
        found = []
        for p in range(len(keys)):
            only = partial(_only, p)
            sides, arrays = (first.each(only), second.each(only)), (only(keys), only(others), only(places))
            found.append(search(matcher, *sides, *arrays, where=where))
        return Matches(
            torch.cat([one.similarity for one in found]),
            torch.cat([one.moved_m for one in found]),
            torch.cat([one.flow_m for one in found]),
            torch.cat([one.accounted for one in found]),
        )
    rows = keys.transpose(1, 2)
    parts = [rows] if whole else list(rows.split(_ROWS, dim=1))
    blocks = [_exponentials(torch.matmul(part, others), kept=where) for part in parts]
    column_sum = _sum([block.column_sum for block in blocks])
    if matcher.everybody:
        similarity = first.inside * second.inside.amax(dim=1, keepdim=True)
        accounted = second.inside * first.inside.amax(dim=1, keepdim=True)
    else:
        here, there = matcher.nobody_score(first.nobody), matcher.nobody_score(second.nobody)
        similarity = torch.sigmoid(_joined([block.log_sum for block in blocks]) - here) * first.inside
        accounted = torch.sigmoid(column_sum.clamp_min(1e-30).log() - there) * second.inside
        column_sum = column_sum + torch.exp(there.clamp(-38.0, 38.0))
    if not where:
        return Matches(similarity, places * 0.0, places * 0.0, accounted)
    stand = second.people(places)
    led = [_soft_argmax(matcher, block.weight, column_sum, stand) for block in blocks]
    moved = _joined([place for place, _ in led]) - first.people(places)
    if not matcher.sharp:
        return Matches(similarity, moved, moved * similarity.unsqueeze(2), accounted)
    # A view that looks nowhere leads nowhere.
    moved = moved * (first.inside * second.inside.amax(dim=1, keepdim=True)).unsqueeze(2)
    variance = _joined([about for _, about in led])
    return Matches(similarity / (1.0 + variance / HALF_TRUSTED_M2), moved, moved, accounted)


def _only(p: int, part: Tensor) -> Tensor:
    """That of pair number p alone."""
    return part[p : p + 1]


class _Exponentials(NamedTuple):
    """Of some rows of scores (P, R, N): their exponentials `weight` (P, R, N) beside each row's highest, the
    logarithm of each row's sum `log_sum` (P, R), and what these rows add to each column's sum `column_sum`
    (P, N).
    """

    weight: Tensor
    log_sum: Tensor
    column_sum: Tensor


def _exponentials(scores: Tensor, kept: bool) -> _Exponentials:
    """One exponential of the scores serves both directions. kept: whether `weight` is wanted later."""
    peak = scores.amax(dim=2, keepdim=True)
    # Floored so that nothing underflows into the denormal numbers, which are very slow; e^-38 is nothing.
    weight = scores.sub(peak).clamp_min_(-38.0).exp_()
    column_sum = torch.matmul(torch.exp(peak.clamp(-38.0, 38.0)).transpose(1, 2), weight).squeeze(1)
    log_sum = peak.squeeze(2) + weight.sum(dim=2).log()
    return _Exponentials(weight if kept else peak, log_sum, column_sum)


def _soft_argmax(
    matcher: ColumnMatcher, weight: Tensor, column_sum: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """Where partners are, of some rows of weights (P, R, N): places (P, R, 2) m; and how far apart candidates
    are (P, R) m², which only a `sharp` matcher asks.
    """
    if matcher.mutual:
        # The root of both directions' shares, but for what is the same along a row.
        weight = weight * column_sum.clamp_min(1e-30).rsqrt().unsqueeze(1)
        weight = (weight / weight.amax(dim=2, keepdim=True).clamp_min(1e-30)).clamp_min_(math.exp(-38.0))
    shares = weight * weight
    if not matcher.sharp:
        mean = _mean(shares, places)
        return mean, mean[..., 0]
    square = places.square().sum(dim=2, keepdim=True)
    found = _mean(shares, torch.cat([places, square], dim=2))
    variance = (found[..., 2] - found[..., :2].square().sum(dim=2)).clamp_min(0.0)
    return _mean(shares.clamp_min(5e-9).square().square(), places), variance  # floored as above


def _joined(blocks: list[Tensor]) -> Tensor:
    """Blocks of rows, dimension 1, in one; the only one as it is."""
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def _sum(blocks: list[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.stack(blocks).sum(dim=0)


def _mean(weight: Tensor, values: Tensor) -> Tensor:
    """Mean (P, R, K) of values (P, N, K) under every row of weights (P, R, N)."""
    total = weight.sum(dim=2, keepdim=True)
    if torch.compiler.is_compiling():
        return torch.matmul(weight, values) / total
    # The same product the other way round: torch is ten times slower with so few columns.
    return torch.matmul(values.transpose(1, 2).contiguous(), weight.transpose(1, 2)).transpose(1, 2) / total
