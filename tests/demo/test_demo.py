"""The whole path in real processes: simulated cameras over RTSP, agents, hub, and a demo with the truth."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import psutil
import pytest

from viewsync.demo.picture import answer_again, check, frames_before, frames_of
from viewsync.demo.run import Demo, Settings
from viewsync.demo.truth import CameraPlan, Truth
from viewsync.errors import SourceError, UserError
from viewsync.prediction import Prediction
from viewsync.sim.camera_clock import CameraClock, FrameSchedule
from viewsync.sim.render import Renderer
from viewsync.sim.rtsp_server import system_python

# Told to the cameras and to nobody else; distinctive, so that it can be looked for.
SEED, PEOPLE = 1_987_654_321, 23


def have_server() -> bool:
    try:
        system_python()
    except SourceError:
        return False
    return True


class Watch:
    """Keeps what the demo shows; `act` is called at every turn and stops the demo by returning True."""

    def __init__(self, act: Callable[["Watch", Demo], bool], limit_s: float = 90.0) -> None:
        self.stop = threading.Event()
        self.answers: list[tuple[Prediction, int | None]] = []
        self._act, self._end_s = act, time.monotonic() + limit_s

    def update(self, demo: Demo) -> None:
        assert time.monotonic() < self._end_s, f"waited too long; {demo.note}; {demo.programs.restarts}"
        if self._act(self, demo):
            self.stop.set()

    def answered(self, demo: Demo, prediction: Prediction, truth: int | None) -> None:
        self.answers.append((prediction, truth))

    def run(self, demo: Demo) -> None:
        demo.run(self.stop, self)

    def used(self, view: str, after: int) -> bool:
        """Whether an answer after the first `after` ones used the view."""
        return any(report.view == view and report.used for p, _ in self.answers[after:] for report in p.views)


class FalseTruth(Truth):
    """A truth that lies."""

    def places(self, true_s: float) -> np.ndarray:
        return np.zeros((1000, 2))


def all_views(answer: Prediction) -> bool:
    return all(report.used for report in answer.views)


@pytest.mark.parametrize("graph", ["column", "before"])
def test_published_counts_come_from_the_frames_and_not_from_the_truth(
    graph: str, tiny: ModuleType, tmp_path: Path
) -> None:
    """`before` looks at each view's frame before the newest."""
    bundle = tiny.write_tiny_bundle(tmp_path / "tiny", (graph, "none", "reference-only")).path
    demo = Demo(Settings(bundle, SEED, PEOPLE), make_truth=FalseTruth)
    secrets: dict[str, list[str]] = {}

    def act(watch: Watch, demo: Demo) -> bool:
        if not secrets:
            for name, pid in demo.programs.pids.items():
                process = psutil.Process(pid)
                told = [*process.cmdline(), *process.environ().values()]
                # The settings file that the program was given, too.
                told += [Path(word).read_text() for word in process.cmdline() if word.endswith(".yaml")]
                secrets[name] = told
        return sum(whole(prediction) for prediction, _ in watch.answers) >= 4

    def whole(prediction: Prediction) -> bool:
        looked_back = [report.before_ns is not None for report in prediction.views]
        return all_views(prediction) and looked_back == [graph == "before"] * len(looked_back)

    watch = Watch(act)
    watch.run(demo)
    assert {truth for _, truth in watch.answers} == {1000}

    for name, told in secrets.items():
        knows = any(str(SEED) in words for words in told)
        assert knows == name.startswith("camera"), name

    # The same bundle over the same frames, rendered here once more, gives what was published: nothing else
    # went in. Between two key frames the video codec leaves other traces, hence 2 %.
    views = demo.bundle.manifest.views
    renderers = {view: Renderer(demo.scene, view, SEED) for view in views}
    for prediction in [p for p, _ in watch.answers if whole(p)][:4]:
        shown = prediction, demo.truth, renderers
        again = answer_again(demo.bundle, prediction, frames_of(*shown), frames_before(*shown))
        assert again.counts[prediction.synchroniser] == pytest.approx(prediction.count, rel=0.02)


# Seconds after the demo's start: late enough for the first answers to come before, on a busy machine.
STEP_AT_S = 25.0
CLOCKS = {
    "north": (CameraClock(5.0, 200.0), FrameSchedule(0.7, 0.2)),
    "south": (CameraClock(-2.0, -50.0, ((STEP_AT_S, -3.0),)), FrameSchedule(1.0, 0.5)),
    "west": (CameraClock(), FrameSchedule(0.4, 1.2)),
}


def test_published_offsets_are_the_true_ones_whatever_the_cameras_clocks_do(tiny_bundle: Path) -> None:
    """Five seconds wrong, drifting, set back: within the stated uncertainty in every answer."""
    demo = Demo(Settings(tiny_bundle, SEED + 1, PEOPLE))
    demo.plans = {view: CameraPlan(view, *plan) for view, plan in CLOCKS.items()}
    watch = Watch(lambda watch, demo: demo.seconds > STEP_AT_S + 6.0)
    watch.run(demo)
    checked = dict.fromkeys(CLOCKS, 0)
    for prediction, truth in watch.answers:
        reference_s = demo.truth.reference_s(prediction)
        assert reference_s is not None and truth == demo.truth.count(reference_s)
        for report in prediction.views:
            if report.used and report.view != prediction.reference:
                true_s = demo.truth.capture_s(report, prediction.published_ns)
                assert (
                    true_s is not None and report.offset_ns is not None and report.uncertainty_ns is not None
                )
                error_s = report.offset_ns * 1e-9 - (true_s - reference_s)
                assert abs(error_s) <= report.uncertainty_ns * 1e-9
                checked[report.view] += true_s > STEP_AT_S
    assert checked["south"] > 1


def test_whatever_is_killed_comes_back_and_the_rest_goes_on(tiny_bundle: Path) -> None:
    views = ("north", "south", "west")
    steps = iter(["agent-north", "camera-south", "hub"])
    victim, mark, sessions = "", 0, set[int]()

    def act(watch: Watch, demo: Demo) -> bool:
        nonlocal victim, mark
        whole = all(watch.used(view, mark) for view in views)
        if not whole or (victim and demo.programs.restarts[victim] < 1):
            return False
        sessions.update(prediction.session for prediction, _ in watch.answers)
        victim = next(steps, "")
        if not victim:
            return True
        mark = len(watch.answers)
        os.kill(demo.programs.pids[victim], signal.SIGKILL)
        return False

    demo = Demo(Settings(tiny_bundle, SEED + 2, PEOPLE))
    watch = Watch(act, limit_s=150.0)
    watch.run(demo)
    assert {name for name, times in demo.restarts.items() if times} == {"agent-north", "camera-south", "hub"}
    assert len(sessions) == 2  # one hub before, one after: the others' deaths did not touch it


@pytest.mark.skipif(not have_server(), reason="no GStreamer RTSP server on this machine")
def test_the_demo_runs_behind_a_real_rtsp_server(tiny_bundle: Path) -> None:
    def by_their_own_clocks(answer: Prediction) -> bool:
        # The first frames may come before the first sender report.
        return all_views(answer) and {report.clock for report in answer.views} == {"rtcp"}

    watch = Watch(lambda watch, demo: any(by_their_own_clocks(answer) for answer, _ in watch.answers))
    watch.run(Demo(Settings(tiny_bundle, SEED + 3, PEOPLE, server=True)))
    assert all(truth is not None for _, truth in watch.answers)


FIELDS = {
    "predictions",
    "mae_synchronised",
    "mae_unsynchronised",
    "mae_reference_only",
    "latency_p50_ms",
    "latency_p99_ms",
    "bytes_per_message",
    "refused",
}


def command(bundle: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "viewsync", "demo", "--bundle", str(bundle), "--people", "20", *more]


def test_the_command_ends_with_one_line_of_json_and_draws_a_picture(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "out.png"
    done = subprocess.run(
        command(tiny_bundle, "--seconds", "6", "--json", "--picture", str(picture)),
        capture_output=True,
        text=True,
        timeout=150,
        check=True,
    )
    (only,) = done.stdout.splitlines()
    found = json.loads(only)
    assert found.keys() >= FIELDS
    assert found["predictions"] >= 3 and found["bytes_per_message"] > 100
    assert all(found[name] >= 0 for name in FIELDS if name not in ("refused",))
    # Not from the seeds that training and tests draw from.
    assert found["seed"] >= 1_000_000
    image = cv2.imread(str(picture))
    assert image is not None and image.shape[0] > 400 and image.std() > 10


@pytest.mark.parametrize(
    ("name", "said"), [("out.xyz", r"\.xyz is no kind of picture"), ("none/out.png", "there is no folder")]
)
def test_a_picture_that_cannot_be_written_is_refused_before_the_run(
    name: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        check(tmp_path / name)


def test_interrupted_it_says_how_it_went_and_leaves_no_process(tiny_bundle: Path, tmp_path: Path) -> None:
    full = tmp_path / ".out.png.part"
    full.symlink_to("/dev/full")  # what the picture is written to first
    with subprocess.Popen(
        command(tiny_bundle, "--picture", str(tmp_path / "out.png")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None and demo.stderr is not None
        for line in demo.stdout:
            if "truth" in line:
                break
        family = psutil.Process(demo.pid).children(recursive=True)
        assert len(family) == 7
        demo.send_signal(signal.SIGINT)
        said, complained = demo.communicate(timeout=30)
    assert not [process for process in family if process.is_running()]
    assert "synchronis" in said and "viewsync evaluate" in said
    assert demo.returncode == 2
    assert f"{tmp_path / 'out.png'}: the disk is full" in complained.splitlines()[-1]
    assert not (tmp_path / "out.png").exists()
