"""Laws of camera clocks and frame schedules."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viewsync.sim.camera_clock import CameraClock, FrameSchedule

# 1 µs: what a reader of sender reports can tell, and far above the rounding of seconds within a day.
TOLERANCE_S = 1e-6
EPOCH_NS = 1_800_000_000_123_456_789

seconds = st.floats(0, 86_400)
steps = st.lists(
    st.tuples(st.floats(1, 80_000), st.floats(-100, 100)), max_size=4, unique_by=lambda step: step[0]
).map(lambda found: tuple(sorted(found)))
clocks = st.builds(CameraClock, st.floats(-1e5, 1e5), st.floats(-1e4, 1e4), steps)
schedules = st.builds(
    FrameSchedule, st.floats(0.1, 30), st.floats(0, 10), st.floats(0, 0.7), st.integers(0, 2**32)
)


@settings(deadline=None)
@given(clocks, seconds)
def test_true_time_comes_back_where_the_hint_says_which_of_two(clock: CameraClock, true_s: float) -> None:
    found = clock.true_s(clock.camera_s(true_s), near_s=true_s)
    assert found == pytest.approx(true_s, abs=TOLERANCE_S)


@settings(deadline=None)
@given(clocks, st.integers(0, 86_400 * 10**9))
def test_nanoseconds_come_back_too(clock: CameraClock, since_ns: int) -> None:
    true_ns = EPOCH_NS + since_ns
    camera_ns = clock.camera_ns(true_ns, EPOCH_NS)
    assert abs(clock.true_ns(camera_ns, EPOCH_NS, near_ns=true_ns) - true_ns) <= TOLERANCE_S * 1e9


@settings(deadline=None)
@given(clocks, st.floats(-1e5, 2e5))
def test_every_camera_time_has_a_true_time(clock: CameraClock, camera_s: float) -> None:
    assert math.isfinite(clock.true_s(camera_s))


def test_offset_drift_and_steps_add_up() -> None:
    clock = CameraClock(5.0, 200.0, ((10.0, -3.0), (20.0, 1.0)))
    assert clock.camera_s(0.0) == 5.0
    assert clock.camera_s(9.0) == pytest.approx(14.0018)
    assert clock.camera_s(10.0) == pytest.approx(12.002)
    assert clock.camera_s(20.0) == pytest.approx(23.004)


def test_a_clock_set_back_shows_a_time_twice() -> None:
    clock = CameraClock(steps=((10.0, -3.0),))
    assert clock.true_s(8.0) == 11.0
    assert clock.true_s(8.0, near_s=7.0) == 8.0


def test_a_time_skipped_by_a_step_means_the_step() -> None:
    assert CameraClock(steps=((10.0, 3.0),)).true_s(11.0) == 10.0


@pytest.mark.parametrize(
    "bad",
    [
        {"offset_s": math.nan},
        {"drift_ppm": 1e6},
        {"steps": ((5.0, 1.0), (5.0, 1.0))},
        {"steps": ((9.0, 1.0), (5.0, 1.0))},
    ],
)
def test_impossible_clocks_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        CameraClock(**bad)  # type: ignore[arg-type]


@settings(deadline=None)
@given(schedules, seconds)
def test_the_next_frame_is_the_next_that_is_not_dropped(schedule: FrameSchedule, true_s: float) -> None:
    number, instant_s = schedule.following(true_s)
    assert instant_s > true_s and instant_s == schedule.instant_s(number) and not schedule.dropped(number)
    between = [k for k in range(max(0, number - 40), number) if schedule.instant_s(k) > true_s]
    assert all(schedule.dropped(k) for k in between)


@settings(deadline=None)
@given(schedules, seconds)
def test_any_part_of_a_schedule_is_the_same_schedule(schedule: FrameSchedule, start_s: float) -> None:
    middle_s, end_s = start_s + 7.0, start_s + 20.0
    parts = [*schedule.between(start_s, middle_s), *schedule.between(middle_s, end_s)]
    assert parts == list(schedule.between(start_s, end_s))
    assert all(later > earlier for earlier, later in pairwise(parts))


def test_the_share_of_dropped_frames_is_as_asked_and_depends_on_the_seed() -> None:
    first, second = (FrameSchedule(10.0, drop_rate=0.2, seed=seed) for seed in (1, 2))
    dropped = [{k for k in range(4000) if schedule.dropped(k)} for schedule in (first, second)]
    # 4 standard deviations of a binomial count.
    assert all(abs(len(lost) - 800) < 4 * math.sqrt(4000 * 0.2 * 0.8) for lost in dropped)
    assert dropped[0] != dropped[1]


@pytest.mark.parametrize(
    "bad",
    [{"fps": 0.0}, {"fps": 1.0, "phase_s": -1.0}, {"fps": 1.0, "drop_rate": 1.0}, {"fps": 1.0, "seed": -1}],
)
def test_impossible_schedules_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        FrameSchedule(**bad)  # type: ignore[arg-type]
