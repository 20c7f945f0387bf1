"""Error against offset under control: every other view exactly so far from the reference, earlier or later.

Profiles mix offsets with everything else; here nothing else changes. The same reference frames are answered
at every offset, so the curves are paired. The frames pass the hub's buffer, choice and `step` as any others.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hub.buffer import BufferRules, ViewBuffer
from hub.reference import Policy
from hub.step import step
from viewsync.bundle import Bundle
from viewsync.errors import InternalError
from viewsync.lab.arrivals import EPOCH_NS, SITE
from viewsync.lab.gate import REFERENCE_ONLY
from viewsync.lab.places import f1_of, thresholds
from viewsync.lab.replay import RememberingFusion
from viewsync.lab.scenario import Cache, Features, Scenario, simulated
from viewsync.sim.camera_clock import FrameSchedule
from viewsync.sim.dataset import crowd_size
from viewsync.sim.density import density_map
from viewsync.units import SECOND_NS
from viewsync.wire import FeatureMessage, OffsetEstimate, Tensor

OFFSETS_S = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
FURTHEST_S = max(OFFSETS_S)
_FPS = 2.0
# References per crowd, so far apart that the crowd has moved on. The first is so late that every view has
# frames at the furthest offset, and one before.
_REFERENCES, _APART_S = 4, 3.0
_FIRST_S = FURTHEST_S + 1 / _FPS


@dataclass(frozen=True, slots=True)
class Point:
    """One snapshot: a method's errors with every other view `offset_s` from the reference."""

    bundle: str
    method: str
    crowd: int
    offset_s: float
    reference: str
    count: float
    truth: int
    squared_error: float
    f1: float

    @property
    def count_error(self) -> float:
        """People too many or too few."""
        return abs(self.count - self.truth)


def scenario(bundle: Bundle, crowd: int) -> Scenario:
    """Every view takes a picture every half second, all at the same instants."""
    views = bundle.manifest.views
    seconds = _FIRST_S + (_REFERENCES - 1) * _APART_S + FURTHEST_S + 0.5
    schedules = {view: FrameSchedule(_FPS) for view in views}
    return Scenario(simulated(bundle), crowd, crowd_size(crowd), seconds, schedules)


def measure(
    bundle: Bundle,
    name: str,
    fusions: Mapping[str, RememberingFusion],
    crowd: int,
    cache: Cache,
    offsets_s: Sequence[float] = OFFSETS_S,
) -> list[Point]:
    """Points of one crowd for every method in `fusions`; name: of the bundle, for the record."""
    filmed = scenario(bundle, crowd)
    truth = cache.truth(filmed)
    features = {view: cache.features(filmed, bundle, view, _FPS) for view in bundle.manifest.views}
    above = thresholds(bundle)
    points = []
    for number in range(_REFERENCES):
        references = bundle.manifest.references
        reference = references[(number + crowd) % len(references)]
        instant_s = _FIRST_S + number * _APART_S
        people = truth.places(instant_s)
        wanted = density_map(people, bundle.scene.ground)
        others = [view for view in bundle.manifest.views if view != reference]
        signs = _signs(len(others), number + crowd)
        for offset_s, (method, fusion) in itertools.product(offsets_s, fusions.items()):
            # Alone, the reference sees the same at every offset.
            if method == REFERENCE_ONLY and offset_s != offsets_s[0]:
                continue
            times = {reference: instant_s}
            times |= {view: instant_s + sign * offset_s for view, sign in zip(others, signs, strict=True)}
            count, density = _answer(bundle, fusion, reference, times, features)
            error = float(((density - wanted) ** 2).sum())
            f1 = f1_of(density, people, bundle.scene.ground, above.get(method))
            there = [offset_s] if method != REFERENCE_ONLY else offsets_s
            points += [
                Point(name, method, crowd, at_s, reference, count, len(people), error, f1) for at_s in there
            ]
    return points


def _signs(count: int, number: int) -> list[int]:
    """Earlier or later for each of the other views: all combinations in turn."""
    return [1 if (number >> place) & 1 else -1 for place in range(count)]


def _answer(
    bundle: Bundle,
    fusion: RememberingFusion,
    reference: str,
    times: Mapping[str, float],
    features: Mapping[str, Features],
) -> tuple[float, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Count and density (Hg, Wg) of the frames taken at `times`, by a hub that is told these times."""
    spec = bundle.manifest.features
    hour_ns = 3600 * SECOND_NS
    rules = BufferRules(
        site=SITE,
        scene=bundle.scene.name,
        hashes={view: bundle.features_hash(view) for view in bundle.manifest.views},
        shape=(spec.channels, spec.height, spec.width),
        levels=spec.levels,
        max_age_ns=hour_ns,
        max_future_ns=0,
        max_uncertainty_ns=hour_ns,
        depth=2 if fusion.looks_back else 1,
    )
    policy = Policy(
        kind="fixed",
        view=reference,
        references=bundle.manifest.references,
        max_age_ns=hour_ns,
        max_future_ns=0,
        max_offset_ns=hour_ns,
        max_uncertainty_ns=hour_ns,
        min_views=len(times),
        min_interval_ns=0,
    )
    buffer = ViewBuffer(rules, session=1)
    now_ns = EPOCH_NS + round(max(times.values()) * SECOND_NS)
    newest = {view: int(np.argmin(np.abs(features[view].true_s - at_s))) for view, at_s in times.items()}
    # A graph of two frames gets those before, half a second earlier, as a hub would have them by now.
    early = [(view, frame - 1) for view, frame in newest.items() if fusion.looks_back and frame > 0]
    for view, frame in [*early, *newest.items()]:
        capture_ns = EPOCH_NS + round(float(features[view].true_s[frame]) * SECOND_NS)
        message = FeatureMessage(
            site=SITE,
            scene=bundle.scene.name,
            view=view,
            session=1,
            seq=frame,
            capture_ns=capture_ns,
            clock="file",
            arrival_ns=capture_ns,
            sent_ns=capture_ns,
            camera_offset=None,
            hub_offset=OffsetEstimate(0, 0),
            features_hash=bundle.features_hash(view),
            tensors=(Tensor("features", np.asarray(features[view].values[frame])),),
        )
        verdict = buffer.put(message, now_ns)
        if not verdict.accepted:
            raise InternalError(f"the curve's frame of {view} was refused: {verdict.detail}")
    prediction = step(buffer, fusion, policy, now_ns)
    if prediction is None or sum(report.used for report in prediction.views) != len(times):
        raise InternalError(f"the curve's snapshot at {times} was not answered from all views")
    return prediction.count, prediction.density
