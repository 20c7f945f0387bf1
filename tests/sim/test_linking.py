"""Positions without identities become the tracks they were taken from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viewsync.sim.linking import FASTEST_M_S, link


def shuffled(xy: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Frames of xy (F, N, 2), whoever is there in a random order."""
    return [rng.permutation(frame[~np.isnan(frame[:, 0])]) for frame in xy]


def paths_of(tracks_xy: np.ndarray) -> set[tuple[tuple[float, ...], ...]]:
    return {
        tuple(tuple(np.round(place, 6)) for place in path[~np.isnan(path[:, 0])])
        for path in tracks_xy.transpose(1, 0, 2)
    }


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 2.0, 7.0]))
def test_walkers_far_enough_apart_keep_their_identities(seed: int, fps: float) -> None:
    """Lanes 6 m apart: nobody can be taken for the neighbour, whatever the order in the file."""
    rng = np.random.default_rng(seed)
    people, frames = 6, 12
    speed = rng.uniform(0, 2.0, people)
    xy = np.zeros((frames, people, 2))
    xy[:, :, 0] = np.arange(frames)[:, None] / fps * speed
    xy[:, :, 1] = 6.0 * np.arange(people)
    xy[rng.integers(3, 9) :, 0] = np.nan  # leaves
    xy[: rng.integers(2, 6), 1] = np.nan  # comes
    tracks = link(shuffled(xy, rng), fps)
    assert paths_of(tracks.xy) == paths_of(xy)
    # Everybody walks straight: a central difference is the speed.
    found = np.linalg.norm(np.nan_to_num(tracks.velocity), axis=2).max(axis=0)
    assert sorted(np.round(found, 6)) == sorted(np.round(speed, 6))


def test_people_who_cross_are_told_apart_by_where_they_were_going() -> None:
    t = np.arange(9)[:, None]
    one = np.hstack([1.2 * t, 0.4 * t])
    two = np.hstack([9.6 - 1.2 * t, 0.4 * t + 0.1])
    rng = np.random.default_rng(4)
    tracks = link(shuffled(np.stack([one, two], axis=1), rng), 1.0)
    assert paths_of(tracks.xy) == paths_of(np.stack([one, two], axis=1))


def test_nobody_walks_faster_than_people_do_and_the_total_distance_is_least() -> None:
    far = FASTEST_M_S + 0.31
    tracks = link([np.zeros((1, 2)), np.array([[far, 0.0]])], 1.0)
    assert tracks.xy.shape == (2, 2, 2)  # two people, each once
    # Greedily, 0 would take 0.9 and leave 1 with 2.4.
    tracks = link([np.array([[0.0, 0], [1.0, 0]]), np.array([[0.9, 0], [-1.0, 0]])], 1.0)
    assert paths_of(tracks.xy) == {((0.0, 0.0), (-1.0, 0.0)), ((1.0, 0.0), (0.9, 0.0))}


def test_empty_frames_end_tracks() -> None:
    here, nobody = np.ones((1, 2)), np.empty((0, 2))
    assert link([here, nobody, here], 2.0).xy.shape == (3, 2, 2)
    with pytest.raises(ValueError, match="frames"):
        link([], 1.0)
