"""Does synchronising help where views are far apart? One claim per metric, and which of them must hold.

Every answer whose farthest view is `MIN_OFFSET_S` or more from the reference is compared with what the other
methods said of the same frames; a claim holds where the whole 95 % interval of the difference is below zero.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from viewsync.lab.record import Answer, Run
from viewsync.statistics import Interval, mean_interval

MIN_OFFSET_S = 2.0
# What each claim is about, by the name it is asked for with.
METRICS = {"density": "density error", "places": "places error (1 - F1)", "count": "count error"}
NOT_SYNCHRONISED, REFERENCE_ONLY = "none", "reference-only"
RIVALS = (NOT_SYNCHRONISED, REFERENCE_ONLY)


@dataclass(frozen=True, slots=True)
class Claim:
    """`method` less `rival` in `metric`, on the same frames."""

    metric: str
    method: str
    rival: str
    difference: Interval
    required: bool

    @property
    def holds(self) -> bool:
        """Whether the method is better, beyond what chance explains."""
        return self.difference.below_zero

    def __str__(self) -> str:
        d = self.difference
        said = "holds" if self.holds else "FAILS" if self.required else "does not hold (not required)"
        about = f"{METRICS[self.metric]}, {self.method} - {self.rival}"
        if not d.number:
            return f"{about}: not known: {said}"
        return (
            f"{about}: {d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}] over {d.number} answers of {d.crowds} "
            f"crowds: {said}"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """All claims, and whether the hub's times were everywhere as right as it said."""

    claims: tuple[Claim, ...]
    clocks_hold: bool
    worst_clock: str

    @property
    def passed(self) -> bool:
        """Whether what is required holds."""
        return self.clocks_hold and all(claim.holds for claim in self.claims if claim.required)

    def lines(self, gated: bool = True) -> list[str]:
        """For people; gated: say whether what is required holds."""
        clock = "within" if self.clocks_hold else "BEYOND"
        said = [
            *map(str, self.claims),
            f"clock error {clock} its stated uncertainty; at worst {self.worst_clock}",
        ]
        if gated:
            verdict = "passed" if self.passed else "FAILED"
            said.append(f"gate at offsets of {MIN_OFFSET_S:g} s and more: {verdict}")
        return said


class Judged(Protocol):
    """Whatever has errors: an answer, a point of the curve."""

    @property
    def squared_error(self) -> float: ...

    @property
    def f1(self) -> float: ...

    @property
    def count_error(self) -> float: ...


def error_of(judged: Judged, metric: str) -> float:
    """The error in this metric; NaN where it is not known."""
    if metric == "density":
        return judged.squared_error
    return 1.0 - judged.f1 if metric == "places" else judged.count_error


def parse_required(text: str) -> frozenset[tuple[str, str]]:
    """(metric, rival) pairs of `density,count:reference-only`: a metric alone means every rival.

    Raises ValueError naming what is wrong.
    """
    required = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        metric, colon, rival = word.partition(":")
        if metric not in METRICS or (colon and rival not in RIVALS):
            raise ValueError(
                f"{word!r} is no claim; give {' or '.join(METRICS)}, or one of them with "
                f"{' or '.join(f':{rival}' for rival in RIVALS)}"
            )
        required |= {(metric, one) for one in ([rival] if colon else RIVALS)}
    return frozenset(required)


def judge(runs: Sequence[Run], method: str, required: Collection[tuple[str, str]] = ()) -> Verdict:
    """The claims about `method` from runs of it and its rivals; required: (metric, rival) that must hold."""
    claims = tuple(
        Claim(
            metric,
            method,
            rival,
            paired(runs, method, rival, metric, MIN_OFFSET_S),
            (metric, rival) in required,
        )
        for metric in METRICS
        for rival in RIVALS
    )
    worst = worst_clock(runs)
    if worst is None:
        return Verdict(claims, False, "nothing was answered")
    run, answer = worst
    said = (
        f"{1000 * answer.clock_error_s:.0f} ms of {1000 * answer.clock_bound_s:.0f} ms in {run.key.profile}"
    )
    return Verdict(claims, answer.clock_error_s <= answer.clock_bound_s, said)


def paired(runs: Iterable[Run], method: str, rival: str, metric: str, min_offset_s: float = 0.0) -> Interval:
    """Mean difference in error, method less rival, over the answers that both gave to the same frames.

    What several policies answered alike counts once.
    """
    theirs = {_cell(run): run for run in runs if run.key.method == rival}
    differences, crowds = [], []
    seen = set()
    for run in runs:
        other = theirs.get(_cell(run)) if run.key.method == method else None
        if other is None:
            continue
        partner = {_frames(answer): answer for answer in other.answers}
        for answer in run.answers:
            frames = (run.key.profile, run.key.bundle, run.key.crowd, *_frames(answer))
            against = partner.get(_frames(answer))
            if against is not None and answer.offset_s >= min_offset_s and frames not in seen:
                seen.add(frames)
                differences.append(error_of(answer, metric) - error_of(against, metric))
                crowds.append(run.key.crowd)
    return mean_interval(differences, crowds)


def worst_clock(runs: Iterable[Run]) -> tuple[Run, Answer] | None:
    """The answer whose time was wrong by the largest share of what the hub said it may be."""
    found = ((run, answer) for run in runs for answer in run.answers)
    return max(found, key=lambda pair: pair[1].clock_error_s / max(pair[1].clock_bound_s, 1e-9), default=None)


def _cell(run: Run) -> tuple[str, str, str, int]:
    return run.key.profile, run.key.policy, run.key.bundle, run.key.crowd


def _frames(answer: Answer) -> tuple[str, float, tuple[tuple[str, float], ...]]:
    return answer.reference, answer.instant_s, tuple(sorted(answer.offsets_s.items()))
