"""What an agent counts and measures, for Prometheus and for /healthz."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_EXTRACTION_BUCKETS_MS = (1, 2, 5, 10, 15, 20, 30, 50, 100, 200, 500)


class EdgeCounts:
    """One agent's collectors, all in `registry`. Label values come from our own code, never from a peer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"viewsync_edge_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"viewsync_edge_{name}", text, registry=registry)

        self.frames_read = counter("frames_read", "Whole frames that the source gave.")
        self.frames_dropped = counter("frames_dropped", "Frames not extracted, by reason.", "reason")
        self.frames_extracted = counter("frames_extracted", "Frames made into features.")
        self.clock_refused = counter("clock_refused", "Camera times that arrival contradicts.")
        self.clock_steps = counter("clock_steps", "Times the camera's clock was set.")
        self.decoded_again = counter(
            "decoded_again", "Pictures that were decoded once more because they arrived with a pause inside."
        )
        self.source_reconnects = counter("source_reconnects", "Times the source was lost or not reached.")
        self.source_up = gauge("source_up", "1 while the source gives frames.")
        self.camera_offset = gauge("camera_offset_seconds", "The agent's clock minus the camera's.")
        self.camera_uncertainty = gauge("camera_uncertainty_seconds", "How exactly that is known.")
        self.extraction = Histogram(
            "viewsync_edge_extraction_milliseconds",
            "Time of one frame: remap and encoder.",
            buckets=_EXTRACTION_BUCKETS_MS,
            registry=registry,
        )
        self.messages_sent = counter("messages_sent", "Messages handed to the network.")
        self.messages_acked = counter("messages_acked", "Messages that the hub has taken.")
        self.messages_replaced = counter(
            "messages_replaced", "Messages that a newer one replaced before they were sent."
        )
        self.messages_refused = counter("messages_refused", "Messages that the hub refused.", "reason")
        self.bytes_sent = counter("bytes_sent", "Bytes of the messages sent.")
        self.hub_reconnects = counter("hub_reconnects", "Times the hub was lost or gave no answer.")
        self.hub_up = gauge("hub_up", "1 while the hub answers.")
        self.hub_offset = gauge("hub_offset_seconds", "The hub's clock minus the agent's.")
        self.hub_uncertainty = gauge("hub_uncertainty_seconds", "How exactly that is known.")
