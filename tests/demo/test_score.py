"""The demo's score against figures worked out by hand."""

import numpy as np
import pytest

from calib.ground import GroundGrid
from viewsync.demo.counters import Counters
from viewsync.demo.score import Score
from viewsync.prediction import Prediction, ViewReport

GRID = GroundGrid(0.0, 0.0, 1.0, 2, 2)


def prediction(
    seq: int, counts: dict[str, float], latency_s: float = 1.0, session: int = 1, at_s: float = 0.0
) -> Prediction:
    return Prediction(
        site="default",
        scene="plaza",
        session=session,
        seq=seq,
        published_ns=10**18,
        capture_ns=10**18 + round((at_s - latency_s) * 1e9),
        capture_uncertainty_ns=0,
        reference="north",
        synchroniser="column",
        count=counts["column"],
        counts=counts,
        density=np.zeros((2, 2), np.float32),
        grid=GRID,
        views=(ViewReport("north", True, "", session=1, seq=seq, capture_ns=1, clock="rtcp", offset_ns=0),),
        bundle="0" * 64,
        latency_ns=round(latency_s * 1e9),
        fuse_ns=0,
        degraded=False,
    )


def counts(column: float, none: float, alone: float) -> dict[str, float]:
    return {"column": column, "none": none, "reference-only": alone}


def test_mean_errors_and_latencies() -> None:
    score = Score("column")
    score.add(prediction(0, counts(11.0, 14.0, 8.0), 1.0), 10)
    score.add(prediction(1, counts(18.0, 20.0, 30.0), 3.0), 20)
    found = score.summary()
    assert (found["mae_synchronised"], found["mae_unsynchronised"], found["mae_reference_only"]) == (
        1.5,
        2,
        6,
    )
    assert (found["predictions"], found["judged"], found["truth_mean"]) == (2, 2, 15)
    assert found["latency_p50_ms"] == 2000 and found["latency_p99_ms"] == pytest.approx(2980)


def test_a_snapshot_counts_once_and_a_restarted_hub_starts_anew() -> None:
    score = Score("column")
    first = prediction(5, counts(1.0, 1.0, 1.0))
    assert score.add(first, 1) and not score.add(first, 1)
    assert score.add(prediction(0, counts(1.0, 1.0, 1.0), session=2), 1)
    assert score.summary()["predictions"] == 2


def test_graphs_are_compared_over_the_same_snapshots_only() -> None:
    score = Score("column")
    score.add(prediction(0, counts(10.0, 10.0, 10.0)), 12)
    score.add(prediction(1, {"column": 99.0}), 12)
    score.add(prediction(2, counts(99.0, 99.0, 99.0)), None)
    assert score.judged == 1 and score.mae("column") == 2.0
    assert score.summary()["predictions"] == 3


def test_a_false_truth_changes_errors_and_no_count() -> None:
    one = prediction(0, counts(11.0, 14.0, 8.0))
    scores = [Score("column"), Score("column")]
    for score, truth in zip(scores, (10, 1000), strict=True):
        score.add(one, truth)
        assert score.last is one
    assert scores[0].mae("column") != scores[1].mae("column")
    assert one == prediction(0, counts(11.0, 14.0, 8.0))


def test_a_short_run_judges_nothing() -> None:
    score = Score("column")
    assert "No snapshot" in score.verdict()
    for seq in range(30):
        score.add(prediction(seq, counts(10.0, 12.0, 9.0), at_s=seq), 10)
    assert "Too short" in score.verdict() and "0.00 synchronised, 2.00 not" in score.verdict()


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (
            [10.0],
            "not synchronising: better (-2.00 [-2.00, -2.00]); against the reference alone: better (-1.00",
        ),
        (
            [13.0],
            "not synchronising: WORSE (+1.00 [+1.00, +1.00]); against the reference alone: WORSE (+2.00",
        ),
        ([10.0, 14.0], "not synchronising: no difference that this run can show (+0.00 ["),
    ],
)
def test_the_verdict_is_about_stretches_not_about_snapshots(column: list[float], said: str) -> None:
    score = Score("column")
    for seq in range(120):
        # Snapshots come a second apart; what is seen changes every ten.
        score.add(prediction(seq, counts(column[seq // 10 % len(column)], 12.0, 9.0), at_s=seq), 10)
    assert said in score.verdict()


def test_counters_go_on_over_a_restart() -> None:
    counters = Counters({})
    page = '# TYPE a_total counter\na_total{{reason="old"}} {}\na_total{{reason="late"}} {}\n'
    for old, late in ((3, 0), (5, 0), (1, 2)):
        counters.take("hub", page.format(old, late))
    assert counters.total("a_total") == 5 + 1 + 2
    assert counters.by_label("a_total") == {"old": 6, "late": 2}
