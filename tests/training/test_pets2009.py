"""Scores on played tracks: each view in turn the reference, offsets up to κ, nothing chosen on the tracks."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner

from calib.scene import Scene
from viewsync.cli import main
from viewsync.errors import UserError
from viewsync.sim.dataset import CrowdTruth, save_crowd
from viewsync.training.evaluate import BundleRunner
from viewsync.training.pets2009 import STRETCH_S, evaluate_sequences, latencies, summary, table
from viewsync.training.snapshots import Sampling, SnapshotSet

FRAMES, INTERVAL_S, KAPPA_S = 60, 3 / 7, 5.0
# North's picture is white, the others' are black.
WHITE = (255, 0, 0)


@pytest.fixture(scope="module")
def runner(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> BundleRunner:
    scene = tiny.tiny_scene()
    cameras = {view: camera.resized(tiny.WIDTH, tiny.HEIGHT) for view, camera in scene.cameras.items()}
    small = Scene("small", cameras, scene.ground, scene.heights_m, {})
    path = tmp_path_factory.mktemp("bundle") / "small"
    return BundleRunner(tiny.write_tiny_bundle(path, scene=small), threads=1)


@pytest.fixture(scope="module")
def folder(runner: BundleRunner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two castings of a sequence "walk": three people, one of them present in the second half only."""
    folder = tmp_path_factory.mktemp("sequences")
    cameras = runner.bundle.scene.cameras.values()
    times = np.arange(FRAMES) * INTERVAL_S + np.arange(3)[:, None] / 7
    xy = np.tile(np.array([(1.0, 1.0), (6.0, 4.0), (3.0, 5.0)]), (3, FRAMES, 1, 1))
    xy[:, : FRAMES // 2, 2] = np.nan
    frames = np.stack(
        [np.full((FRAMES, c.height, c.width, 3), w, np.uint8) for c, w in zip(cameras, WHITE, strict=True)]
    )
    truth = CrowdTruth(tuple(runner.bundle.scene.cameras), times, xy, ~np.isnan(xy[..., 0]))
    for casting in (4, 9):
        save_crowd(folder / "walk", casting, frames, truth)
    return folder


@pytest.fixture(scope="module")
def shots(runner: BundleRunner, folder: Path) -> SnapshotSet:
    return SnapshotSet(runner.bundle.scene, folder / "walk", (4, 9), Sampling(KAPPA_S))


@pytest.mark.parametrize("reference", [0, 1, 2])
def test_offsets_fill_the_range_around_every_reference_frame(shots: SnapshotSet, reference: int) -> None:
    drawn = list(latencies(shots, reference, 120, KAPPA_S))
    assert len(drawn) == 120
    offsets = np.array([shot.true_offset_s for shot, _ in drawn])
    assert (offsets[:, 0] == 0).all() and (np.abs(offsets) <= KAPPA_S).all()
    assert all(shot.view[0] == reference and sorted(shot.view) == [0, 1, 2] for shot, _ in drawn)
    # Uniform over ±5 s has a standard deviation of 2.89 s; frames near the ends reach to one side only.
    assert offsets[:, 1:].std() == pytest.approx(2.89, rel=0.15)
    # Every frame of either casting was the reference once, so the stretches are those of the sequence, twice.
    expected = np.floor(shots.truth[0].times_s[reference] / STRETCH_S)
    assert sorted(group for _, group in drawn) == sorted([*expected, *expected])


def test_counts_are_those_of_the_reference_frame_and_of_who_is_there(
    runner: BundleRunner, folder: Path, shots: SnapshotSet
) -> None:
    found = evaluate_sequences(runner, folder, shots, frames=60)
    assert list(found) == ["walk"] and list(found["walk"]) == ["north", "south", "west", "any"]
    for view in ("north", "south", "west"):
        evaluation = found["walk"][view]
        alone = evaluation.scores["reference-only"]
        # Three people in the second half, two in the first; never NaN.
        assert sorted(set(alone.true)) == [2, 3] and alone.true.mean() == pytest.approx(2.5, abs=0.05)
        # The tiny graph sees what is white: with this view as reference, all of the ground or nothing.
        assert (alone.predicted > 0.5).all() == (view == "north")
        assert (alone.predicted == 0.0).all() == (view != "north")
        # The mean over views is the same whichever is the reference.
        np.testing.assert_allclose(
            evaluation.scores["none"].predicted, found["walk"]["north"].scores["none"].predicted[0], rtol=1e-5
        )
    together = found["walk"]["any"].scores["none"]
    assert len(together.true) == 180 and set(together.crowd) == set(alone.crowd)
    numbers = summary(found, KAPPA_S, {})
    south = numbers["walk"]["south"]["graphs"]["reference-only"]
    assert south["mae"]["value"] == pytest.approx(2.5, abs=0.05) and south["nae"]["value"] == 1.0
    assert south["f1"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    rows = [line for line in table(numbers).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4 * 3 and all(row.count("|") == 8 for row in rows)


def test_the_command_measures_sequences(runner: BundleRunner, folder: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "--bundle", runner.bundle.path, "--sequences", folder]
    assert CliRunner().invoke(main, [str(word) for word in arguments]).exit_code == 2
    # Any crowds can choose the thresholds; here the castings themselves do.
    arguments += ["--data", folder / "walk", "--tuning", "4:5", "--frames", 5, "--threads", 1]
    arguments += ["--json", tmp_path / "found.json"]
    done = CliRunner().invoke(main, [str(word) for word in arguments])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["walk"]["any"]["protocol"]["snapshots"] == 15
    assert table(found) in done.output


def test_a_folder_without_sequences_names_the_command(
    runner: BundleRunner, shots: SnapshotSet, tmp_path: Path
) -> None:
    for empty in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="viewsync sim pets2009 sequences"):
            evaluate_sequences(runner, empty, shots)
