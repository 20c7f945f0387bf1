"""`perfect-matching`, from the simulator's truth to a measured checkpoint that nobody can export."""

from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from calib.scene import load_scene
from viewsync.cli import main
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.nets.perfect import perfect_matching
from viewsync.nets.synchronisers import Timing
from viewsync.training.config import TrainConfig
from viewsync.training.inputs import true_people
from viewsync.training.snapshots import Sampling, SnapshotSet
from viewsync.training.train import Progress, train

PERFECT = ModelConfig(methods=("perfect-matching",), channels=4, width=16, cell_m=0.5)


def test_the_truth_of_snapshots_reaches_the_ground_grid(small_scene: Path, small_crowds: Path) -> None:
    scene = load_scene(small_scene)
    moved = replace(scene, ground=replace(scene.ground, origin_x_m=-2.0, origin_y_m=1.0))
    shots = SnapshotSet(scene, small_crowds, range(4), Sampling(kappa_s=2.0))
    first, second = shots.draw(3, 0, crowd=0, plain=True), shots.draw(3, 1, crowd=1, plain=True)
    fewer = replace(second, xy=second.xy[:, :2].copy(), seen=second.seen[:, :2])
    fewer.xy[:, 0] = np.nan  # not about
    assert true_people(CountingModel(ModelConfig(methods=("none",))), [first], scene) is None
    truth = true_people(CountingModel(PERFECT), [first, fewer], moved)
    assert truth is not None and truth.place_m.shape == (2, 3, first.xy.shape[1], 2)
    np.testing.assert_allclose(truth.place_m[0].numpy(), first.xy - (-2.0, 1.0), atol=1e-5)
    assert truth.seen[0].tolist() == first.seen.tolist() and not truth.seen[1, :, 2:].any()

    # Whoever stands on the grid, seen by both, alone within two metres: the flow there is where they went.
    people = true_people(CountingModel(PERFECT), [first], scene)
    assert people is not None
    still = torch.zeros(1, 3, 4, scene.ground.rows // 2, scene.ground.columns // 2)
    timing = Timing(torch.ones(1, 3), torch.from_numpy(first.offset_s)[None], torch.ones(1, 3))
    found = perfect_matching(people, still, timing, 1.0)
    followed = 0
    for n, (x, y) in enumerate(first.xy[0]):
        others = np.delete(first.xy[0], n, axis=0)
        if not (first.seen[0, n] and scene.ground.contains(first.xy[0, n])):
            continue
        if np.linalg.norm(others - (x, y), axis=1).min(initial=9.0) < 2.0:
            continue
        for slot in (1, 2):
            flow = found.flow_m[0, slot - 1, int(y), int(x)].numpy()
            if first.seen[slot, n] and scene.ground.contains(first.xy[slot, n]):
                np.testing.assert_allclose(flow, first.xy[slot, n] - (x, y), atol=1e-4)
                followed += 1
            else:
                assert not flow.any()
    assert followed


def test_it_is_trained_and_measured_like_the_others_and_never_exported(
    small_scene: Path, small_crowds: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        scene=str(small_scene),
        data=small_crowds,
        methods=("perfect-matching", "none"),
        train_seeds=(0, 4),
        validation_seeds=(4, 6),
        steps=3,
        first_stage=0.34,
        batch=2,
        validate_every=3,
        validation_snapshots=2,
        threads=1,
    )
    seen: list[Progress] = []
    best = train(config, tmp_path / "run", seen.append, Event())
    assert "perfect-matching.density" in seen[-1].losses and seen[-1].validation is not None
    assert seen[-1].validation["perfect-matching.density_mse"] > 0

    asked = ["evaluate", "--checkpoint", str(best), "--data", str(small_crowds), "--crowds", "2:4"]
    done = CliRunner().invoke(main, [*asked, "--tuning", "0:2", "--frames", "3", "--threads", "1"])
    assert done.exit_code == 0 and "perfect-matching  MAE" in done.output, done.output
    asked = ["export", "--checkpoint", str(best), "--out", str(tmp_path / "bundle"), "--data", str(tmp_path)]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2 and not (tmp_path / "bundle").exists()
    assert "perfect-matching is a bound: it needs the truth" in done.output.splitlines()[-1]
    with pytest.raises(ValueError, match="needs the truth"):
        CountingModel(PERFECT).eval()(
            torch.zeros(1, 3, 3, 24, 32),
            torch.zeros(1, 3, 6, 8, 8, 2),
            torch.ones(1, 3),
            torch.zeros(1, 3),
        )
