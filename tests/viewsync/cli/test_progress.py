"""How far something is, where nobody looks on: lines in the log."""

import logging

import pytest

from viewsync.cli import progress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[float]:
    """The time, seconds, in a list: a test sets it."""
    time = [0.0]
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False)
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    caplog.set_level(logging.INFO, logger=progress.__name__)
    return time


def test_what_comes_before_the_first_step_is_said_now_and_then_and_does_not_count(
    now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with progress.progress("train", 100, 100) as advance:  # all done by an earlier run
        for frame in range(3):
            advance(100, f"looking at frame {frame}")
    with progress.progress("train", 100) as advance:
        for frame in range(5):
            advance(0, f"looking at frame {frame}")
            now[0] += 15.0
        now[0] += 5.0
        advance(10)
    lines = [record.getMessage() for record in caplog.records]
    # The ten steps took the twenty seconds since the last frame.
    assert lines == [
        *(f"train: 0 of 100 looking at frame {frame}" for frame in (2, 4)),
        "train: 10 of 100, about 3 min left",
    ]


def test_each_phase_counts_from_where_it_began(now: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with progress.phases("cell") as report:
        for done in (700, 710, 720):  # 700 of them by an earlier run
            report("train", done, 1840)
            now[0] += 20.0
        now[0] += 7200.0
        for done in (0, 40, 80):
            report("measure", done, 400)
            now[0] += 20.0
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "cell: train: 710 of 1840, about 38 min left",
        "cell: train: 720 of 1840, about 37 min left",
        "cell: measure: 40 of 400, about 3 min left",
        "cell: measure: 80 of 400, about 3 min left",
    ]
