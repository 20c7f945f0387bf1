"""The prize of a data set and how much of the gap a method closes, with bootstrap intervals over stretches of
the test sequences and over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from viewsync.training.metrics import METRICS, Scores

CLOSURE_METRICS = ("mae", "density_mse", "f1")
_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, its standard error and its 95 % interval."""

    value: float
    error: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """At least twice its standard error above zero: there is something to gain."""
        return self.value > 0 and self.value >= 2 * self.error


Runs = Sequence[Scores]  # of one method, one for each seed; all on the same snapshots


def prize(reference_only: Runs, synchronised: Runs, metric: str) -> Figure:
    """What synchronised frames of the other views are worth: reference-only − synchronised, for F1 the other
    way round, so that more is better.
    """
    return gain(reference_only, synchronised, metric)


def gain(base: Runs, method: Runs, metric: str) -> Figure:
    """BaseU − method, for F1 the other way round: what the method gains, on the same snapshots."""
    return _figure((base, method), lambda b, m: b - m, metric)


def gap(base: Runs, synchronised: Runs, metric: str) -> Figure:
    """BaseU − synchronised: what there is to close."""
    return gain(base, synchronised, metric)


def closure(base: Runs, method: Runs, synchronised: Runs, metric: str) -> Figure | None:
    """(BaseU − method) / (BaseU − synchronised); None where the gap is below twice its standard error."""
    if not gap(base, synchronised, metric).clear:
        return None

    def share(b: float, m: float, s: float) -> float:
        return (b - m) / (b - s) if b > s else np.nan

    return _figure((base, method, synchronised), share, metric)


def _figure(runs: Sequence[Runs], of: Callable[..., float], metric: str) -> Figure:
    """`of` the metric's mean over seeds of each of `runs`; intervals draw stretches, alike for
    all, and seeds.
    """
    measure, sign = METRICS[metric], -1.0 if metric == "f1" else 1.0
    groups = runs[0][0].crowd
    if any(not np.array_equal(s.crowd, groups) for some in runs for s in some):
        raise ValueError("methods are compared on the same snapshots only")
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    rng = np.random.default_rng(0)

    def value(index: np.ndarray[tuple[int, ...], np.dtype[np.int64]], draw: bool) -> float:
        means = []
        for some in runs:
            seeds = rng.integers(len(some), size=len(some)) if draw else np.arange(len(some))
            means.append(float(np.mean([sign * measure(some[k].take(index)) for k in seeds])))
        return of(*means)

    everything = np.arange(len(groups))
    drawn = np.array(
        [
            value(np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))]), True)
            for _ in range(_DRAWS)
        ]
    )
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Figure(value(everything, False), float("inf"), float("-inf"), float("inf"))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Figure(value(everything, False), float(drawn.std()), float(low), float(high))


def figures(runs: Mapping[str, Runs]) -> dict[str, dict[str, Figure | None]]:
    """method → metric → closure, of every method beside BaseU and the bound; {} where one of those lacks."""
    if "BaseU" not in runs or "synchronised" not in runs:
        return {}
    base, bound = runs["BaseU"], runs["synchronised"]
    return {
        name: {metric: closure(base, some, bound, metric) for metric in CLOSURE_METRICS}
        for name, some in runs.items()
        if name not in ("BaseU", "synchronised")
    }
