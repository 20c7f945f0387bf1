"""Descriptors of ground cells: who stands there, as far as one view's columns tell.

Shape letters: B batch, D descriptor length, N ground cells of the matching grid, Hm Wm its rows and columns,
Hg Wg those of the ground, C channels, Z heights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Farthest that whoever a cell shows may stand from its middle (part `subcell`): people spread over cells.
REACH_M = 1.0


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

    def people(self, cells_m: Tensor) -> Tensor:
        """Where whoever the cells show stands, of their middles (…, N, 2) m."""
        return cells_m if self.shift_m is None else cells_m + self.shift_m


class ColumnDescriptor(nn.Module):
    """Columns above each ground cell to a unit descriptor of who stands there and a "nobody" score.

    columns (B, C·Z, Hg, Wg), inside (B, Z, Hg, Wg) -> `Described` with N = Hg/2 · Wg/2.
    """

    def __init__(self, channels: int, heights: int, length: int = 32, width: int = 48) -> None:
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

    def forward(self, columns: Tensor, inside: Tensor) -> Described:
        x = self.halve(self.reduce(torch.cat([columns, inside], dim=1)))
        return _described(self.out(x + self.refine(x)), inside)


class SharedDescriptor(nn.Module):
    """Descriptors read off the ground encoder's features instead of by layers of their own.

    ground (B, D', Hm, Wm), inside (B, Z, 2·Hm, 2·Wm) -> `Described` with N = Hm · Wm.
    """

    def __init__(self, width: int, length: int = 32) -> None:
        super().__init__()
        self.out = nn.Conv2d(width, length + 1, 1)

    def forward(self, ground: Tensor, inside: Tensor) -> Described:
        return _described(self.out(ground), inside)


class Subcell(nn.Module):
    """Where in its cell whoever a cell shows stands, told by the ground encoder's features, which know it
    well: the density of people is read off them. Says "the middle" until it has learned.

    ground (B, D', Hm, Wm) -> `Described.shift_m` (B, N, 2), N = Hm · Wm.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU(inplace=True)
        )
        self.out = nn.Conv2d(width, 2, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, ground: Tensor) -> Tensor:
        told: Tensor = self.out(self.look(ground))
        return REACH_M * torch.tanh(told).flatten(2).transpose(1, 2)


def _described(told: Tensor, inside: Tensor) -> Described:
    """What the last layer says (B, length + 1, Hm, Wm)."""
    seen = F.max_pool2d(inside[:, :2].amin(dim=1, keepdim=True), 2)
    descriptor = F.normalize(told[:, :-1].flatten(2), dim=1)
    return Described(descriptor, told[:, -1].flatten(1), seen.flatten(1))
