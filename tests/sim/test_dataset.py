"""Crowds on disk: the same seed gives the same pixels, through the codec, whole or not at all, resumable."""

from pathlib import Path
from threading import Event

import numpy as np
import pytest
from click.testing import CliRunner

from viewsync.cli import main
from viewsync.cli.crowds import make_missing
from viewsync.errors import UserError
from viewsync.sim.codec import encode_decode
from viewsync.sim.crowd import Crowd
from viewsync.sim.dataset import Filming, crowd_size, lacking, load_truth, make_crowd, make_set, seen
from viewsync.sim.render import Renderer
from viewsync.sim.scenes import SimScene, load


@pytest.fixture(scope="module")
def scene(small_scene: Path) -> SimScene:
    return load(str(small_scene))


def raw_frames(scene: SimScene, seed: int, view: str, times_s: np.ndarray) -> np.ndarray:
    crowd = Crowd(scene.walk_area, crowd_size(seed), seed, scene.obstacles)
    renderer = Renderer(scene, view, seed)
    return np.stack([renderer.render(crowd.state(float(t)), crowd.appearance) for t in times_s])


def test_same_seed_same_pixels_another_seed_other_pixels(scene: SimScene) -> None:
    frames, truth = make_crowd(scene, 3, Filming(2))
    again, truth_again = make_crowd(scene, 3, Filming(2))
    assert (
        (frames == again).all()
        and (truth.xy == truth_again.xy).all()
        and (truth.seen == truth_again.seen).all()
    )
    assert (make_crowd(scene, 4, Filming(2))[0] != frames).mean() > 0.5


def test_pixels_do_not_depend_on_what_was_drawn_before(scene: SimScene) -> None:
    crowd = Crowd(scene.walk_area, 12, 5, scene.obstacles)
    busy, fresh = Renderer(scene, "left", 5), Renderer(scene, "left", 5)
    for t in (0.3, 2.0, 1.1):
        busy.render(crowd.state(t), crowd.appearance)
    late = Crowd(scene.walk_area, 12, 5, scene.obstacles)
    assert (
        busy.render(crowd.state(1.7), crowd.appearance) == fresh.render(late.state(1.7), late.appearance)
    ).all()


def test_stored_frames_went_through_the_codec_of_live_cameras(scene: SimScene) -> None:
    frames, truth = make_crowd(scene, 3, Filming(3))
    for v, view in enumerate(truth.views):
        raw = raw_frames(scene, 3, view, truth.times_s[v])
        assert (frames[v] == encode_decode(raw)).all()
        assert (frames[v] != raw).any()


def test_truth_is_the_crowd_at_each_frames_own_instant(scene: SimScene) -> None:
    _, truth = make_crowd(scene, 3, Filming(3))
    crowd = Crowd(scene.walk_area, crowd_size(3), 3, scene.obstacles)
    assert truth.seen.any() and not truth.seen.all()
    for v, view in enumerate(truth.views):
        renderer = Renderer(scene, view, 3)
        for f in range(3):
            state = crowd.state(float(truth.times_s[v, f]))
            assert (truth.xy[v, f] == state.xy).all()
            assert (truth.seen[v, f] == seen(*renderer.visible_pixels(state, crowd.appearance))).all()
    assert len(np.unique(truth.times_s)) == truth.times_s.size  # no two frames at one instant


def test_labels_are_the_visible_pixels(scene: SimScene) -> None:
    crowd = Crowd(scene.walk_area, 20, 1, scene.obstacles)
    renderer, state = Renderer(scene, "far", 1), crowd.state(2.0)
    labels = renderer.labels(state, crowd.appearance)
    visible, whole = renderer.visible_pixels(state, crowd.appearance)
    assert (np.bincount(labels.ravel(), minlength=21)[1:] == visible).all()
    assert (whole >= visible).all() and visible.sum() > 0


def test_a_set_is_resumed_and_the_same_on_one_process_or_two(
    small_scene: Path, small_crowds: Path, tmp_path: Path
) -> None:
    made: list[int] = []
    make_set(str(small_scene), tmp_path, range(2), Filming(5), workers=2, done=made.append)
    assert sorted(made) == [0, 1]
    for name in ("000000.npy", "000001.npy"):
        assert (np.load(tmp_path / name) == np.load(small_crowds / name)).all()
    first = load_truth(tmp_path / "000000.npz")
    assert first.views == ("left", "right", "far")

    (tmp_path / "000001.npz").unlink()  # as if the machine had stopped before the crowd was whole
    assert lacking(tmp_path, range(3)) == [1, 2]
    stamp = (tmp_path / "000000.npy").stat().st_mtime_ns
    stop = Event()

    def stop_after_one(seed: int) -> None:
        made.append(seed)
        stop.set()

    make_set(str(small_scene), tmp_path, range(3), Filming(5), workers=1, done=stop_after_one, stop=stop)
    assert made[2:] == [1] and lacking(tmp_path, range(3)) == [2]
    assert (tmp_path / "000000.npy").stat().st_mtime_ns == stamp


def test_crowds_of_two_scenes_never_share_a_folder(small_scene: Path, tmp_path: Path) -> None:
    make_set(str(small_scene), tmp_path, (), workers=1)
    make_set(str(small_scene), tmp_path, (), workers=1)
    with pytest.raises(UserError, match=r"another scene .* choose another folder"):
        make_set("plaza", tmp_path, range(1), workers=1)


def test_the_command_makes_keeps_and_explains(small_scene: Path, tmp_path: Path) -> None:
    def dataset(*more: str) -> tuple[int, str]:
        run = CliRunner().invoke(
            main, ["sim", "dataset", "--scene", str(small_scene), "--out", str(tmp_path / "set"), *more]
        )
        return run.exit_code, run.output

    code, text = dataset("--crowds", "7:8", "--workers", "1", "--frames", "2")
    assert code == 0 and text.endswith(f"{tmp_path / 'set'}: 1 crowds\n")
    assert np.load(tmp_path / "set/000007.npy").shape == (3, 2, 72, 96, 3)
    # Crowds of one folder are filmed alike: what is left is filmed as the rest, and nothing is mixed.
    for crowds in ("7:8", "7:9"):
        code, text = dataset("--crowds", crowds, "--workers", "1", "--frames", "3", "--interval", "0.5")
        assert code == 2 and "holds crowds filmed with --frames 2 --interval 1; choose another folder" in text
    make_missing(str(small_scene), tmp_path / "set", range(7, 9), workers=1)
    assert np.load(tmp_path / "set/000008.npy").shape[1] == 2
    # Of crowds that nobody knows how they were filmed nothing is claimed.
    (tmp_path / "set/filming.json").unlink()
    code, _ = dataset("--crowds", "7:10", "--workers", "1", "--frames", "3", "--together")
    assert code == 0 and not (tmp_path / "set/filming.json").exists()
    (tmp_path / "set/filming.json").write_text("{")
    code, text = dataset("--crowds", "7:11")
    assert code == 2 and "filming.json: cannot be read" in text
    code, text = dataset("--crowds", "8:7")
    assert code == 2 and "0:300" in text
