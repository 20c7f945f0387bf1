"""What a run of the laboratory leaves behind: every answer beside the truth, and what the way cost.

Live and virtual runs leave the same record. Times are seconds since the crowd's time 0.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Key:
    """Which cell of the sweep. method: a graph of the bundle."""

    profile: str
    policy: str
    bundle: str
    method: str
    crowd: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One prediction beside the truth.

    at_s: when it was published; instant_s: when the reference frame was truly taken; age_s: the former less
    the latter; offset_s: how far the farthest view that was used truly was from the reference; offsets_s: of
    each view that was used. truth: people in the region at the instant, truth_now: at publication;
    squared_error: of the density against the truth's at the instant, summed over the grid; f1: of the people
    located in it, NaN where that is not known. clock_error_s and clock_bound_s: the hub's worst error about a
    time (the reference's capture, another view's offset) and what it said that the error is at most.
    """

    number: int
    at_s: float
    instant_s: float
    reference: str
    used: int
    offset_s: float
    offsets_s: Mapping[str, float]
    count: float
    truth: int
    truth_now: int
    squared_error: float
    clock_error_s: float
    clock_bound_s: float
    degraded: bool
    f1: float = math.nan

    @property
    def age_s(self) -> float:
        """How old the instant was that the answer speaks of."""
        return self.at_s - self.instant_s

    @property
    def count_error(self) -> float:
        """People too many or too few."""
        return abs(self.count - self.truth)


@dataclass(frozen=True, slots=True)
class Cost:
    """Per run: frames that cameras took, messages that agents sent, messages replaced by newer ones before
    they were sent, bytes of all messages, connections lost, messages that the hub refused, statuses instead
    of answers; seconds of CPU and of real time that the hub's steps took.
    """

    frames: int = 0
    messages: int = 0
    replaced: int = 0
    bytes: int = 0
    reconnects: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    silences: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One cell: answers from `start_s` to `end_s`."""

    key: Key
    start_s: float
    end_s: float
    answers: tuple[Answer, ...]
    cost: Cost

    @property
    def seconds(self) -> float:
        """How long answers were counted."""
        return self.end_s - self.start_s


_KEY = [item.name for item in fields(Key)]
_ANSWER = [item.name for item in fields(Answer) if item.name != "offsets_s"]


def write_answers(path: Path, runs: Iterable[Run], views: Sequence[str]) -> None:
    """Every answer as a line of CSV; a view's offset is empty where it was not used."""
    offsets = [f"offset_{view}_s" for view in views]
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow([*_KEY, *_ANSWER, "age_s", *offsets])
        for run in runs:
            key = [getattr(run.key, name) for name in _KEY]
            for answer in run.answers:
                values = [_cell(getattr(answer, name)) for name in _ANSWER]
                apart = [_cell(answer.offsets_s.get(view, math.nan)) for view in views]
                lines.writerow([*key, *values, _cell(answer.age_s), *apart])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value
