"""A crowd that walks, stands, turns, keeps company and avoids: positions at any instant, from a seed.

The state has one home: the arrays of `Crowd`, advanced in fixed steps of `STEP_S` and kept for the last
`HISTORY_S` seconds. `state(t)` interpolates between steps, so any number of cameras, each with its own frame
rate, sees the same people. Same seed, same people, same paths, whatever the order of questions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEP_S = 0.1
HISTORY_S = 180.0
MAX_SPEED_M_S = 1.8


@dataclass(frozen=True, slots=True)
class Appearance:
    """How each of N people looks; constant over time. Colours are RGB in 0..255, lengths in metres."""

    height_m: Floats
    girth: Floats
    top: Floats
    bottom: Floats
    hair: Floats
    skin: Floats
    shoes: Floats
    coat: NDArray[np.bool_]
    bag: NDArray[np.bool_]
    bag_colour: Floats


@dataclass(frozen=True, slots=True)
class CrowdState:
    """N people at one instant: ids (N,), places on the ground (N, 2) m, heading (N,) rad, speed (N,) m/s and
    gait phase (N,) rad.
    """

    t_s: float
    ids: NDArray[np.int64]
    xy: Floats
    heading: Floats
    speed: Floats
    phase: Floats


@dataclass(frozen=True, slots=True)
class CrowdMoment:
    """All that decides how a crowd goes on after `step` steps: what moves, by name (N,) or (N, 2), and the
    state of its random numbers.
    """

    step: int
    moving: Mapping[str, Floats]
    randomness: Mapping[str, Any]


# Clothes of a northern winter: mostly dark, mostly neutral, so that many people look alike on purpose.
_NEUTRAL = np.array(
    [
        (28, 28, 32), (36, 38, 44), (45, 47, 52), (58, 58, 60), (30, 36, 52), (38, 46, 66), (52, 44, 38),
        (68, 58, 48), (80, 80, 82), (105, 104, 100), (62, 68, 60), (48, 54, 46),
    ],
    dtype=np.float64,
)  # fmt: skip
_BRIGHT = np.array(
    [(150, 40, 40), (40, 84, 140), (180, 170, 160), (186, 150, 60), (60, 120, 80), (130, 70, 120)],
    dtype=np.float64,
)
_SKIN = np.array([(224, 178, 150), (198, 144, 112), (160, 108, 78), (104, 70, 52)], dtype=np.float64)
_HAIR = np.array(
    [(26, 22, 20), (46, 34, 26), (84, 62, 40), (140, 112, 70), (120, 118, 116)], dtype=np.float64
)


def make_appearance(people: int, rng: np.random.Generator) -> Appearance:
    """Draw the looks of `people` persons: nine garments in ten are dark and neutral."""

    def cloth(bright_share: float) -> Floats:
        bright = rng.random(people) < bright_share
        colour = np.where(
            bright[:, None],
            _BRIGHT[rng.integers(len(_BRIGHT), size=people)],
            _NEUTRAL[rng.integers(len(_NEUTRAL), size=people)],
        )
        return np.clip(colour + rng.normal(0.0, 4.0, (people, 3)), 8.0, 235.0)

    bottom = cloth(0.04)
    return Appearance(
        height_m=np.clip(rng.normal(1.71, 0.09, people), 1.45, 1.98),
        girth=rng.uniform(0.88, 1.18, people),
        top=cloth(0.08),
        bottom=bottom,
        hair=_HAIR[rng.integers(len(_HAIR), size=people)] + rng.normal(0, 3, (people, 3)),
        skin=_SKIN[rng.integers(len(_SKIN), size=people)] + rng.normal(0, 5, (people, 3)),
        shoes=np.clip(_NEUTRAL[rng.integers(len(_NEUTRAL), size=people)] - 12.0, 6.0, 255.0),
        coat=rng.random(people) < 0.35,
        bag=rng.random(people) < 0.2,
        bag_colour=cloth(0.15),
    )


_MOVING = ("xy", "velocity", "goal", "resting", "blocked", "heading", "phase")


class Crowd:
    """`people` walkers in the rectangle `area`, (x0, y0, x1, y1) m, among round `obstacles` (x, y, radius).

    Motion is a small social-force model (Helbing & Molnár 1995): everybody is drawn to a goal at a preferred
    speed, pushed off neighbours and obstacles, rests now and then; about half walk in groups with one goal.
    """

    def __init__(
        self,
        area: tuple[float, float, float, float],
        people: int,
        seed: int,
        obstacles: Sequence[tuple[float, float, float]] = (),
    ) -> None:
        if people < 1:
            raise ValueError(f"a crowd needs at least one person, got {people}")
        self.people = people
        self.facts = {"area": area, "people": people, "seed": seed, "obstacles": obstacles}
        self._area = area
        self._rng = np.random.default_rng([seed, 0x63726F77])
        self._obstacles = np.array(obstacles, dtype=np.float64).reshape(-1, 3)
        rng = self._rng
        self.appearance = make_appearance(people, rng)
        self._leader = self._make_groups(people)
        self._member_offset = rng.uniform(-0.75, 0.75, (people, 2))
        self._preferred = np.clip(rng.normal(1.12, 0.34, people), 0.35, 1.65)[self._leader]
        self._xy = self._free_places(people)
        followers = self._leader != np.arange(people)
        self._xy[followers] = self._xy[self._leader[followers]] + self._member_offset[followers] * 1.2
        self._goal = self._free_places(people)
        self._resting = np.where(rng.random(people) < 0.25, rng.uniform(0.0, 20.0, people), 0.0)
        self._blocked = np.zeros(people)
        self._velocity = np.zeros((people, 2))
        self._heading = rng.uniform(-np.pi, np.pi, people)
        self._phase = rng.uniform(0.0, 2 * np.pi, people)
        self._step = 0
        self._history: deque[tuple[int, CrowdState]] = deque(maxlen=int(HISTORY_S / STEP_S) + 2)
        for _ in range(80):  # let groups form and overlaps dissolve before time zero
            self._advance()
        self._step = 0
        self._remember()

    def moment(self) -> CrowdMoment:
        """As far as the crowd has been played."""
        moving = {name: getattr(self, f"_{name}").copy() for name in _MOVING}
        return CrowdMoment(self._step, moving, self._rng.bit_generator.state)

    def resume(self, moment: CrowdMoment) -> None:
        """Go on from `moment` of this very crowd, instead of playing up to it; what was before is forgotten.

        Raises ValueError for what cannot be a moment of it.
        """
        for name in _MOVING:
            ours, theirs = getattr(self, f"_{name}"), moment.moving.get(name)
            if theirs is None or theirs.shape != ours.shape or not np.isfinite(theirs).all():
                raise ValueError(f"{name} is not {ours.shape} finite numbers")
        try:
            self._rng.bit_generator.state = moment.randomness
        except (TypeError, KeyError, OverflowError) as error:
            raise ValueError(f"randomness: {error!r}") from error
        for name in _MOVING:
            setattr(self, f"_{name}", moment.moving[name].copy())
        self._step = moment.step
        self._history.clear()
        self._remember()

    @property
    def leaders(self) -> NDArray[np.int64]:
        """Index (N,) of whom each person follows: singles and leaders follow themselves."""
        return self._leader

    def state(self, t_s: float) -> CrowdState:
        """The crowd at `t_s` seconds (≥ 0). Raises ValueError for a time before the history kept."""
        if t_s < 0:
            raise ValueError(f"the crowd starts at 0 s, asked for {t_s:.3f} s")
        index = int(t_s / STEP_S)
        while self._step < index + 1:
            self._advance()
            self._step += 1
            self._remember()
        first = self._history[0][0]
        if index < first:
            raise ValueError(f"the crowd is remembered for {HISTORY_S:.0f} s; {t_s:.1f} s is further back")
        before, after = self._history[index - first][1], self._history[index - first + 1][1]
        part = t_s / STEP_S - index
        turn = np.angle(np.exp(1j * (after.heading - before.heading)))
        return CrowdState(
            t_s=t_s,
            ids=before.ids,
            xy=before.xy + part * (after.xy - before.xy),
            heading=before.heading + part * turn,
            speed=before.speed + part * (after.speed - before.speed),
            phase=before.phase + part * (after.phase - before.phase),
        )

    def _remember(self) -> None:
        speed = np.hypot(self._velocity[:, 0], self._velocity[:, 1])
        state = CrowdState(
            self._step * STEP_S,
            np.arange(self.people),
            self._xy.copy(),
            self._heading.copy(),
            speed,
            self._phase.copy(),
        )
        self._history.append((self._step, state))

    def _make_groups(self, people: int) -> NDArray[np.int64]:
        """Index of each person's leader: singles lead themselves, about half walk in twos to fours."""
        leader = np.arange(people)
        i = 0
        while i < people:
            size = int(self._rng.choice([1, 2, 3, 4], p=[0.62, 0.22, 0.11, 0.05]))
            leader[i : i + size] = i
            i += size
        return leader

    def _free_places(self, count: int) -> Floats:
        x0, y0, x1, y1 = self._area
        places = self._rng.uniform((x0, y0), (x1, y1), (count, 2))
        for _ in range(20):
            if not len(self._obstacles):
                break
            gap = (
                np.linalg.norm(places[:, None] - self._obstacles[None, :, :2], axis=2) - self._obstacles[:, 2]
            )
            bad = (gap < 0.4).any(axis=1)
            if not bad.any():
                break
            places[bad] = self._rng.uniform((x0, y0), (x1, y1), (int(bad.sum()), 2))
        return places

    def _advance(self) -> None:
        rng, dt, n = self._rng, STEP_S, self.people
        leads = self._leader == np.arange(n)
        to_goal = self._goal - self._xy
        distance = np.linalg.norm(to_goal, axis=1)
        arrived = leads & (distance < 0.6) & (self._resting <= 0)
        # Whoever pushes against a wall or a knot of people for long changes plans, and takes the group along.
        given_up = leads & (self._blocked > 2.5)
        self._blocked[given_up] = 0.0
        fresh, rest, chance = self._free_places(n), rng.exponential(7.0, n), rng.random(n)
        self._goal = np.where((arrived | given_up)[:, None], fresh, self._goal)
        self._resting = np.where(arrived & (chance < 0.5), rest, np.maximum(self._resting - dt, 0.0))
        # Followers aim at their place beside the leader and rest when the leader rests.
        company = self._goal[self._leader] + self._member_offset
        beside = self._xy[self._leader] + self._member_offset
        self._goal = np.where(
            leads[:, None], self._goal, np.where(self._resting[self._leader, None] > 0, beside, company)
        )
        resting = self._resting[self._leader] > 0
        to_goal = self._goal - self._xy
        distance = np.linalg.norm(to_goal, axis=1)
        settled = resting & (leads | (distance < 0.5))
        lag = np.where(leads, 1.0, np.clip(0.7 + 0.5 * np.linalg.norm(beside - self._xy, axis=1), 0.7, 1.4))
        wish = to_goal / np.maximum(distance, 1e-6)[:, None] * (self._preferred * lag * ~settled)[:, None]
        force = (wish - self._velocity) / 0.5 + rng.normal(0.0, 0.5, (n, 2)) * ~settled[:, None]
        force += self._repulsion()
        self._velocity = self._velocity + force * dt
        speed = np.linalg.norm(self._velocity, axis=1)
        self._velocity *= np.minimum(1.0, MAX_SPEED_M_S / np.maximum(speed, 1e-6))[:, None]
        self._xy = self._xy + self._velocity * dt
        speed = np.linalg.norm(self._velocity, axis=1)
        self._blocked = np.where((speed < 0.3) & ~resting, self._blocked + dt, 0.0)
        moving = speed > 0.25
        course = np.arctan2(self._velocity[:, 1], self._velocity[:, 0])
        turn = np.angle(np.exp(1j * (course - self._heading)))
        look = rng.normal(0.0, 0.08, n)  # people who stand look around
        self._heading = self._heading + np.where(moving, np.clip(turn, -3.0 * dt, 3.0 * dt), look)
        self._phase = self._phase + dt * np.where(moving, 2 * np.pi * (0.35 + 0.5 * speed), 0.0)

    def _repulsion(self) -> Floats:
        apart = self._xy[:, None] - self._xy[None]
        gap = np.sqrt((apart**2).sum(axis=2) + 1e-9)
        np.fill_diagonal(gap, 1e3)
        push = 5.0 * np.exp(-(gap - 0.45) / 0.18)
        push[gap > 1.5] = 0.0
        force: Floats = (apart / gap[..., None] * np.minimum(push, 12.0)[..., None]).sum(axis=1)
        if len(self._obstacles):
            off = self._xy[:, None] - self._obstacles[None, :, :2]
            reach = np.sqrt((off**2).sum(axis=2) + 1e-9)
            strength = np.minimum(6.0 * np.exp(-(reach - self._obstacles[:, 2] - 0.25) / 0.2), 16.0)
            force += (off / reach[..., None] * strength[..., None]).sum(axis=1)
        x0, y0, x1, y1 = self._area
        force[:, 0] += 4.0 * (np.maximum(x0 - self._xy[:, 0], 0) - np.maximum(self._xy[:, 0] - x1, 0))
        force[:, 1] += 4.0 * (np.maximum(y0 - self._xy[:, 1], 0) - np.maximum(self._xy[:, 1] - y1, 0))
        return force
