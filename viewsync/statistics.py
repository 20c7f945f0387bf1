"""Means with 95 % intervals: bootstrap over whole crowds, or stretches of one, because answers about the same
people are not independent. Pure and seeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `number` values of `crowds` crowds, and its 95 % interval; NaN where nothing is known."""

    value: float
    low: float
    high: float
    number: int
    crowds: int

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval is below zero."""
        return self.high < 0.0


def mean_interval(values: Sequence[float], crowds: Sequence[int], seed: int = 0) -> Interval:
    """The mean of `values` (N,) over all; crowds (N,): which crowd each is from.

    Values that are NaN are unknown, and left out. Crowds are drawn with replacement, each with all its
    values. With fewer than two crowds the interval is unknown, for one crowd says nothing of others.
    """
    value, crowd = np.asarray(values, dtype=np.float64), np.asarray(crowds)
    value, crowd = value[~np.isnan(value)], crowd[~np.isnan(value)]
    if not len(value):
        return Interval(np.nan, np.nan, np.nan, 0, 0)
    return grouped_interval(*_by_crowd(value, crowd), seed)


def grouped_interval(sums: NDArray[np.float64], sizes: NDArray[np.float64], seed: int = 0) -> Interval:
    """The mean over all values, of which only each crowd's sum and number (C,) are known."""
    mean, number = float(sums.sum() / sizes.sum()), round(float(sizes.sum()))
    if len(sums) < 2:
        return Interval(mean, np.nan, np.nan, number, len(sums))
    drawn = np.random.default_rng(seed).integers(len(sums), size=(DRAWS, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(mean, float(low), float(high), number, len(sums))


def _by_crowd(
    values: NDArray[np.float64], crowds: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _, index = np.unique(crowds, return_inverse=True)
    sums = np.bincount(index, weights=values).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)
