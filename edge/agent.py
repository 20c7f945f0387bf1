"""One camera's agent: source, extractor and publisher together. It owns the clock and the threads."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

import cv2
from prometheus_client import CollectorRegistry

from edge.config import EdgeConfig, SecuritySection
from edge.counts import EdgeCounts
from edge.extractor import FeatureExtractor
from edge.frames import Frame
from edge.publisher import Publisher
from edge.source import Source, open_source
from viewsync.bundle import Bundle
from viewsync.clock import ClockExchange, SteadyClock
from viewsync.endpoints import is_loopback
from viewsync.errors import ConfigError, SourceError
from viewsync.health import HealthServer
from viewsync.keys import ClientKeys, load_client_keys
from viewsync.redact import redact
from viewsync.units import SECOND_NS
from viewsync.wire import FeatureMessage

_log = logging.getLogger(__name__)

# How long the last message of a recording may take to be acknowledged.
_DRAIN_S: Final = 10.0


def run(config: EdgeConfig, stop: threading.Event) -> None:
    """Extract and send until `stop` is set, or a recording has ended; returns within 2 s of `stop`.

    Cameras and hubs that are away are waited for. Raises UserError for what waiting does not mend: bundle,
    view, keys, files, an aspect ratio that was never calibrated.
    """
    # The one remap of a small image is no faster on two cores, and waits for the busier of them.
    cv2.setNumThreads(1)
    now = SteadyClock(time.time_ns, time.monotonic_ns)
    counts = EdgeCounts(CollectorRegistry())
    bundle = Bundle.load(config.bundle)
    encoder = config.encoder
    extractor = FeatureExtractor.of_bundle(bundle, config.view, encoder.provider, encoder.threads)
    source = open_source(config.source, config.view, config.rate_hz, extractor.wanted_size, counts, now)
    session = secrets.randbits(63)
    publisher = Publisher(
        endpoint=config.hub.endpoint,
        keys=client_keys(config.security, config.hub.endpoint),
        session=session,
        window=config.hub.window,
        timeout_ns=round(config.hub.answer_timeout_s * SECOND_NS),
        longest_reconnect_s=config.hub.reconnect_max_s,
        exchange=ClockExchange(),
        counts=counts,
        now=now,
    )
    extraction = _Extraction(config.site, bundle, config.view, session, extractor, counts, now)
    with ExitStack() as stack:
        stack.callback(publisher.close)
        stack.callback(source.close)
        if config.health.port is not None:
            health = HealthServer(
                config.health.host,
                config.health.port,
                counts.registry,
                lambda: _health(config.view, source, publisher),
            )
            stack.callback(health.close)
            _log.info("metrics and health: http://%s:%d", health.host, health.port)
        _close_on(stop, source, publisher)
        publisher.start()
        source.start()
        _log.info(
            "view %s of %s: up to %g frames/s from %s to %s",
            config.view,
            bundle.scene.name,
            config.rate_hz,
            redact(config.source.url),
            config.hub.endpoint,
        )
        for frame in source.frames():
            message = extraction.message(frame)
            if message is not None:
                publisher.send(message)
        if not stop.is_set():
            _log.info("view %s: the recording has ended", config.view)
            publisher.drain(_DRAIN_S)


def client_keys(security: SecuritySection, endpoint: str) -> ClientKeys | None:
    """The keys for this hub; None: speak without CURVE.

    Raises ConfigError: CURVE is needed, because the hub is on another machine or `curve` is on, and the key
    files are not given; or only one of the two is. KeysError: a file is damaged.
    """
    if security.curve == "off":
        return None
    make = (
        "make them with `viewsync keys make --agent …`; give security.keys and security.hub_key (--keys DIR)"
    )
    if security.keys is not None and security.hub_key is not None:
        return load_client_keys(security.keys, security.hub_key)
    if security.keys is not None or security.hub_key is not None:
        missing = "security.hub_key" if security.hub_key is None else "security.keys"
        raise ConfigError(f"{missing} is not given, but CURVE needs this agent's key and the hub's; {make}")
    if security.curve == "on":
        raise ConfigError(f"security.curve is on and there are no keys; {make}")
    if not is_loopback(endpoint):
        raise ConfigError(
            f"the hub at {endpoint} is on another machine, and there are no keys; {make}, or set "
            "security.curve to off on a network that you trust"
        )
    return None


class _Extraction:
    """Frames to messages, and what goes wrong in between."""

    def __init__(
        self,
        site: str,
        bundle: Bundle,
        view: str,
        session: int,
        extractor: FeatureExtractor,
        counts: EdgeCounts,
        now: SteadyClock,
    ) -> None:
        self._site = site
        self._scene = bundle.scene.name
        self._view = view
        self._session = session
        self._features_hash = bundle.features_hash(view)
        self._extractor = extractor
        self._counts = counts
        self._now = now
        self._worked = False
        self._refused_size: tuple[int, int] | None = None

    def message(self, frame: Frame) -> FeatureMessage | None:
        """The message of one frame; None where the stream has changed to one that was not calibrated.

        Raises SourceError where no frame ever was of the calibrated kind.
        """
        start_s = time.perf_counter()
        try:
            tensors = self._extractor.extract(frame.image, frame.stream_size)
        except SourceError as error:
            if not self._worked:
                raise
            # A camera that was switched over may be switched back: say so once, and go on.
            self._counts.frames_dropped.labels("aspect").inc()
            if frame.stream_size != self._refused_size:
                self._refused_size = frame.stream_size
                _log.warning("view %s: %s", self._view, error)
            return None
        self._worked = True
        self._counts.extraction.observe(1000 * (time.perf_counter() - start_s))
        self._counts.frames_extracted.inc()
        return FeatureMessage(
            site=self._site,
            scene=self._scene,
            view=self._view,
            session=self._session,
            seq=frame.seq,
            capture_ns=frame.capture_ns,
            clock=frame.clock,
            arrival_ns=frame.arrival_ns,
            sent_ns=self._now(),
            camera_offset=frame.camera_offset,
            hub_offset=None,
            features_hash=self._features_hash,
            tensors=tensors,
        )


def _close_on(stop: threading.Event, source: Source, publisher: Publisher) -> None:
    """Let `stop` end whatever the agent waits for."""

    def watch() -> None:
        stop.wait()
        source.close()
        publisher.stop()

    threading.Thread(target=watch, name="stop", daemon=True).start()


def _health(view: str, source: Source, publisher: Publisher) -> tuple[bool, Mapping[str, Any]]:
    source_well, source_facts = source.state()
    hub_well, hub_facts = publisher.state()
    return source_well and hub_well, {"view": view, "source": source_facts, "hub": hub_facts}
