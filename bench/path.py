"""How long from a decoded frame in an agent to a subscriber: real processes, real sockets.

Agents play recordings, whose frames are decoded before they are due and stamped when they are (`file`), so a
prediction tells when its newest frame was there. From the moment at which a subscriber (this process) holds
the prediction, that instant is taken, and the time of both models: fusion as the prediction says, extraction
(the remap with it) as the agent's metrics page says of that very frame.
"""

from __future__ import annotations

import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from bench.rows import Promise, Row
from viewsync.bundle import Bundle
from viewsync.client import Subscriber
from viewsync.clock import SteadyClock
from viewsync.demo.processes import Program, Supervisor, free_ports
from viewsync.errors import InternalError
from viewsync.prediction import Prediction, ViewReport
from viewsync.sim.codec import configure

# Low, as in the field: on a busy machine too, most frames find the hub idle.
_FPS = 0.5
_START_S = 90.0
_EXTRACTION = "viewsync_edge_extraction_milliseconds"


def path_row(bundle: Bundle, pictures: Mapping[str, NDArray[np.uint8]], answers: int) -> Row:
    """Decoded frame in the agent to subscriber, without the models' time, over `answers` predictions.

    Raises InternalError where the processes do not work together.
    """
    now = SteadyClock(time.time_ns, time.monotonic_ns)
    with tempfile.TemporaryDirectory(prefix="viewsync-bench-") as name:
        folder = Path(name)
        # Frames are answered one by one, unless they come close together: three times as long is plenty.
        patience_s = _START_S + 3 * answers / (_FPS * len(pictures))
        programs, endpoint, pages = _programs(folder, bundle, pictures, round(_FPS * patience_s))
        with Subscriber(endpoint) as hub, Supervisor(programs, folder) as supervisor:
            supervisor.start(time.monotonic())
            way = Way({view: partial(_extraction, port) for view, port in pages.items()})
            deadline_s = time.monotonic() + patience_s
            while len(way.rest_ms) < answers:
                message = hub.receive(1.0)
                received_ns = now()
                for event in supervisor.poll(time.monotonic()):
                    raise InternalError(f"path: {event}")
                if isinstance(message, Prediction):
                    way.take(message, received_ns)
                if time.monotonic() > deadline_s:
                    break
    if not way.rest_ms:
        raise InternalError(
            f"path: no answer in {patience_s:.0f} s that could be timed; is the machine busy?"
        )
    rest = np.array(way.rest_ms)
    return Row(
        name="path.latency",
        what="path: decoded frame in the agent to subscriber, without the models, p50",
        unit="ms",
        figure=float(np.median(rest)),
        promise=Promise(10.0),
        samples=len(rest),
        facts={
            "p99_ms": float(np.percentile(rest, 99)),
            "fastest_ms": float(rest.min()),
            "with_models_ms": float(np.median(way.whole_ms)),
            "extraction_ms": float(np.median(way.extraction_ms)),
            "fusion_ms": float(np.median(way.fusion_ms)),
            "queued": way.queued,
        },
    )


class Way:
    """Takes predictions; keeps the times of those that one frame caused and that found the hub idle.

    extracted: for each view, asks its agent how many frames it has extracted, and how many ms that took.
    """

    def __init__(self, extracted: Mapping[str, Callable[[], tuple[float, float]]]) -> None:
        self._ask = extracted
        self._extracted = {view: ask() for view, ask in extracted.items()}
        self._frames: dict[str, tuple[int | None, int | None]] = {}
        self._received_ns = 0
        self.rest_ms: list[float] = []
        self.whole_ms: list[float] = []
        self.extraction_ms: list[float] = []
        self.fusion_ms: list[float] = []
        # Frames that had to wait for an answer to others: that is the model's time, of another answer.
        self.queued = 0

    def take(self, prediction: Prediction, received_ns: int) -> None:
        """`prediction` was in the subscriber's hands at `received_ns`, UTC."""
        new = [report for report in prediction.views if self._frames.get(report.view) != _frame(report)]
        self._frames = {report.view: _frame(report) for report in prediction.views}
        before_ns, self._received_ns = self._received_ns, received_ns
        extractions = [self._extraction_ms(report.view) for report in new]
        # Several frames in one answer tell nothing; in an agent's first everything is still cold.
        if len(new) != 1 or not new[0].seq or new[0].capture_ns is None or extractions[0] is None:
            return
        if new[0].capture_ns < before_ns:
            self.queued += 1
            return
        whole_ms = (received_ns - new[0].capture_ns) / 1e6
        fusion_ms = prediction.fuse_ns / 1e6
        self.whole_ms.append(whole_ms)
        self.extraction_ms.append(extractions[0])
        self.fusion_ms.append(fusion_ms)
        self.rest_ms.append(whole_ms - fusion_ms - extractions[0])

    def _extraction_ms(self, view: str) -> float | None:
        """Time of the one frame that the agent extracted since it was last asked; None if not exactly one."""
        before, now = self._extracted[view], self._ask[view]()
        self._extracted[view] = now
        return now[1] - before[1] if now[0] - before[0] == 1 else None


def _frame(report: ViewReport) -> tuple[int | None, int | None]:
    return report.session, report.seq


def _extraction(port: int) -> tuple[float, float]:
    """Frames that an agent has extracted, and the ms that took in all; nothing before it answers."""
    try:
        # Loopback only: a proxy of the environment has no business here.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=2.0) as page:
            text = page.read().decode()
    except OSError:
        return 0.0, 0.0
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in (f"{_EXTRACTION}_count", f"{_EXTRACTION}_sum")
    }
    return values[f"{_EXTRACTION}_count"], values[f"{_EXTRACTION}_sum"]


def _programs(
    folder: Path, bundle: Bundle, pictures: Mapping[str, NDArray[np.uint8]], length: int
) -> tuple[list[Program], str, dict[str, int]]:
    """A hub and one agent per view; the address of the predictions; the port of each agent's metrics."""
    features, predictions, *pages = free_ports(2 + len(pictures))
    endpoint = f"tcp://127.0.0.1:{predictions}"
    hub = {
        "bundle": str(bundle.path.resolve()),
        "bind": f"tcp://127.0.0.1:{features}",
        "outputs": {"bind": endpoint},
        # Every frame is answered at once: waiting for the next turn is policy, not cost.
        "rate": {"max_rate_hz": 1000.0},
    }
    programs = [Program("hub", ("hub", "--config", _written(folder / "hub.yaml", hub)))]
    ports = dict(zip(pictures, pages, strict=True))
    for view, frames in pictures.items():
        agent = {
            "bundle": hub["bundle"],
            "view": view,
            "rate_hz": 30.0,
            "source": {"url": _recording(folder / f"{view}.mkv", frames, length)},
            "hub": {"endpoint": hub["bind"]},
            "health": {"port": ports[view]},
        }
        config = _written(folder / f"{view}.yaml", agent)
        programs.append(Program(f"agent-{view}", ("edge", "--config", config)))
    return programs, endpoint, ports


def _recording(path: Path, frames: NDArray[np.uint8], length: int) -> str:
    """Write `length` frames (these again and again) as H.264 in Matroska.

    Each comes anywhere in its turn, so that agents which were started together do not keep step.
    """
    rng = np.random.default_rng(list(path.name.encode()))
    with av.open(str(path), "w") as container:
        codec = container.add_stream("libx264").codec_context
        assert isinstance(codec, VideoCodecContext)
        configure(codec, frames.shape[2], frames.shape[1], _FPS)
        codec.time_base = Fraction(1, 1000)
        for number in range(length):
            frame = av.VideoFrame.from_ndarray(frames[number % len(frames)], format="rgb24")
            frame.pts = round(1000 * (number + rng.uniform(0.0, 0.9)) / _FPS)
            frame.time_base = codec.time_base
            container.mux(codec.encode(frame))
        container.mux(codec.encode(None))
    return str(path)


def _written(path: Path, settings: Mapping[str, Any]) -> str:
    path.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
    return str(path)
