"""A crowd played from tracks: people are where the tracks say, look where they go, and may be absent."""

from dataclasses import fields

import numpy as np
import pytest

from calib.camera import Camera
from calib.ground import GroundGrid
from calib.scene import Scene
from viewsync.sim.crowd import Appearance
from viewsync.sim.render import Renderer
from viewsync.sim.scenes import COLUMN_HEIGHTS_M, from_scene, look_at
from viewsync.sim.track_crowd import TrackCrowd
from viewsync.sim.tracks import Tracks

FPS, FRAMES = 7.0, 71


def make_tracks(ids: list[int], xy: np.ndarray) -> Tracks:
    """Tracks through xy (frames, N, 2); NaN is absent."""
    velocity = np.full_like(xy, np.nan)
    for person in range(len(ids)):
        there = np.flatnonzero(~np.isnan(xy[:, person, 0]))
        velocity[there, person] = np.gradient(xy[there, person], axis=0) * FPS
    return Tracks(FPS, len(xy), np.array(ids), xy, velocity)


@pytest.fixture
def tracks() -> Tracks:
    """7 walks a quarter circle at 1.2 m/s; 12 walks 4 s along y, then stands; 40 is there from 3 s to 6 s."""
    t = np.arange(FRAMES) / FPS
    angle = 1.2 * t / 8.0
    circle = np.stack([8.0 * np.cos(angle), 8.0 * np.sin(angle)], axis=-1)
    stops = np.stack([np.full(FRAMES, 2.0), np.minimum(t, 4.0) * 1.1], axis=-1)
    brief = np.stack([4.0 - 0.9 * t, np.full(FRAMES, 5.0)], axis=-1)
    brief[(t < 3.0) | (t > 6.0)] = np.nan
    return make_tracks([7, 12, 40], np.stack([circle, stops, brief], axis=1))


def test_people_are_where_their_tracks_say_and_nowhere_when_absent(tracks: Tracks) -> None:
    crowd = TrackCrowd(tracks, seed=3)
    for t in np.linspace(0.0, tracks.duration_s, 57):
        state = crowd.state(float(t))
        ids, xy, velocity = tracks.positions(float(t))
        there = ~np.isnan(state.xy[:, 0])
        assert tracks.ids[there].tolist() == ids.tolist()
        np.testing.assert_array_equal(state.xy[there], xy)
        np.testing.assert_allclose(state.speed[there], np.linalg.norm(velocity, axis=1))
        assert np.isnan(state.xy[~there]).all()
        # Everything else is a number, so that nobody who is absent can spoil the rest.
        assert all(np.isfinite(a).all() for a in (state.heading, state.speed, state.phase))
        assert state.ids.tolist() == [0, 1, 2]


def test_walkers_look_where_they_go_and_those_who_stand_where_they_went(tracks: Tracks) -> None:
    crowd = TrackCrowd(tracks, seed=3)
    for t in np.arange(1.0, 9.0, 0.31):
        state = crowd.state(float(t))
        course = 1.2 * t / 8.0 + np.pi / 2
        # The heading is an average over about a second, of a course that turns by 0.15 rad/s.
        assert abs(np.angle(np.exp(1j * (state.heading[0] - course)))) < 0.05
        assert np.angle(np.exp(1j * (state.heading[1] - np.pi / 2))) == pytest.approx(0.0, abs=1e-9)


def test_walkers_step_and_those_who_stand_do_not(tracks: Tracks) -> None:
    crowd = TrackCrowd(tracks, seed=3)
    phase = np.array([crowd.state(float(t)).phase for t in np.arange(0.0, 10.0, 0.1)])
    assert (np.diff(phase[:, :2], axis=0) >= 0).all()
    np.testing.assert_allclose(np.diff(phase[20:90, 0]), 0.1 * 2 * np.pi * (0.35 + 0.5 * 1.2), rtol=0.02)
    assert np.ptp(phase[50:, 1]) == 0.0


def test_looks_belong_to_the_identity_and_the_seed(tracks: Tracks) -> None:
    looks = TrackCrowd(tracks, seed=3).appearance
    alone = make_tracks([12], tracks.xy[:, 1:2].copy())
    again, other = TrackCrowd(alone, seed=3).appearance, TrackCrowd(alone, seed=4).appearance
    for field in fields(Appearance):
        np.testing.assert_array_equal(getattr(looks, field.name)[1:2], getattr(again, field.name))
    assert not np.array_equal(again.top, other.top)


def test_the_order_of_questions_does_not_matter(tracks: Tracks) -> None:
    first, second = TrackCrowd(tracks, seed=5), TrackCrowd(tracks, seed=5)
    forward = [first.state(t).xy for t in (0.2, 4.4, 9.9)]
    backward = [second.state(t).xy for t in (9.9, 4.4, 0.2)]
    np.testing.assert_array_equal(forward, backward[::-1])


def test_after_the_last_frame_the_sequence_starts_again(tracks: Tracks) -> None:
    crowd = TrackCrowd(tracks, seed=3)
    np.testing.assert_allclose(crowd.state(tracks.duration_s + 1.5).xy, crowd.state(1.5).xy, atol=1e-9)
    assert not np.isnan(crowd.state(tracks.duration_s).xy[0]).any()
    with pytest.raises(ValueError, match="start at 0 s"):
        crowd.state(-0.1)


@pytest.fixture
def renderer() -> Renderer:
    camera: Camera = look_at((-6.0, 4.0, 5.0), (4.0, 4.0, 0.0), 220.0, (192, 144))
    grid = GroundGrid(0.0, 0.0, 0.5, 16, 16)
    return Renderer(from_scene(Scene("yard", {"north": camera}, grid, COLUMN_HEIGHTS_M, {})), "north", seed=1)


def test_who_is_absent_leaves_no_trace_in_the_picture(tracks: Tracks, renderer: Renderer) -> None:
    everybody = TrackCrowd(tracks, seed=3)
    two = TrackCrowd(make_tracks([7, 12], tracks.xy[:, :2].copy()), seed=3)
    without, with_him = everybody.state(2.0), everybody.state(4.0)
    reference = renderer.render(two.state(2.0), two.appearance)
    np.testing.assert_array_equal(renderer.render(without, everybody.appearance), reference)
    visible, whole = renderer.visible_pixels(without, everybody.appearance)
    assert visible[2] == whole[2] == 0 and (visible[:2] > 0).any()
    assert renderer.visible_pixels(with_him, everybody.appearance)[0][2] > 30
    assert (
        renderer.render(with_him, everybody.appearance) != renderer.render(two.state(4.0), two.appearance)
    ).any()
