"""Frames to measure on: a simulated crowd rendered, and seen through the video codec, as an agent gets it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.rows import Promise, Row
from bench.timing import Spent
from calib.scene import Scene
from viewsync.sim.codec import encode_decode
from viewsync.sim.crowd import Crowd
from viewsync.sim.dataset import DEMO_SEEDS
from viewsync.sim.render import Renderer
from viewsync.sim.scenes import SimScene, from_scene, load

# The promise is for so many. The seed is of no training or test crowd.
PEOPLE, SEED = 40, DEMO_SEEDS.start
# Cameras at a low rate: consecutive frames share little, and the codec says so in bytes.
INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Frames:
    """seen: view -> frames (F, H, W, 3) uint8 RGB after the codec; rendering: what each of them took."""

    seen: dict[str, NDArray[np.uint8]]
    rendering: Spent


def simulated(scene: Scene) -> SimScene:
    """The scene to render: the plaza with its props, or any other one empty."""
    return load("plaza") if scene.name == "plaza" else from_scene(scene)


def render(scene: Scene, views: tuple[str, ...], count: int) -> Frames:
    """At least `count` frames in all, the same number of every view."""
    each = -(-count // len(views))
    sim = simulated(scene)
    crowd = Crowd(sim.walk_area, PEOPLE, SEED, sim.obstacles)
    renderers = {view: Renderer(sim, view, SEED) for view in views}
    shots: dict[str, list[NDArray[np.uint8]]] = {view: [] for view in views}
    wall, processor = [], []
    for number in range(each):
        for view in views:
            spent_ns, started_ns = time.process_time_ns(), time.perf_counter_ns()
            state = crowd.state((1 + number) * INTERVAL_S)
            shots[view].append(renderers[view].render(state, crowd.appearance))
            wall.append((time.perf_counter_ns() - started_ns) / 1e6)
            processor.append((time.process_time_ns() - spent_ns) / 1e6)
    seen = {view: encode_decode(np.stack(shots[view]), 1.0 / INTERVAL_S) for view in views}
    return Frames(seen, Spent(np.array(wall), np.array(processor)))


def rendering_row(frames: Frames) -> Row:
    """Frames a second on one core."""
    spent = frames.rendering
    height, width = next(iter(frames.seen.values())).shape[1:3]
    return Row(
        name="sim.frames_per_s",
        what=f"simulator: frames rendered, {width}×{height}, {PEOPLE} people, one core",
        unit="/s",
        figure=1000.0 / spent.median_ms,
        promise=Promise(40.0, at_least=True),
        processor=1000.0 / float(np.median(spent.processor_ms)),
        samples=len(spent.wall_ms),
        facts=spent.facts(),
    )
