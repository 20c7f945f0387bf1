"""Training over many rigs: a batch that mixes them is as if each came alone, and what was trained answers for
cameras that it never saw.
"""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from threading import Event
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from calib.scene import Scene, load_scene, save_scene
from viewsync.cli import main
from viewsync.errors import UserError
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.sim.rigs import rig_folder
from viewsync.training.checkpoint import load_state, save_checkpoint
from viewsync.training.config import TrainConfig
from viewsync.training.geometry import scene_fundamentals, scene_grids
from viewsync.training.inputs import before_of, encode, fundamentals, pictures, tensors
from viewsync.training.objective import batch_losses
from viewsync.training.rigs import RigShots, only_present, padded, rigs_scene
from viewsync.training.runners import TorchRunner
from viewsync.training.snapshots import Sampling, Snapshot
from viewsync.training.train import Progress, train

VIEWS = {3: 2, 2: 3, 1: 4}


@pytest.fixture(scope="module")
def folder(support: Callable[[str], ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rigs")
    support("small_rigs").write_small_rigs(folder)
    return folder


@pytest.fixture(scope="module")
def scene(folder: Path) -> Scene:
    return rigs_scene(folder, tuple(VIEWS))


@pytest.fixture(scope="module")
def shots(scene: Scene, folder: Path) -> RigShots:
    return RigShots(scene, folder, tuple(VIEWS), Sampling(kappa_s=2.0, drop=0.3, unknown=0.2))


@pytest.fixture(scope="module")
def grids(scene: Scene) -> torch.Tensor:
    return torch.from_numpy(scene_grids(scene, 96, 72))


@pytest.fixture
def model() -> CountingModel:
    torch.manual_seed(0)
    return CountingModel(ModelConfig(cell_m=1.0)).eval()


def mixed(shots: RigShots) -> list[Snapshot]:
    """A snapshot of each rig, with all its views."""
    batch = [shots.draw(1, 5, crowd=k, plain=True) for k in range(len(VIEWS))]
    assert [len(shot.view) for shot in batch] == list(VIEWS.values())
    return batch


def same(first: Snapshot, second: Snapshot) -> bool:
    pairs = [(getattr(first, f.name), getattr(second, f.name)) for f in fields(Snapshot)]
    return all(np.array_equal(a, b) for a, b in pairs)


def test_drawing_is_pure_and_comes_from_all_rigs(scene: Scene, folder: Path, shots: RigShots) -> None:
    fresh = RigShots(scene, folder, tuple(VIEWS), Sampling(kappa_s=2.0, drop=0.3, unknown=0.2))
    assert all(same(fresh.draw(7, k), shots.draw(7, k)) for k in (4, 0, 2))
    names = list(scene.cameras)
    rigs = [{names[v].split(".")[0] for v in shots.draw(7, k).view} for k in range(30)]
    assert all(len(rig) == 1 for rig in rigs)
    assert set().union(*rigs) == {str(number) for number in VIEWS}


def test_a_snapshot_has_its_own_rigs_cameras(
    scene: Scene, folder: Path, shots: RigShots, grids: torch.Tensor
) -> None:
    for number, shot in zip(VIEWS, mixed(shots), strict=True):
        own = load_scene(rig_folder(folder, number) / "scene.yaml")
        names = [list(scene.cameras)[v] for v in shot.view]
        rows = [list(own.cameras).index(name.partition(".")[2]) for name in names]
        assert (grids[torch.from_numpy(shot.view)].numpy() == scene_grids(own, 96, 72)[rows]).all()
        epipolar = CountingModel(ModelConfig(methods=("cls-epi",), cell_m=1.0, grid=(18, 24)))
        lines = fundamentals(epipolar, [shot], scene)
        assert lines is not None
        assert np.allclose(lines[0].numpy(), scene_fundamentals(own, 24, 18)[rows[0]][rows])


def test_absent_slots_are_left_out_and_two_stay(shots: RigShots) -> None:
    full = mixed(shots)[2]
    some = replace(full, present=np.array([1, 0, 1, 0], np.float32))
    left = only_present(some)
    assert left.view.tolist() == full.view[[0, 2]].tolist() and (left.images == full.images[[0, 2]]).all()
    alone = only_present(replace(full, present=np.array([1, 0, 0, 0], np.float32)))
    assert alone.present.tolist() == [1, 0]


def test_a_mixed_batch_answers_as_each_snapshot_alone(
    shots: RigShots, grids: torch.Tensor, model: CountingModel
) -> None:
    batch = padded(mixed(shots))
    assert {len(shot.view) for shot in batch} == {4}
    with torch.inference_mode():
        methods = model.config.methods
        together = model.fuse(encode(model, batch), *tensors(batch, grids), methods)
        for row, shot in enumerate(mixed(shots)):
            alone = model.fuse(encode(model, [shot]), *tensors([shot], grids), methods)
            for method in methods:
                # Float32, summed in another order.
                assert torch.allclose(together.density[method][row], alone.density[method][0], atol=1e-6)
        assert (together.density["column"] != together.density["none"]).any()


def test_frames_before_stay_with_their_slots(scene: Scene, folder: Path, grids: torch.Tensor) -> None:
    sampling = Sampling(kappa_s=2.0, before_s=(1.0,))
    two = RigShots(scene, folder, tuple(VIEWS), sampling)
    torch.manual_seed(0)
    model = CountingModel(ModelConfig(methods=("column-2",), cell_m=1.0)).eval()
    alone = [two.draw(1, 5, crowd=k, plain=True) for k in range(len(VIEWS))]
    batch = padded(alone)
    with torch.inference_mode():

        def answer(some: list[Snapshot]) -> torch.Tensor:
            before = before_of(model, some)
            fused = model.fuse(encode(model, some), *tensors(some, grids), ("column-2",), before=before)
            return fused.density["column-2"]

        together = answer(batch)
        for row, shot in enumerate(alone):
            assert shot.earlier is not None and (shot.earlier.view == shot.view).all()
            assert torch.allclose(together[row], answer([shot])[0], atol=1e-6)


def test_what_fills_a_slot_up_teaches_nothing(
    shots: RigShots, grids: torch.Tensor, scene: Scene, model: CountingModel
) -> None:
    # The encoder normalises over the batch: frames made up for empty slots would shift all others.
    batch = mixed(shots)
    model.train()
    flat = model.encode(pictures([np.concatenate([shot.images for shot in batch])]))[0]
    filled = encode(model, batch)
    assert filled.shape[:2] == (3, 4)
    counts = list(VIEWS.values())
    for row, own in enumerate(flat.split(counts)):
        assert torch.equal(filled[row, : counts[row]], own) and not filled[row, counts[row] :].any()
    config = TrainConfig(scene="rigs", data=Path("rigs"), first_stage=0.0)
    losses = [
        batch_losses(model.eval(), list(some), grids, scene, config, 0) for some in (batch, padded(batch))
    ]
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    assert all(torch.isfinite(loss) for loss in losses[0].values())


@pytest.fixture(scope="module")
def settings(folder: Path) -> TrainConfig:
    return TrainConfig(
        scene="rigs",
        data=folder,
        train_seeds=(2, 4),
        validation_seeds=(1, 2),
        steps=3,
        first_stage=0.3,
        batch=3,
        kappa_s=2.0,
        validate_every=2,
        validation_snapshots=2,
        threads=1,
    )


def run(config: TrainConfig, out: Path, last: int | None = None) -> list[Progress]:
    seen: list[Progress] = []
    stop = Event()

    def report(step: Progress) -> None:
        seen.append(step)
        if last is not None and step.step == last - 1:
            stop.set()

    train(config, out, report, stop)
    return seen


@pytest.fixture(scope="module")
def trained(settings: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    out = tmp_path_factory.mktemp("run")
    return out, run(settings, out)


def test_training_over_rigs_resumes_with_the_same_numbers(
    settings: TrainConfig, trained: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    steps = [*run(settings, tmp_path, 2), *run(settings, tmp_path)]
    assert [(s.losses, s.validation) for s in steps] == [(s.losses, s.validation) for s in trained[1]]
    assert load_state(tmp_path / "best") == load_state(trained[0] / "best")


def test_a_frozen_encoder_looks_at_every_frame_of_every_rig_once(
    settings: TrainConfig, trained: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    frozen = settings.model_copy(
        update={"encoder": "frozen", "start_from": trained[0] / "best", "first_stage": 0.0, "steps": 1}
    )
    (step,) = run(frozen, tmp_path)
    assert step.validation is not None and np.isfinite(step.validation["score"])


def invoke(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(word) for word in words])
    return done.exit_code, done.output


def test_a_checkpoint_answers_for_a_scene_it_never_saw(
    trained: tuple[Path, list[Progress]], folder: Path, small_scene: Path, small_crowds: Path, tmp_path: Path
) -> None:
    best, found = trained[0] / "best", tmp_path / "found.json"
    asked = ["evaluate", "--checkpoint", best, "--scene", small_scene, "--data", small_crowds]
    few = ["--crowds", "0:2", "--frames", "4", "--threads", "1"]
    code, said = invoke(*asked, *few, "--tuning-data", folder, "--tuning", "1:4", "--json", found)
    assert code == 0, said
    how = json.loads(found.read_text())["protocol"]
    # The scene has cells of half a metre; the model's are of one.
    assert (how["scene"], how["cell_m"], how["crowds"]) == ("small", 1.0, 2)
    assert how["kappa_s"] == 2.0
    asked = ["evaluate", "--checkpoint", best, "--data", folder, "--crowds", "2:4", "--tuning", "1:2"]
    code, said = invoke(*asked, "--frames", "4", "--threads", "1", "--json", found, "--markdown")
    assert code == 0 and "4 snapshots of 2 unseen rigs" in said, said
    how = json.loads(found.read_text())["protocol"]
    assert (how["scene"], how["crowds"], how["grouped"]) == ("rigs", 2, "rigs")


def test_what_a_model_cannot_answer_for_is_one_line(
    trained: tuple[Path, list[Progress]], folder: Path, small_scene: Path, tmp_path: Path
) -> None:
    best, here = trained[0] / "best", load_scene(small_scene)
    with pytest.raises(UserError, match=r"trained on random rigs: say for which scene with --scene"):
        TorchRunner(best)
    code, said = invoke("export", "--checkpoint", best, "--out", tmp_path / "bundle")
    assert code == 2 and "say for which cameras with --scene" in said
    low = Scene(here.name, dict(here.cameras), here.ground, (0.1, 1.0), {})
    with pytest.raises(UserError, match=r"scene small: it has 2 heights, the model was trained with 6"):
        TorchRunner(best, scene=low)
    state = load_state(best)
    three = ModelConfig(methods=("none",), cell_m=0.5, fusion="concat", views=("a", "b", "c"))
    save_checkpoint(tmp_path / "fixed", CountingModel(three), None, {"config": state["config"]})
    with pytest.raises(UserError, match=r"its views are left, right, far, the model was trained for a, b, c"):
        TorchRunner(tmp_path / "fixed", scene=here)
    for wrong in ({"fusion": "concat"}, {"reference": "v1"}, {"tau_s": {"v1": 1.0}}):
        with pytest.raises(ValueError, match="rigs have no views of fixed names"):
            TrainConfig.model_validate({"scene": "rigs", "data": folder, **wrong})
    code, said = invoke("evaluate", "--checkpoint", best, "--data", folder, "--tau", "v1=1")
    assert code == 2 and "rigs differ in their cameras" in said


def test_rigs_that_are_missing_or_of_another_ground_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 of 4 rigs are missing.*\[4\].*sim rigs --out .* --rigs 2:6"):
        rigs_scene(folder, (2, 3, 4, 5))
    for number in (2, 3):
        there = rig_folder(tmp_path, number)
        there.mkdir()
        for path in rig_folder(folder, number).iterdir():
            (there / path.name).write_bytes(path.read_bytes())
    other = load_scene(there / "scene.yaml")
    save_scene(replace(other, ground=other.ground.with_cells(0.5)), there / "scene.yaml")
    with pytest.raises(UserError, match=r"000003: its ground, its heights or the size"):
        rigs_scene(tmp_path, (2, 3))
