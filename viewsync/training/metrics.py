"""MAE, NAE, density MSE, localisation F1 and their intervals, defined once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from calib.ground import GroundGrid

Floats = NDArray[np.float64]
LOCATE_M = 0.5


def locate(density: NDArray[np.float32], grid: GroundGrid, threshold: float) -> Floats:
    """People's places (K, 2) in metres: local maxima of the smoothed density (Hg, Wg) above `threshold`
    people per cell.
    """
    smooth = cv2.GaussianBlur(density, (0, 0), 1.0).astype(np.float64)
    # Somebody between two cells makes two equal peaks; the slightest slope leaves one.
    smooth += np.arange(smooth.size).reshape(smooth.shape) * 1e-13
    peak = (smooth >= cv2.dilate(smooth, np.ones((3, 3), np.uint8))) & (smooth > threshold)
    row, column = np.nonzero(peak)
    x = grid.origin_x_m + (column + 0.5) * grid.cell_m
    y = grid.origin_y_m + (row + 0.5) * grid.cell_m
    return np.column_stack([x, y]).astype(np.float64)


def hits(found: Floats, true: Floats, reach_m: float = LOCATE_M) -> int:
    """How many of `found` (K, 2) and `true` (N, 2) pair up one to one within `reach_m` at most."""
    if not len(found) or not len(true):
        return 0
    distance = np.linalg.norm(found[:, None] - true[None], axis=2)
    rows, columns = linear_sum_assignment(np.minimum(distance, 10 * reach_m))
    return int((distance[rows, columns] <= reach_m).sum())


@dataclass(frozen=True, slots=True)
class Scores:
    """Per-snapshot results of one method, each (T,): counts, squared density error summed over cells, hits,
    found, true people, and which crowd the snapshot is from.
    """

    predicted: Floats
    true: Floats
    squared_error: Floats
    hits: Floats
    found: Floats
    crowd: NDArray[np.int64]

    def take(self, index: NDArray[np.int64]) -> Scores:
        """The snapshots `index`, in that order."""
        return Scores(*(getattr(self, name)[index] for name in self.__slots__))


def mae(s: Scores) -> float:
    """Mean absolute count error (paper, Eq. 23)."""
    return float(np.abs(s.predicted - s.true).mean())


def nae(s: Scores) -> float:
    """Mean absolute error over the true count (paper, Eq. 24); snapshots without anybody are left out."""
    some = s.true > 0
    return float((np.abs(s.predicted - s.true)[some] / s.true[some]).mean())


def count_error(s: Scores) -> tuple[float, float]:
    """Mean of the count's error, predicted − true, and its standard deviation."""
    error = s.predicted - s.true
    return float(error.mean()), float(error.std())


def density_mse(s: Scores) -> float:
    """Squared density error summed over the grid, mean over snapshots."""
    return float(s.squared_error.mean())


def precision(s: Scores) -> float:
    """Share of located places with a person within 0.5 m."""
    return float(s.hits.sum() / max(s.found.sum(), 1.0))


def recall(s: Scores) -> float:
    """Share of people located within 0.5 m."""
    return float(s.hits.sum() / max(s.true.sum(), 1.0))


def f1(s: Scores) -> float:
    """Harmonic mean of precision and recall."""
    return float(2 * s.hits.sum() / max(s.found.sum() + s.true.sum(), 1.0))


METRICS: Mapping[str, Callable[[Scores], float]] = {
    "mae": mae,
    "nae": nae,
    "density_mse": density_mse,
    "precision": precision,
    "recall": recall,
    "f1": f1,
}


def bootstrap(
    scores: Scores,
    metric: Callable[[Scores], float],
    other: Scores | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of `metric` over crowds drawn with replacement; with `other`, of the paired difference to
    it.

    Whole crowds are drawn, because snapshots of one crowd are not independent.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(scores.crowd == c) for c in np.unique(scores.crowd)]
    values = []
    for _ in range(draws):
        index = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        value = metric(scores.take(index))
        values.append(value - metric(other.take(index)) if other is not None else value)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
