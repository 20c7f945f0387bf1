"""What the hub tells Prometheus. Labels come from the bundle or from our own reasons, never from a peer."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_STEP_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LATENCY_BUCKETS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0)


class HubMetrics:
    """The hub's collectors, all in `registry`; every view starts at zero so that a silent one is seen."""

    def __init__(self, views: Iterable[str], registry: CollectorRegistry) -> None:
        self.registry = registry
        self.messages = Counter("viewsync_hub_messages", "Frames taken.", ["view"], registry=registry)
        self.refused = Counter("viewsync_hub_refused", "Messages refused.", ["reason"], registry=registry)
        self.superseded = Counter(
            "viewsync_hub_superseded",
            "Messages dropped unread for a newer one of the same agent.",
            registry=registry,
        )
        self.denied = Counter(
            "viewsync_hub_denied",
            "Connections that the allow-list turned away.",
            ["domain"],
            registry=registry,
        )
        self.view_age = Gauge(
            "viewsync_hub_view_age_seconds",
            "Age of a view's newest frame, +Inf without one.",
            ["view"],
            registry=registry,
        )
        self.clock_uncertainty = Gauge(
            "viewsync_hub_clock_uncertainty_seconds",
            "How exactly a view's capture time is known.",
            ["view"],
            registry=registry,
        )
        self.wall_clock_offset = Gauge(
            "viewsync_hub_wall_clock_offset_seconds",
            "The machine's clock minus the hub's, which never steps.",
            registry=registry,
        )
        self.predictions = Counter(
            "viewsync_hub_predictions", "Answers published.", ["degraded"], registry=registry
        )
        self.statuses = Counter(
            "viewsync_hub_statuses", "Statuses published for want of an answer.", registry=registry
        )
        self.step = Histogram(
            "viewsync_hub_step_seconds",
            "Time of one answer, all graphs.",
            buckets=_STEP_BUCKETS_S,
            registry=registry,
        )
        self.latency = Histogram(
            "viewsync_hub_latency_seconds",
            "Publish time minus the reference's capture time.",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.cpu_fallback = Gauge(
            "viewsync_hub_cpu_fallback",
            "1 where CUDA was asked for and a graph runs partly on the CPU.",
            registry=registry,
        )
        for view in views:
            self.messages.labels(view)
            self.view_age.labels(view).set(float("inf"))
            self.clock_uncertainty.labels(view).set(float("nan"))
