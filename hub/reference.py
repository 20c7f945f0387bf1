"""Which view the others are synchronised to, and which views take part. Pure functions of a snapshot, a
policy and a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hub.buffer import Entry, Snapshot
from viewsync.units import SECOND_NS


@dataclass(frozen=True, slots=True)
class Policy:
    """When and from what an answer is made; times in nanoseconds.

    kind `fixed` always takes `view`, and the median while that view is absent; `freshest` the latest
    capture; `median` the view with the smallest total |offset| to the others. references: the views that
    the bundle allows as reference. max_offset_ns: a view further from the reference is left out.
    max_uncertainty_ns: an offset less certain is given to the model as unknown. min_views: fewest used
    views of an answer. min_interval_ns: shortest time between answers.
    """

    kind: Literal["fixed", "freshest", "median"]
    view: str | None
    references: tuple[str, ...]
    max_age_ns: int
    max_future_ns: int
    max_offset_ns: int
    max_uncertainty_ns: int
    min_views: int
    min_interval_ns: int

    def __post_init__(self) -> None:
        if not self.references:
            raise ValueError("no view may be the reference")
        if self.kind == "fixed" and self.view not in self.references:
            raise ValueError(f"fixed reference {self.view!r} is none of {', '.join(self.references)}")
        if min(self.max_age_ns, self.max_offset_ns, self.max_uncertainty_ns, self.min_views) <= 0:
            raise ValueError("max_age_ns, max_offset_ns, max_uncertainty_ns and min_views must be positive")
        if min(self.max_future_ns, self.min_interval_ns) < 0:
            raise ValueError("max_future_ns and min_interval_ns must not be negative")


@dataclass(frozen=True, slots=True)
class Selection:
    """Who takes part: `used` starts with the reference; `left_out` says why, for each other view of the
    bundle.

    reference None: no answer can be made, and `reasons` says why; otherwise `reasons` are what degrades the
    answer.
    """

    reference: str | None
    used: tuple[str, ...]
    left_out: Mapping[str, str]
    reasons: tuple[str, ...]


def choose_reference(snapshot: Snapshot, policy: Policy) -> str | None:
    """The reference view among the snapshot's; None where no view of it may be the reference."""
    return _choose(tuple(snapshot.entries.values()), policy)


def select(snapshot: Snapshot, views: Sequence[str], policy: Policy, now_ns: int) -> Selection:
    """Age gate, reference, offset gate. `views`: all views of the bundle, in its order."""
    left_out = {view: _absence(snapshot.entries.get(view), policy, now_ns) for view in views}
    timely = tuple(entry for view, entry in snapshot.entries.items() if not left_out[view])
    reference = _choose(timely, policy)
    if reference is None:
        left_out = {view: why or "no reference for it" for view, why in left_out.items()}
        reason = "no view is usable" if not timely else "no usable view may be the reference"
        return Selection(None, (), left_out, (reason, *_missing(left_out)))
    capture_ns = snapshot.entries[reference].capture_ns
    for entry in timely:
        offset_ns = entry.capture_ns - capture_ns
        if abs(offset_ns) > policy.max_offset_ns:
            sign, limit = ("<", -policy.max_offset_ns) if offset_ns < 0 else (">", policy.max_offset_ns)
            left_out[entry.view] = f"offset {_seconds(offset_ns)} {sign} {_seconds(limit)}"
    used = (reference, *(view for view in views if view != reference and not left_out[view]))
    reasons = _missing(left_out)
    if policy.kind == "fixed" and reference != policy.view:
        reasons = (f"reference {reference} instead of {policy.view}", *reasons)
    left_out = {view: why for view, why in left_out.items() if why}
    if len(used) < policy.min_views:
        few = f"{len(used)} usable of at least {policy.min_views} views"
        return Selection(None, (), {**left_out, **dict.fromkeys(used, few)}, (few, *reasons))
    return Selection(reference, used, left_out, reasons)


def _choose(entries: Sequence[Entry], policy: Policy) -> str | None:
    allowed = [entry for entry in entries if entry.view in policy.references]
    if not allowed:
        return None
    if policy.kind == "fixed" and any(entry.view == policy.view for entry in allowed):
        return policy.view

    def total_offset_ns(candidate: Entry) -> int:
        return sum(abs(entry.capture_ns - candidate.capture_ns) for entry in entries)

    # Ties go to the fresher frame, then to the order of the bundle's references: never to the order of
    # arrival.
    order = policy.references.index
    if policy.kind == "freshest":
        return min(allowed, key=lambda entry: (-entry.capture_ns, order(entry.view))).view
    return min(allowed, key=lambda entry: (total_offset_ns(entry), -entry.capture_ns, order(entry.view))).view


def _absence(entry: Entry | None, policy: Policy, now_ns: int) -> str:
    if entry is None:
        return "no frame"
    age_ns = now_ns - entry.capture_ns
    if age_ns > policy.max_age_ns:
        return f"age {_seconds(age_ns)} > {_seconds(policy.max_age_ns)}"
    if -age_ns > policy.max_future_ns + min(entry.uncertainty_ns, policy.max_uncertainty_ns):
        return f"captured {_seconds(-age_ns)} in the future"
    return ""


def _missing(left_out: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{view}: {why}" for view, why in left_out.items() if why)


def _seconds(value_ns: int) -> str:
    return f"{value_ns / SECOND_NS:.1f} s"
