"""A sweep in numbers: one row per profile, policy and method, and the differences between methods."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from viewsync.lab.curve import Point
from viewsync.lab.gate import NOT_SYNCHRONISED, error_of, paired
from viewsync.lab.record import Run
from viewsync.lab.sweep import Sweep, only
from viewsync.statistics import Interval, mean_interval


@dataclass(frozen=True, slots=True)
class Row:
    """One profile, policy, bundle and method over all crowds.

    rate_hz: answers a second; age and offset in seconds, percentiles over answers; used: views per answer;
    silences: statuses instead of answers, one per 5 s without any; kbit_s: messages of all views;
    clock: the worst clock error as a share of what was stated. cpu_ms: per answer, all of the hub's step;
    times_real: seconds of the scenario per second that one process took for it, times_cpu: per second of
    processor time. All three are this machine's.
    """

    profile: str
    policy: str
    bundle: str
    method: str
    answers: int
    count_error: Interval
    density_error: Interval
    places_error: Interval
    now_error: Interval
    rate_hz: float
    degraded: float
    age_p50_s: float
    age_p95_s: float
    offset_p50_s: float
    offset_p95_s: float
    used: float
    silences: int
    refused: int
    replaced: int
    kbit_s: float
    clock: float
    cpu_ms: float
    times_real: float
    times_cpu: float


def rows(sweep: Sweep) -> list[Row]:
    """In the order in which the cells were run."""
    cells = dict.fromkeys((r.key.profile, r.key.policy, r.key.bundle, r.key.method) for r in sweep.runs)
    return [
        _row(only(sweep.runs, profile=profile, policy=policy, bundle=bundle, method=method))
        for profile, policy, bundle, method in cells
    ]


def _row(runs: Sequence[Run]) -> Row:
    key = runs[0].key
    pairs = [(answer, run.key.crowd) for run in runs for answer in run.answers]
    answers = [answer for answer, _ in pairs]
    crowds = [crowd for _, crowd in pairs]
    seconds = sum(run.seconds for run in runs)
    whole_s = sum(run.end_s for run in runs)
    wall_s, cpu_s = sum(run.cost.wall_s for run in runs), sum(run.cost.cpu_s for run in runs)
    age, offset = _percentiles([a.age_s for a in answers]), _percentiles([a.offset_s for a in answers])
    return Row(
        profile=key.profile,
        policy=key.policy,
        bundle=key.bundle,
        method=key.method,
        answers=len(answers),
        count_error=mean_interval([a.count_error for a in answers], crowds),
        density_error=mean_interval([a.squared_error for a in answers], crowds),
        places_error=mean_interval([1.0 - a.f1 for a in answers], crowds),
        now_error=mean_interval([abs(a.count - a.truth_now) for a in answers], crowds),
        rate_hz=len(answers) / seconds,
        degraded=_mean([a.degraded for a in answers]),
        age_p50_s=age[0],
        age_p95_s=age[1],
        offset_p50_s=offset[0],
        offset_p95_s=offset[1],
        used=_mean([a.used for a in answers]),
        silences=sum(run.cost.silences for run in runs),
        refused=sum(sum(run.cost.refused.values()) for run in runs),
        replaced=sum(run.cost.replaced for run in runs),
        kbit_s=8e-3 * sum(run.cost.bytes for run in runs) / whole_s,
        clock=max((a.clock_error_s / max(a.clock_bound_s, 1e-9) for a in answers), default=0.0),
        cpu_ms=1000 * cpu_s / max(len(answers), 1),
        times_real=whole_s / wall_s if wall_s else float("nan"),
        times_cpu=whole_s / cpu_s if cpu_s else float("nan"),
    )


def differences(sweep: Sweep, policy: str, bundle: str, metric: str) -> dict[str, dict[str, Interval]]:
    """profile → rival → the bundle's synchronised method less the rival, on the same frames."""
    method, *rivals = sweep.methods[bundle]
    chosen = only(sweep.runs, policy=policy, bundle=bundle)
    profiles = dict.fromkeys(run.key.profile for run in chosen)
    return {
        profile: {rival: paired(only(chosen, profile=profile), method, rival, metric) for rival in rivals}
        for profile in profiles
    }


def curve_of(points: Iterable[Point], bundle: str, method: str, metric: str) -> dict[float, Interval]:
    """Offset → mean error of a method."""
    by_offset: dict[float, list[Point]] = {}
    for point in points:
        if (point.bundle, point.method) == (bundle, method):
            by_offset.setdefault(point.offset_s, []).append(point)
    return {
        offset_s: mean_interval([error_of(p, metric) for p in there], [p.crowd for p in there])
        for offset_s, there in sorted(by_offset.items())
    }


def curve_differences(
    points: Sequence[Point], bundle: str, method: str, metric: str, rival: str = NOT_SYNCHRONISED
) -> dict[float, Interval]:
    """Offset → `method` less `rival`, on the same frames."""

    def errors(name: str) -> dict[float, list[tuple[float, int]]]:
        found: dict[float, list[tuple[float, int]]] = {}
        for p in points:
            if (p.bundle, p.method) == (bundle, name):
                found.setdefault(p.offset_s, []).append((error_of(p, metric), p.crowd))
        return found

    ours, theirs = errors(method), errors(rival)
    return {
        offset_s: mean_interval(
            [mine[0] - other[0] for mine, other in zip(there, theirs[offset_s], strict=True)],
            [crowd for _, crowd in there],
        )
        for offset_s, there in sorted(ours.items())
        if offset_s in theirs
    }


def write_rows(path: Path, table: Sequence[Row]) -> None:
    """The rows as CSV; an interval is three columns."""
    names = list(Row.__slots__)
    head: list[str] = []
    for name in names:
        interval = isinstance(getattr(table[0], name), Interval) if table else False
        head += [name, f"{name}_low", f"{name}_high"] if interval else [name]
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(head)
        for row in table:
            lines.writerow(cell for name in names for cell in _cells(getattr(row, name)))


def write_points(path: Path, points: Sequence[Point]) -> None:
    """Every snapshot of the curve as a line of CSV."""
    names = list(Point.__slots__)
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(names)
        for point in points:
            lines.writerow(cell for name in names for cell in _cells(getattr(point, name)))


def _cells(value: object) -> list[object]:
    if isinstance(value, Interval):
        return [f"{part:.5g}" for part in (value.value, value.low, value.high)]
    return [f"{value:.6g}" if isinstance(value, float) else value]


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return float("nan"), float("nan")
    low, high = np.percentile(values, [50, 95])
    return float(low), float(high)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
