"""Whether people are found where they are: F1 of one answer, located as `viewsync evaluate` does it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from calib.ground import GroundGrid
from viewsync.bundle import Bundle


def thresholds(bundle: Bundle) -> dict[str, float]:
    """By graph, the density in people per cell above which somebody is located: chosen when the bundle was
    measured, on crowds of their own. Graphs that were not measured have none.
    """
    told = bundle.manifest.accuracy.get("thresholds", {})
    if not isinstance(told, Mapping):
        return {}
    return {
        graph: float(told[graph])
        for graph in bundle.manifest.fusion
        if isinstance(told.get(graph), (int, float))
    }


def f1_of(
    density: NDArray[np.float32], people: NDArray[np.float64], grid: GroundGrid, threshold: float | None
) -> float:
    """F1 of the places found in `density` (Hg, Wg) against `people` (N, 2), metres; NaN without a threshold.

    Nobody there and nobody found is 1.
    """
    if threshold is None:
        return math.nan
    # Only here: a site that runs live needs no scipy.
    from viewsync.training.metrics import hits, locate

    found = locate(density, grid, threshold)
    both = len(found) + len(people)
    return 2 * hits(found, people) / both if both else 1.0
