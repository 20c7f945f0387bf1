"""A simulated site in parts: eras, what the parts agree on without speaking, and all of them together."""

import json
import os
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.ground import GroundGrid
from viewsync.cli import main
from viewsync.demo.processes import free_ports
from viewsync.errors import ConfigError
from viewsync.lab.era import ERA_S, Era, Until, era_at
from viewsync.lab.profile import CameraSection, Period, load_profile
from viewsync.lab.world import Truths, World, alive, load_world, plans, save_world
from viewsync.prediction import Prediction, ViewReport
from viewsync.sim.crowd import Crowd
from viewsync.sim.dataset import DEMO_SEEDS
from viewsync.sim.scenes import load
from viewsync.units import SECOND_NS

NOW_NS = 1_750_000_000 * SECOND_NS


@given(st.integers(0, 2**62))
def test_every_moment_is_in_one_era(now_ns: int) -> None:
    era = era_at(now_ns)
    assert era.start_ns <= now_ns < era.end_ns
    assert era_at(era.start_ns) == era and era_at(era.end_ns) == Era(era.number + 1)


def test_eras_have_crowds_of_their_own_that_no_training_saw() -> None:
    world = World(seed=7)
    crowds = [world.crowd(Era(number)) for number in range(1_950_000, 1_950_050)]
    assert len({seed for seed, _ in crowds}) == 50 and all(seed in DEMO_SEEDS for seed, _ in crowds)
    assert len({people for _, people in crowds}) > 10
    assert World(seed=7).crowd(Era(5)) == world.crowd(Era(5)) != World(seed=8).crowd(Era(5))
    assert World(seed=7, people=12).crowd(Era(5))[1] == 12


def test_until_is_set_by_time_and_by_its_event() -> None:
    stop = threading.Event()
    assert not Until(stop, time.time_ns() + 60 * SECOND_NS).wait(0.01)
    assert Until(stop, time.time_ns() + SECOND_NS // 20).wait(30.0)
    stop.set()
    assert Until(stop, time.time_ns() + 60 * SECOND_NS).wait()


seconds = st.floats(0.0, 1200.0)


@given(
    st.lists(st.tuples(seconds, st.none() | st.floats(0.5, 500.0)), max_size=4),
    st.floats(0.0, ERA_S, exclude_max=True),
)
def test_a_camera_lives_exactly_when_the_profile_does_not_say_it_is_dead(
    dead: list[tuple[float, float | None]], at_s: float
) -> None:
    camera = CameraSection(dead=tuple(Period(at_s=start, for_s=length) for start, length in dead))
    lives = list(alive(camera, ERA_S))
    assert any(start <= at_s < end for start, end in lives) == (not camera.is_dead(at_s))
    assert all(0.0 <= start < end <= ERA_S for start, end in lives)


def test_a_world_is_kept_by_its_owner_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "world.yaml"
    save_world(World(seed=3, people=9), path)
    assert load_world(path) == World(seed=3, people=9)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        save_world(World(seed=4), path)
    path.write_text("seed: 3\nsede: 4\n")
    with pytest.raises(ConfigError, match=r"sede.*seed"):
        load_world(path)


def answer(capture_ns: int, report: ViewReport) -> Prediction:
    return Prediction(
        site="s", scene="plaza", session=1, seq=0, published_ns=capture_ns + SECOND_NS, capture_ns=capture_ns,
        capture_uncertainty_ns=0, reference=report.view, synchroniser="none", count=1.0, counts={"none": 1.0},
        density=np.ones((1, 1), np.float32), grid=GroundGrid(0.0, 0.0, 1.0, 1, 1), views=(report,),
        bundle="0" * 64, latency_ns=SECOND_NS, fuse_ns=1, degraded=False,
    )  # fmt: skip


def test_the_truth_is_found_from_the_cameras_own_stamp() -> None:
    """The stamp is of a clock that is seconds off; the crowd is made here once more."""
    place, world = load("plaza"), World(seed=11, people=14)
    profile = load_profile("lte-good")
    era = era_at(NOW_NS)
    seed, people = world.crowd(era)
    crowd = Crowd(place.walk_area, people, seed, place.obstacles)
    truths = Truths(world, place, profile)
    views = tuple(place.scene.cameras)
    true_s = [30.0, 31.0, 40.0]
    counts = [int(place.scene.ground.contains(crowd.state(at_s).xy).sum()) for at_s in true_s]
    for view, plan in plans(profile, views, seed).items():
        for at_s, count in zip(true_s, counts, strict=True):
            true_ns = era.start_ns + round(at_s * SECOND_NS)
            stamp_ns = plan.clock.camera_ns(true_ns, era.start_ns)
            assert abs(stamp_ns - true_ns) > SECOND_NS // 20, "this clock would hide a mistake"
            report = ViewReport(view, True, "", 1, 1, stamp_ns, "rtcp", 0, 0, SECOND_NS)
            assert truths.of(answer(true_ns, report)) == count
    # Where eras change, frames of two crowds may be in one answer.
    for edge_ns in (era.start_ns + 10 * SECOND_NS, era.end_ns - SECOND_NS // 2):
        assert truths.of(answer(edge_ns, replace(report, capture_ns=edge_ns))) is None


@pytest.fixture
def start() -> Iterator[Any]:
    """Starts `viewsync …` with its output in pipes; whatever runs is killed at the end."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: object) -> subprocess.Popen[str]:
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "viewsync", *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_cameras_agents_links_hub_and_the_one_who_judges(
    tiny_bundle: Path, start: Any, tmp_path: Path
) -> None:
    """All parts as processes that were told nothing but addresses, in no order."""
    scene, world = tiny_bundle / "scene.yaml", tmp_path / "world.yaml"
    with pytest.raises(SystemExit) as done:
        main(["sim", "world", "--out", str(world), "--scene", str(scene), "--people", "20"])
    assert done.value.code == 0
    features, answers, page, *rest = free_ports(3 + 2 * 2)
    told = ("--world", world, "--profile", "lan")
    watch = start(
        *("sim", "watch", f"tcp://127.0.0.1:{answers}", *told, "--json"),
        *("--seconds", "150", "--health-port", page),
    )
    for view, stream, link in zip(("north", "south"), rest[::2], rest[1::2], strict=True):
        url = f"rtsp://127.0.0.1:{stream}/{view}"
        start("sim", "site-camera", *told, "--view", view, "--url", url)
        start(
            *("sim", "uplink", "--profile", "lan", "--view", view, "--scene", scene),
            *("--listen", f"127.0.0.1:{link}", "--to", f"127.0.0.1:{features}"),
        )
        start(
            *("edge", url, "--listen", "--view", view, "--bundle", tiny_bundle),
            *("--hub", f"tcp://127.0.0.1:{link}"),
        )
    start(
        *("hub", "--bundle", tiny_bundle, "--bind", f"tcp://127.0.0.1:{features}"),
        *("--outputs", f"tcp://127.0.0.1:{answers}"),
    )
    judged = 0
    for line in watch.stdout:
        said = json.loads(line)
        whole = {report["view"] for report in said["views"] if report["used"]} == {"north", "south"}
        judged += whole and 0 <= said["truth"] <= 20 if said.get("truth") is not None else 0
        if judged >= 3:
            break
    assert judged >= 3
    with urllib.request.urlopen(f"http://127.0.0.1:{page}/metrics", timeout=5) as response:
        figures = response.read().decode()
    assert "viewsync_watch_truth_people " in figures
    assert 'viewsync_watch_absolute_error_total{graph="column"}' in figures
    with urllib.request.urlopen(f"http://127.0.0.1:{page}/healthz", timeout=5) as response:
        assert response.status == 200
