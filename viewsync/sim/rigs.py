"""Random rigs: plausible camera layouts around one piece of ground, each a pure function of its number.

Rigs differ in how many cameras there are, where they stand, how high, where they look, their lenses, the
things that stand about and the light; the ground grid and the size of the pictures are the same for all, so
that snapshots of different rigs stack. A folder of rigs has one folder for each, `<number>/`, which is a set
of `viewsync.sim.dataset`: `scene.yaml` and some crowds, numbered from `number * MOST_CROWDS` on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.ground import GroundGrid
from calib.scene import Scene
from viewsync.errors import InternalError
from viewsync.sim.dataset import Filming, claim, lacking, make_crowd, run_each, save_crowd
from viewsync.sim.hard import THINGS, looked_at, whole
from viewsync.sim.scenes import COLUMN_HEIGHTS_M, Box, SimScene, from_scene, look_at

Floats = NDArray[np.float64]

# What a scene is called where every number is a rig of its own.
RIGS = "rigs"
# Every rig's ground: 16 × 12 m from its own origin, an even number of rows and columns.
GROUND = GroundGrid(0.0, 0.0, 0.25, columns=64, rows=48)
SIZE = (320, 240)
MOST_CROWDS = 100
_VIEWS, _SHARES = (2, 3, 4, 5, 6, 7), (0.14, 0.26, 0.24, 0.16, 0.1, 0.1)
_PEOPLE = (8, 56)
_ATTEMPTS, _PLACES = 2000, 12

# Shares of the ground: what a view must look at; what another must look at, too; what two must look at; what
# all together must. Cells count as looked at where a chest would be in the picture.
_LEAST_SEEN, _LEAST_SHARED, _LEAST_TWICE, _LEAST_UNION = 0.2, 0.1, 0.2, 0.55
# Of the ground that a view looks at, half must show people of at least this share of its picture's height.
_LEAST_PERSON = 14 / 240


@dataclass(frozen=True, slots=True)
class Rig:
    """A rig to simulate, and why the layouts drawn before it were refused: reason → how many."""

    number: int
    place: SimScene
    refused: Mapping[str, int]


def draw_rig(number: int, ground: GroundGrid = GROUND, size: tuple[int, int] = SIZE) -> Rig:
    """Rig `number`; whatever was drawn before, and wherever, it is the same one. size: of its pictures,
    (width, height).
    """
    rng = np.random.default_rng([number, 0x72696773])
    refused: Counter[str] = Counter()
    for _ in range(_ATTEMPTS):
        scene = Scene(f"rig-{number}", _cameras(rng, ground, size), ground, COLUMN_HEIGHTS_M, {})
        props, sun = _things(rng, scene), _sun(rng)
        reason = why_not(scene, props)
        if not reason:
            return Rig(number, SimScene(scene, props, from_scene(scene).walk_area, sun), dict(refused))
        refused[reason] += 1
    raise InternalError(f"rig {number}: none of {_ATTEMPTS} layouts will do: {dict(refused)}")


def why_not(scene: Scene, props: Sequence[Box]) -> str:
    """Why nobody would build this rig, or nothing could be learnt from it; empty where it will do."""
    for camera in scene.cameras.values():
        if any(_stands_in(camera, box) for box in props):
            return "a camera stands in a box"
    if not all(whole(scene, box) for box in props):
        return "a box stands before a lens"
    looks = {view: looked_at(scene, view) for view in scene.cameras}
    for view, seen in looks.items():
        if seen.mean() < _LEAST_SEEN:
            return "a view sees little of the ground"
        camera = scene.cameras[view]
        if _person_px(camera, scene.ground.centres()[seen]) < _LEAST_PERSON * camera.height:
            return "people are too small"
    every = np.stack(list(looks.values()))
    if any((every[v] & np.delete(every, v, 0).any(axis=0)).mean() < _LEAST_SHARED for v in range(len(every))):
        return "a view shares nothing with the others"
    if (every.sum(axis=0) >= 2).mean() < _LEAST_TWICE:
        return "little ground is seen twice"
    if every.any(axis=0).mean() < _LEAST_UNION:
        return "much ground is seen by nobody"
    return ""


def _stands_in(camera: Camera, box: Box) -> bool:
    away = camera.centre[:2] - (box.x, box.y)
    along = np.array([np.cos(box.yaw_rad), np.sin(box.yaw_rad)])
    across = np.array([-along[1], along[0]])
    beside = abs(away @ along) > box.length / 2 + 0.4 or abs(away @ across) > box.width / 2 + 0.4
    return not beside and camera.centre[2] < box.height + 0.4


def _person_px(camera: Camera, xy: Floats) -> float:
    """Height in pixels, in the middle of all places xy (N, 2) m, of a person of 1.7 m."""
    feet, heads = (camera.depth(np.column_stack([xy, np.full(len(xy), z)])) for z in (0.0, 1.7))
    return float(np.median(camera.K[1, 1] * 1.7 / np.maximum((feet + heads) / 2, 0.1)))


def _cameras(rng: np.random.Generator, ground: GroundGrid, size: tuple[int, int]) -> dict[str, Camera]:
    """Cameras on poles and walls around the ground, looking in: all around it, or from a side of it."""
    sides = np.array([ground.columns, ground.rows]) * ground.cell_m
    middle = np.array([ground.origin_x_m, ground.origin_y_m]) + sides / 2
    views = int(rng.choice(_VIEWS, p=_SHARES))
    arc = 2 * np.pi if rng.random() < 0.6 else rng.uniform(0.5, 1.5) * np.pi
    turns = rng.uniform(0, 2 * np.pi) + arc * (np.arange(views) + rng.uniform(-0.35, 0.35, views)) / views
    # Somebody who mounts cameras mounts all of them at about one height.
    usual_m = float(np.exp(rng.uniform(np.log(2.2), np.log(7.0))))
    cameras = {}
    for number, turn in enumerate(turns.tolist(), 1):
        way = np.array([np.cos(turn), np.sin(turn)])
        border = float(np.min(sides / 2 / np.maximum(np.abs(way), 1e-9)))
        eye = middle + way * (border + rng.uniform(-1.0, 4.0))
        height = float(np.clip(usual_m * np.exp(rng.normal(0.0, 0.2)), 1.9, 9.0))
        aim = middle + rng.uniform(-0.3, 0.3, 2) * sides
        half_angle = np.deg2rad(rng.uniform(42.0, 78.0)) / 2
        bend = float(rng.uniform(-0.16, 0.02))
        lens = (bend, -bend * 0.2, 0.0, 0.0, 0.0)
        focal = size[0] / 2 / float(np.tan(half_angle))
        level = look_at(
            (float(eye[0]), float(eye[1]), height),
            (float(aim[0]), float(aim[1]), float(rng.uniform(0.0, 1.2))),
            focal,
            size,
            lens,
        )
        cameras[f"v{number}"] = _rolled(level, float(np.deg2rad(rng.normal(0.0, 1.5))))
    return cameras


def _rolled(camera: Camera, angle: float) -> Camera:
    """The camera turned about its optical axis: nobody mounts one quite level."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    R = turn @ camera.R
    return Camera(camera.K, R, turn @ camera.t, camera.distortion, camera.width, camera.height)


def _things(rng: np.random.Generator, bare: Scene) -> tuple[Box, ...]:
    """What stands about: up to eight boxes, apart from each other and none right before a lens."""
    ground, found = bare.ground, list[Box]()
    sides = np.array([ground.columns, ground.rows]) * ground.cell_m
    corner = np.array([ground.origin_x_m, ground.origin_y_m])
    for which in rng.permutation(len(THINGS))[: int(rng.integers(0, len(THINGS) + 1))].tolist():
        name, length, width, height, _ = THINGS[which]
        tall = height * float(rng.uniform(0.75, 1.15))
        shade = np.clip(rng.uniform(50, 190) + rng.normal(0, 22, 3), 20, 220).astype(int).tolist()
        for _ in range(_PLACES):
            x, y = (corner + rng.uniform(-0.1, 1.1, 2) * sides).tolist()
            box = Box(name, x, y, length, width, tall, float(rng.uniform(0, np.pi)), tuple(shade))
            apart = (np.hypot(x - o.x, y - o.y) > (length + o.length) / 2 + 0.8 for o in found)
            if all(apart) and whole(bare, box):
                found.append(box)
                break
    return tuple(found)


def _sun(rng: np.random.Generator) -> tuple[float, float, float]:
    """The direction of its light, 30° to 65° above the horizon."""
    high, turn = np.deg2rad(rng.uniform(30.0, 65.0)), rng.uniform(0, 2 * np.pi)
    return (float(np.cos(high) * np.cos(turn)), float(np.cos(high) * np.sin(turn)), -float(np.sin(high)))


def rig_folder(folder: Path, number: int) -> Path:
    """Where rig `number` lies in a folder of rigs."""
    return folder / f"{number:06d}"


def crowds_of(number: int, crowds: int) -> range:
    """Numbers of the first `crowds` crowds of a rig."""
    return range(number * MOST_CROWDS, number * MOST_CROWDS + crowds)


def lacking_crowds(folder: Path, numbers: Iterable[int], crowds: int) -> list[int]:
    """Numbers of the crowds that these rigs lack of `crowds` each."""
    return [seed for n in numbers for seed in lacking(rig_folder(folder, n), crowds_of(n, crowds))]


def make_rigs(
    folder: Path,
    numbers: Sequence[int],
    crowds: int = 2,
    frames: int = 6,
    interval_s: float = 1.0,
    workers: int = 2,
    done: Callable[[int], None] = lambda seed: None,
    stop: Event | None = None,
) -> None:
    """Make what `folder` lacks of these rigs, `crowds` crowds of each, on `workers` processes; `done(crowd)`
    after each crowd.

    Once `stop` is set, the crowds in hand are finished and no new one is begun. Raises UserError where a
    folder holds other cameras than the rig's.
    """
    wanted = lacking_crowds(folder, numbers, crowds)
    task = partial(_make_one, folder, frames, interval_s)
    run_each(task, wanted, workers, done, stop or Event())


def _make_one(folder: Path, frames: int, interval_s: float, seed: int) -> None:
    save_rig_crowd(folder, draw_rig(seed // MOST_CROWDS), seed, frames, interval_s)


def save_rig_crowd(folder: Path, rig: Rig, seed: int, frames: int, interval_s: float) -> None:
    """Render crowd `seed` of a rig into its place in a folder of rigs. Raises UserError where other cameras
    are there.
    """
    where = rig_folder(folder, rig.number)
    claim(where, rig.place.scene)
    people = int(np.random.default_rng([seed, 0x70656F70]).integers(_PEOPLE[0], _PEOPLE[1] + 1))
    save_crowd(where, seed, *make_crowd(rig.place, seed, Filming(frames, interval_s), people))
