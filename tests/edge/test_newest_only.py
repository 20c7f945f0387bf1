"""Choosing, dating, waiting and sending, as laws over made-up times: no thread, no socket, no clock."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.backoff import Backoff
from edge.dating import FrameDating
from edge.frames import RateGate
from edge.outbox import Outbox
from edge.pictures import reduced_size
from viewsync.capture_clock import CaptureClock
from viewsync.units import SECOND_NS
from viewsync.wire import FeatureMessage, Tensor

NOON_NS = 1_800_000_000 * SECOND_NS
_TENSORS = (Tensor("features", np.zeros((1, 1, 1), np.uint8)),)


def _message(seq: int, at_ns: int) -> FeatureMessage:
    return FeatureMessage(
        "yard", "tiny", "north", 7, seq, at_ns, "arrival", at_ns, at_ns, None, None, "0" * 64, _TENSORS
    )


# --- the rate -----------------------------------------------------------------------------------------------


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(0.2, 30), st.floats(0.2, 60), st.floats(0, 0.2), st.integers())
def test_the_gate_keeps_the_rate_and_lets_every_frame_of_a_slower_stream_pass(
    rate_hz: float, stream_hz: float, jitter: float, seed: int
) -> None:
    randomness = random.Random(seed)
    gate = RateGate(rate_hz)
    count = 200
    times = [(index + jitter * randomness.random()) / stream_hz for index in range(count)]
    passed = sum(gate.admit(round(time_s * SECOND_NS)) for time_s in times)
    if rate_hz >= stream_hz:
        assert passed == count or jitter > 0.1  # a quarter period early is allowed, more is not
    most = (times[-1] - times[0]) * rate_hz + 1.5
    assert passed <= most
    assert passed >= 0.5 * min(count, most) - 2


def test_the_gate_catches_nothing_up_after_a_pause_and_starts_anew_with_the_stream() -> None:
    gate = RateGate(1.0)
    assert gate.admit(0)
    after_pause = [gate.admit(60 * SECOND_NS + index * SECOND_NS // 10) for index in range(10)]
    assert sum(after_pause) <= 2
    assert gate.admit(0)  # the camera was restarted: its time begins again


# --- which time a frame gets --------------------------------------------------------------------------------


def test_before_the_first_sender_report_arrival_dates_a_frame() -> None:
    dating = FrameDating(CaptureClock(), use_camera_clock=True)
    assert dating.date(None, NOON_NS) == (NOON_NS, "arrival", None)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(-3000, 3000), st.lists(st.integers(10, 400), min_size=3, max_size=30))
def test_a_camera_clock_that_is_wrong_is_measured_not_refused(wrong_s: int, delays_ms: list[int]) -> None:
    dating = FrameDating(CaptureClock(), use_camera_clock=True)
    wrong_ns = wrong_s * SECOND_NS
    for index, delay_ms in enumerate(delays_ms):
        true_ns = NOON_NS + index * SECOND_NS
        arrival_ns = true_ns + delay_ms * 1_000_000
        capture_ns, clock, offset = dating.date(true_ns + wrong_ns, arrival_ns)
        assert (capture_ns, clock) == (true_ns + wrong_ns, "rtcp")
        assert offset is not None
        assert abs(offset.offset_ns + wrong_ns) <= offset.uncertainty_ns
    assert dating.refused == 0


@pytest.mark.parametrize("capture_ns", [-2_208_988_800 * SECOND_NS, 0, NOON_NS - 7200 * SECOND_NS])
def test_a_time_that_arrival_contradicts_is_not_used_but_counted(capture_ns: int) -> None:
    dating = FrameDating(CaptureClock(), use_camera_clock=True)
    assert dating.date(capture_ns, NOON_NS) == (NOON_NS, "arrival", None)
    assert dating.refused == 1


def test_reordered_arrivals_are_no_step_of_the_camera_clock() -> None:
    dating = FrameDating(CaptureClock(), use_camera_clock=True)
    # Frames 3 and 6 are sent before those between, which refer to them.
    for capture, arrival in [(0, 0.1), (1, 3.2), (2, 3.3), (3, 3.1), (4, 6.2), (5, 6.3), (6, 6.1)]:
        assert dating.date(NOON_NS + capture * SECOND_NS, NOON_NS + round(arrival * SECOND_NS))[1] == "rtcp"
    assert dating.steps == 0


# --- waiting ------------------------------------------------------------------------------------------------


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(0.01, 5), st.floats(1, 20), st.integers())
def test_waits_double_up_to_the_longest_and_are_jittered_down(
    first_s: float, factor: float, seed: int
) -> None:
    randomness = random.Random(seed)
    longest_s = first_s * factor
    backoff = Backoff(first_s, longest_s, randomness)
    for nominal_s in [min(first_s * 2**power, longest_s) for power in range(8)]:
        assert nominal_s * 2 / 3 <= backoff.next_s() <= nominal_s
    backoff.reset()
    assert backoff.next_s() <= first_s


# --- sending ------------------------------------------------------------------------------------------------

_TIMEOUT_NS = 10 * SECOND_NS


class OutboxLaws(RuleBasedStateMachine):
    """Whatever happens in whatever order: newest only, in order, never more under way than the window."""

    def __init__(self) -> None:
        super().__init__()
        self.window = 2
        self.outbox = Outbox(self.window, _TIMEOUT_NS, stale_ns=_TIMEOUT_NS)
        self.seqs = itertools.count()
        self.now_ns = NOON_NS
        self.newest = -1
        self.under_way: list[int] = []
        self.sent: list[int] = []

    @rule(wait_ms=st.integers(1, 3000))
    def time_passes(self, wait_ms: int) -> None:
        self.now_ns += wait_ms * 1_000_000

    @rule()
    def a_frame_comes(self) -> None:
        self.newest = next(self.seqs)
        self.outbox.offer(_message(self.newest, self.now_ns))

    @rule()
    def the_socket_is_free(self) -> None:
        message = self.outbox.take(self.now_ns)
        if message is None:
            return
        assert message.seq == self.newest
        assert not self.sent or message.seq >= self.sent[-1]
        assert self.now_ns - message.arrival_ns <= _TIMEOUT_NS
        self.under_way.append(message.seq)
        self.sent.append(message.seq)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def the_hub_answers(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(self.under_way))
        assert self.outbox.sent_ns(seq) is not None
        settled = self.outbox.answered(seq)
        assert settled == sum(earlier <= seq for earlier in self.under_way)
        self.under_way = [later for later in self.under_way if later > seq]

    @precondition(lambda self: self.under_way)
    @rule()
    def the_socket_was_not_free_after_all(self) -> None:
        self.outbox.not_sent(self.under_way.pop())

    @rule()
    def the_connection_breaks(self) -> None:
        self.outbox.connection_lost()
        self.under_way = []

    @invariant()
    def never_more_than_the_window(self) -> None:
        assert len(self.under_way) <= self.window
        assert (self.outbox.due_ns() is None) == (not self.under_way)


TestOutbox = OutboxLaws.TestCase
TestOutbox.settings = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.tuples(st.integers(64, 4096), st.integers(64, 4096)),
    st.tuples(st.integers(32, 512), st.integers(32, 512)),
)
def test_an_image_is_made_smaller_by_a_whole_factor_but_never_smaller_than_wanted(
    stream: tuple[int, int], wanted: tuple[int, int]
) -> None:
    width, height = reduced_size(stream, wanted)
    assert (width, height) == stream or (width >= wanted[0] and height >= wanted[1])
    if (width, height) != stream:
        assert width < 2 * wanted[0] + 2 or height < 2 * wanted[1] + 2
        assert abs(width * stream[1] - height * stream[0]) <= max(stream)
