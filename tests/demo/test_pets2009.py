"""PETS2009's real people before its real cameras, live: RTSP cameras, agents and hub as processes."""

import os
import threading
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner

from viewsync.cli import main
from viewsync.demo.picture import answer_again
from viewsync.demo.recording import FPS, PHASES_S
from viewsync.demo.run import Demo, Settings
from viewsync.demo.truth import CameraPlan
from viewsync.prediction import Prediction
from viewsync.sim.camera_clock import CameraClock, FrameSchedule
from viewsync.sim.dataset import load_truth
from viewsync.sim.pets2009 import VIEWS, data_folder, scene, tracks
from viewsync.sim.render import Renderer

SEED, KAPPA_S = 100_003, 5.0
# Frames every 3 to 5 seconds, at no common beat: what is newest of two views lies up to 5 s apart.
PLANS = {
    "view1": (CameraClock(2.5, 60.0), FrameSchedule(0.21, 0.3)),
    "view2": (CameraClock(-4.0), FrameSchedule(0.34, 1.1)),
    "view3": (CameraClock(0.7, -40.0), FrameSchedule(0.27, 2.0)),
}


@pytest.fixture(scope="module")
def data() -> Path:
    if not os.environ.get("VIEWSYNC_DATA"):
        pytest.skip("VIEWSYNC_DATA is not set: real cameras and tracks are needed")
    return data_folder()


class Watch:
    """Stops the demo once every view has been the reference of an answer of all views, and some frames were
    half of κ apart.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.answers: list[Prediction] = []
        self._end_s = time.monotonic() + 150.0

    def update(self, demo: Demo) -> None:
        assert time.monotonic() < self._end_s, f"waited too long; {demo.note}"
        if {answer.reference for answer in self.answers} == set(VIEWS) and self.farthest_s() > KAPPA_S / 2:
            self.stop.set()

    def answered(self, demo: Demo, prediction: Prediction, truth: int | None) -> None:
        if all(report.used for report in prediction.views):
            self.answers.append(prediction)

    def farthest_s(self) -> float:
        return max(abs(report.offset_ns or 0) * 1e-9 for answer in self.answers for report in answer.views)


def test_the_whole_path_shows_the_tracks_where_they_were_at_each_frames_instant(
    data: Path, tiny: ModuleType, tmp_path: Path
) -> None:
    bundle = tiny.write_tiny_bundle(tmp_path / "pets2009", scene=scene(data), trained_s=KAPPA_S)
    demo = Demo(Settings(bundle.path, SEED, people=1, tracks="S1L1-1"))
    demo.plans = {view: CameraPlan(view, *plan) for view, plan in PLANS.items()}
    watch = Watch()
    demo.run(watch.stop, watch)

    crowd, grid = demo.truth.crowd, bundle.scene.ground
    renderers = {view: Renderer(demo.scene, view, SEED) for view in VIEWS}
    moved = agreed = 0.0
    for answer in {answer.reference: answer for answer in watch.answers}.values():
        instants = {r.view: demo.truth.capture_s(r, answer.published_ns) for r in answer.views}
        start = instants[answer.reference]
        assert start is not None
        for report in answer.views:
            true_s = instants[report.view]
            assert true_s is not None and report.offset_ns is not None and report.uncertainty_ns is not None
            assert abs(report.offset_ns * 1e-9 - (true_s - start)) <= report.uncertainty_ns * 1e-9
        # The truth is the real people on the region, absent ones not among them.
        there = tracks(data, "S1L1-1").positions(start % crowd.tracks.duration_s)[1]
        assert demo.truth.count(start) == grid.contains(there).sum()
        # The same bundle over frames rendered here, of the instants that were published and of 2 s later.
        right, wrong = (
            answer_again(
                bundle,
                answer,
                {
                    v: renderers[v].render(crowd.state(t + late_s), crowd.appearance)
                    for v, t in instants.items()
                },
                {},
            ).density
            for late_s in (0.0, 2.0)
        )
        moved += ((right - wrong) ** 2).sum()
        agreed += ((answer.density - wrong) * (right - wrong)).sum()
    # On a scale where people of 2 s later are 0 and those of the published instants are 1, it was 1.
    assert 0.8 < agreed / moved < 1.2


def test_a_recording_is_what_came_over_rtsp_and_when(data: Path, tmp_path: Path) -> None:
    words = f"sim pets2009 sequences --out {tmp_path} --only S2L1 --castings 1 --seconds 4".split()
    for _ in range(2):  # the second finds the first's work
        assert CliRunner().invoke(main, words).exit_code == 0
    (made,) = (tmp_path / "S2L1").glob("*.npz")
    truth, frames = load_truth(made), np.load(made.with_suffix(".npy"))
    assert truth.views == VIEWS and truth.times_s.shape == frames.shape[:2]
    # Nine frames of each view in four seconds; a busy machine loses the first few.
    assert 5 <= frames.shape[1] <= 10
    people = tracks(data, "S2L1")
    for v, view in enumerate(VIEWS):
        number = (truth.times_s[v] - PHASES_S[view]) * FPS
        np.testing.assert_allclose(number, np.round(number), atol=1e-3)
        for f, at_s in enumerate(truth.times_s[v]):
            there = ~np.isnan(truth.xy[v, f, :, 0])
            ids, xy, _ = people.positions(float(at_s))
            assert people.ids[there].tolist() == ids.tolist()
            np.testing.assert_allclose(truth.xy[v, f, there], xy, atol=1e-5)
