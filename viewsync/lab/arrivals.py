"""From cameras to the hub in virtual time: what reaches the hub of a profile, and when.

That does not depend on what the hub does with it, so one walk over the network serves every method and
policy, and their answers are to the same frames.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from viewsync.bundle import Bundle
from viewsync.clock import capture_in_hub
from viewsync.lab.agents import AgentClock, Delivery, Picture, VirtualAgent
from viewsync.lab.events import Events
from viewsync.lab.profile import Direction, Period, Profile, ViewSection
from viewsync.lab.record import Cost
from viewsync.lab.scenario import Cache, Scenario, simulated
from viewsync.lab.timeline import Link
from viewsync.lab.transport import Channel
from viewsync.sim.camera_clock import CameraClock, FrameSchedule
from viewsync.sim.dataset import crowd_size
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
    where the profile does not fit the bundle's views.
    """
    views = profile.of_views(bundle.manifest.views)
    cameras = {view: section.camera for view, section in views.items()}
    start_s = max(camera.phase_s for camera in cameras.values()) + _SETTLING_S
    slowest = min(camera.fps for camera in cameras.values())
    lasts_s = max(start_s + max(seconds, _FEWEST_FRAMES / slowest), _last_event_s(views) + _AFTERMATH_S)
    schedules = {
        # A live camera loses frames by the crowd's seed.
        view: FrameSchedule(camera.fps, camera.phase_s, camera.drop, crowd)
        for view, camera in cameras.items()
    }
    scene = simulated(bundle)
    return Plan(Scenario(scene, crowd, crowd_size(crowd), lasts_s, schedules), views, profile.seed, start_s)


def times_off(plan: Plan) -> tuple[tuple[str, float, float], ...]:
    """When a view's link or camera is off: (view, from, to) in seconds of the scenario."""
    found = (
        (view, period.at_s, plan.scenario.seconds if period.for_s is None else period.at_s + period.for_s)
        for view, section in plan.views.items()
        for period in _periods(section)
    )
    return tuple(dict.fromkeys(found))  # an outage is often both ways at once


def _periods(section: ViewSection) -> tuple[Period, ...]:
    return (*section.up.outages, *section.down.outages, *section.camera.dead)


def _last_event_s(views: Mapping[str, ViewSection]) -> float:
    """When the last outage or death begins or ends."""
    periods = [period for section in views.values() for period in _periods(section)]
    return max((period.at_s + (period.for_s or 0.0) for period in periods), default=0.0)


def pictures(plan: Plan, bundle: Bundle, cache: Cache) -> dict[str, list[Picture]]:
    """What each view's camera takes while it is not dead, as features."""
    taken = {}
    for view, section in plan.views.items():
        features = cache.features(plan.scenario, bundle, view, RATE_HZ)
        taken[view] = [
            Picture(EPOCH_NS + round(at_s * SECOND_NS), np.asarray(values))
            for at_s, values in zip(features.true_s.tolist(), features.values, strict=True)
            if not section.camera.is_dead(at_s)
        ]
    return taken


def arrivals(plan: Plan, bundle: Bundle, pictures: Mapping[str, Sequence[Picture]]) -> Arrivals:
    """Run cameras, agents and links of the plan to its end. pictures: what each view's camera takes."""
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
        for picture in pictures[view]:
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


def worst_clock_of(deliveries: Sequence[Delivery]) -> tuple[float, float]:
    """Error and stated bound, s, of the capture time that is wrong by the largest share of its bound."""
    worst = (0.0, 1.0)
    for delivery in deliveries:
        capture_ns, bound_ns = capture_in_hub(delivery.message)
        error_ns = abs(capture_ns - delivery.true_ns)
        if error_ns / max(bound_ns, 1) > worst[0] / worst[1]:
            worst = (error_ns / SECOND_NS, max(bound_ns, 1) / SECOND_NS)
    return worst
