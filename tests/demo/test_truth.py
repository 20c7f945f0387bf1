"""Where the demo's truth comes from: the camera's stamp undone, and everybody in the region counted."""

import numpy as np
import pytest

from viewsync.demo.truth import CameraPlan, Truth, plan_cameras
from viewsync.prediction import ViewReport
from viewsync.sim.camera_clock import CameraClock, FrameSchedule
from viewsync.sim.scenes import load

EPOCH_NS = 1_800_000_000_000_000_000
SEED = 1_234_567


def truth_of(plan: CameraPlan, people: int = 30) -> Truth:
    return Truth(load("plaza"), people, SEED, {plan.view: plan}, EPOCH_NS)


def report(capture_ns: int, clock: str) -> ViewReport:
    return ViewReport("north", True, "", session=1, seq=1, capture_ns=capture_ns, clock=clock)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "clock", [CameraClock(), CameraClock(5.0, 80.0), CameraClock(-3.0, -80.0, ((4.0, -2.0),))]
)
def test_the_true_instant_comes_from_undoing_the_cameras_clock(clock: CameraClock) -> None:
    schedule = FrameSchedule(0.4, 0.3)
    truth = truth_of(CameraPlan("north", clock, schedule))
    for instant_s in schedule.between(0.0, 20.0):
        true_ns = EPOCH_NS + round(instant_s * 1e9)
        stamped = report(clock.camera_ns(true_ns, EPOCH_NS), "rtcp")
        # Published soon after, which tells the two apart where the clock showed the same time twice.
        found = truth.capture_s(stamped, true_ns + 5 * 10**8)
        # Seconds since the epoch as float64 keep far more than the microsecond of a sender report.
        assert found == pytest.approx(instant_s, abs=1e-6)


def test_a_frame_dated_by_its_arrival_is_the_last_one_taken_before() -> None:
    truth = truth_of(CameraPlan("north", CameraClock(5.0), FrameSchedule(0.5, 1.0)))
    assert truth.capture_s(report(EPOCH_NS + 6_999_000_000, "arrival"), EPOCH_NS + 7 * 10**9) == 5.0
    assert truth.capture_s(report(EPOCH_NS + 7_100_000_000, "arrival"), EPOCH_NS + 8 * 10**9) == 7.0


def test_a_view_that_was_never_heard_has_no_instant() -> None:
    truth = truth_of(CameraPlan("north", CameraClock(), FrameSchedule(1.0)))
    assert truth.capture_s(ViewReport("north", False, "no frame"), EPOCH_NS) is None


def test_everybody_in_the_region_counts_and_nobody_outside() -> None:
    truth = truth_of(CameraPlan("north", CameraClock(), FrameSchedule(1.0)), people=60)
    grid = load("plaza").scene.ground
    x1, y1 = grid.origin_x_m + grid.columns * grid.cell_m, grid.origin_y_m + grid.rows * grid.cell_m
    outside = 0
    for t_s in np.arange(0.0, 30.0, 3.0):
        xy = truth.crowd.state(float(t_s)).xy
        within = (
            (xy[:, 0] >= grid.origin_x_m) & (xy[:, 0] < x1) & (xy[:, 1] >= grid.origin_y_m) & (xy[:, 1] < y1)
        )
        assert truth.count(float(t_s)) == within.sum()
        outside += int((~within).sum())
    assert outside > 0  # otherwise this has shown nothing


def test_cameras_differ_in_rate_phase_and_clock_and_the_seed_decides() -> None:
    views = ("north", "east", "south")
    plans = plan_cameras(views, SEED)
    assert plans == plan_cameras(views, SEED) != plan_cameras(views, SEED + 1)
    assert len({plan.schedule.fps for plan in plans.values()}) == len(views)
    assert all(plan.schedule.fps <= 1.2 for plan in plans.values())
    assert len({plan.clock.offset_s for plan in plans.values()}) == len(views)
