"""Rows judge by the wall clock, say what they cannot tell, and take turns while they are measured."""

import json

import pytest
from rich.console import Console

from bench.report import table
from bench.rows import Promise, Row
from bench.timing import Case, take_turns

MACHINE = {
    "processor": "a processor",
    "cores": 2,
    "load": 0.1,
    "load_after": 1.2,
    "bundle": "0123456789ab",
    "onnxruntime": "1.20",
    "torch": None,
}


@pytest.mark.parametrize(
    ("promise", "figure", "kept"),
    [
        (Promise(20), 20.0, True),
        (Promise(20), 20.1, False),
        (Promise(40, at_least=True), 40.0, True),
        (Promise(40, at_least=True), 39.9, False),
    ],
)
def test_a_promise_is_kept_up_to_its_limit(promise: Promise, figure: float, kept: bool) -> None:
    row = Row("name", "what", "ms", figure, promise, processor=figure)
    assert row.holds is kept and row.holds_by_processor is kept
    assert row.as_dict()["holds"] is kept


def test_without_a_promise_or_a_figure_nothing_is_judged() -> None:
    assert Row("name", "what", "ms", 1.0).holds is None
    assert Row("name", "what", "ms", skipped="no torch", promise=Promise(1)).holds is None
    assert Row("name", "what", "ms", 1.0, Promise(2)).holds_by_processor is None


@pytest.mark.parametrize(
    "wrong",
    [{}, {"figure": 1.0, "skipped": "why"}, {"figure": 1.0, "ratio": 2.0}, {"figure": 1.0, "beside": "x"}],
)
def test_half_a_row_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="name"):
        Row("name", "what", "ms", **wrong)


def test_the_table_says_what_holds_what_does_not_and_what_is_missing() -> None:
    rows = [
        Row("a", "fast enough", "ms", 1.0, Promise(2), 5, 0.9, "JPEG", 3.25),
        Row("b", "kept waiting", "ms", 3.0, Promise(2), 5, 1.5),
        Row("c", "too slow", "ms", 3.0, Promise(2), 5, 2.5),
        Row("d", "not here", "ms", skipped="torch is not installed"),
    ]
    console = Console(width=180)
    with console.capture() as captured:
        console.print(table(rows, MACHINE))
    fast, waiting, slow, missing = (
        next(line for line in captured.get().splitlines() if row.what in line) for row in rows
    )
    assert "yes" in fast and "3.25 × JPEG" in fast and "≤ 2 ms" in fast
    assert "by processor time" in waiting
    assert "NO" in slow
    assert "skipped" in missing and "torch is not installed" in missing
    assert "load 0.1 before" in captured.get()
    json.dumps([row.as_dict() for row in rows], allow_nan=False)


def test_cases_take_turns_and_only_their_own_time_counts() -> None:
    order = []
    cases = {
        name: Case(
            lambda number, name=name: order.append((name, number)), lambda number: order.append("prepared")
        )
        for name in ("a", "b")
    }
    spent = take_turns(cases, rounds=3, warm_up=1)
    runs = [entry for entry in order if entry != "prepared"]
    assert runs == [(name, number) for number in (-1, 0, 1, 2) for name in ("a", "b")]
    assert order[::2] == ["prepared"] * 8
    assert spent["a"].wall_ms.shape == spent["b"].processor_ms.shape == (3,)
    assert (spent["a"].wall_ms > 0).all()
