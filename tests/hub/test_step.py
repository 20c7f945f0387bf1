"""`step` in virtual time: one answer per change, never two, never faster than allowed; and what an answer
says.
"""

import copy
import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.buffer import BufferRules, ViewBuffer
from hub.fusion import Fusion
from hub.reference import Policy
from hub.step import silence, step
from viewsync.bundle import Bundle
from viewsync.prediction import Prediction, decode_prediction, encode_prediction
from viewsync.units import SECOND_NS
from viewsync.wire import FeatureMessage, OffsetEstimate

NOON_NS = 1_800_000_000_000_000_000
Frames = Callable[..., FeatureMessage]
Used = tuple[tuple[str, int | None, int | None], ...]


def frames_of(prediction: Prediction) -> Used:
    return tuple((report.view, report.session, report.seq) for report in prediction.views)


def views_of(prediction: Prediction) -> dict[str, str]:
    return {report.view: report.reason for report in prediction.views}


arrivals = st.lists(
    st.tuples(
        st.sampled_from(["north", "south", "west"]),
        st.integers(1, 2),  # session
        st.integers(0, 30),  # seq, in any order
        st.integers(0, 900),  # ms to the arrival
        st.integers(0, 4000),  # age on arrival, ms
        st.booleans(),  # whether a turn of the loop follows
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(arrivals, st.integers(0, 2000), st.integers(1, 3))
def test_one_answer_per_change_never_two_and_never_too_soon(
    rules: BufferRules,
    fusion: Fusion,
    policy: Policy,
    frame: Frames,
    delivered: list[tuple[str, int, int, int, int, bool]],
    interval_ms: int,
    min_views: int,
) -> None:
    policy = dataclasses.replace(policy, min_interval_ns=interval_ms * 1_000_000, min_views=min_views)
    buffer = ViewBuffer(rules, 7)
    now_ns, answers, changes = NOON_NS, [], 0
    for view, session, seq, wait_ms, age_ms, turn in delivered:
        now_ns += wait_ms * 1_000_000
        before = buffer.newest()
        buffer.put(frame(view, seq, now_ns - age_ms * 1_000_000, session=session), now_ns)
        changes += buffer.newest() != before
        for _ in range(2 if turn else 0):
            prediction = step(buffer, fusion, policy, now_ns)
            if prediction is not None:
                answers.append(prediction)
    assert len(answers) <= changes
    assert [answer.seq for answer in answers] == list(range(len(answers))), "numbers without gaps"
    for earlier, later in itertools.pairwise(answers):
        assert frames_of(earlier) != frames_of(later)
        assert later.published_ns - earlier.published_ns >= interval_ms * 1_000_000
    assert all(sum(report.used for report in answer.views) >= min_views for answer in answers)


def test_every_arrival_is_answered_with_what_is_there(
    buffer: ViewBuffer, fusion: Fusion, policy: Policy, frame: Frames
) -> None:
    policy = dataclasses.replace(policy, min_interval_ns=0)
    buffer.put(frame("west", 0, NOON_NS), NOON_NS)
    first = step(buffer, fusion, policy, NOON_NS)
    assert first is not None and first.degraded
    assert views_of(first) == {"north": "no frame", "south": "no frame", "west": ""}
    assert first.reasons == ("north: no frame", "south: no frame")
    for view in ("north", "south"):
        buffer.put(frame(view, 0, NOON_NS - SECOND_NS), NOON_NS)
    both = step(buffer, fusion, policy, NOON_NS)
    assert both is not None and not both.degraded and both.reasons == ()
    assert step(buffer, fusion, policy, NOON_NS + 5 * SECOND_NS) is None


def test_an_answer_that_the_rate_postponed_comes_when_it_is_due(
    buffer: ViewBuffer, fusion: Fusion, policy: Policy, frame: Frames
) -> None:
    policy = dataclasses.replace(policy, min_interval_ns=SECOND_NS)
    buffer.put(frame(seq=0), NOON_NS)
    assert step(buffer, fusion, policy, NOON_NS) is not None
    buffer.put(frame(seq=1), NOON_NS + 1)
    assert step(buffer, fusion, policy, NOON_NS + SECOND_NS - 1) is None
    assert buffer.due_ns(NOON_NS + 1, SECOND_NS) == NOON_NS + SECOND_NS
    assert step(buffer, fusion, policy, NOON_NS + SECOND_NS) is not None


def test_a_hub_clock_stepped_back_does_not_hold_answers_up(
    buffer: ViewBuffer, fusion: Fusion, policy: Policy, frame: Frames
) -> None:
    buffer.put(frame(seq=0), NOON_NS)
    assert step(buffer, fusion, policy, NOON_NS) is not None
    earlier_ns = NOON_NS - 3000 * SECOND_NS
    buffer.put(frame(seq=1, capture_ns=earlier_ns), earlier_ns)
    assert step(buffer, fusion, policy, earlier_ns) is not None


@pytest.mark.parametrize("order", [("north", "south", "west"), ("west", "south", "north")])
def test_what_an_answer_says(
    order: tuple[str, ...],
    rules: BufferRules,
    fusion: Fusion,
    policy: Policy,
    frame: Frames,
    bundle: Bundle,
    tiny: object,
) -> None:
    """north 2 s before south, west 4 s after: south is the median, and west is beyond the trained 3 s."""
    buffer = ViewBuffer(rules, 7)
    stamps_s = {"north": -2, "south": 0, "west": 4}
    for view in order:
        hub_offset = OffsetEstimate(0, {"north": 3, "south": 20, "west": 1}[view] * 1_000_000)
        message = frame(view, 5, NOON_NS + stamps_s[view] * SECOND_NS, hub_offset=hub_offset)
        assert buffer.put(message, NOON_NS + 4 * SECOND_NS).accepted
    answer = step(buffer, fusion, policy, NOON_NS + 5 * SECOND_NS)
    assert answer is not None
    assert (answer.reference, answer.capture_ns, answer.capture_uncertainty_ns) == (
        "south",
        NOON_NS,
        20_000_000,
    )
    assert answer.latency_ns == 5 * SECOND_NS and answer.published_ns == NOON_NS + 5 * SECOND_NS
    assert (answer.session, answer.seq, answer.bundle) == (7, 0, bundle.hash)
    assert (answer.site, answer.scene, answer.synchroniser) == ("yard", "tiny", "column")
    assert set(answer.counts) == {"column", "none", "reference-only"}
    assert answer.count == answer.counts["column"] == pytest.approx(float(answer.density.sum()), rel=1e-6)
    north, south, west = answer.views
    assert (north.offset_ns, north.uncertainty_ns, north.age_ns) == (
        -2 * SECOND_NS,
        23_000_000,
        7 * SECOND_NS,
    )
    assert (north.clock, north.capture_ns, north.used) == ("file", NOON_NS - 2 * SECOND_NS, True)
    assert north.mean_warp_m == pytest.approx(1.0)  # 2 s at half a metre per second
    assert (south.offset_ns, south.uncertainty_ns, south.mean_warp_m) == (0, 0, None)
    assert (west.used, west.reason, west.offset_ns) == (False, "offset 4.0 s > 3.0 s", 4 * SECOND_NS)
    assert answer.degraded and answer.reasons == ("west: offset 4.0 s > 3.0 s",)
    # The zone "left" is the left half of the ground, on cell borders.
    assert answer.zones == {"left": pytest.approx(float(answer.density[:, :8].sum()), rel=1e-5)}
    again = decode_prediction(encode_prediction(answer))
    assert isinstance(again, Prediction)
    assert dataclasses.replace(again, density=answer.density) == answer
    buffer_again = ViewBuffer(rules, 7)
    for view in reversed(order):
        hub_offset = OffsetEstimate(0, {"north": 3, "south": 20, "west": 1}[view] * 1_000_000)
        buffer_again.put(
            frame(view, 5, NOON_NS + stamps_s[view] * SECOND_NS, hub_offset=hub_offset),
            NOON_NS + 4 * SECOND_NS,
        )
    assert step(buffer_again, fusion, policy, NOON_NS + 5 * SECOND_NS) == answer, "in any order of arrival"


def test_an_offset_too_uncertain_is_said_and_given_as_unknown(
    buffer: ViewBuffer, fusion: Fusion, policy: Policy, frame: Frames
) -> None:
    buffer.put(frame("north"), NOON_NS)
    alone = step(buffer, fusion, policy, NOON_NS)
    buffer.put(frame("south", hub_offset=OffsetEstimate(0, 2 * SECOND_NS)), NOON_NS)
    answer = step(
        buffer, fusion, dataclasses.replace(policy, view="north", kind="fixed"), NOON_NS + SECOND_NS
    )
    assert alone is not None and answer is not None
    assert "south: offset too uncertain, given to the model as unknown" in answer.reasons
    assert answer.views[1].used and answer.views[1].uncertainty_ns == 2 * SECOND_NS + 1_000_000
    # The tiny model gives a view of unknown offset no weight.
    np.testing.assert_allclose(answer.density, alone.density, atol=1e-9)


def test_silence_says_why_and_never_a_count(
    buffer: ViewBuffer, fusion: Fusion, policy: Policy, frame: Frames
) -> None:
    nothing = silence(buffer, fusion, policy, NOON_NS)
    assert nothing.degraded and nothing.reasons[0] == "no view is usable"
    assert [report.reason for report in nothing.views] == ["no frame"] * 3
    buffer.put(frame("north"), NOON_NS)
    quiet = silence(buffer, fusion, policy, NOON_NS + 6 * SECOND_NS)
    assert quiet.reasons == ("no new frame for 6.0 s", "south: no frame", "west: no frame")
    assert quiet.views[0].age_ns == 6 * SECOND_NS and not quiet.views[0].used
    old = silence(buffer, fusion, policy, NOON_NS + 20 * SECOND_NS)
    assert old.reasons[0] == "no view is usable" and old.views[0].reason == "age 20.0 s > 15.0 s"
    few = silence(buffer, fusion, dataclasses.replace(policy, min_views=2), NOON_NS)
    assert few.reasons[0] == "1 usable of at least 2 views"
    assert decode_prediction(encode_prediction(few)) == few


def test_a_site_of_64_missing_views_still_makes_a_message(
    rules: BufferRules, fusion: Fusion, policy: Policy
) -> None:
    views = tuple(f"view-{number}" for number in range(64))
    large = copy.copy(fusion)
    large.views = views
    status = silence(ViewBuffer(rules, 7), large, policy, NOON_NS)
    assert len(status.views) == 64 and status.reasons[-1] == "and 2 more"
    assert decode_prediction(encode_prediction(status)) == status
