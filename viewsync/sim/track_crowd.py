"""Real people's tracks played as a crowd: clothes from a seed, places and headings from the tracks."""

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from viewsync.sim.crowd import Appearance, CrowdState, make_appearance
from viewsync.sim.tracks import Tracks

Floats = NDArray[np.float64]

# Slower than this, the direction of a track is the jitter of its boxes: people keep looking where they went.
_TURNS_FROM_M_S = 0.25
_HEADING_SMOOTHING_S = 0.5


class TrackCrowd:
    """`tracks` with the interface of `Crowd`: the same instants give the same people, in any order of
    questions.

    All N identities are in every state, so that `ids` index the tracks' identities and the appearance;
    whoever is absent at that instant has NaN for a place, and is neither drawn nor counted. After its last
    frame the sequence starts again.
    """

    def __init__(self, tracks: Tracks, seed: int) -> None:
        self.tracks = tracks
        self.people = len(tracks.ids)
        self.appearance = _appearance(tracks.ids, seed)
        self._heading, self._phase = _gait(tracks, seed)

    def state(self, t_s: float) -> CrowdState:
        """The crowd `t_s` seconds (≥ 0) after frame 0; beyond the last frame, after the sequence started
        again.
        """
        if t_s < 0:
            raise ValueError(f"the tracks start at 0 s, asked for {t_s:.3f} s")
        tracks = self.tracks
        at_s = t_s if t_s <= tracks.duration_s else float(t_s % tracks.duration_s)
        ids, places, velocity = tracks.positions(at_s)
        row = np.searchsorted(tracks.ids, ids)
        xy, speed = np.full((self.people, 2), np.nan), np.zeros(self.people)
        xy[row], speed[row] = places, np.hypot(velocity[:, 0], velocity[:, 1])
        before = min(int(at_s * tracks.fps), tracks.frames - 1)
        after, part = min(before + 1, tracks.frames - 1), at_s * tracks.fps - before
        turn = np.angle(np.exp(1j * (self._heading[after] - self._heading[before])))
        return CrowdState(
            t_s=t_s,
            ids=np.arange(self.people),
            xy=xy,
            heading=self._heading[before] + part * turn,
            speed=speed,
            phase=self._phase[before] + part * (self._phase[after] - self._phase[before]),
        )


def _appearance(ids: NDArray[np.int64], seed: int) -> Appearance:
    """One look per identity (N,), whoever else there is."""
    looks = [make_appearance(1, np.random.default_rng([seed, 0x6C6F6F6B, int(i)])) for i in ids]
    return Appearance(
        **{f.name: np.concatenate([getattr(a, f.name) for a in looks]) for f in fields(Appearance)}
    )


def _gait(tracks: Tracks, seed: int) -> tuple[Floats, Floats]:
    """Heading and gait phase (frames, N) rad. Heading follows the velocity, averaged over about a second;
    people who stand keep the heading they arrived with (or will leave with). Steps follow the speed, as in
    `Crowd`.
    """
    frames, people = tracks.frames, len(tracks.ids)
    velocity = np.nan_to_num(tracks.velocity)
    there = ~np.isnan(tracks.velocity[..., :1])
    reach = int(3 * _HEADING_SMOOTHING_S * tracks.fps)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (_HEADING_SMOOTHING_S * tracks.fps)) ** 2)
    padded = np.pad(velocity, ((reach, reach), (0, 0), (0, 0)))
    weight = np.pad(there.astype(np.float64), ((reach, reach), (0, 0), (0, 0)))
    smooth = sum(k * padded[i : i + frames] for i, k in enumerate(kernel))
    smooth = smooth / np.maximum(sum(k * weight[i : i + frames] for i, k in enumerate(kernel)), 1e-9)
    start = [np.random.default_rng([seed, 0x67616974, int(i)]).uniform(-np.pi, np.pi, 2) for i in tracks.ids]
    heading, first = (np.tile(row, (frames, 1)) for row in np.reshape(start, (people, 2)).T)
    for person in range(people):
        turning = there[:, person, 0] & (np.linalg.norm(smooth[:, person], axis=1) > _TURNS_FROM_M_S)
        known = np.flatnonzero(turning)
        if len(known):
            last = np.maximum(np.searchsorted(known, np.arange(frames), side="right") - 1, 0)
            heading[:, person] = np.arctan2(*smooth[known[last], person].T[::-1])
    speed = np.linalg.norm(velocity, axis=2)
    step = np.where(speed > _TURNS_FROM_M_S, 2 * np.pi * (0.35 + 0.5 * speed), 0.0) / tracks.fps
    return heading, first + np.cumsum(step, axis=0)
