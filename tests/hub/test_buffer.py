"""The newest rule, as laws over every order of delivery; and every refusal, which changes nothing."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.buffer import BufferRules, ViewBuffer
from viewsync.clock import IMPLAUSIBLE_NS
from viewsync.units import SECOND_NS
from viewsync.wire import FeatureMessage, OffsetEstimate, Tensor

NOON_NS = 1_800_000_000_000_000_000
Frames = Callable[..., FeatureMessage]

deliveries = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=40)


def held(buffer: ViewBuffer, view: str = "north") -> list[tuple[int, int]]:
    return [(entry.session, entry.seq) for entry in buffer.held(view)]


@given(deliveries, st.integers(1, 3), st.data())
def test_held_are_the_highest_numbers_of_the_session_that_began_last(
    rules: BufferRules, frame: Frames, delivered: list[tuple[int, int]], depth: int, data: st.DataObject
) -> None:
    """Whatever the order (reordered, repeated, restarted agents) and whatever the stamps say (stepped
    clocks).
    """
    buffer = ViewBuffer(dataclasses.replace(rules, depth=depth), 1)
    for session, seq in delivered:
        capture_ns = NOON_NS - data.draw(st.integers(0, 14 * SECOND_NS))
        buffer.put(frame("north", seq, capture_ns, session=session), NOON_NS)
    began_last = list(dict.fromkeys(session for session, _ in delivered))[-1]
    numbers = sorted({seq for session, seq in delivered if session == began_last}, reverse=True)
    assert held(buffer) == [(began_last, seq) for seq in numbers[:depth]]
    assert buffer.accepted["north"] + buffer.refused.total() == len(delivered)
    shot = buffer.snapshot(NOON_NS)
    assert shot is not None
    given = [(before.session, before.seq) for before in shot.before.values()]
    assert given == [(began_last, seq) for seq in numbers[1:2] if depth > 1]


@given(st.permutations([("north", 1), ("south", 1), ("west", 1), ("north", 2), ("west", 0)]))
def test_the_snapshot_does_not_depend_on_the_order_of_views(
    rules: BufferRules, frame: Frames, order: list[tuple[str, int]]
) -> None:
    buffer = ViewBuffer(rules, 1)
    for view, seq in order:
        buffer.put(frame(view, seq), NOON_NS)
    snapshot = buffer.snapshot(NOON_NS)
    assert snapshot is not None
    assert snapshot.frames == (("north", 1000, 2), ("south", 1000, 1), ("west", 1000, 1))


def test_a_replaced_session_stays_out_and_its_successor_goes_on(buffer: ViewBuffer, frame: Frames) -> None:
    assert buffer.put(frame(seq=90, session=1), NOON_NS).accepted
    assert buffer.put(frame(seq=0, session=2), NOON_NS).accepted
    assert buffer.put(frame(seq=91, session=1), NOON_NS).reason == "old-session"
    assert buffer.put(frame(seq=1, session=2), NOON_NS).accepted
    assert held(buffer) == [(2, 1)]


def test_a_clock_stepped_back_locks_no_view_out(buffer: ViewBuffer, frame: Frames) -> None:
    assert buffer.put(frame(seq=1, capture_ns=NOON_NS), NOON_NS).accepted
    assert buffer.put(frame(seq=2, capture_ns=NOON_NS - 10 * SECOND_NS), NOON_NS).accepted
    assert held(buffer) == [(1000, 2)]


def _bad(frame: Frames) -> dict[str, FeatureMessage]:
    def features(array: np.ndarray) -> tuple[Tensor, ...]:
        return (Tensor("features", array),)

    good = frame().tensor("features")
    return {
        "foreign-site": frame(site="elsewhere"),
        "foreign-scene": frame(scene="plaza"),
        "unknown-view": frame("east"),
        "features-hash": frame(features_hash="f" * 64),
        "features-shape": frame(tensors=features(good[:, 1:])),
        "features-shape ": frame(tensors=features(good.astype(np.float32))),
        "features-shape  ": frame(tensors=(Tensor("other", good),)),
        "clock-unknown": frame(hub_offset=None),
        "clock-unknown ": frame(clock="rtcp"),
        "future": frame(capture_ns=NOON_NS + SECOND_NS),
        "implausible-time": frame(capture_ns=0),
        "implausible-time ": frame(capture_ns=NOON_NS + IMPLAUSIBLE_NS + 1),
        "too-old": frame(capture_ns=NOON_NS - 16 * SECOND_NS),
    }


BAD = [
    *("foreign-site", "foreign-scene", "unknown-view", "features-hash", "features-shape", "features-shape "),
    *(
        "features-shape  ",
        "clock-unknown",
        "clock-unknown ",
        "future",
        "implausible-time",
        "implausible-time ",
    ),
    "too-old",
]


@pytest.mark.parametrize("case", BAD)
def test_a_refusal_is_counted_with_its_reason_and_changes_nothing(
    buffer: ViewBuffer, frame: Frames, case: str
) -> None:
    assert list(_bad(frame)) == BAD
    buffer.put(frame(seq=0), NOON_NS)
    snapshot = buffer.snapshot(NOON_NS)
    assert snapshot is not None
    buffer.mark_answered(snapshot, NOON_NS)
    # Newer in every sense, were it good: another session.
    bad = dataclasses.replace(_bad(frame)[case], seq=5, session=77)
    verdict = buffer.put(bad, NOON_NS)
    assert (verdict.accepted, verdict.reason) == (False, case.strip())
    assert verdict.detail and "\n" not in verdict.detail
    assert buffer.refused == {case.strip(): 1}
    assert not buffer.changed
    assert buffer.put(frame(seq=1), NOON_NS).accepted, "the session before the bad message goes on"


def test_features_above_the_levels_are_refused(rules: BufferRules, frame: Frames) -> None:
    buffer = ViewBuffer(dataclasses.replace(rules, levels=16), 1)
    features = np.full(rules.shape, 15, np.uint8)
    assert buffer.put(frame(tensors=(Tensor("features", features),)), NOON_NS).accepted
    features = features.copy()
    features[0, 0, 0] = 16
    verdict = buffer.put(frame(seq=1, tensors=(Tensor("features", features),)), NOON_NS)
    assert verdict.reason == "features-range"


@pytest.mark.parametrize(("ahead_ms", "accepted"), [(0, True), (740, True), (760, False)])
def test_uncertainty_excuses_a_future_capture_as_far_as_it_reaches(
    buffer: ViewBuffer, frame: Frames, ahead_ms: int, accepted: bool
) -> None:
    """max_future_ms is 250: with ± 500 ms the limit lies at 750."""
    message = frame(capture_ns=NOON_NS + ahead_ms * 1_000_000, hub_offset=OffsetEstimate(0, SECOND_NS // 2))
    assert buffer.put(message, NOON_NS).accepted is accepted


def test_boundless_uncertainty_excuses_nothing_beyond_the_rules(
    rules: BufferRules, buffer: ViewBuffer, frame: Frames
) -> None:
    latest_ns = NOON_NS + rules.max_future_ns + rules.max_uncertainty_ns
    vast = OffsetEstimate(0, IMPLAUSIBLE_NS)
    assert buffer.put(frame(capture_ns=latest_ns + 1, hub_offset=vast), NOON_NS).reason == "future"
    assert buffer.put(frame(capture_ns=latest_ns, hub_offset=vast), NOON_NS).accepted


def test_an_instant_known_to_within_more_than_an_hour_is_none(buffer: ViewBuffer, frame: Frames) -> None:
    vast = OffsetEstimate(0, IMPLAUSIBLE_NS + 1)
    assert buffer.put(frame(hub_offset=vast), NOON_NS).reason == "implausible-time"


def test_three_clocks_compose(buffer: ViewBuffer, frame: Frames) -> None:
    """A camera 5 s fast, an agent 2 s slow: the frame was taken one second ago."""
    message = frame(
        clock="rtcp",
        capture_ns=NOON_NS + 4 * SECOND_NS,
        camera_offset=OffsetEstimate(-7 * SECOND_NS, 3_000_000),
        hub_offset=OffsetEstimate(2 * SECOND_NS, 2_000_000),
    )
    assert buffer.put(message, NOON_NS).accepted
    entry = buffer.newest()["north"]
    assert (entry.capture_ns, entry.uncertainty_ns) == (NOON_NS - SECOND_NS, 5_000_000)
    assert entry.stamped_ns == NOON_NS + 4 * SECOND_NS


def test_sessions_are_forgotten_only_after_many(buffer: ViewBuffer, frame: Frames) -> None:
    for session in range(50):
        assert buffer.put(frame(session=session), NOON_NS).accepted
    assert buffer.put(frame(seq=1, session=0), NOON_NS).reason == "old-session"
    assert held(buffer) == [(49, 0)]
