"""What counts as the way of a frame, and what is taken from it."""

import numpy as np
import pytest

from bench.path import Way
from calib.ground import GroundGrid
from viewsync.prediction import Prediction, ViewReport

MS = 1_000_000
NOW = 1_700_000_000_000 * MS


class Agents:
    """Extraction counters as the agents' metrics pages have them."""

    def __init__(self) -> None:
        self.counters = {"north": (5.0, 60.0), "south": (0.0, 0.0)}

    def extract(self, view: str, ms: float) -> None:
        frames, total = self.counters[view]
        self.counters[view] = frames + 1, total + ms

    def way(self) -> Way:
        return Way({view: lambda view=view: self.counters[view] for view in self.counters})


def answer(frames: dict[str, tuple[int, int]], fuse_ms: int = 100) -> Prediction:
    """frames: view -> (seq, ms at which it was there)."""
    return Prediction(
        site="s",
        scene="s",
        session=1,
        seq=0,
        published_ns=NOW,
        capture_ns=NOW,
        capture_uncertainty_ns=0,
        reference="north",
        synchroniser="none",
        count=1.0,
        counts={"none": 1.0},
        density=np.zeros((1, 1), np.float32),
        grid=GroundGrid(0.0, 0.0, 1.0, 1, 1),
        views=tuple(
            ViewReport(view, True, "", session=7, seq=seq, capture_ns=NOW + at_ms * MS, clock="file")
            for view, (seq, at_ms) in frames.items()
        ),
        bundle="0" * 64,
        latency_ns=0,
        fuse_ns=fuse_ms * MS,
        degraded=False,
    )


def test_the_models_time_is_taken_from_the_frames_that_caused_the_answer() -> None:
    agents = Agents()
    way = agents.way()
    agents.extract("north", 15.0)
    way.take(answer({"north": (3, 0)}), NOW + 120 * MS)
    agents.extract("south", 20.0)
    way.take(answer({"north": (3, 0), "south": (9, 500)}, fuse_ms=200), NOW + 727 * MS)
    assert way.rest_ms == pytest.approx([5.0, 7.0])
    assert way.whole_ms == pytest.approx([120.0, 227.0])
    assert way.queued == 0


def test_a_frame_that_came_while_the_hub_answered_another_is_not_timed() -> None:
    agents = Agents()
    way = agents.way()
    agents.extract("north", 15.0)
    way.take(answer({"north": (3, 0)}), NOW + 120 * MS)
    agents.extract("south", 15.0)
    way.take(answer({"north": (3, 0), "south": (9, 119)}), NOW + 240 * MS)
    assert len(way.rest_ms) == 1 and way.queued == 1


def test_nor_is_what_cannot_be_told_apart() -> None:
    agents = Agents()
    way = agents.way()
    agents.extract("north", 15.0)
    agents.extract("south", 15.0)
    way.take(answer({"north": (3, 0), "south": (9, 1)}), NOW + 120 * MS)  # two frames in one answer
    agents.extract("north", 15.0)
    agents.extract("north", 15.0)
    way.take(answer({"north": (5, 500), "south": (9, 1)}), NOW + 620 * MS)  # one of two extractions
    way.take(answer({"north": (0, 900), "south": (9, 1)}), NOW + 990 * MS)  # an agent's first
    assert way.rest_ms == [] and way.queued == 0
    agents.extract("north", 15.0)
    way.take(answer({"north": (1, 2000), "south": (9, 1)}), NOW + 2119 * MS)
    assert way.rest_ms == pytest.approx([4.0])
