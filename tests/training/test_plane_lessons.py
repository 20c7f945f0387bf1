"""What `cls-plane` is taught: places where people belong, and where view i's frame has them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from calib.scene import Scene, load_scene
from viewsync.cli import main
from viewsync.nets.encoder import STRIDE
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.nets.synchronisers import Candidates, Moved
from viewsync.training.checkpoint import save_checkpoint
from viewsync.training.config import TrainConfig
from viewsync.training.geometry import scene_fundamentals, scene_grids
from viewsync.training.objective import batch_losses
from viewsync.training.plane_lessons import lessons, plane_loss, within_reach
from viewsync.training.snapshots import Snapshot, SnapshotSet

SIZE, STEP = (9, 12), 2  # the flow's grid for features of 18 × 24


@pytest.fixture(scope="module")
def scene(small_scene: Path) -> Scene:
    return load_scene(small_scene)


def snapshot(here: list[tuple[float, float]], there: list[tuple[float, float]], seen: list[bool]) -> Snapshot:
    """Views left (the reference) and right, 1.5 s later; right's frame shows whom `seen` says."""
    return Snapshot(
        images=np.zeros((2, 72, 96, 3), np.uint8),
        view=np.array([0, 1]),
        present=np.ones(2, np.float32),
        true_offset_s=np.array([0.0, 1.5], np.float32),
        offset_s=np.array([0.0, 1.5], np.float32),
        xy=np.array([here, there], np.float64),
        seen=np.array([[True] * len(here), seen]),
    )


def test_a_lesson_leads_from_where_somebody_belongs_to_where_the_frame_has_them(scene: Scene) -> None:
    cameras = dict(enumerate(c.undistorted() for c in scene.cameras.values()))
    shot = snapshot([(3.0, 2.0), (5.0, 4.0)], [(4.0, 2.5), (5.5, 4.0)], [True, False])
    given = lessons([shot], cameras, SIZE, STEP)
    assert (given.slot == 1).all() and given.matched.sum() >= 2
    by_place = {
        (int(r), int(c)): (s, m)
        for r, c, s, m in zip(given.row, given.column, given.shift, given.matched, strict=True)
    }
    for z, (now, later, there) in {
        (z, k): (shot.xy[0, k], shot.xy[1, k], k == 0) for z in (0.3, 0.9, 1.5) for k in (0, 1)
    }.items():
        here, found = (
            (cameras[1].project(np.array([*xy, z[0]])) + 0.5) / (STRIDE * STEP) - 0.5 for xy in (now, later)
        )
        shift, matched = by_place[int(np.rint(here[1])), int(np.rint(here[0]))]
        assert matched == there
        if matched:
            # Another height of the same body may have the same place.
            assert np.linalg.norm(shift - (found - here)) < 0.3
    nobody = ~given.matched
    assert nobody.sum() >= 8 and not given.shift[nobody].any()
    again = lessons([shot], cameras, SIZE, STEP)
    assert np.array_equal(given.row, again.row) and np.array_equal(given.column, again.column)


def test_an_absent_view_teaches_nothing(scene: Scene) -> None:
    cameras = dict(enumerate(c.undistorted() for c in scene.cameras.values()))
    shot = snapshot([(3.0, 2.0)], [(4.0, 2.5)], [True])
    shot.present[1] = 0.0
    assert len(lessons([shot], cameras, SIZE, STEP).row) == 0


def moved(log_share: torch.Tensor, shift: torch.Tensor) -> Moved:
    return Moved(torch.zeros(1, 2, 1, 18, 24), (), (STEP,), Candidates(log_share, shift))


def test_the_loss_is_low_for_the_truth_and_counts_it(scene: Scene) -> None:
    cameras = dict(enumerate(c.undistorted() for c in scene.cameras.values()))
    shot = snapshot([(3.0, 2.0), (5.0, 4.0)], [(3.4, 2.2), (5.0, 4.0)], [True, True])
    given = lessons([shot], cameras, SIZE, STEP)
    # Three candidates at each place: still, the truth, far off; and nobody.
    shift = torch.zeros(1, 1, 3, *SIZE, 2)
    shift[:, :, 0], shift[:, :, 2] = -3.5, 4.0
    truth = torch.zeros(1, 1, 4, *SIZE)
    truth[:, :, 3] = 1.0
    for row, column, there, matched in zip(given.row, given.column, given.shift, given.matched, strict=True):
        shift[0, 0, 1, row, column] = torch.from_numpy(there)
        truth[0, 0, :, row, column] = torch.tensor([0.0, 1.0, 0.0, 0.0] if matched else [0.0, 0.0, 0.0, 1.0])
    right = torch.log(truth.clamp_min(1e-4))
    wrong = right[:, :, [1, 0, 2, 3]]
    good, bad = (plane_loss(moved(share, shift), [shot], cameras) for share in (right, wrong))
    assert good.matched == 1.0 and bad.matched == 0.0
    assert good.loss < 0.5 < 2.0 < bad.loss
    assert good.partners == given.matched.sum() and good.lessons == len(given.row)
    # Whoever no candidate comes near is out of reach: counted as missed, and no lesson.
    far = plane_loss(moved(wrong, shift + 50.0), [shot], cameras)
    assert far.matched == 0.0 and far.loss < 0.1 and far.lessons < good.lessons


def test_share_within_reach_is_of_what_candidates_can_cover(scene: Scene) -> None:
    cameras = dict(enumerate(c.undistorted() for c in scene.cameras.values()))
    F = scene_fundamentals(scene, 24, 18)

    def share(there: tuple[float, float], walk: float = 1.0, seen: bool = True) -> tuple[int, int]:
        shot = snapshot([(3.0, 2.0)], [there], [seen])
        found = within_reach(iter([shot]), cameras, walk, 0.3, 0.5, 2.0, F)
        assert (found.late, found.late_within) == (found.people, found.within)  # 1.5 s is over half of κ
        return found.people, found.within

    assert share((3.0, 2.0)) == (1, 1) and share((3.5, 2.2)) == (1, 1)
    assert share((7.5, 4.5)) == (1, 0)  # 5 m in 1.5 s
    assert share((3.0, 2.0), seen=False) == (0, 0)
    assert share((3.8, 2.2), walk=0.1) == (1, 0)


def test_a_step_of_training_teaches_the_matcher_and_the_features(
    scene: Scene, small_scene: Path, small_crowds: Path
) -> None:
    torch.manual_seed(0)
    config = TrainConfig(
        scene=str(small_scene),
        data=small_crowds,
        methods=("cls-plane",),
        train_seeds=(0, 2),
        validation_seeds=(2, 3),
        first_stage=0.0,
        steps=10,
    )
    model = CountingModel(config.model(scene))
    shots = SnapshotSet(scene, small_crowds, range(2), config.sampling(tuple(scene.cameras)))
    grids = torch.from_numpy(scene_grids(scene, 96, 72))
    batch = [shots.draw(0, k) for k in range(3)]
    losses = batch_losses(model, batch, grids, scene, config, 0)
    assert 0.0 <= losses["cls-plane.matched"] <= 1.0
    losses["cls-plane.partner"].backward()  # type: ignore[no-untyped-call]
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    for part in ("pair.descriptor.layers.0.weight", "pair.log_scale", "pair.nobody", "pair.add.weight"):
        assert f"over_planes.cls-plane.{part}" in touched
    assert "encoder.out.1.weight" in touched
    assert ModelConfig.from_dict(model.config.as_dict()) == model.config


def test_the_command_prints_who_is_within_reach(
    small_scene: Path, small_crowds: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = TrainConfig(scene=str(small_scene), data=small_crowds, methods=("cls-plane",))
    state = {"step": 1, "config": config.model_dump(mode="json")}
    folder = tmp_path / "run" / "best"
    save_checkpoint(folder, CountingModel(config.model(load_scene(small_scene))), None, state)
    words = ["evaluate", "--reach", "--checkpoint", str(folder), "--data", str(small_crowds)]
    done = CliRunner().invoke(main, [*words, "--crowds", "0:2", "--frames", "4"])
    assert done.exit_code == 0, done.output
    assert "small: 1.40 m/s × |offset| + 0.50 m along the line, 0.50 of it across" in done.output
    assert " people; of those 1.5 to 3 s off " in done.output
    assert CliRunner().invoke(main, ["evaluate", "--reach"]).exit_code == 2
    other = CountingModel(ModelConfig(methods=("none",)))
    save_checkpoint(folder, other, None, state)
    refused = CliRunner().invoke(main, [*words, "--crowds", "0:2", "--frames", "4"])
    assert refused.exit_code == 2 and "has no cls-plane; it answers none" in refused.output
