"""Boards seen by cameras that are not synchronised: only what rested ties them together."""

import numpy as np
import pytest

from calib.boards.board import Board, Sighting
from calib.errors import CalibError
from calib.solve.placements import join_sightings, still_interval

CORNERS = Board("charuco", 4, 5, 0.05, 0.03).corners


def film(places: list[tuple[float, float]], late_s: float = 0.0) -> list[Sighting]:
    """A board whose first corner is at x pixels at each time; everything else moves with it."""
    flat = 2000 * CORNERS[:, :2]
    return [
        Sighting(
            f"{t}", np.arange(len(CORNERS)), flat + np.array([x, 100.0]), CORNERS, (1280, 720), t + late_s
        )
        for t, x in places
    ]


RESTING = [(0.1 * k, 100.0) for k in range(10)]
CARRIED = [(1.0 + 0.1 * k, 100.0 + 20 * k) for k in range(10)]


def test_still_is_as_long_as_it_stayed() -> None:
    seen = film([*RESTING, *CARRIED])
    assert still_interval(seen, 4, 1.0) == pytest.approx((0.0, 1.005), abs=0.002)
    begin, end = still_interval(seen, 15, 1.0)  # 200 px/s: a pixel takes 5 ms
    assert seen[15].time_s - begin == pytest.approx(0.005, abs=0.001)
    assert end - seen[15].time_s == pytest.approx(0.005, abs=0.001)


def test_across_a_gap_nobody_knows() -> None:
    seen = film([(0.0, 100.0), (3.0, 100.0)])
    assert still_interval(seen, 0, 1.0) == (0.0, 0.0)


def test_a_resting_board_ties_cameras_together_and_a_carried_one_does_not() -> None:
    videos = {"a": film([*RESTING, *CARRIED]), "b": film([*RESTING, *CARRIED], late_s=0.03)}
    joined = join_sightings(videos, clock_error_s=0.3)
    both = [view.placement for view in joined.views if view.camera == "a"]
    shared = [view for view in joined.views if view.camera == "b" and view.placement in both]
    assert joined.shared == 1 and len(shared) == 1
    np.testing.assert_allclose(shared[0].pixels[0], videos["b"][0].pixels[0])
    assert joined.alone >= 10


def test_good_clocks_let_a_carried_board_count() -> None:
    videos = {"a": film(CARRIED), "b": film(CARRIED, late_s=0.001)}
    assert join_sightings(videos, clock_error_s=0.001).shared >= 8
    assert join_sightings(videos, clock_error_s=0.1).shared == 0


def test_a_rest_longer_than_the_clocks_differ_is_needed() -> None:
    videos = {"a": film([*RESTING, *CARRIED]), "b": film([*RESTING, *CARRIED])}
    assert join_sightings(videos, clock_error_s=2.0).shared == 0


def test_pictures_without_a_time_are_refused() -> None:
    still = film(RESTING)
    still[3] = Sighting("x", still[3].ids, still[3].pixels, still[3].corners, (1280, 720))
    with pytest.raises(CalibError, match="has no time"):
        join_sightings({"a": still, "b": film(RESTING)}, 0.1)
    with pytest.raises(CalibError, match="clock error"):
        join_sightings({"a": film(RESTING)}, -1.0)
