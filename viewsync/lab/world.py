"""What really happens at a simulated site that runs on and on: who walks there, and what its cameras do.

A `World` is a small file that the simulated cameras and the subscriber that knows the truth are given, and
nobody else; with a profile it says everything. In each era (`era.py`) another crowd walks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from threading import Event

import yaml
from pydantic import Field

from viewsync.config import Section, load_config
from viewsync.demo.truth import CameraPlan, Truth
from viewsync.lab.era import ERA_S, Era, Until, era_at
from viewsync.lab.profile import CameraSection, Profile
from viewsync.prediction import Prediction
from viewsync.sim.camera_clock import CameraClock, FrameSchedule
from viewsync.sim.crowd import Crowd
from viewsync.sim.dataset import DEMO_SEEDS, crowd_size
from viewsync.sim.live import SimulatedCamera, Stream
from viewsync.sim.render import Renderer
from viewsync.sim.scenes import SimScene
from viewsync.units import SECOND_NS

# An answer may hold frames so much older than the reference's, and the hub's clock may be so far off: where
# that reaches into another era, the answer is not judged.
_OLDER_NS, _OFF_NS = 20 * SECOND_NS, SECOND_NS


class World(Section):
    """`viewsync sim world --out world.yaml` writes one."""

    # plaza, or the path of a scene.yaml.
    scene: str = "plaza"
    # Of everything that chance decides; the crowds are drawn from seeds that no training or test uses.
    seed: int = Field(ge=0, lt=2**32)
    # How many walk about; none: another number in every era.
    people: int | None = Field(default=None, ge=1, le=500)

    def crowd(self, era: Era) -> tuple[int, int]:
        """(seed, how many walk about) in an era."""
        seed = DEMO_SEEDS[(self.seed + era.number) % len(DEMO_SEEDS)]
        return seed, self.people or crowd_size(seed)


def load_world(path: Path) -> World:
    """Read a world file. Raises ConfigError."""
    return load_config(World, path)


def save_world(world: World, path: Path) -> None:
    """Write a world file that only its owner can read. Raises OSError; FileExistsError where it is there."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(
        "# Secret: whoever reads this knows the truth; for cameras and the subscriber that judges.\n"
        + yaml.safe_dump(world.model_dump(exclude_none=True)),
        encoding="utf-8",
    )


def plans(profile: Profile, views: tuple[str, ...], seed: int) -> dict[str, CameraPlan]:
    """When each view's camera takes pictures in an era, and what its clock shows then."""
    return {
        view: CameraPlan(
            view,
            CameraClock(section.camera.clock_offset_s, section.camera.clock_drift_ppm),
            FrameSchedule(section.camera.fps, section.camera.phase_s, section.camera.drop, seed),
        )
        for view, section in profile.of_views(views).items()
    }


def alive(camera: CameraSection, end_s: float) -> Iterator[tuple[float, float]]:
    """The times (from, to) in [0, end_s), seconds, in which `camera` is not dead."""
    marks = {0.0, end_s}
    for period in camera.dead:
        until_s = end_s if period.for_s is None else period.at_s + period.for_s
        marks |= {min(period.at_s, end_s), min(until_s, end_s)}
    edges = sorted(marks)
    for start_s, stop_s in pairwise(edges):
        if not camera.is_dead(start_s):
            yield start_s, stop_s


def run_camera(
    world: World,
    place: SimScene,
    profile: Profile,
    view: str,
    stream: Callable[[], Stream],
    blocking: Callable[[], AbstractContextManager[None]],
    stop: Event,
) -> None:
    """Be the camera of `view`, era after era, until `stop` is set; dead when the profile says so.

    stream: makes where the frames go. Raises ConfigError: the stream cannot carry this camera's clock.
    """
    views = tuple(place.scene.cameras)
    camera = profile.of_views(views)[view].camera
    while not stop.is_set():
        era = era_at(time.time_ns())
        seed, people = world.crowd(era)
        crowd = Crowd(place.walk_area, people, seed, place.obstacles)
        crowd.state(
            (time.time_ns() - era.start_ns) / SECOND_NS
        )  # walks up to now, before a frame waits for it
        renderer = Renderer(place, view, seed)
        plan = plans(profile, views, seed)[view]
        simulated = SimulatedCamera(
            view,
            lambda true_s, crowd=crowd, renderer=renderer: renderer.render(  # type: ignore[misc]
                crowd.state(true_s), crowd.appearance
            ),
            plan.clock,
            plan.schedule,
            era.start_ns,
            stream(),
            blocking,
        )
        for start_s, end_s in alive(camera, ERA_S):
            Until(stop, era.start_ns + round(start_s * SECOND_NS)).wait()
            simulated.run(Until(stop, era.start_ns + round(end_s * SECOND_NS)))
        Until(stop, era.end_ns).wait()


class Truths:
    """How many people were really there, whenever. State: the crowds of the last two eras asked for."""

    def __init__(self, world: World, place: SimScene, profile: Profile) -> None:
        self._world, self._place, self._profile = world, place, profile
        self._by_era: dict[int, Truth] = {}

    def of(self, prediction: Prediction) -> int | None:
        """People in the region when the reference frame of `prediction` was taken; None: not known, because
        the frame cannot be told from another's, or eras change just then.
        """
        era = era_at(prediction.capture_ns - _OLDER_NS)
        if era_at(prediction.capture_ns + _OFF_NS) != era:
            return None
        truth = self._truth(era)
        true_s = truth.reference_s(prediction)
        return None if true_s is None or true_s < 0 else truth.count(true_s)

    def _truth(self, era: Era) -> Truth:
        if era.number not in self._by_era:
            views = tuple(self._place.scene.cameras)
            seed, people = self._world.crowd(era)
            known = plans(self._profile, views, seed)
            self._by_era = {k: v for k, v in self._by_era.items() if k == era.number - 1}
            self._by_era[era.number] = Truth(self._place, people, seed, known, era.start_ns)
        return self._by_era[era.number]
