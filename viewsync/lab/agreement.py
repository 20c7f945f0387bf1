"""Whether virtual time agrees with what really happens, cell by cell. Pure.

A live run and the virtual one of its crowd show the same frames, for cameras take them at the same instants
of the same people. What differs is chance in links (the two draw from different streams), and the time that
programs take on this machine, which virtual time leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from viewsync.lab.record import Answer, Run

# How far live may be from virtual. Answers a second and bytes: as a share of the virtual; it covers chance in
# links over a minute. Age and offset, s: what extracting and three graphs take on two busy cores. Count,
# people: the same frames at offsets that are told a few milliseconds differently, and at 1 frame/s and more
# coded otherwise, for which of them are key frames depends on when the stream began (0.34 were seen).
RATE_SHARE = 0.2
BYTES_SHARE = 0.2
AGE_S = 0.75
OFFSET_S = 0.5
COUNT = 0.5
FEWEST_COMMON = 0.5


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of a cell, live and virtual; holds: the two differ by `bound` at most."""

    profile: str
    policy: str
    method: str
    name: str
    live: float
    virtual: float
    bound: float

    @property
    def holds(self) -> bool:
        """Within the bound; not where a figure is unknown."""
        return bool(abs(self.live - self.virtual) <= self.bound)

    def __str__(self) -> str:
        return (
            f"{self.profile}, {self.policy}, {self.method}: {self.name} {self.live:.3g} live, "
            f"{self.virtual:.3g} virtual, ± {self.bound:.2g}: {'agrees' if self.holds else 'DIFFERS'}"
        )


def agreement(live: Sequence[Run], virtual: Sequence[Run]) -> list[Check]:
    """Each live run against the virtual run of the same cell."""
    partners = {run.key: run for run in virtual}
    return [check for run in live for check in _compare(run, partners[run.key])]


def _compare(live: Run, virtual: Run) -> list[Check]:
    theirs = {_frames(answer): answer for answer in virtual.answers}
    pairs = [(a, theirs[_frames(a)]) for a in live.answers if _frames(a) in theirs]
    rate, bytes_s = len(virtual.answers) / virtual.seconds, virtual.cost.bytes / virtual.end_s
    apart = [abs(a.count - b.count) for a, b in pairs]
    figures = [
        ("answers/s", len(live.answers) / live.seconds, rate, RATE_SHARE * rate),
        ("bytes/s", live.cost.bytes / live.end_s, bytes_s, BYTES_SHARE * bytes_s),
        ("age p50, s", _median(live, "age_s"), _median(virtual, "age_s"), AGE_S),
        ("offset p50, s", _median(live, "offset_s"), _median(virtual, "offset_s"), OFFSET_S),
        ("same frames", len(pairs) / max(len(virtual.answers), 1), 1.0, 1.0 - FEWEST_COMMON),
        ("count apart on them", float(np.mean(apart)) if apart else np.nan, 0.0, COUNT),
    ]
    key = live.key
    return [Check(key.profile, key.policy, key.method, *figure) for figure in figures]


def _median(run: Run, name: str) -> float:
    return float(np.median([getattr(answer, name) for answer in run.answers])) if run.answers else np.nan


def _frames(answer: Answer) -> tuple[str, float, frozenset[tuple[str, float]]]:
    """The frames that an answer is to, to 10 ms: stamps travel in ticks of 11 µs."""
    apart = frozenset((view, round(offset_s, 2)) for view, offset_s in answer.offsets_s.items())
    return answer.reference, round(answer.instant_s, 2), apart
