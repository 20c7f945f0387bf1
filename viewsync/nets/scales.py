"""How MVMS's scales fit into one tensor: the finest as it is, the values of each coarser one, one after the
other, in as many further channels as they need.
"""

from __future__ import annotations

# Strides of the scales, in places of the finest.
SCALES = (1, 2, 4)


def scale_grid(grid: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of a scale, of features with `grid` rows and columns at the finest."""
    return -(-grid[0] // stride), -(-grid[1] // stride)


def packed_channels(channels: int, grid: tuple[int, int], stride: int) -> int:
    """How many channels of `grid` hold `channels` of a coarser scale."""
    rows, columns = scale_grid(grid, stride)
    return -(-channels * rows * columns // (grid[0] * grid[1]))


def sent_channels(channels: int, grid: tuple[int, int]) -> int:
    """How many channels of `grid` hold all scales of `channels` each."""
    return sum(packed_channels(channels, grid, stride) for stride in SCALES)
