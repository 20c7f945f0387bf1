"""Frames before: which are drawn, what is learned from them, and a run of `column-2` from end to end."""

import csv
import json
import math
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from calib.ground import GroundGrid
from calib.scene import Scene, load_scene
from viewsync.cli import main
from viewsync.errors import ConfigError
from viewsync.nets.descriptors import Described
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.nets.two_frames import TwoFrames, Walk
from viewsync.nets.warp import ground_places
from viewsync.sim.dataset import load_truth
from viewsync.training import objective
from viewsync.training.checkpoint import load_model, load_state, save_checkpoint
from viewsync.training.config import TrainConfig
from viewsync.training.evaluate import evaluate
from viewsync.training.losses import PartnerRows, partner_loss, subcell_loss
from viewsync.training.runners import TorchRunner
from viewsync.training.snapshots import Sampling, Snapshot, SnapshotSet, frame_before
from viewsync.training.start import start_from
from viewsync.training.train import Progress, train
from viewsync.training.two_frames import carried_loss


@pytest.fixture(scope="module")
def scene(small_scene: Path) -> Scene:
    return load_scene(small_scene)


def test_the_frame_before_is_the_one_nearest_to_what_was_asked() -> None:
    times = np.array([0.0, 0.4, 1.1, 2.0, 2.2])
    assert frame_before(times, 3, 1.0) == 2 and frame_before(times, 4, 1.0) == 2
    assert frame_before(times, 4, 2.0) == 1 and frame_before(times, 4, 0.2) == 3
    assert frame_before(times, 0, 1.0) is None  # the first
    assert frame_before(times, 3, 0.4) is None and frame_before(times, 4, 9.0) is None  # none near
    assert frame_before(times[::-1], 1, 1.0) == 2  # stored in any order


def test_a_frame_before_is_of_its_own_view_and_its_age_is_true(scene: Scene, small_crowds: Path) -> None:
    shots = SnapshotSet(scene, small_crowds, range(3), Sampling(2.0, before_s=(0.6, 1.5)))
    truth = [load_truth(small_crowds / f"{seed:06d}.npz") for seed in range(3)]
    plain = SnapshotSet(scene, small_crowds, range(3), Sampling(2.0))
    found, missing, backs = 0, 0, set()
    for k in range(40):
        shot = shots.draw(6, k, crowd=k % 3, plain=True)
        assert shot.earlier is not None
        for slot, view in enumerate(shot.view):
            if not shot.earlier.present[slot]:
                missing += 1
                continue
            found += 1
            of = truth[k % 3]
            now = next(f for f in range(12) if (of.xy[view, f] == shot.xy[slot]).all())
            then = next(f for f in range(12) if (of.xy[view, f] == shot.earlier.xy[slot]).all())
            age = of.times_s[view, now] - of.times_s[view, then]
            assert shot.earlier.offset_s[slot] == pytest.approx(-age, abs=1e-5) and age > 0
            assert (shot.earlier.view == shot.view).all()
            exact = plain.at(k % 3, [(int(view), then)])
            assert (exact.images[0] == shot.earlier.images[slot]).all()
            backs.add(min((0.6, 1.5), key=lambda back: abs(age - back)))
    assert found > 40 and missing > 0 and backs == {0.6, 1.5}
    # In training some are missing, beside the views that are; nothing else than frames before is drawn.
    kept = [shots.draw(6, k, plain=True).earlier for k in range(40)]
    some = [shots.draw(6, k).earlier for k in range(40)]
    fewer = [int(a.present.sum() - b.present.sum()) for a, b in zip(kept, some, strict=True) if a and b]
    assert min(fewer) >= 0 and sum(fewer) > 4


def test_a_loss_with_walks_is_the_plain_one_where_nobody_is_sure_and_less_where_walks_are_right() -> None:
    torch.manual_seed(0)
    model = CountingModel(ModelConfig(methods=("column-2",), channels=4, heights=2, width=8, cell_m=0.5))
    assert model.column is not None
    grid = GroundGrid(origin_x_m=0.0, origin_y_m=0.0, cell_m=1.0, columns=7, rows=5)
    cells = grid.rows * grid.columns
    one = torch.zeros(1, 2, 3, cells)
    one[:, :, 0] = 1.0  # all alike: only places tell
    inside = torch.ones(1, 2, cells)
    described = Described(one, torch.full((1, 2, cells), -5.0), inside)
    # A person of slot 0 at cell (2, 1), of slot 1 at (2, 4), three metres on and 2 s later.
    rows = PartnerRows(
        np.array([0]), np.array([0]), np.array([1]), np.array([[2 * 7 + 1]]),
        np.array([[[4.5, 2.5]]], np.float32), np.array([[1.0]], np.float32),
    )  # fmt: skip
    offset, known, present = torch.tensor([[0.0, 2.0]]), torch.ones(1, 2), torch.ones(1, 2)

    def loss(sure: float, metres_s: float) -> float:
        moved = torch.tensor([-metres_s, 0.0]).expand(2, cells, 2)  # in the second before
        walks = Walk(moved, torch.full((2, cells), sure), torch.ones(2))
        found = TwoFrames(described, described, walks)
        return float(carried_loss(model, found, rows, present, offset, known, grid)[0].detach())

    shape = (grid.rows, grid.columns)
    plain = partner_loss(model.column, described, rows, offset, known, shape, grid.cell_m)[0]
    assert loss(0.0, 9.0) == pytest.approx(float(plain.detach()), rel=1e-4)
    assert loss(0.9, 1.5) < loss(0.0, 0.0) - 0.5 < loss(0.9, -1.5) - 0.5
    assert ground_places(*shape, 1.0, one)[2 * 7 + 4].tolist() == [4.5, 2.5]


@pytest.fixture(scope="module")
def config(small_scene: Path, small_crowds: Path) -> TrainConfig:
    return TrainConfig(
        scene=str(small_scene),
        data=small_crowds,
        methods=("column-2",),
        before_s=(1.0, 2.0),
        train_seeds=(0, 4),
        validation_seeds=(4, 6),
        steps=4,
        first_stage=0.5,
        batch=2,
        validate_every=2,
        validation_snapshots=2,
        threads=1,
    )


@pytest.fixture(scope="module")
def trained(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two") / "run"
    train(config, out, lambda progress: None, Event())
    return out


def test_where_people_stand_is_learned_from_both_frames_of_views_that_are_there(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[Snapshot]] = []

    def watched(shift_m: torch.Tensor, shots: list[Snapshot], grid: GroundGrid) -> Any:
        asked.append(shots)
        return subcell_loss(shift_m, shots, grid)

    monkeypatch.setattr(objective, "subcell_loss", watched)
    parts = TrainConfig(**{**config.model_dump(), "column_parts": ("mutual", "sharp", "subcell"), "steps": 8})
    steps: list[Progress] = []
    train(parts, tmp_path / "run", steps.append, Event())
    assert all(step.losses["subcell"] > 0 for step in steps)
    pairs = [
        pair for shots in asked for pair in zip(shots[: config.batch], shots[config.batch :], strict=True)
    ]
    # A view that was left out of a snapshot has been blanked in its frame before, too.
    assert any((now.present == 0).any() for now, _ in pairs)
    assert any((before.present > 0).any() for _, before in pairs)
    assert all((before.present <= now.present).all() for now, before in pairs)


def test_a_run_learns_velocities_and_its_checkpoint_answers(
    config: TrainConfig, trained: Path, scene: Scene, small_crowds: Path
) -> None:
    with (trained / "log.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    for name in ("walk", "carried", "partner", "column-2.density", "validation.column-2.density_mse"):
        assert math.isfinite(float(last[name])), name
    runner = TorchRunner(trained / "best", 1)
    assert runner.graphs == ("column-2",) and runner.before_s == 1.0
    shots = SnapshotSet(scene, small_crowds, [4], Sampling(2.0, before_s=(1.0,)))
    shot = next(s for k in range(20) if (s := shots.draw(1, k, plain=True)).earlier.present.all())  # type: ignore[union-attr]
    assert shot.earlier is not None
    features = np.stack([runner.encode(image) for image in shot.images])
    earlier = np.stack([runner.encode(image) for image in shot.earlier.images])
    with_it, without = runner.fuse(features, shot, earlier), runner.fuse(features, shot)
    assert (with_it["column-2"]["density"] != without["column-2"]["density"]).any()


def test_a_head_of_two_frames_starts_as_that_of_one(tmp_path: Path) -> None:
    """Where no frame before is there, it then says what `column` says."""
    torch.manual_seed(1)
    sizes = {"channels": 4, "heights": 2, "width": 8, "cell_m": 0.5}
    one = CountingModel(ModelConfig(methods=("column", "none"), **sizes)).eval()
    save_checkpoint(tmp_path / "one", one, None, {})
    two = CountingModel(ModelConfig(methods=("column-2", "none"), **sizes)).eval()
    start_from(two, tmp_path / "one", frozen=True)
    geometry = torch.rand(2, 3, 2, 12, 16, 2) * 2 - 1, torch.ones(2, 3), torch.randn(2, 3) * 2
    features = torch.rand(2, 3, 4, 9, 12)
    with torch.inference_mode():
        column = one.fuse(features, *geometry, ("column", "none")).density
        again = two.fuse(features, *geometry, ("column-2", "none")).density
    assert torch.equal(again["none"], column["none"])
    assert torch.allclose(again["column-2"], column["column"], rtol=1e-4, atol=1e-7)
    # Who has a head of its own keeps it.
    with torch.no_grad():
        two.heads["column-2"].decoder.out.bias += 1.0
    save_checkpoint(tmp_path / "two", two, None, {})
    both = CountingModel(ModelConfig(methods=("column-2", "none"), **sizes))
    start_from(both, tmp_path / "two", frozen=True)
    assert all(torch.equal(a, b) for a, b in zip(two.parameters(), both.parameters(), strict=True))


def test_a_frozen_encoder_has_seen_the_frames_before(
    config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    values = {"start_from": trained / "best", "encoder": "frozen", "first_stage": 0.0, "steps": 1}
    # Synchronous frames to learn a flow from are seen by it, too.
    more = {"methods": ("cls-cat", "column-2"), "flow_loss": "warp", "together_s": 0.5}
    for number, change in enumerate((values, values | more)):
        frozen = TrainConfig.model_validate(config.model_dump() | change)
        assert train(frozen, tmp_path / str(number), lambda progress: None, Event()).exists()


def test_it_is_measured_with_frames_as_far_back_as_asked(
    trained: Path, small_crowds: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    given = ["evaluate", "--checkpoint", str(trained / "best"), "--data", str(small_crowds)]
    given += ["--crowds", "4:6", "--tuning", "0:2", "--frames", "4", "--threads", "1", "--json", str(out)]
    found = CliRunner().invoke(main, [*given, "--before", "2"])
    assert found.exit_code == 0, found.output
    assert '"before_s": 2.0' in out.read_text() and "column-2" in found.stdout


def test_each_checkpoint_is_asked_as_it_was_trained(
    trained: Path, small_crowds: Path, tmp_path: Path
) -> None:
    state = load_state(trained / "best")
    other = tmp_path / "other" / "best"
    config = {**state["config"], "offsets": "unknown", "before_s": [2.0]}
    save_checkpoint(other, load_model(trained / "best"), None, {**state, "config": config})
    out = tmp_path / "found.json"
    given = ["evaluate", "--data", str(small_crowds), "--crowds", "4:6", "--tuning", "0:2", "--frames", "4"]
    given += ["--threads", "1", "--json", str(out)]

    def found(*asked: object) -> dict[str, Any]:
        done = CliRunner().invoke(main, [*given, *map(str, asked)])
        assert done.exit_code == 0, done.output
        kept: dict[str, Any] = json.loads(out.read_text())
        return kept

    alone = found("--checkpoint", other)
    both = found("--checkpoint", trained / "best", "--checkpoint", other)
    assert both["graphs"]["column-2 (other/best)"] == alone["graphs"]["column-2"]
    assert both["graphs"]["column-2"] != alone["graphs"]["column-2"]
    assert both["protocol"]["offsets"] == {"run/best": "known", "other/best": "unknown"}
    assert both["protocol"]["before_s"] == {"run/best": 1.0, "other/best": 2.0}
    asked = ("--checkpoint", trained / "best", "--checkpoint", other, "--offsets", "unknown", "--before", 1)
    protocol = found(*asked)["protocol"]
    assert (protocol["offsets"], protocol["before_s"]) == ("unknown", 1.0)
    again = CliRunner().invoke(main, [*given, *["--checkpoint", str(other)] * 2])
    assert again.exit_code == 2 and "one is given twice" in again.output
    # Two seeds of a table's cell, say, have the same last two folders; a third one tells them apart.
    namesake = tmp_path / "again" / other.parent.name / other.name
    save_checkpoint(namesake, load_model(other), None, load_state(other))
    told = found("--checkpoint", other, "--checkpoint", namesake, "--before", 1)
    assert [name.split("/")[-3] for name in told["measured"]["checkpoints"]] == [tmp_path.name, "again"]


def test_error_against_offset_has_frames_as_far_back_as_asked(
    trained: Path, small_crowds: Path, tmp_path: Path
) -> None:
    out = tmp_path / "curves.json"
    given = ["evaluate", "--checkpoint", str(trained / "best"), "--data", str(small_crowds), "--by-offset"]
    given += ["--crowds", "4:6", "--kappa", "1", "--frames", "2", "--threads", "1", "--json", str(out)]
    curves = []
    for more, back_s in (([], 1.0), (["--before", "2"], 2.0)):
        done = CliRunner().invoke(main, [*given, *more])
        assert done.exit_code == 0, done.output
        curves.append(json.loads(out.read_text())["curves"]["column-2 (run/best)"])
        assert curves[-1]["before_s"] == back_s
    assert curves[0]["density_mse"] != curves[1]["density_mse"]


def test_thresholds_of_another_folder_are_chosen_with_frames_before(
    trained: Path, scene: Scene, small_crowds: Path
) -> None:
    came = []

    class Watched(TorchRunner):
        def fuse(self, features: Any, shot: Any, earlier: Any = None) -> Any:
            came.append(earlier is not None)
            return super().fuse(features, shot, earlier)

    tuner = Watched(trained / "best", 1, scene)
    runner = TorchRunner(trained / "best", 1, scene)
    evaluate(
        runner, small_crowds, [4], [0, 1], 2, 2.0, elsewhere=(tuner, small_crowds), before_s=runner.before_s
    )
    assert came and all(came)


def test_it_is_measured_at_the_rate_of_slow_agents(trained: Path, small_scene: Path, tmp_path: Path) -> None:
    made = ["sim", "dataset", "--scene", str(small_scene), "--out", str(tmp_path / "data"), "--crowds", "0:2"]
    made += ["--frames", "5", "--interval", "0.5", "--together", "--workers", "1"]
    assert CliRunner().invoke(main, made).exit_code == 0
    given = ["evaluate", "--checkpoint", str(trained / "best"), "--data", str(tmp_path / "data")]
    given += ["--crowds", "1:2", "--tuning", "0:1", "--frames", "2", "--threads", "1"]
    out = tmp_path / "found.json"
    for more, kappa_s, offset_s in ((["--same-instant"], 0.0, 0.0), ([], 1.0, None)):
        asked = [*given, "--frame-rate", "1", *more, "--json", str(out), "--markdown"]
        found = CliRunner().invoke(main, asked)
        assert found.exit_code == 0 and "| column-2 |" in found.output, found.output
        protocol = json.loads(out.read_text())["protocol"]
        assert (protocol["before_s"], protocol["kappa_s"], protocol["frame_rate"]) == (1.0, kappa_s, 1.0)
        assert offset_s is None or protocol["mean_offset_s"] == offset_s
    for wrong in (["--frame-rate", "1", "--kappa", "2"], ["--same-instant"]):
        found = CliRunner().invoke(main, [*given, *wrong])
        assert found.exit_code == 2 and wrong[0] in found.output


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"before_s": ()}, "before_s: give at least one positive number"),
        ({"before_s": (1.0, 0.0)}, "before_s: give at least one positive number"),
        ({"methods": ("column-2",), "fusion": "concat"}, "column-2 goes by capture times"),
    ],
)
def test_what_cannot_be_is_said(parts: dict[str, object], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message.split(": ")[-1]):
        TrainConfig(data=Path("x"), **parts)  # type: ignore[arg-type]
