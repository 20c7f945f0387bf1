"""Reference policies against brute force, and the two gates."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.buffer import Entry, Snapshot
from hub.reference import Policy, choose_reference, select
from viewsync.units import SECOND_NS

NOON_NS = 1_800_000_000_000_000_000
VIEWS = ("north", "south", "west", "east", "roof")

ages_s = st.dictionaries(st.sampled_from(VIEWS), st.integers(0, 140), min_size=1).map(
    lambda tenths: {view: tenths[view] / 10 for view in VIEWS if view in tenths}
)


def snapshot(ages: dict[str, float]) -> Snapshot:
    features = np.zeros((1, 1, 1), np.uint8)
    return Snapshot(
        0,
        {
            view: Entry(view, 1, 1, NOON_NS - round(age * SECOND_NS), 0, NOON_NS, "file", NOON_NS, features)
            for view, age in ages.items()
        },
    )


def policy(kind: str = "median", **other: object) -> Policy:
    values = {
        "kind": kind,
        "view": None,
        "references": VIEWS,
        "max_age_ns": 15 * SECOND_NS,
        "max_future_ns": SECOND_NS // 4,
        "max_offset_ns": 3 * SECOND_NS,
        "max_uncertainty_ns": SECOND_NS,
        "min_views": 1,
        "min_interval_ns": 0,
    }
    return Policy(**{**values, **other})


@given(ages_s, st.sets(st.sampled_from(VIEWS), min_size=1))
def test_median_minimises_the_total_offset_among_allowed_references(
    ages: dict[str, float], references: set[str]
) -> None:
    shot = snapshot(ages)
    chosen = choose_reference(shot, policy(references=tuple(v for v in VIEWS if v in references)))
    captures = {view: entry.capture_ns for view, entry in shot.entries.items()}
    totals = {view: sum(abs(other - captures[view]) for other in captures.values()) for view in captures}
    allowed = {view: total for view, total in totals.items() if view in references}
    if not allowed:
        assert chosen is None
        return
    assert chosen in allowed and allowed[chosen] == min(allowed.values())
    tied = [view for view in allowed if allowed[view] == allowed[chosen]]
    assert captures[chosen] == max(captures[view] for view in tied), "of equals, the fresher"


@given(ages_s)
def test_freshest_has_the_latest_capture(ages: dict[str, float]) -> None:
    chosen = choose_reference(snapshot(ages), policy("freshest"))
    assert chosen is not None and ages[chosen] == min(ages.values())


@given(ages_s, st.sampled_from(VIEWS))
def test_fixed_is_the_view_asked_for_or_else_the_median_and_says_so(
    ages: dict[str, float], view: str
) -> None:
    shot, fixed = snapshot(ages), policy("fixed", view=view)
    chosen = choose_reference(shot, fixed)
    assert chosen == (view if view in ages else choose_reference(shot, policy()))
    reasons = select(shot, VIEWS, fixed, NOON_NS).reasons
    assert (f"reference {chosen} instead of {view}" in reasons) == (view not in ages)


@given(ages_s, st.sampled_from(["median", "freshest"]), st.floats(0.1, 20), st.floats(0.1, 20))
def test_gates_partition_the_views(
    ages: dict[str, float], kind: str, max_age_s: float, max_offset_s: float
) -> None:
    """Used are exactly the timely views within the offset of the reference; every other view says why not."""
    limits = {"max_age_ns": round(max_age_s * SECOND_NS), "max_offset_ns": round(max_offset_s * SECOND_NS)}
    shot = snapshot(ages)
    selection = select(shot, VIEWS, policy(kind, **limits), NOON_NS)
    timely = {v: e for v, e in shot.entries.items() if NOON_NS - e.capture_ns <= limits["max_age_ns"]}
    if not timely:
        assert selection.reference is None and set(selection.left_out) == set(VIEWS)
        return
    assert selection.reference == choose_reference(Snapshot(0, timely), policy(kind))
    capture_ns = timely[selection.used[0]].capture_ns
    near = [v for v, e in timely.items() if abs(e.capture_ns - capture_ns) <= limits["max_offset_ns"]]
    assert selection.used[0] == selection.reference and sorted(selection.used) == sorted(near)
    assert set(selection.left_out) == set(VIEWS) - set(near) and all(selection.left_out.values())
    assert len(selection.reasons) == len(selection.left_out)


@pytest.mark.parametrize("order", list(itertools.permutations(("north", "south", "west"))))
def test_the_order_of_arrival_decides_nothing(order: tuple[str, ...]) -> None:
    """Two pairs of equal captures: ties everywhere."""
    for kind in ("median", "freshest"):
        assert choose_reference(snapshot(dict.fromkeys(order, 1.0)), policy(kind)) == "north"


def test_reasons_read_as_a_person_would_say_them() -> None:
    selection = select(
        snapshot({"north": 0.0, "south": 4.2, "west": 0.1, "roof": 20.0}), VIEWS, policy(), NOON_NS
    )
    assert selection.left_out == {
        "south": "offset -4.1 s < -3.0 s",
        "east": "no frame",
        "roof": "age 20.0 s > 15.0 s",
    }
    assert selection.reference == "west"
    ahead = select(snapshot({"north": 4.2, "west": 4.3, "south": 0.0}), VIEWS[:3], policy(), NOON_NS)
    assert ahead.left_out == {"south": "offset 4.2 s > 3.0 s"}


def test_frames_left_in_the_future_by_a_stepped_clock_are_left_out() -> None:
    selection = select(snapshot({"north": -5.0, "south": 0.0}), VIEWS[:2], policy(), NOON_NS)
    assert selection.used == ("south",) and selection.left_out["north"] == "captured 5.0 s in the future"


def test_too_few_views_make_no_answer() -> None:
    few = select(snapshot({"north": 0.0, "west": 0.1}), VIEWS, policy(min_views=3), NOON_NS)
    assert few.reference is None and few.reasons[0] == "2 usable of at least 3 views"
    assert set(few.left_out) == set(VIEWS)


def test_a_policy_that_could_never_answer_cannot_be_made() -> None:
    good = policy()
    for wrong in (
        {"references": ()},
        {"kind": "fixed", "view": "cellar"},
        {"min_views": 0},
        {"max_age_ns": 0},
    ):
        with pytest.raises(ValueError):
            dataclasses.replace(good, **wrong)
