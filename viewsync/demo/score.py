"""The demo's running score: what the hub published, beside the truth. Pure: no socket, no clock."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from viewsync.prediction import Prediction
from viewsync.statistics import grouped_interval

# Names of the compared graphs; whichever other graph answers is the synchronised one.
NOT_SYNCHRONISED, REFERENCE_ONLY = "none", "reference-only"
# Latencies kept for the percentiles: hours of a demo.
_KEPT = 20_000
# Snapshots nearer to each other than this show the same people in the same places: they count as one stretch.
_STRETCH_NS = 10_000_000_000
# With fewer an interval over stretches says nothing.
_STRETCHES = 5


class Score:
    """State: sums over every distinct snapshot seen so far, and the last prediction whole."""

    def __init__(self, synchronised: str) -> None:
        """synchronised: the graph whose count is the published answer."""
        self.graphs = (synchronised, NOT_SYNCHRONISED, REFERENCE_ONLY)
        self.last: Prediction | None = None
        self.last_truth: int | None = None
        self.predictions = 0
        self.judged = 0
        self._errors = dict.fromkeys(self.graphs, 0.0)
        # By stretch: how many snapshots, and each graph's sum of errors.
        self._stretches: dict[int, NDArray[np.float64]] = {}
        self._truths = 0
        self._degraded = 0
        self._references: Counter[str] = Counter()
        self._latencies_ms: deque[float] = deque(maxlen=_KEPT)
        self._newest: dict[int, int] = {}

    def add(self, prediction: Prediction, truth: int | None) -> bool:
        """Take a prediction and how many people were there (None: not known).

        False, and nothing changes, for a snapshot that was taken before.
        """
        if prediction.seq <= self._newest.get(prediction.session, -1):
            return False
        self._newest[prediction.session] = prediction.seq
        self.last, self.last_truth = prediction, truth
        self.predictions += 1
        self._degraded += prediction.degraded
        self._references[prediction.reference] += 1
        self._latencies_ms.append(prediction.latency_ns * 1e-6)
        # Only snapshots that all graphs answered: a comparison over different snapshots says nothing.
        if truth is not None and all(graph in prediction.counts for graph in self.graphs):
            self.judged += 1
            self._truths += truth
            errors = [abs(prediction.counts[graph] - truth) for graph in self.graphs]
            for graph, error in zip(self.graphs, errors, strict=True):
                self._errors[graph] += error
            stretch = self._stretches.setdefault(prediction.capture_ns // _STRETCH_NS, np.zeros(4))
            stretch += [1.0, *errors]
        return True

    def mae(self, graph: str) -> float | None:
        """Mean absolute count error of a graph; None while nothing can be said."""
        return self._errors[graph] / self.judged if self.judged else None

    def latency_ms(self, percentile: float) -> float | None:
        """Publish time minus the reference's capture time, milliseconds."""
        return float(np.percentile(self._latencies_ms, percentile)) if self._latencies_ms else None

    def verdict(self) -> str:
        """Whether synchronising helped in this run, in one honest sentence."""
        mine, plain, alone = (self.mae(graph) for graph in self.graphs)
        if mine is None or plain is None or alone is None:
            return "No snapshot has been answered by all three graphs yet."
        said = (
            f"Over {self.judged} snapshots: mean error {mine:.2f} synchronised, "
            f"{plain:.2f} not synchronised, "
            f"{alone:.2f} reference only."
        )
        if len(self._stretches) < _STRETCHES:
            return f"{said} Too short a run to say whether synchronising helped."
        return (
            f"{said} Synchronising, against not synchronising: {self._difference(1)}; "
            f"against the reference alone: {self._difference(2)}."
        )

    def _difference(self, other: int) -> str:
        """Error of the first graph minus that of another, its 95 % interval, and what follows from it."""
        sums = np.stack(list(self._stretches.values()))
        found = grouped_interval(sums[:, 1] - sums[:, 1 + other], sums[:, 0])
        if found.high < 0:
            follows = "better"
        elif found.low > 0:
            follows = "WORSE"
        else:
            follows = "no difference that this run can show"
        return f"{follows} ({found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}])"

    def summary(self) -> dict[str, Any]:
        """Figures for `--json`; null where there is nothing to tell."""
        mine, plain, alone = (_rounded(self.mae(graph), 3) for graph in self.graphs)
        return {
            "predictions": self.predictions,
            "mae_synchronised": mine,
            "mae_unsynchronised": plain,
            "mae_reference_only": alone,
            "judged": self.judged,
            "truth_mean": _rounded(self._truths / self.judged if self.judged else None, 2),
            "degraded": self._degraded,
            "references": dict(self._references),
            "latency_p50_ms": _rounded(self.latency_ms(50), 1),
            "latency_p99_ms": _rounded(self.latency_ms(99), 1),
        }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
