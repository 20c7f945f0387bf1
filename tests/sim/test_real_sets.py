"""The sets of real cameras and paths: who is in them, how they are split, and what the hard ones add."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from viewsync.cli import main
from viewsync.errors import ConfigError, SourceError
from viewsync.sim import pets2009, real_sets
from viewsync.sim.body import joints
from viewsync.sim.dataset import claim, load_truth, save_crowd
from viewsync.sim.hard import in_the_union, looked_at, people_beyond
from viewsync.sim.real_sets import SETS, Stretch
from viewsync.sim.tracks import thinned


@pytest.fixture(scope="module")
def data() -> Path:
    if not os.environ.get("VIEWSYNC_DATA"):
        pytest.skip("VIEWSYNC_DATA is not set: real cameras and tracks are needed")
    return pets2009.data_folder()


def test_no_stretch_is_both_taught_and_tested() -> None:
    for real in SETS.values():
        taught = {s.sequence for use in ("train", "validation") for s in real.stretches.get(use, ())}
        tested = {s.sequence for s in real.stretches["test"]}
        if real.source == "pets2009":
            assert taught == {"S1L2-1", "S2L2"} and tested == {"S1L1-1", "S2L1"}
        numbers = [piece for use in real_sets.USES for piece in real.pieces(use)]
        assert len(set(numbers)) == len(numbers)
        assert {real.stretch(piece) for piece in real.pieces("test")} == set(real.stretches["test"])
    city = SETS["citystreet-sim"]
    (taught,), (tested,) = city.stretches["train"], city.stretches["test"]
    assert (taught.first, taught.frames, tested.frames) == (0, 200, 94)
    # 1 fps: the gap in frames is the gap in seconds.
    assert tested.first - (taught.first + 200) == 2 * city.kappa_s and tested.first + 94 == 300
    assert city.tau_s == {"view2": 3.0, "view3": -3.0} and SETS["pets2009-sim"].kappa_s == 5.0


@pytest.mark.parametrize("name", ["citystreet-sim", "wildtrack-sim"])
def test_linked_people_walk_as_people_do_where_the_cameras_look(data: Path, name: str) -> None:
    real = SETS[name]
    scene = real_sets.scene(real, data)
    (stretch,) = real.stretches["test"]
    tracks = real_sets.tracks(real, data, stretch)
    there = ~np.isnan(tracks.xy[..., 0])
    xy = tracks.xy[there]
    assert scene.ground.contains(xy).mean() > 0.97
    assert in_the_union(scene, xy).mean() > 0.99
    speed = np.linalg.norm(tracks.velocity[there], axis=1)
    assert 0.2 < np.median(speed) < 1.6 and np.percentile(speed, 95) < 2.4
    # Most positions belong to somebody who is followed for some seconds.
    assert (there * there.sum(axis=0)).sum() / there.sum() > 6 * tracks.fps
    assert all(abs(np.linalg.det(camera.R) - 1) < 1e-6 for camera in scene.cameras.values())


def test_citystreet_heads_are_where_the_authors_own_map_has_them(data: Path) -> None:
    """Their map of ground cells on the plane of 1.75 m, in view 1: independent of our cameras."""
    there = np.load(data / "paper-geometry" / "citystreet_ground_to_view.npz")["view1"]
    camera = real_sets.scene(SETS["citystreet-sim"], data).cameras["view1"]
    rows, columns = np.mgrid[60:140:8, 40:120:8]
    x, y = (4 * columns - 281.6) * 0.07625, (4 * rows - 417.6) * 0.07625
    ours = camera.project(np.stack([x, -y, np.full_like(x, 1.75)], axis=-1))
    theirs = there[:, rows, columns]
    inside = (np.abs(theirs) < 0.8).all(axis=0)
    apart = np.hypot((ours[..., 0] + 0.5) / 338 - 1 - theirs[0], (ours[..., 1] + 0.5) / 190 - 1 - theirs[1])[
        inside
    ]
    # The README of the map says 0.031 for view 1; a mirrored or shifted world is off by 0.5 and more.
    assert inside.sum() > 20 and np.median(apart) < 0.06


# WILDTRACK's people walk nearly everywhere: hardly anything can stand there.
@pytest.mark.parametrize(("name", "things"), [("pets2009-sim-hard", 5), ("wildtrack-sim-hard", 1)])
def test_a_hard_set_hides_people_and_has_some_whom_the_first_view_never_sees(
    data: Path, name: str, things: int
) -> None:
    real = SETS[name]
    place = real_sets.place(real, data)
    assert len(place.props) >= things
    walked = np.concatenate(
        [real_sets.tracks(real, data, s).xy.reshape(-1, 2) for s in real.stretches["test"]]
    )
    walked = walked[~np.isnan(walked[:, 0])]
    for x, y, radius in place.obstacles:
        assert np.hypot(*(walked - (x, y)).T).min() > radius  # nobody walks through a thing
    first = real.views[0]
    crowd = people_beyond(place, first, seed=3)
    assert crowd is not None and crowd.people >= 3
    cells = looked_at(place.scene, first)
    outside = total = 0
    for t in (0.0, 4.0, 9.0):
        cell = place.scene.ground.cell_of(crowd.state(t).xy)
        on = place.scene.ground.contains(crowd.state(t).xy)
        outside += int((~cells[cell[on, 0], cell[on, 1]]).sum())
        total += int(on.sum())
    assert total and outside / total > 0.9


def test_the_command_makes_a_set_once_and_carries_its_truth(data: Path, tmp_path: Path) -> None:
    words = f"data make pets2009-sim-hard --out {tmp_path} --only test --instants 2 --workers 1".split()
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    real = SETS["pets2009-sim-hard"]
    paths = [tmp_path / f"{piece:06d}.npz" for piece in real.pieces("test")]
    before = [path.stat().st_mtime_ns for path in paths]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert [path.stat().st_mtime_ns for path in paths] == before
    truth, frames = load_truth(paths[0]), np.load(paths[0].with_suffix(".npy"))
    assert truth.views == pets2009.VIEWS and frames.shape == (3, 2, 288, 384, 3)
    assert (truth.times_s == [0.0, 0.5]).all()
    # All views at one instant: everybody is in one place. Real people come first, on their tracks.
    np.testing.assert_array_equal(truth.xy[0], truth.xy[2])
    walks = real_sets.tracks(real, data, real.stretch(100_000))
    real_people = truth.xy[0, 0, : len(walks.ids)]
    there = ~np.isnan(real_people[:, 0])
    np.testing.assert_allclose(real_people[there], walks.xy[0, there], atol=1e-4)
    assert truth.xy.shape[2] > len(walks.ids)
    seen = truth.seen.any(axis=(0, 1))
    assert not np.isnan(truth.xy[0, :, seen]).all(axis=(1, 2)).any()  # whoever is seen is counted
    again, _ = real_sets.make_piece(real, data, 100_000, instants=2)
    np.testing.assert_array_equal(again, frames)


def test_a_hidden_person_is_behind_something(data: Path) -> None:
    """The things stand so that they hide: of real people in view, more are hidden than without them."""
    real, easy = SETS["pets2009-sim-hard"], SETS["pets2009-sim"]
    hidden = []
    for one in (easy, real):
        place = real_sets.place(one, data)
        crowd = real_sets.TrackCrowd(real_sets.tracks(one, data, Stretch("S1L1-1")), 1)
        share = []
        for view in one.views:
            renderer = real_sets.Renderer(place, view, 1)
            for t in (4.0, 16.0):
                state = crowd.state(t)
                seen, whole = renderer.visible_pixels(state, crowd.appearance)
                inside = renderer.camera.inside(renderer.camera.project(joints(state, crowd.appearance)))
                fully = inside.all(axis=1) & (whole > 0)
                share.append(seen[fully].sum() / whole[fully].sum())
        hidden.append(1 - float(np.mean(share)))
    assert hidden[1] > hidden[0] + 0.005


def test_what_is_missing_is_one_line(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose from pets2009-sim, "):
        real_sets.named("pets")
    with pytest.raises(SourceError, match=r"people\.csv\.gz: cannot be read"):
        real_sets.tracks(SETS["citystreet-sim"], tmp_path, Stretch("street"))
    with pytest.raises(SourceError, match="has 300 frames, 400 are needed"):
        real_sets.tracks(SETS["citystreet-sim"], data, Stretch("street", 0, 400))
    done = CliRunner().invoke(main, ["data", "make", "wildtrack-sim", "--only", "train"])
    assert done.exit_code == 2 and "for measuring only" in done.output


def test_a_hard_set_teaches_crowds_of_several_sizes_and_tests_whole_ones() -> None:
    real, easy = SETS["pets2009-sim-hard"], SETS["pets2009-sim"]
    shares = [real.share(piece) for piece in real.pieces("train")]
    # Every casting of a stretch is of another size, and the stretches of a casting are of the same.
    assert shares == [1.0, 1.0, 0.7, 0.7, 0.45, 0.45, 0.25, 0.25]
    assert {real.share(piece) for piece in real.pieces("test")} == {1.0}
    assert {easy.share(piece) for use in real_sets.USES for piece in easy.pieces(use)} == {1.0}


def test_castings_of_an_earlier_version_are_not_mixed_with_those_of_this_one(
    data: Path, tmp_path: Path
) -> None:
    real, piece = SETS["pets2009-sim-hard"], 6
    words = f"data make pets2009-sim-hard --out {tmp_path} --only train --instants 1 --workers 1".split()
    frames, truth = real_sets.make_piece(replace(real, kept={}), data, piece, instants=1)
    claim(tmp_path, real_sets.scene(real, data))
    save_crowd(tmp_path, piece, frames, truth)
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 2 and "piece 6 has" in found.output and "remove the folder" in found.output
    assert [path.name for path in tmp_path.glob("*.npz")] == ["000006.npz"]


def test_a_thinned_crowd_is_some_of_its_people_on_their_own_paths(data: Path) -> None:
    whole = real_sets.tracks(SETS["pets2009-sim"], data, Stretch("S2L1"))
    some, others = (thinned(whole, 0.5, seed) for seed in (1, 2))
    assert len(some.ids) == round(len(whole.ids) / 2) and set(some.ids) <= set(whole.ids)
    assert set(some.ids) != set(others.ids)
    np.testing.assert_array_equal(some.xy, whole.xy[:, np.isin(whole.ids, some.ids)])
    assert len(thinned(whole, 0.0, 1).ids) == 1 and len(thinned(whole, 1.0, 1).ids) == len(whole.ids)
