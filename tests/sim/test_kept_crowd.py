"""A crowd that goes on from a file is the crowd that was played through, to the bit; a bad one costs time."""

import dataclasses
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from viewsync.sim import kept_crowd
from viewsync.sim.crowd import STEP_S, Crowd, CrowdState
from viewsync.sim.kept_crowd import KeptCrowd

AREA = (0.0, 0.0, 12.0, 9.0)
OBSTACLES = ((3.0, 3.0, 0.5), (8.0, 4.0, 0.8))
# Sooner than in earnest: playing a minute takes half a second.
KEEP_EVERY_S = 4.0
LATER_S = KEEP_EVERY_S + 2.0


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_crowd, "KEEP_EVERY_S", KEEP_EVERY_S)


def crowd(seed: int = 5, people: int = 12) -> Crowd:
    return Crowd(AREA, people, seed, OBSTACLES)


def same(first: CrowdState, second: CrowdState) -> bool:
    return all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name))
        for field in dataclasses.fields(CrowdState)
    )


@pytest.fixture(scope="module")
def played() -> Crowd:
    through = crowd()
    through.state(LATER_S + 10.0)
    return through


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many steps have been computed since."""
    taken = 0
    advance = Crowd._advance

    def counted(self: Crowd) -> None:
        nonlocal taken
        taken += 1
        advance(self)

    monkeypatch.setattr(Crowd, "_advance", counted)
    return lambda: taken


def test_a_crowd_that_goes_on_from_a_file_is_the_same_and_skips_what_was(
    tmp_path: Path, played: Crowd, steps: Callable[[], int]
) -> None:
    path = tmp_path / "crowd.json"
    first = KeptCrowd(crowd(), path)
    assert same(first.state(1.0), played.state(1.0)) and not path.exists()
    kept_s = KEEP_EVERY_S + 1.03
    assert same(first.state(kept_s), played.state(kept_s)) and path.exists()

    again = KeptCrowd(crowd(), path)
    had = steps()
    for t_s in (LATER_S, LATER_S + 2.57, LATER_S + 0.8, LATER_S + 9.99):
        assert same(again.state(t_s), played.state(t_s))
    assert steps() - had <= (LATER_S + 10.0 - kept_s) / STEP_S + 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["crowd.json"]


def _changed(path: Path, **changes: object) -> str:
    return json.dumps({**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (lambda path: path.read_text()[:-100], "delimiter"),
        (lambda path: "[]", "indices"),
        (lambda path: _changed(path, crowd={}), "another crowd's"),
        (lambda path: _changed(path, step=-1), "step is -1"),
        (lambda path: _changed(path, step=100_000), "asked for is"),
        (lambda path: _changed(path, moving={}), "xy is not"),
        (lambda path: path.read_text().replace('"goal": [[', '"goal": [[NaN, 0], ['), "goal is not"),
        (lambda path: _changed(path, randomness={"bit_generator": "PCG64"}), "randomness"),
    ],
)
def test_a_file_of_no_use_is_said_and_the_crowd_played(
    text: Callable[[Path], str],
    why: str,
    tmp_path: Path,
    played: Crowd,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "crowd.json"
    KeptCrowd(crowd(), path).state(KEEP_EVERY_S)
    path.write_text(text(path))
    assert same(KeptCrowd(crowd(), path).state(LATER_S), played.state(LATER_S))
    (said,) = [record.message for record in caplog.records if "not used" in record.message]
    assert why in said and "played from its beginning" in said


@pytest.mark.parametrize("other", [crowd(seed=6), crowd(people=11)])
def test_another_crowds_file_is_not_used(other: Crowd, tmp_path: Path, played: Crowd) -> None:
    path = tmp_path / "crowd.json"
    KeptCrowd(other, path).state(KEEP_EVERY_S)
    assert same(KeptCrowd(crowd(), path).state(LATER_S), played.state(LATER_S))


def test_a_file_that_cannot_be_written_costs_nothing_but_a_line(
    tmp_path: Path, played: Crowd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    kept = KeptCrowd(crowd(), tmp_path / "no such folder" / "crowd.json")
    assert same(kept.state(LATER_S), played.state(LATER_S))
    assert "cannot be kept" in caplog.text and os.strerror(2) in caplog.text
