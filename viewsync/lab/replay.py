"""A scenario under a profile, in virtual time: first what reaches the hub and when, then what hubs of any
method and policy answer to it.

What arrives does not depend on what the hub does with it, so one walk over the network serves every method
and policy, and their answers are to the same frames: comparisons are paired. The hub's part is the real one:
`ViewBuffer`, `step`, ONNX Runtime.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hub.buffer import BufferRules, Snapshot, ViewBuffer
from hub.fusion import Fusion, FusionOutputs
from hub.reference import Policy
from hub.step import step
from viewsync.bundle import Bundle
from viewsync.clock import capture_in_hub
from viewsync.errors import ConfigError
from viewsync.lab.agents import AgentClock, Delivery, Picture, VirtualAgent
from viewsync.lab.events import Events
from viewsync.lab.profile import Direction, Profile, ViewSection
from viewsync.lab.record import Answer, Cost, Key, Run
from viewsync.lab.scenario import Cache, Scenario, Truth, simulated
from viewsync.lab.timeline import Link
from viewsync.lab.transport import Channel
from viewsync.prediction import Prediction
from viewsync.sim.camera_clock import CameraClock, FrameSchedule
from viewsync.sim.dataset import crowd_size
from viewsync.sim.density import density_map
from viewsync.units import SECOND_NS
from viewsync.wire import FeatureMessage, Tensor

# The crowd's time 0 in the hub's clock: any will do, and the same one gives the same bytes.
EPOCH_NS = 1_700_000_000 * SECOND_NS
SITE = "lab"
# Frames per second that agents extract at most, as `viewsync edge` comes.
RATE_HZ = 2.0
# Connecting, and the first messages' way over the worst of links.
_SETTLING_S = 5.0
# What is seen of the site after the last thing that the profile does to it.
_AFTERMATH_S = 20.0
_FEWEST_FRAMES = 6
# Agents' clocks are off by as much as nobody's NTP would let them, s and ppm.
_AGENT_OFFSET_S, _AGENT_DRIFT_PPM = 3.0, 50.0
_SILENCE_NS = 5 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Plan:
    """A profile made concrete for a bundle and a crowd. Answers count from `start_s` on."""

    scenario: Scenario
    views: Mapping[str, ViewSection]
    seed: int
    start_s: float


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What reached the hub of a plan, in order, and what the agents sent for it."""

    deliveries: tuple[Delivery, ...]
    cost: Cost


def plan(profile: Profile, bundle: Bundle, crowd: int, seconds: float) -> Plan:
    """The scenario of this crowd before the profile's cameras, at least `seconds` of it after the start.

    Longer where the profile still does something later, or a camera takes few frames. Raises ConfigError
    where the profile does not fit the bundle's views or lets no view speak.
    """
    views = profile.of_views(bundle.manifest.views)
    cameras = {view: section.camera for view, section in views.items()}
    start_s = max(camera.phase_s for camera in cameras.values()) + _SETTLING_S
    slowest = min(camera.fps for camera in cameras.values())
    lasts_s = max(start_s + max(seconds, _FEWEST_FRAMES / slowest), _last_event_s(views) + _AFTERMATH_S)
    speaking = [view for view, section in views.items() if _speaks(section, lasts_s)]
    if not speaking:
        raise ConfigError(
            f"profile {profile.name}: no view ever reaches the hub: every camera is dead or every uplink "
            "loses everything; leave one of them alive"
        )
    schedules = {
        # A live camera loses frames by the crowd's seed.
        view: FrameSchedule(camera.fps, camera.phase_s, camera.drop, crowd)
        for view, camera in cameras.items()
    }
    scene = simulated(bundle)
    return Plan(Scenario(scene, crowd, crowd_size(crowd), lasts_s, schedules), views, profile.seed, start_s)


def _last_event_s(views: Mapping[str, ViewSection]) -> float:
    """When the last outage or death begins or ends."""
    periods = [
        period
        for section in views.values()
        for periods in (section.up.outages, section.down.outages, section.camera.dead)
        for period in periods
    ]
    return max((period.at_s + (period.for_s or 0.0) for period in periods), default=0.0)


def _speaks(section: ViewSection, lasts_s: float) -> bool:
    """Whether this view can reach the hub at any time of the run."""
    ways = (section.up, section.down)
    if any(way.loss >= 1.0 for way in ways):
        return False
    moments = np.arange(0.0, lasts_s, 0.5).tolist()
    return any(
        not section.camera.is_dead(at_s) and not any(way.is_out(at_s) for way in ways) for at_s in moments
    )


def arrivals(plan: Plan, bundle: Bundle, cache: Cache) -> Arrivals:
    """Run cameras, agents and links of the plan to its end."""
    events = Events(EPOCH_NS)
    found: list[Delivery] = []
    agents: list[VirtualAgent] = []
    for number, (view, section) in enumerate(plan.views.items()):
        chance = random.Random(f"{plan.seed} {plan.scenario.crowd} {view}")
        agent = VirtualAgent(
            events,
            _template(bundle, view, number),
            CameraClock(section.camera.clock_offset_s, section.camera.clock_drift_ppm),
            AgentClock(
                round(chance.uniform(-_AGENT_OFFSET_S, _AGENT_OFFSET_S) * SECOND_NS),
                chance.uniform(-_AGENT_DRIFT_PPM, _AGENT_DRIFT_PPM),
                EPOCH_NS,
            ),
            _channel(section.up, (plan.seed, plan.scenario.crowd, number, 0)),
            _channel(section.down, (plan.seed, plan.scenario.crowd, number, 1)),
            chance,
            found.append,
        )
        agents.append(agent)
        for picture in _pictures(plan, bundle, view, cache):
            events.at(picture.true_ns, partial(agent.take, picture))
        for period in section.camera.dead:
            if period.for_s is not None:
                back_ns = EPOCH_NS + round((period.at_s + period.for_s) * SECOND_NS)
                events.at(back_ns, agent.camera_came_back)
        agent.start()
    events.run_until(EPOCH_NS + round(plan.scenario.seconds * SECOND_NS))
    sent = [agent.traffic for agent in agents]
    cost = Cost(
        frames=sum(one.frames for one in sent),
        messages=sum(one.messages for one in sent),
        replaced=sum(one.replaced for one in sent),
        bytes=sum(one.bytes for one in sent),
        reconnects=sum(one.reconnects for one in sent),
    )
    return Arrivals(tuple(found), cost)


def _channel(direction: Direction, seed: tuple[int, ...]) -> Channel:
    """The link in the hub's clock."""
    link = Link(direction, seed)

    def arrive(sent_ns: int, size: int) -> int | None:
        there_ns = link.departures(sent_ns - EPOCH_NS, size)
        return None if there_ns is None else there_ns + EPOCH_NS

    return arrive


def _pictures(plan: Plan, bundle: Bundle, view: str, cache: Cache) -> Iterator[Picture]:
    features = cache.features(plan.scenario, bundle, view, RATE_HZ)
    camera = plan.views[view].camera
    for at_s, values in zip(features.true_s.tolist(), features.values, strict=True):
        if not camera.is_dead(at_s):
            yield Picture(EPOCH_NS + round(at_s * SECOND_NS), np.asarray(values))


def _template(bundle: Bundle, view: str, number: int) -> FeatureMessage:
    return FeatureMessage(
        site=SITE,
        scene=bundle.scene.name,
        view=view,
        session=number + 1,
        seq=0,
        capture_ns=0,
        clock="rtcp",
        arrival_ns=0,
        sent_ns=0,
        camera_offset=None,
        hub_offset=None,
        features_hash=bundle.features_hash(view),
        tensors=(Tensor("features", np.zeros((1, 1, 1), np.uint8)),),
    )


# --- the hub ----------------------------------------------------------------------------------------------


class RememberingFusion(Fusion):
    """One graph that runs once for the same frames, reference and views: policies often agree.

    The fusion takes no time in virtual time; what it really took is in `cpu_s` and `wall_s`. State: the
    outputs so far; `forget` before another crowd.
    """

    def __init__(self, bundle: Bundle, graph: str, threads: int = 1) -> None:
        super().__init__(bundle, (graph,), threads=threads, timer=lambda: 0)
        self._known: dict[object, FusionOutputs] = {}
        self.cpu_s = self.wall_s = 0.0

    def predict(self, snapshot: Snapshot, used: Sequence[str], unknown: Sequence[str] = ()) -> FusionOutputs:
        frames = [snapshot.entries[view] for view in used]
        key = (
            tuple((entry.view, entry.session, entry.seq, entry.capture_ns) for entry in frames),
            frozenset(unknown),
        )
        if key not in self._known:
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            self._known[key] = super().predict(snapshot, used, unknown)
            self.cpu_s += time.process_time() - cpu_s
            self.wall_s += time.perf_counter() - wall_s
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
    cpu_s, wall_s = fusion.cpu_s, fusion.wall_s
    answers: list[Answer] = []
    silences = 0
    spoke_ns = EPOCH_NS + round(plan.start_s * SECOND_NS)
    for prediction in answers_to(found.deliveries, fusion, policy, buffer, end_ns):
        answer = beside_truth(prediction, true_ns, truth)
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
        cpu_s=fusion.cpu_s - cpu_s,
        wall_s=fusion.wall_s - wall_s,
    )
    return Run(key, plan.start_s, plan.scenario.seconds, tuple(answers), cost)


def beside_truth(prediction: Prediction, true_ns: Mapping[tuple[str, int], int], truth: Truth) -> Answer:
    """The answer with what was really there. true_ns: when frame (view, seq) was truly taken, hub's clock."""
    reports = {report.view: report for report in prediction.views if report.used}
    instants = {view: true_ns[view, report.seq or 0] for view, report in reports.items()}
    instant_ns = instants[prediction.reference]
    instant_s = (instant_ns - EPOCH_NS) / SECOND_NS
    at_s = (prediction.published_ns - EPOCH_NS) / SECOND_NS
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


def worst_clock_of(deliveries: Sequence[Delivery]) -> tuple[float, float]:
    """As above over everything that reached the hub, whether it was answered or not."""
    worst = (0.0, 1.0)
    for delivery in deliveries:
        capture_ns, bound_ns = capture_in_hub(delivery.message)
        error_ns = abs(capture_ns - delivery.true_ns)
        if error_ns / max(bound_ns, 1) > worst[0] / worst[1]:
            worst = (error_ns / SECOND_NS, max(bound_ns, 1) / SECOND_NS)
    return worst
