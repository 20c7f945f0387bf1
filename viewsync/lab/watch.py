"""A subscriber that knows the truth: what it tells Prometheus. Labels are the bundle's names of graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from viewsync.prediction import Prediction, Status

# The hub says something at least every few seconds, be it that it has no answer.
_SILENT_NS = 30_000_000_000


class WatchMetrics:
    """Collectors of one subscriber, all in `registry`. State: when the hub was last heard, monotonic ns."""

    def __init__(self, registry: CollectorRegistry, now_ns: int) -> None:
        self.registry = registry
        self._heard_ns = now_ns
        self.truth = Gauge(
            "viewsync_watch_truth_people",
            "People really in the region, at the last answer.",
            registry=registry,
        )
        self.count = Gauge(
            "viewsync_watch_count_people", "People counted, last answer.", ["graph"], registry=registry
        )
        self.error = Counter(
            "viewsync_watch_absolute_error",
            "Sum of |count - truth| over judged answers.",
            ["graph"],
            registry=registry,
        )
        self.judged = Counter(
            "viewsync_watch_judged", "Answers compared with the truth.", ["graph"], registry=registry
        )
        self.answers = Counter("viewsync_watch_answers", "Answers received.", ["degraded"], registry=registry)
        self.statuses = Counter("viewsync_watch_statuses", "Statuses without an answer.", registry=registry)

    def take(self, message: Prediction | Status, truth: int | None, now_ns: int) -> None:
        """Count one message of the hub; truth: how many were there, None where that is not known."""
        self._heard_ns = now_ns
        if isinstance(message, Status):
            self.statuses.inc()
            return
        self.answers.labels(str(message.degraded).lower()).inc()
        if truth is not None:
            self.truth.set(truth)
        for graph, count in message.counts.items():
            self.count.labels(graph).set(count)
            if truth is not None:
                self.error.labels(graph).inc(abs(count - truth))
                self.judged.labels(graph).inc()

    def health(self, now_ns: int) -> tuple[bool, Mapping[str, Any]]:
        """Whether the hub has been heard of late, and how long ago that was."""
        silent_ns = now_ns - self._heard_ns
        return silent_ns < _SILENT_NS, {"silent_s": round(silent_ns * 1e-9, 1)}
