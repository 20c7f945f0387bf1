"""Matching in rounds: on cells twice as large first (`coarse-to-fine`), and once more from where the first
round led (`iterated`). Each round narrows the motion prior and centres it on what the one before found.

Shape letters: P pairs of views, D descriptor length, N cells of the matching grid, M of the coarse one.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional as F

from viewsync.nets.descriptors import Described
from viewsync.nets.matching import ColumnMatcher, Matches, match_all

# What σ of the motion prior is multiplied by in every round after the first.
TIGHTER = 0.5


def match_in_rounds(
    matcher: ColumnMatcher,
    first: Described,
    second: Described,
    sigma_m: Tensor,
    places_m: Tensor,
    shape: tuple[int, int],
    parts: Collection[str] = (),
    where: bool = True,
) -> Matches:
    """`match_all` on a grid of `shape` rows and columns, in the rounds that `parts` name; none: one."""
    centre: Tensor | None = None
    if "coarse-to-fine" in parts:
        large = coarser_places(places_m, shape)
        found = match_all(
            matcher, coarser(matcher, first, shape), coarser(matcher, second, shape), sigma_m, large
        )
        centre, sigma_m = places_m + finer_flow(found.flow_m, shape), sigma_m * TIGHTER
    again = "iterated" in parts
    found = match_all(matcher, first, second, sigma_m, places_m, centre, where or again)
    if again:
        centre, sigma_m = places_m + found.flow_m, sigma_m * TIGHTER
        found = match_all(matcher, first, second, sigma_m, places_m, centre, where)
    return found


def coarser(matcher: ColumnMatcher, view: Described, shape: tuple[int, int]) -> Described:
    """A view on cells twice as large, descriptors (P, D, N) to (P, D, M): whoever stands in one of four cells
    stands in the large one, which looks like its people and not like the empty ground beside them.
    """
    somebody = torch.sigmoid(-matcher.nobody_score(view.nobody)) * view.inside + 1e-3
    weighted = _sum_of_four(view.descriptor * somebody.unsqueeze(1), shape)
    nobody = -F.max_pool2d(_even(-view.nobody.unsqueeze(1), shape, -1e4), 2)
    inside = F.max_pool2d(_even(view.inside.unsqueeze(1), shape, 0.0), 2)
    return Described(
        F.normalize(weighted.flatten(2), dim=1), nobody.flatten(2).squeeze(1), inside.flatten(2).squeeze(1)
    )


def coarser_places(places_m: Tensor, shape: tuple[int, int]) -> Tensor:
    """Middles (M, 2) of the large cells; at an odd edge a large cell is two small ones, or one."""
    places = places_m.T.unsqueeze(0)
    number = _sum_of_four(torch.ones_like(places[:, :1]), shape)
    return (_sum_of_four(places, shape) / number).flatten(2).squeeze(0).T


def finer_flow(flow_m: Tensor, shape: tuple[int, int]) -> Tensor:
    """Flow (P, M, 2) of large cells to the cells (P, N, 2) that they are made of."""
    rows, columns = shape
    large = flow_m.transpose(1, 2).unflatten(2, ((rows + 1) // 2, (columns + 1) // 2))
    fine = F.interpolate(large, scale_factor=2.0, mode="nearest")[:, :, :rows, :columns]
    return fine.flatten(2).transpose(1, 2)


def _even(values: Tensor, shape: tuple[int, int], fill: float) -> Tensor:
    """(P, D, N) to (P, D, rows, columns), filled up to an even number of both."""
    rows, columns = shape
    return F.pad(values.unflatten(2, shape), (0, columns % 2, 0, rows % 2), value=fill)


def _sum_of_four(values: Tensor, shape: tuple[int, int]) -> Tensor:
    """(P, D, N) to its sums over large cells (P, D, ·, ·)."""
    return F.avg_pool2d(_even(values, shape, 0.0), 2) * 4.0
