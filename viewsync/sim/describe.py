"""How hard a simulated scene is, in figures: what views hide, how people move, how alike they look.

The simulator is hard on purpose, and a test holds it to these figures; `viewsync sim describe` prints them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import cv2
import numpy as np
from numpy.typing import NDArray

from viewsync.sim.body import Joint, joints
from viewsync.sim.crowd import Appearance, Crowd, CrowdState
from viewsync.sim.dataset import seen
from viewsync.sim.render import CameraLook, Renderer
from viewsync.sim.scenes import SimScene

Floats = NDArray[np.float64]

# Grey levels. A garment is dark below this luma (ITU-R BT.601), neutral below this spread of channels.
DARK, NEUTRAL = 96.0, 40.0
# Two people look alike when their tops and their bottoms differ in colour by less, root mean square.
ALIKE = 15.0
STANDING_M_S, TURNING_RAD_S = 0.2, 0.3
_FEWEST_PIXELS = 6
_TURN_OVER_S = 0.1


@dataclass(frozen=True, slots=True)
class Spread:
    """Least, mean and greatest value of a camera's setting over the crowds described."""

    least: float
    mean: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of some values, rounded to three decimals."""
        return cls(*(round(float(f(values)), 3) for f in (np.min, np.mean, np.max)))


@dataclass(frozen=True, slots=True)
class Hardness:
    """Figures over all crowds and instants described; shares are in 0..1.

    seen: per view, the share of the people in the region that its frame shows (visible pixels); seen_by_any:
    that at least one view shows. speeds_m_s: quantiles by name. alike: people with a double in their crowd
    (see ALIKE). cameras: view → setting → spread. identified_by_colour: people seen by two views at the same
    instant whose clothes' colours single them out. frames_per_core_s: rendered frames per second of one
    core's time, None where it was not measured.
    """

    scene: str
    crowds: int
    instants: int
    people: int
    people_in_region: float
    seen: Mapping[str, float]
    seen_by_any: float
    speeds_m_s: Mapping[str, float]
    standing: float
    turning: float
    in_company: float
    dark_and_neutral: float
    alike: float
    cameras: Mapping[str, Mapping[str, Spread]]
    identified_by_colour: float
    frames_per_core_s: float | None


def describe(
    scene: SimScene,
    seeds: Iterable[int] = range(8),
    times_s: Sequence[float] = (4.0, 16.0, 28.0),
    people: int = 40,
    timed_frames: int = 0,
) -> Hardness:
    """Look at the crowds of `seeds` at `times_s`; `timed_frames` > 0 also measures the renderer."""
    crowds = {seed: Crowd(scene.walk_area, people, seed, scene.obstacles) for seed in seeds}
    views = tuple(scene.scene.cameras)
    shown: list[NDArray[np.bool_]] = []
    speed, turn, named = [], [], []
    for seed, crowd in crowds.items():
        renderers = [Renderer(scene, view, seed) for view in views]
        for t in times_s:
            state, soon = crowd.state(t), crowd.state(t + _TURN_OVER_S)
            here = scene.scene.ground.contains(state.xy)
            visible = [seen(*r.visible_pixels(state, crowd.appearance)) & here for r in renderers]
            shown.append(np.stack(visible)[:, here])
            speed.append(state.speed)
            turn.append(np.abs(np.angle(np.exp(1j * (soon.heading - state.heading)))) / _TURN_OVER_S)
            colours = [clothes_colours(r, state, crowd.appearance) for r in renderers]
            for a, b in permutations(range(len(views)), 2):
                named.append(identified(colours[a], colours[b], visible[a], visible[b]))
    everybody, speeds = np.concatenate(shown, axis=1), np.concatenate(speed)
    looks = [crowd.appearance for crowd in crowds.values()]
    company = [np.bincount(c.leaders, minlength=people)[c.leaders] > 1 for c in crowds.values()]
    return Hardness(
        scene=scene.scene.name,
        crowds=len(crowds),
        instants=len(shown),
        people=people,
        people_in_region=round(everybody.shape[1] / len(shown), 2),
        seen={view: _share(everybody[v]) for v, view in enumerate(views)},
        seen_by_any=_share(everybody.max(axis=0)),
        speeds_m_s={
            f"{q} %": round(float(np.percentile(speeds, q)), 2) for q in (0, 10, 25, 50, 75, 90, 100)
        },
        standing=_share(speeds < STANDING_M_S),
        turning=_share((np.concatenate(turn) > TURNING_RAD_S) & (speeds >= STANDING_M_S)),
        in_company=_share(np.concatenate(company)),
        dark_and_neutral=_share(
            np.concatenate([dark_and_neutral(np.concatenate([a.top, a.bottom])) for a in looks])
        ),
        alike=_share(np.concatenate([alike(a) for a in looks])),
        cameras={view: _settings([CameraLook.draw(seed, view) for seed in crowds]) for view in views},
        identified_by_colour=_share(np.concatenate(named)),
        frames_per_core_s=frames_per_core_s(scene, people, timed_frames) if timed_frames else None,
    )


def lines(found: Hardness) -> list[str]:
    """The figures as lines of text."""

    def percent(share: float) -> str:
        return f"{100 * share:.0f} %"

    out = [
        f"{found.scene}: {found.crowds} crowds of {found.people}, {found.instants} instants, "
        f"{found.people_in_region:.1f} people in the region on average",
        "seen by each view alone: " + ", ".join(f"{v} {percent(s)}" for v, s in found.seen.items()),
        f"seen by any view: {percent(found.seen_by_any)}",
        "speed, m/s: " + ", ".join(f"{q} {v:.2f}" for q, v in found.speeds_m_s.items()),
        f"standing {percent(found.standing)}, turning while walking {percent(found.turning)}, "
        f"in company {percent(found.in_company)}",
        f"garments dark and neutral {percent(found.dark_and_neutral)}, people with a double in their crowd "
        f"{percent(found.alike)}",
        f"told apart by raw colour between two synchronised views: {percent(found.identified_by_colour)}",
    ]
    for view, settings in found.cameras.items():
        ranges = (f"{name} {s.least:.2f}-{s.greatest:.2f}" for name, s in settings.items())
        out.append(f"camera {view}: {', '.join(ranges)}")
    if found.frames_per_core_s is not None:
        out.append(f"rendered frames per second of one core: {found.frames_per_core_s:.0f}")
    return out


def clothes_colours(renderer: Renderer, state: CrowdState, looks: Appearance) -> Floats:
    """Mean colours in the picture of what is seen of each person's top and bottom: (N, 6), or NaN.

    Normalised for the view: each channel's mean over the people seen is 0 and its standard deviation 1.
    """
    picture, labels = renderer.render(state, looks), renderer.labels(state, looks)
    rows = renderer.camera.project(joints(state, looks))[..., 1]
    waist = rows[:, [Joint.LEFT_HIP, Joint.RIGHT_HIP]].mean(axis=1)
    out = np.full((len(rows), 6), np.nan)
    for person in np.unique(labels[labels > 0]).tolist():
        row, column = np.nonzero(labels == person)
        i = person - 1
        bounds = rows[i, Joint.NECK], waist[i], rows[i, [Joint.LEFT_ANKLE, Joint.RIGHT_ANKLE]].mean()
        for part in range(2):
            inside = (row >= bounds[part]) & (row < bounds[part + 1])
            if inside.sum() >= _FEWEST_PIXELS:
                out[i, 3 * part : 3 * part + 3] = picture[row[inside], column[inside]].mean(axis=0)
    if np.isfinite(out).any(axis=0).all():
        out = (out - np.nanmean(out, axis=0)) / np.maximum(np.nanstd(out, axis=0), 1e-6)
    return out


def identified(
    first: Floats, second: Floats, seen_first: NDArray[np.bool_], seen_second: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """For everybody seen in both views: whether the nearest colours (N, 6) in the second view are their own.

    A garment that one of the two views hides is left out of that comparison.
    """
    candidates = np.flatnonzero(seen_second & np.isfinite(second).any(axis=1))
    both = np.flatnonzero(seen_first & seen_second & np.isfinite(first).any(axis=1))
    apart = np.square(first[both][:, None] - second[candidates][None])
    known = np.isfinite(apart)
    total = np.where(known, apart, 0.0).sum(axis=2) / np.maximum(known.sum(axis=2), 1)
    distance = np.where(known.any(axis=2), total, np.inf)
    if not len(candidates) or not len(both):
        return np.zeros(len(both), bool)
    nearest: NDArray[np.bool_] = candidates[distance.argmin(axis=1)] == both
    return nearest


def dark_and_neutral(colours: Floats) -> NDArray[np.bool_]:
    """Which garments (N, 3), RGB in 0..255, are dark and hardly coloured."""
    neutral = np.ptp(colours, axis=1) < NEUTRAL
    dull: NDArray[np.bool_] = (colours @ (0.299, 0.587, 0.114) < DARK) & neutral
    return dull


def alike(looks: Appearance) -> NDArray[np.bool_]:
    """Who (N,) has a double among the others: top and bottom both nearly of the same colour."""
    double = np.ones((len(looks.top), len(looks.top)), bool)
    for garment in (looks.top, looks.bottom):
        double &= np.sqrt(np.square(garment[:, None] - garment[None]).mean(axis=2)) < ALIKE
    np.fill_diagonal(double, False)
    return np.asarray(double.any(axis=1))


def frames_per_core_s(scene: SimScene, people: int, frames: int) -> float:
    """Frames rendered per second of one core's time, crowd included, a second of the crowd's time apart."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        crowd = Crowd(scene.walk_area, people, 0, scene.obstacles)
        renderers = [Renderer(scene, view, 0) for view in scene.scene.cameras]
        for renderer in renderers:
            renderer.render(crowd.state(0.0), crowd.appearance)
        start = time.thread_time()
        for k in range(frames):
            # Each camera at an instant of its own.
            renderers[k % len(renderers)].render(crowd.state(1.0 + k * 0.35), crowd.appearance)
        return round(frames / (time.thread_time() - start), 1)
    finally:
        cv2.setNumThreads(threads)


def _settings(looks: Sequence[CameraLook]) -> dict[str, Spread]:
    return {
        "exposure": Spread.of([look.gain[1] for look in looks]),
        "red_gain": Spread.of([look.gain[0] / look.gain[1] for look in looks]),
        "blue_gain": Spread.of([look.gain[2] / look.gain[1] for look in looks]),
        "gamma": Spread.of([look.gamma for look in looks]),
        "blur_px": Spread.of([look.blur_px for look in looks]),
        "noise": Spread.of([look.noise for look in looks]),
    }


def _share(flags: NDArray[np.bool_]) -> float:
    return round(float(flags.mean()), 3) if flags.size else 0.0
