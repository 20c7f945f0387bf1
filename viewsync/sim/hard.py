"""What makes a set of real tracks harder: things that stand in the way, and people whom one view never sees.

Real tracks cover what one view sees (PETS2009), or what all views see (CityStreet): a reference that sees
everybody leaves nothing to gain from the others. So static boxes are put where nobody walked and where they
hide most, and simulated people walk where the first view does not look and another does.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.scene import Scene
from viewsync.sim.crowd import Appearance, Crowd, CrowdState
from viewsync.sim.scenes import Box, SimScene
from viewsync.sim.track_crowd import TrackCrowd

Floats = NDArray[np.float64]

_CHEST_M = 1.0
# (name, length, width, height, colour) of what may stand about.
THINGS = (
    ("van", 5.2, 2.1, 2.6, (188, 188, 184)),
    ("kiosk", 2.4, 2.2, 2.8, (112, 120, 116)),
    ("board", 3.2, 0.3, 2.6, (70, 76, 92)),
    ("van", 4.6, 1.9, 2.2, (150, 72, 60)),
    ("board", 3.2, 0.3, 2.6, (78, 84, 100)),
    ("stall", 2.0, 1.3, 2.4, (128, 84, 66)),
    ("pillar", 0.6, 0.6, 3.2, (140, 134, 126)),
    ("pillar", 0.6, 0.6, 3.2, (138, 132, 124)),
)
# Things may stand beyond the ground that people are counted on, too.
_BEYOND_M, _TRIES, _CLEAR_M, _FROM_CAMERA_M = 5.0, 150, 0.35, 4.0
_LOOKED_FOR = 1500
_PEOPLE_PER_M2, _MOST_PEOPLE = 0.15, 24


def looked_at(scene: Scene, view: str) -> NDArray[np.bool_]:
    """Ground cells (rows, columns) above which `view` sees the chest of whoever stands there."""
    return _sees(scene, view, scene.ground.centres())


def _sees(scene: Scene, view: str, xy: Floats) -> NDArray[np.bool_]:
    """Which of the places xy (..., 2) m are within the picture of `view`, at chest height; NaN is not."""
    camera = scene.cameras[view]
    points = np.concatenate([xy, np.full((*xy.shape[:-1], 1), _CHEST_M)], axis=-1)
    with np.errstate(invalid="ignore"):
        pixels = camera.project(points)
        inside: NDArray[np.bool_] = camera.inside(pixels) & np.isfinite(pixels).all(axis=-1)
    return inside


def in_the_union(scene: Scene, xy: Floats) -> NDArray[np.bool_]:
    """Which of the places xy (..., 2) m any view looks at."""
    seen: NDArray[np.bool_] = np.any([_sees(scene, view, xy) for view in scene.cameras], axis=0)
    return seen


def occluders(scene: Scene, walked: Floats, seed: int) -> tuple[Box, ...]:
    """Boxes that hide most of `walked` (N, 2) m from the cameras of `scene`, each where nobody walked and
    none near another or before a lens; those that find no such place are left out.
    """
    # A program of the field imports this folder without scipy.
    from scipy.spatial import cKDTree

    rng = np.random.default_rng([seed, 0x626F7873])
    ground = scene.ground
    steps = cKDTree(np.unique(np.round(walked / 0.1).astype(np.int64), axis=0) * 0.1)
    watched = walked[:: max(1, len(walked) // _LOOKED_FOR)]
    low = np.array([ground.origin_x_m, ground.origin_y_m]) - _BEYOND_M
    high = low + ground.cell_m * np.array([ground.columns, ground.rows]) + 2 * _BEYOND_M
    eyes = np.array([camera.centre for camera in scene.cameras.values()])
    found: list[Box] = []
    for name, length, width, height, colour in THINGS:
        best: tuple[int, Box] | None = None
        tried = zip(rng.uniform(low, high, (_TRIES, 2)), rng.uniform(0, np.pi, _TRIES), strict=True)
        for place, yaw in tried:
            box = Box(name, float(place[0]), float(place[1]), length, width, height, float(yaw), colour)
            if not _clear(scene, box, steps, found) or not whole(scene, box):
                continue
            hides = sum(int(_hidden(eye, watched, box).sum()) for eye in eyes)
            if hides and (best is None or hides > best[0]):
                best = hides, box
        if best is not None:
            found.append(best[1])
    return tuple(found)


def _clear(scene: Scene, box: Box, steps: Any, others: list[Box]) -> bool:
    """Whether nobody walked through the box and no other stands there; steps: a tree of where they walked."""
    for x, y, radius in SimScene(scene, (box,), (0.0, 0.0, 1.0, 1.0)).obstacles:
        if steps.query((x, y))[0] < radius + _CLEAR_M:
            return False
    return all(np.hypot(box.x - o.x, box.y - o.y) > (box.length + o.length) / 2 + 0.5 for o in others)


def whole(scene: Scene, box: Box) -> bool:
    """Whether the box is wholly before or wholly behind every camera, and not right before one."""
    reach = np.hypot(box.length, box.width) / 2
    for camera in scene.cameras.values():
        depth = float(camera.depth(np.array([box.x, box.y, box.height / 2])))
        if depth > -reach - 1.0 and depth < reach + _FROM_CAMERA_M:
            return False
    return True


def _hidden(eye: Floats, walked: Floats, box: Box) -> NDArray[np.bool_]:
    """Of whom (N,) the box hides the chest from `eye` (3,), taken as a round thing of its mean width."""
    way = walked - eye[:2]
    to_box = np.array([box.x, box.y]) - eye[:2]
    part = (way @ to_box) / np.maximum((way**2).sum(axis=1), 1e-9)
    aside = np.linalg.norm(way * part[:, None] - to_box, axis=1)
    height = eye[2] + part * (_CHEST_M - eye[2])
    hidden: NDArray[np.bool_] = (
        (part > 0) & (part < 1) & (aside < (box.length + box.width) / 4) & (height < box.height)
    )
    return hidden


def people_beyond(place: SimScene, view: str, seed: int) -> Crowd | None:
    """Simulated people who walk where `view` does not look and another view does, among the props; None where
    there is no such ground.
    """
    scene = place.scene
    ground = scene.ground
    other = np.any([looked_at(scene, v) for v in scene.cameras if v != view], axis=0)
    free = other & ~looked_at(scene, view)
    area_m2 = float(free.sum()) * ground.cell_m**2
    people = min(_MOST_PEOPLE, int(_PEOPLE_PER_M2 * area_m2))
    if people < 1:
        return None
    rng = np.random.default_rng([seed, 0x6265796F])
    people = max(1, int(rng.integers(people // 2, people + 1)))
    rows, columns = np.flatnonzero(free.any(axis=1)), np.flatnonzero(free.any(axis=0))
    corner = np.array([ground.origin_x_m, ground.origin_y_m])
    low = corner + ground.cell_m * np.array([columns[0], rows[0]])
    high = corner + ground.cell_m * np.array([columns[-1] + 1, rows[-1] + 1])
    # Ground that is not theirs is paved with obstacles, a metre apart.
    step = max(1, round(1.0 / ground.cell_m))
    kept = ground.centres()[::step, ::step][~free[::step, ::step]]
    around = np.all((kept > low - 1.0) & (kept < high + 1.0), axis=1)
    walls = tuple((float(x), float(y), 0.7) for x, y in kept[around])
    return Crowd((*low.tolist(), *high.tolist()), people, seed, (*place.obstacles, *walls))


class JoinedCrowd:
    """Real people on their tracks and simulated ones beside them, as one crowd: the tracks' come first."""

    def __init__(self, real: TrackCrowd, simulated: Crowd) -> None:
        self._parts = (real, simulated)
        self.people = real.people + simulated.people
        looks = (real.appearance, simulated.appearance)
        names = [field.name for field in fields(Appearance)]
        self.appearance = Appearance(**{n: np.concatenate([getattr(a, n) for a in looks]) for n in names})

    def state(self, t_s: float) -> CrowdState:
        """Everybody at `t_s` seconds (≥ 0)."""
        real, simulated = (part.state(t_s) for part in self._parts)
        joined = {
            name: np.concatenate([getattr(real, name), getattr(simulated, name)])
            for name in ("xy", "heading", "speed", "phase")
        }
        return CrowdState(t_s=t_s, ids=np.arange(self.people), **joined)
