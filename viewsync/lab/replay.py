"""What hubs of any method and policy answer to what reached them, in virtual time, beside the truth.

The hub's part is the real one: `ViewBuffer`, `step`, ONNX Runtime. All get the same messages at the same
instants (`arrivals.py`), so that comparisons are paired.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from hub.buffer import BufferRules, Snapshot, ViewBuffer
from hub.fusion import Fusion, FusionOutputs
from hub.reference import Policy
from hub.step import step
from viewsync.bundle import Bundle
from viewsync.lab.agents import Delivery
from viewsync.lab.arrivals import EPOCH_NS, Arrivals, Plan
from viewsync.lab.places import f1_of, thresholds
from viewsync.lab.record import Answer, Cost, Key, Run
from viewsync.lab.scenario import Floats, Truth
from viewsync.prediction import Prediction
from viewsync.sim.density import density_map
from viewsync.units import SECOND_NS

# As `hub.config` has it: a status after so long without an answer.
_SILENCE_NS = 5 * SECOND_NS


class TellsTruth(Protocol):
    """Who was where, at any time of the crowd's."""

    def places(self, true_s: float) -> Floats: ...

    def count(self, true_s: float) -> int: ...


class RememberingFusion(Fusion):
    """One graph that runs once for the same frames, reference and views: policies often agree.

    It takes no time in virtual time. State: the outputs so far; `forget` before another crowd.
    """

    def __init__(self, bundle: Bundle, graph: str, threads: int = 1) -> None:
        super().__init__(bundle, (graph,), threads=threads, timer=lambda: 0)
        self._known: dict[object, FusionOutputs] = {}

    def predict(self, snapshot: Snapshot, used: Sequence[str], unknown: Sequence[str] = ()) -> FusionOutputs:
        frames = [snapshot.entries[view] for view in used]
        if self.looks_back:
            frames += [snapshot.before[view] for view in used if view in snapshot.before]
        key = (
            tuple((entry.view, entry.session, entry.seq, entry.capture_ns) for entry in frames),
            frozenset(unknown),
        )
        if key not in self._known:
            self._known[key] = super().predict(snapshot, used, unknown)
        return self._known[key]

    def forget(self) -> None:
        """Another crowd, or another network: the same numbers mean other frames."""
        self._known.clear()


def answers_to(
    deliveries: Sequence[Delivery], fusion: Fusion, policy: Policy, buffer: ViewBuffer, end_ns: int
) -> Iterator[Prediction]:
    """What a hub publishes as these messages come, as `hub.server` drives it."""
    for number, delivery in enumerate(deliveries):
        now_ns = delivery.received_ns
        buffer.put(delivery.message, now_ns)
        following_ns = deliveries[number + 1].received_ns if number + 1 < len(deliveries) else end_ns
        while now_ns < following_ns:
            prediction = step(buffer, fusion, policy, now_ns)
            if prediction is not None:
                yield prediction
                break
            due_ns = buffer.due_ns(now_ns, policy.min_interval_ns)
            if due_ns <= now_ns:
                break  # nothing new, or the policy allows none from these frames
            now_ns = due_ns


def replay(
    key: Key,
    plan: Plan,
    found: Arrivals,
    truth: Truth,
    fusion: RememberingFusion,
    policy: Policy,
    rules: BufferRules,
) -> Run:
    """One cell of the sweep from what reached the hub."""
    buffer = ViewBuffer(rules, session=1)
    true_ns = {(d.message.view, d.message.seq): d.true_ns for d in found.deliveries}
    end_ns = EPOCH_NS + round(plan.scenario.seconds * SECOND_NS)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    answers: list[Answer] = []
    threshold = thresholds(fusion.bundle).get(key.method)
    silences = 0
    spoke_ns = EPOCH_NS + round(plan.start_s * SECOND_NS)
    for prediction in answers_to(found.deliveries, fusion, policy, buffer, end_ns):
        answer = beside_truth(prediction, true_ns, truth, threshold=threshold)
        if answer.at_s >= plan.start_s:
            silences += (prediction.published_ns - spoke_ns) // _SILENCE_NS
            spoke_ns = prediction.published_ns
            answers.append(answer)
    silences += max(0, end_ns - spoke_ns) // _SILENCE_NS
    sent = found.cost
    cost = Cost(
        frames=sent.frames,
        messages=sent.messages,
        replaced=sent.replaced,
        bytes=sent.bytes,
        reconnects=sent.reconnects,
        refused=dict(buffer.refused),
        silences=silences,
        cpu_s=time.process_time() - cpu_s,
        wall_s=time.perf_counter() - wall_s,
    )
    return Run(key, plan.start_s, plan.scenario.seconds, tuple(answers), cost)


def beside_truth(
    prediction: Prediction,
    true_ns: Mapping[tuple[str, int], int],
    truth: TellsTruth,
    epoch_ns: int = EPOCH_NS,
    threshold: float | None = None,
) -> Answer:
    """The answer with what was really there. true_ns: when frame (view, seq) was truly taken, hub's clock;
    epoch_ns: the crowd's time 0 in it; threshold: to locate people with, people per cell.
    """
    reports = {report.view: report for report in prediction.views if report.used}
    instants = {view: true_ns[view, report.seq or 0] for view, report in reports.items()}
    instant_ns = instants[prediction.reference]
    instant_s = (instant_ns - epoch_ns) / SECOND_NS
    at_s = (prediction.published_ns - epoch_ns) / SECOND_NS
    offsets = {view: (at_ns - instant_ns) / SECOND_NS for view, at_ns in instants.items()}
    error_s, bound_s = _worst_clock(prediction, instants)
    places = truth.places(instant_s)
    wanted = density_map(places, prediction.grid)
    return Answer(
        number=prediction.seq,
        at_s=at_s,
        instant_s=instant_s,
        reference=prediction.reference,
        used=len(reports),
        offset_s=max(abs(offset) for offset in offsets.values()),
        offsets_s=offsets,
        count=prediction.count,
        truth=len(places),
        truth_now=truth.count(at_s),
        squared_error=float(((prediction.density - wanted) ** 2).sum()),
        clock_error_s=error_s,
        clock_bound_s=bound_s,
        degraded=prediction.degraded,
        f1=f1_of(prediction.density, places, prediction.grid, threshold),
    )


def _worst_clock(prediction: Prediction, instants: Mapping[str, int]) -> tuple[float, float]:
    """Error and stated bound, s, of the time that is wrong by the largest share of its bound."""
    instant_ns = instants[prediction.reference]
    pairs = [(abs(prediction.capture_ns - instant_ns), prediction.capture_uncertainty_ns)]
    for report in prediction.views:
        if report.used and report.view != prediction.reference:
            assert report.offset_ns is not None and report.uncertainty_ns is not None
            wrong_ns = abs(report.offset_ns - (instants[report.view] - instant_ns))
            pairs.append((wrong_ns, report.uncertainty_ns))
    error_ns, bound_ns = max(pairs, key=lambda pair: pair[0] / max(pair[1], 1))
    return error_ns / SECOND_NS, bound_ns / SECOND_NS
