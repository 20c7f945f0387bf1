"""Whether virtual time agrees with what really happens, cell by cell. Pure.

A live run and the virtual one of its crowd show the same frames, for cameras take them at the same instants
of the same people. What differs is chance in links, for the two draw from different streams, and the time
that programs take on this machine, which virtual time leaves out. How much chance makes is seen in virtual
runs of the same cell with other draws: one burst of losses that a timer keeps meeting may silence a view for
minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from viewsync.lab.record import Answer, Key, Run

# How far live may be from what virtual runs of the same cell lie between. Answers a second and bytes: as a
# share. Age and offset, s: what extracting and three graphs take on two busy cores. Common frames, as a share
# of all answers. Count, people, on common frames: offsets are told a few milliseconds differently, and at 1
# frame/s and more pictures are coded otherwise, for which of them are key frames depends on when the stream
# began (0.34 were seen).
RATE_SHARE = 0.1
BYTES_SHARE = 0.1
AGE_S = 0.75
OFFSET_S = 0.25
COMMON_SHARE = 0.15
COUNT = 0.5


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of a cell, live and virtual, and the bounds that live must keep."""

    profile: str
    policy: str
    method: str
    name: str
    live: float
    virtual: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Within the bounds; not where a figure is unknown."""
        return bool(self.low <= self.live <= self.high)

    def __str__(self) -> str:
        return (
            f"{self.profile}, {self.policy}, {self.method}: {self.name} {self.live:.3g} live, "
            f"{self.virtual:.3g} virtual, to be within {self.low:.3g} and {self.high:.3g}: "
            f"{'agrees' if self.holds else 'DIFFERS'}"
        )


def agreement(
    live: Sequence[Run], virtual: Sequence[Run], redrawn: Mapping[Key, Sequence[Run]] | None = None
) -> list[Check]:
    """Each live run against the virtual run of the same cell.

    redrawn: virtual runs of the cell under other draws of its links; without, chance makes nothing.
    """
    partners, others = {run.key: run for run in virtual}, redrawn or {}
    return [check for run in live for check in _compare(run, partners[run.key], others.get(run.key, ()))]


def _compare(live: Run, virtual: Run, redrawn: Sequence[Run]) -> list[Check]:
    pairs = _common(live, virtual)
    apart = [abs(mine.count - theirs.count) for mine, theirs in pairs]

    def within(
        name: str, figure: Callable[[Run], float], share: float = 0.0, more: float = 0.0
    ) -> tuple[str, float, float, float, float]:
        drawn = [figure(run) for run in (virtual, *redrawn)]
        low, high = min(drawn), max(drawn)
        return name, figure(live), drawn[0], low - share * low - more, high + share * high + more

    fewest = min((len(_common(run, virtual)) / max(len(virtual.answers), 1) for run in redrawn), default=1.0)
    figures = [
        within("answers/s", lambda run: len(run.answers) / run.seconds, share=RATE_SHARE),
        within("bytes/s", lambda run: run.cost.bytes / run.end_s, share=BYTES_SHARE),
        within("age p50, s", lambda run: _median(run, "age_s"), more=AGE_S),
        within("offset p50, s", lambda run: _median(run, "offset_s"), more=OFFSET_S),
        ("same frames", len(pairs) / max(len(virtual.answers), 1), 1.0, fewest - COMMON_SHARE, 1.0),
        ("count apart on them", float(np.mean(apart)) if apart else np.nan, 0.0, 0.0, COUNT),
    ]
    key = live.key
    return [Check(key.profile, key.policy, key.method, *figure) for figure in figures]


def _common(run: Run, virtual: Run) -> list[tuple[Answer, Answer]]:
    """Answers of both runs to the same frames."""
    theirs = {_frames(answer): answer for answer in virtual.answers}
    return [(answer, theirs[_frames(answer)]) for answer in run.answers if _frames(answer) in theirs]


def _median(run: Run, name: str) -> float:
    return float(np.median([getattr(answer, name) for answer in run.answers])) if run.answers else np.nan


def _frames(answer: Answer) -> tuple[str, float, frozenset[tuple[str, float]]]:
    """The frames that an answer is to, to 10 ms: stamps travel in ticks of 11 µs."""
    apart = frozenset((view, round(offset_s, 2)) for view, offset_s in answer.offsets_s.items())
    return answer.reference, round(answer.instant_s, 2), apart
