"""What is really there: only the demo's own process knows it, to print it beside what the hub publishes.

The simulated cameras get the crowd's seed; agents and hub get neither seed nor truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viewsync.prediction import Prediction, ViewReport
from viewsync.sim.camera_clock import CameraClock, FrameSchedule
from viewsync.sim.crowd import Crowd
from viewsync.sim.pets2009 import data_folder, tracks
from viewsync.sim.scenes import SimScene
from viewsync.sim.track_crowd import TrackCrowd

# Frames per second of cheap cameras on a thin link; every camera of a demo gets another.
_RATES = (0.4, 0.7, 1.0, 0.5, 0.85, 1.2)
_DROP_RATE = 0.03


@dataclass(frozen=True, slots=True)
class CameraPlan:
    """One simulated camera: when it takes pictures, and what its clock shows then."""

    view: str
    clock: CameraClock
    schedule: FrameSchedule

    def arguments(self) -> list[str]:
        """The options of `viewsync sim camera` that make it so."""
        clock, schedule = self.clock, self.schedule
        return [
            *("--view", self.view, "--fps", repr(schedule.fps), "--phase", repr(schedule.phase_s)),
            *("--drop", repr(schedule.drop_rate), "--clock-offset", repr(clock.offset_s)),
            *("--clock-drift-ppm", repr(clock.drift_ppm)),
            *(word for at_s, by_s in clock.steps for word in ("--clock-step", f"{at_s!r}:{by_s!r}")),
        ]


def plan_cameras(views: tuple[str, ...], seed: int) -> dict[str, CameraPlan]:
    """Cameras that nobody synchronised: unequal low rates, any phase, lost frames, clocks seconds off."""
    rng = np.random.default_rng([seed, 0x64656D6F])
    rates = rng.permutation(np.resize(_RATES, len(views)))
    plans = {}
    for view, fps in zip(views, rates.tolist(), strict=True):
        clock = CameraClock(round(rng.uniform(-6.0, 6.0), 3), round(rng.uniform(-80.0, 80.0), 1))
        # The command line has one seed, the crowd's, and the camera loses frames by it too.
        schedule = FrameSchedule(fps, round(rng.uniform(0.0, 1.0 / fps), 3), _DROP_RATE, seed)
        plans[view] = CameraPlan(view, clock, schedule)
    return plans


class Truth:
    """The crowd itself, and the instants at which the cameras really took their pictures."""

    def __init__(
        self,
        scene: SimScene,
        people: int,
        seed: int,
        plans: Mapping[str, CameraPlan],
        epoch_ns: int,
        sequence: str | None = None,
    ) -> None:
        self.crowd: Crowd | TrackCrowd
        if sequence is None:
            self.crowd = Crowd(scene.walk_area, people, seed, scene.obstacles)
        else:
            self.crowd = TrackCrowd(tracks(data_folder(), sequence), seed)
        self._grid = scene.scene.ground
        self._plans, self._epoch_ns = plans, epoch_ns

    def capture_s(self, report: ViewReport, published_ns: int) -> float | None:
        """True instant, seconds since the epoch, of the frame that `report` speaks of; None if it has none.

        From the camera's own stamp by undoing its clock; where the agent could not use that stamp, the last
        frame before its own.
        """
        if report.capture_ns is None:
            return None
        plan = self._plans[report.view]
        if report.clock == "rtcp":
            true_ns = plan.clock.true_ns(report.capture_ns, self._epoch_ns, near_ns=published_ns)
            return (true_ns - self._epoch_ns) * 1e-9
        stamped_s = (report.capture_ns - self._epoch_ns) * 1e-9
        earlier = list(plan.schedule.between(stamped_s - 60.0, stamped_s))
        return earlier[-1] if earlier else None

    def reference_s(self, prediction: Prediction) -> float | None:
        """True instant of the reference frame of `prediction`."""
        reports = {report.view: report for report in prediction.views}
        return self.capture_s(reports[prediction.reference], prediction.published_ns)

    def places(self, true_s: float) -> NDArray[np.float64]:
        """Everyone in the region at `true_s`, seen by a camera or not: (N, 2) metres."""
        xy = self.crowd.state(true_s).xy
        return xy[self._grid.contains(xy)]

    def count(self, true_s: float) -> int:
        """How many are in the region at `true_s`."""
        return len(self.places(true_s))
