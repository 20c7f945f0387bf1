"""Time of the two steps that compute: extraction at the edge, the answer at the hub; and bytes between them.

Both are called as agent and hub call them, on real features of the rendered frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.frames import INTERVAL_S
from bench.rows import Promise, Row
from bench.timing import Case, take_turns
from edge.extractor import FeatureExtractor
from hub.buffer import ViewBuffer
from hub.config import HubConfig, policy_of, rules_of
from hub.fusion import Fusion
from hub.step import step
from viewsync.bundle import Bundle
from viewsync.errors import InternalError
from viewsync.ort import Provider
from viewsync.units import SECOND_NS
from viewsync.wire import FeatureMessage, OffsetEstimate, Tensor, encode

HUB_THREADS = 2
JPEG_QUALITY = 75
# Any instant does: buffer and step are told the time.
_START_NS = 1_700_000_000 * SECOND_NS

Pictures = Mapping[str, NDArray[np.uint8]]
Tensors = dict[str, list[tuple[Tensor, ...]]]


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """An RGB image (H, W, 3) as JPEG: what an agent would send if it sent pictures."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise InternalError("OpenCV could not write a JPEG")
    return data.tobytes()


def extraction(bundle: Bundle, pictures: Pictures) -> tuple[Row, Tensors]:
    """Features of every picture, on one thread as in an agent, in turn with the JPEG of the same picture."""
    tensors: Tensors = {view: [] for view in pictures}
    extractors = {view: FeatureExtractor.of_bundle(bundle, view, "cpu", 1) for view in pictures}
    count = len(next(iter(pictures.values())))
    order = [(view, number) for number in range(count) for view in pictures]

    def extract(number: int) -> None:
        view, frame = order[number]
        image = pictures[view][frame]
        found = extractors[view].extract(image, (image.shape[1], image.shape[0]))
        if number >= 0:
            tensors[view].append(found)

    def compress(number: int) -> None:
        view, frame = order[number]
        jpeg(pictures[view][frame])

    spent = take_turns({"extraction": Case(extract), "jpeg": Case(compress)}, len(order))
    ours = spent["extraction"]
    size = bundle.manifest.preprocessing
    row = Row(
        name="edge.extraction",
        what=f"edge: features of a {size.width}×{size.height} frame, one core",
        unit="ms",
        figure=ours.median_ms,
        promise=Promise(20.0),
        processor=float(np.median(ours.processor_ms)),
        beside=f"JPEG q{JPEG_QUALITY} of the frame",
        ratio=ours.ratio_to(spent["jpeg"]),
        samples=len(order),
        facts=ours.facts(),
    )
    return row, tensors


def message_bytes(bundle: Bundle, pictures: Pictures, tensors: Tensors) -> Row:
    """Size of a message on the wire beside the JPEG of the same picture."""
    ours, theirs = [], []
    for view, found in tensors.items():
        for number, message in enumerate(_messages(bundle, view, found)):
            ours.append(len(encode(message)))
            theirs.append(len(jpeg(pictures[view][number])))
    sizes = np.array(ours, np.float64)
    return Row(
        name="wire.bytes",
        what="wire: bytes of a message",
        unit="B",
        figure=float(np.median(sizes)),
        beside=f"JPEG q{JPEG_QUALITY} of the frame",
        ratio=float(np.median(sizes / np.array(theirs))),
        samples=len(ours),
        facts={
            "largest": int(sizes.max()),
            "jpeg_median": float(np.median(theirs)),
            "largest_ratio": float((sizes / np.array(theirs)).max()),
        },
    )


class _Hub:
    """Buffer, graphs and policy of a hub without sockets, and messages without end."""

    def __init__(self, bundle: Bundle, graphs: tuple[str, ...], provider: Provider, tensors: Tensors) -> None:
        config = HubConfig(bundle=bundle.path)
        self._policy = policy_of(config, bundle)
        self._buffer = ViewBuffer(rules_of(config, bundle), session=1)
        self._fusion = Fusion(bundle, graphs, provider, HUB_THREADS)
        self._fusion.warm_up()
        self._messages = {view: _messages(bundle, view, found) for view, found in tensors.items()}
        self._seq = itertools.count()
        self.now_ns = _START_NS

    def receive(self, number: int) -> None:
        """One new frame of every view, each captured half a second after the one before."""
        self.now_ns += SECOND_NS
        for place, messages in enumerate(self._messages.values()):
            capture_ns = self.now_ns - SECOND_NS - place * round(INTERVAL_S / 2 * SECOND_NS)
            message = replace(messages[number % len(messages)], seq=next(self._seq), capture_ns=capture_ns)
            verdict = self._buffer.put(message, self.now_ns)
            if not verdict.accepted:
                raise InternalError(f"the hub refuses what it is measured on: {verdict.detail}")

    def answer(self, number: int) -> None:
        prediction = step(self._buffer, self._fusion, self._policy, self.now_ns)
        if prediction is None or not all(report.used for report in prediction.views):
            raise InternalError("the hub does not answer from all views; this bundle cannot be measured")


def hub_steps(bundle: Bundle, tensors: Tensors, provider: Provider) -> list[Row]:
    """Time of one answer: the default graph, then all graphs of the bundle; with `provider` cuda on the GPU
    too, in turn with the CPU. Raises UserError where the provider cannot run them.
    """
    default = bundle.manifest.default
    everything = (default, *(name for name in bundle.manifest.fusion if name != default))
    graphs = {"hub.step": (default,), "hub.step_compare": everything}
    providers: tuple[Provider, ...] = ("cpu",) if provider == "cpu" else ("cpu", provider)
    hubs = {
        (name, where): _Hub(bundle, chosen, where, tensors)
        for where in providers
        for name, chosen in graphs.items()
    }
    rounds = min(map(len, tensors.values()))
    spent = take_turns({key: Case(hub.answer, hub.receive) for key, hub in hubs.items()}, rounds)
    rows = []
    for (name, where), ours in spent.items():
        what = f"hub: one answer, {len(tensors)} views, {', '.join(graphs[name])}"
        row = Row(
            name=name,
            what=f"{what}, {HUB_THREADS} threads",
            unit="ms",
            figure=ours.median_ms,
            promise=Promise(200.0),
            processor=float(np.median(ours.processor_ms)),
            samples=rounds,
            facts=ours.facts(),
        )
        if where != "cpu":
            # A GPU's work is no processor time: only the clock on the wall tells.
            row = replace(
                row,
                name=f"{name}_{where}",
                what=f"{what}, {where.upper()}",
                promise=None,
                processor=None,
                beside="the same on the CPU",
                ratio=float(np.median(ours.wall_ms / spent[name, "cpu"].wall_ms)),
            )
        elif name != "hub.step":
            row = replace(row, beside=f"{default} alone", ratio=ours.ratio_to(spent["hub.step", where]))
        rows.append(row)
    return rows


def _messages(bundle: Bundle, view: str, tensors: list[tuple[Tensor, ...]]) -> list[FeatureMessage]:
    """The messages that an agent would send; times and numbers stand for real ones of the same length."""
    return [
        FeatureMessage(
            site="default",
            scene=bundle.scene.name,
            view=view,
            session=2**62,
            seq=number,
            capture_ns=_START_NS,
            clock="rtcp",
            arrival_ns=_START_NS,
            sent_ns=_START_NS,
            camera_offset=OffsetEstimate(1_000_000, 1_000_000),
            hub_offset=OffsetEstimate(1_000_000, 1_000_000),
            features_hash=bundle.features_hash(view),
            tensors=found,
        )
        for number, found in enumerate(tensors)
    ]
