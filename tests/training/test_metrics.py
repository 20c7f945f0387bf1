"""Metrics against values worked out by hand, and intervals that resample what is independent."""

import numpy as np
import pytest

from calib.ground import GroundGrid
from viewsync.training.metrics import METRICS, Scores, bootstrap, hits, locate
from viewsync.training.snapshots import density_map

GRID = GroundGrid(origin_x_m=1.0, origin_y_m=-2.0, cell_m=0.2, columns=60, rows=40)


def scores(**given: list[float]) -> Scores:
    base = {"predicted": [3.0, 8.0, 1.0], "true": [4.0, 6.0, 0.0], "squared_error": [0.5, 0.1, 0.3]}
    base |= {"hits": [3.0, 5.0, 0.0], "found": [4.0, 5.0, 1.0]} | given
    crowd = np.array(base.pop("crowd", [0.0, 0.0, 1.0])).astype(np.int64)
    return Scores(**{k: np.array(v) for k, v in base.items()}, crowd=crowd)


def test_every_metric_against_hand_computed_values() -> None:
    found = {name: metric(scores()) for name, metric in METRICS.items()}
    assert found["mae"] == pytest.approx((1 + 2 + 1) / 3)
    assert found["nae"] == pytest.approx((1 / 4 + 2 / 6) / 2)  # the empty snapshot has no share
    assert found["density_mse"] == pytest.approx(0.3)
    assert found["precision"] == pytest.approx(8 / 10)
    assert found["recall"] == pytest.approx(8 / 10)
    assert found["f1"] == pytest.approx(2 * 8 / (10 + 10))


def test_nobody_and_nothing_found_is_no_division_by_zero() -> None:
    empty = scores(predicted=[0.0], true=[0.0], squared_error=[0.0], hits=[0.0], found=[0.0], crowd=[0.0])
    assert [METRICS[name](empty) for name in ("mae", "precision", "recall", "f1")] == [0, 0, 0, 0]


def test_people_are_paired_one_to_one_and_as_many_as_can_be() -> None:
    true = np.array([[0.0, 0.0], [0.6, 0.0], [5.0, 5.0]])
    # The first place lies within 0.5 m of two people, the second of one of them: greedy pairing loses one.
    found = np.array([[0.3, 0.0], [-0.4, 0.0], [9.0, 9.0]])
    assert hits(found, true) == 2
    assert hits(found, true[::-1]) == 2 and hits(found[::-1], true) == 2
    assert hits(np.array([[0.0, 0.0], [0.01, 0.0]]), true[:1]) == 1  # one person is found once
    assert hits(np.array([[0.5, 0.0]]), true[:1]) == 1 and hits(np.array([[0.51, 0.0]]), true[:1]) == 0
    assert hits(np.zeros((0, 2)), true) == 0 and hits(found, np.zeros((0, 2))) == 0


def test_people_are_located_where_the_density_has_its_peaks() -> None:
    true = np.array([[2.1, -1.1], [2.3, 1.7], [8.5, 3.0], [11.9, 5.9]])
    found = locate(density_map(true, GRID), GRID, 0.01)
    assert len(found) == 4 and hits(found, true, 0.15) == 4  # within a cell
    assert len(locate(density_map(true, GRID) * 0.1, GRID, 0.01)) == 0
    assert locate(np.zeros((40, 60), np.float32), GRID, 0.01).shape == (0, 2)


def test_intervals_draw_whole_crowds() -> None:
    rng = np.random.default_rng(0)
    crowd = np.repeat(np.arange(20), 50)
    error = rng.normal(0.0, 1.0, 20)[crowd]  # all snapshots of a crowd err alike
    many = scores(
        predicted=(10 + error).tolist(),
        true=[10.0] * 1000,
        squared_error=[0.0] * 1000,
        hits=[0.0] * 1000,
        found=[0.0] * 1000,
        crowd=crowd.astype(float).tolist(),
    )
    low, high = bootstrap(many, METRICS["mae"])
    assert low < METRICS["mae"](many) < high
    # About ±1.96 · sd / √20 crowds, not / √1000 snapshots.
    expected = 2 * 1.96 * np.abs(error[::50]).std() / np.sqrt(20)
    assert high - low == pytest.approx(expected, rel=0.25)
    assert bootstrap(many, METRICS["mae"]) == (low, high)  # same seed, same interval


def test_differences_are_paired() -> None:
    crowd = list(np.repeat(np.arange(10.0), 4))
    noise = np.random.default_rng(1).normal(0, 5, 40)
    zeros = [0.0] * 40
    worse = scores(
        predicted=(50 + np.abs(noise) + 0.5).tolist(), true=[50.0] * 40, squared_error=zeros, hits=zeros,
        found=zeros, crowd=crowd,
    )  # fmt: skip
    better = scores(
        predicted=(50 + np.abs(noise)).tolist(), true=[50.0] * 40, squared_error=zeros, hits=zeros,
        found=zeros, crowd=crowd,
    )  # fmt: skip
    # Crowds differ by several people, the two methods by exactly half of one on each.
    assert bootstrap(better, METRICS["mae"], worse) == pytest.approx((-0.5, -0.5))
