"""Training on a tiny set: resumed is as uninterrupted, what is wrong is said, and nothing good is lost."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from viewsync.cli import main
from viewsync.config import load_config
from viewsync.errors import ConfigError, UserError
from viewsync.nets.model import METHODS
from viewsync.sim.scenes import load
from viewsync.training import train as training
from viewsync.training.checkpoint import load_model, load_state, save_checkpoint
from viewsync.training.config import TrainConfig
from viewsync.training.inputs import encode, single_frames
from viewsync.training.snapshots import SnapshotSet
from viewsync.training.train import Progress, levels_of, train

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def tiny_run(small_scene: Path, small_crowds: Path) -> TrainConfig:
    return TrainConfig(
        scene=str(small_scene),
        data=small_crowds,
        train_seeds=(0, 4),
        validation_seeds=(4, 6),
        steps=6,
        first_stage=0.34,
        batch=2,
        validate_every=3,
        validation_snapshots=2,
        threads=1,
    )


def run(config: TrainConfig, out: Path, stop_at: int | None = None) -> list[Progress]:
    seen: list[Progress] = []
    stop = Event()

    def report(step: Progress) -> None:
        seen.append(step)
        # Set while a step is reported, it ends the run after the next one.
        if stop_at is not None and step.step == stop_at - 1:
            stop.set()

    train(config, out, report, stop)
    return seen


@pytest.fixture(scope="module")
def uninterrupted(
    tiny_run: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Progress]]:
    out = tmp_path_factory.mktemp("whole")
    return out, run(tiny_run, out)


@pytest.mark.parametrize("stop_at", [2, 5])
def test_a_resumed_run_gives_the_numbers_of_an_uninterrupted_one(
    tiny_run: TrainConfig, uninterrupted: tuple[Path, list[Progress]], tmp_path: Path, stop_at: int
) -> None:
    whole, expected = uninterrupted
    first = run(tiny_run, tmp_path, stop_at)
    assert [p.step for p in first] == list(range(1, stop_at + 1))
    second = run(tiny_run, tmp_path)
    assert [p.step for p in first + second] == [p.step for p in expected]
    for ours, theirs in zip(first + second, expected, strict=True):
        # Equal to the last bit: same data, same order, same weights and moments on the same machine.
        assert ours.losses == theirs.losses and ours.validation == theirs.validation
    for folder in ("last", "best"):
        ours, theirs = (load_file(root / folder / "model.safetensors") for root in (tmp_path, whole))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
        assert load_state(tmp_path / folder) == load_state(whole / folder)
    assert (tmp_path / "log.csv").read_text() == (whole / "log.csv").read_text()


def test_a_run_leaves_best_last_and_a_log(uninterrupted: tuple[Path, list[Progress]]) -> None:
    out, steps = uninterrupted
    assert load_state(out / "last")["step"] == 6
    scores = {p.step: p.validation["score"] for p in steps if p.validation}
    best = load_state(out / "best")
    assert best["best"] == min(scores.values()) == scores[best["step"]]
    assert set(steps[0].losses) == {"marks", "visible", "partner", "matched"}  # stage one
    assert {"column.density", "none.count", "reference-only.density"} < set(steps[-1].losses)
    rows = list(csv.DictReader((out / "log.csv").open()))
    assert [row["step"] for row in rows] == ["3", "6"] and float(rows[-1]["validation.none.mae"]) >= 0
    assert not list(out.glob("*.new")) and not list(out.glob("*.old"))


def test_the_steps_of_a_killed_run_are_not_logged_twice(
    tiny_run: TrainConfig, uninterrupted: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    run(tiny_run, tmp_path, 5)
    with (tmp_path / "log.csv").open("a") as file:
        file.write("6" + "," * 19 + "\n")  # logged, but the machine stopped before it was saved
    run(tiny_run, tmp_path)
    assert (tmp_path / "log.csv").read_text() == (uninterrupted[0] / "log.csv").read_text()


def test_a_frozen_encoder_stays_as_it_was_and_looks_at_every_frame_once(
    tiny_run: TrainConfig, uninterrupted: tuple[Path, list[Progress]], tmp_path: Path, small_scene: Path
) -> None:
    start = uninterrupted[0] / "best"
    changes = {"encoder": "frozen", "start_from": start, "first_stage": 0.0, "seed": 3}
    config = tiny_run.model_copy(update=changes)
    whole = run(config, tmp_path / "whole")
    assert set(whole[0].losses) >= {"column.density", "visible", "partner"}
    assert not {"marks", "sparsity"} & set(whole[0].losses)  # they would teach the encoder alone
    before, after = (load_model(folder) for folder in (start, tmp_path / "whole/last"))
    kept, moved = before.encoder.state_dict(), after.encoder.state_dict()
    assert all(torch.equal(kept[name], moved[name]) for name in kept)
    assert not torch.equal(before.ground.reduce[0].weight, after.ground.reduce[0].weight)
    assert run(config, tmp_path / "halves", 4) + run(config, tmp_path / "halves") == whole
    # What is kept of a frame is what the agent would send of it.
    shots = SnapshotSet(load(str(small_scene)).scene, config.data, range(2))
    plain = shots.draw(0, 0)
    shots.encode_once(lambda images: levels_of(before, images))
    drawn = shots.draw(0, 0)
    assert drawn.images.size == 0 and (drawn.xy == plain.xy).all()
    with torch.inference_mode():
        assert torch.equal(encode(before, [drawn]), encode(before, [plain]))


def test_looking_at_every_frame_says_how_far_it_is_and_stops_when_told(
    tiny_run: TrainConfig, uninterrupted: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    start = uninterrupted[0] / "best"
    changes = {"encoder": "frozen", "start_from": start, "first_stage": 0.0}
    config, stop = tiny_run.model_copy(update=changes), Event()
    seen: list[tuple[int, int]] = []

    def looked(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            stop.set()

    train(config, tmp_path / "run", pytest.fail, stop, looked)
    assert len(seen) == training._ASK_EVERY < seen[-1][1]
    # Nothing is half-written: the same call begins anew, and looks at all of them.
    assert not (tmp_path / "run/last").exists()
    stop.clear()
    seen.clear()
    steps: list[Progress] = []
    train(config, tmp_path / "run", steps.append, stop, lambda done, total: seen.append((done, total)))
    assert seen == [(n + 1, len(seen)) for n in range(len(seen))] and len(steps) == config.steps


def test_where_people_stand_in_a_cell_is_a_lesson_of_its_own(tiny_run: TrainConfig, tmp_path: Path) -> None:
    changes = {"column_parts": ("subcell",), "methods": ("column",)}
    config = TrainConfig(**{**tiny_run.model_dump(), **changes})
    assert all(step.losses["subcell"] > 0 for step in run(config, tmp_path))
    assert "subcell" in (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    column = load_model(tmp_path / "last").column
    assert column is not None and column.subcell.out.weight.abs().max() > 0


def test_only_a_run_that_starts_from_something_can_freeze_it(tiny_run: TrainConfig) -> None:
    with pytest.raises(ValueError, match="a frozen encoder is one that start_from has"):
        TrainConfig(**{**tiny_run.model_dump(), "encoder": "frozen"})


def test_an_encoder_that_is_not_there_is_not_frozen(
    tiny_run: TrainConfig, uninterrupted: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    changes = {"encoder": "frozen", "start_from": uninterrupted[0] / "best", "first_stage": 0.0}
    other = tiny_run.model_copy(update={**changes, "base": "mvms", "methods": ("none",)})
    with pytest.raises(UserError, match="has no encoder of this shape"):
        run(other, tmp_path)
    assert not (tmp_path / "last").exists()


def test_what_an_older_run_does_not_tell_was_as_it_is_by_default(
    tiny_run: TrainConfig, uninterrupted: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    shutil.copytree(uninterrupted[0], tmp_path / "old")
    path = tmp_path / "old/last/state.json"
    state = json.loads(path.read_text())
    del state["config"]["offsets"]
    path.write_text(json.dumps(state))
    assert run(tiny_run, tmp_path / "old") == []
    with pytest.raises(UserError, match="offsets sometimes, now it is known"):
        run(tiny_run.model_copy(update={"offsets": "known"}), tmp_path / "old")


def test_another_configuration_does_not_go_on_with_a_checkpoint(
    tiny_run: TrainConfig, uninterrupted: tuple[Path, list[Progress]]
) -> None:
    out, _ = uninterrupted
    before = (out / "last/state.json").read_bytes()
    with pytest.raises(UserError, match=r"trained with batch 2, now it is 3; use another --out"):
        run(tiny_run.model_copy(update={"batch": 3}), out)
    assert (out / "last/state.json").read_bytes() == before
    # Where the data lie and how many cores there are is nobody's business.
    assert run(tiny_run.model_copy(update={"threads": 2}), out) == []


def test_a_loss_that_is_not_a_number_stops_names_the_batch_and_keeps_the_checkpoint(
    tiny_run: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.batch_losses

    def poisoned(*args: object) -> dict[str, torch.Tensor]:
        losses = real(*args)  # type: ignore[arg-type]
        return {**losses, "marks": losses["marks"] * float("nan")} if args[5] == 3 else losses

    monkeypatch.setattr(training, "batch_losses", poisoned)
    with pytest.raises(UserError, match=r"step 4: marks is not a number, on snapshots 6 to 7 of seed 0"):
        run(tiny_run, tmp_path)
    assert load_state(tmp_path / "last")["step"] == 3
    weights = load_file(tmp_path / "last/model.safetensors")
    assert all(torch.isfinite(w).all() for w in weights.values() if w.is_floating_point())


def test_a_gradient_that_is_not_a_number_spoils_no_weights(
    tiny_run: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.batch_losses

    def poisoned(*args: object) -> dict[str, torch.Tensor]:
        losses = real(*args)  # type: ignore[arg-type]
        nothing = losses["visible"] * 0
        # The root of nothing is a number, and has no slope.
        return {**losses, "visible": losses["visible"] + nothing.sqrt()} if args[5] == 2 else losses

    monkeypatch.setattr(training, "batch_losses", poisoned)
    with pytest.raises(UserError, match=r"step 3: the gradient is not a number, on snapshots 4 to 5"):
        run(tiny_run, tmp_path)
    assert not (tmp_path / "last").exists()


def test_a_run_whose_last_state_is_lost_is_not_overwritten(tiny_run: TrainConfig, tmp_path: Path) -> None:
    for name in ("best", "last"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"dear")
    with pytest.raises(UserError, match=r"there is last and best of a run, but no last/state.json"):
        run(tiny_run, tmp_path)
    assert (tmp_path / "best/model.safetensors").read_bytes() == b"dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last"]


def test_a_full_disk_keeps_the_checkpoint_that_was_there(
    uninterrupted: tuple[Path, list[Progress]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(uninterrupted[0] / "best")
    save_checkpoint(tmp_path / "last", model, None, {"step": 1})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("viewsync.training.checkpoint.save_file", full)
    with pytest.raises(UserError, match=r"No space left .* free some space"):
        save_checkpoint(tmp_path / "last", model, None, {"step": 2})
    assert load_state(tmp_path / "last")["step"] == 1
    # The machine stops between moving the old folder away and the new one into place.
    (tmp_path / "last").rename(tmp_path / "last.old")
    assert load_state(tmp_path / "last")["step"] == 1 and load_model(tmp_path / "last") is not None


def test_a_checkpoint_that_is_missing_or_damaged_is_one_line(
    uninterrupted: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"no checkpoint here .* viewsync train"):
        load_model(tmp_path)
    save_checkpoint(tmp_path / "cut", load_model(uninterrupted[0] / "best"), None, {})
    whole = (tmp_path / "cut/model.safetensors").read_bytes()
    (tmp_path / "cut/model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
        load_model(tmp_path / "cut")


def test_a_model_of_the_reference_alone_learns_from_every_frame(
    tiny_run: TrainConfig, small_scene: Path, small_crowds: Path, tmp_path: Path
) -> None:
    shot = SnapshotSet(load(str(small_scene)).scene, small_crowds, range(2)).draw(0, 0)
    frames = single_frames(shot)
    assert len(frames) == 3 and all(f.images.shape[0] == 1 and f.present.tolist() == [1.0] for f in frames)
    assert [int(f.view[0]) for f in frames] == shot.view.tolist()
    # Each has the people of its own instant as its truth.
    assert all((f.xy[0] == shot.xy[v]).all() for v, f in enumerate(frames))
    steps = run(tiny_run.model_copy(update={"methods": ("reference-only",), "steps": 3}), tmp_path)
    assert np.isfinite(steps[-1].losses["reference-only.density"])
    assert load_model(tmp_path / "best").config.methods == ("reference-only",)


def test_a_run_goes_on_from_anothers_weights_and_says_from_which(
    tiny_run: TrainConfig, uninterrupted: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    first = uninterrupted[0] / "best"
    started = {"start_from": first, "steps": 1, "learning_rate": 1e-9, "methods": ("none",)}
    run(tiny_run.model_copy(update=started), tmp_path / "run")
    before, after = load_file(first / "model.safetensors"), load_file(tmp_path / "run/last/model.safetensors")
    # One step at a rate of next to nothing leaves weights where they started; other methods' are left out.
    for name in ("heads.none.decoder.enter.0.weight", "encoder.out.1.weight"):
        assert torch.allclose(after[name], before[name], atol=1e-6)
    assert not any(name.startswith("heads.column") for name in after)
    third = {"start_from": tmp_path / "run/last", "steps": 1}
    run(tiny_run.model_copy(update=third), tmp_path / "third")
    told = load_state(tmp_path / "third/last")["before"]
    assert [(t["run"], t["step"]) for t in told] == [
        (first.parent.name, load_state(first)["step"]),
        ("run", 1),
    ]
    assert told[1]["config"]["methods"] == ["none"]


def test_a_run_without_answers_is_judged_by_whom_each_view_sees(
    tiny_run: TrainConfig, tmp_path: Path
) -> None:
    steps = run(tiny_run.model_copy(update={"first_stage": 1.0, "steps": 3}), tmp_path)
    assert set(steps[-1].losses) == {"marks", "visible", "partner", "matched"}
    last = steps[-1].validation
    assert last is not None and last["score"] == last["visible.density_mse"] > 0
    assert load_state(tmp_path / "best")["best"] == last["score"]
    row = list(csv.DictReader((tmp_path / "log.csv").open()))[-1]
    assert float(row["validation.visible.mae"]) == pytest.approx(last["visible.mae"], rel=1e-4)
    assert not row["validation.none.mae"]


def test_training_goes_down(tiny_run: TrainConfig, tmp_path: Path) -> None:
    """Thirty steps on one crowd: every method's density and count, and the matcher, learn something."""
    config = tiny_run.model_copy(
        update={
            "steps": 30,
            "first_stage": 0.0,
            "validate_every": 30,
            "train_seeds": (0, 1),
            "learning_rate": 2e-2,
        }
    )
    steps = run(config, tmp_path)

    def mean(name: str, part: slice) -> float:
        return float(np.mean([p.losses[name] for p in steps[part]]))

    # About 0.5, 0.2, 0.3 and 0.9 when this was written.
    for method in METHODS:
        assert mean(f"{method}.density", slice(-5, None)) < 0.7 * mean(f"{method}.density", slice(0, 5))
        assert mean(f"{method}.count", slice(-5, None)) < 0.5 * mean(f"{method}.count", slice(0, 5))
    assert mean("partner", slice(-5, None)) < 0.6 * mean("partner", slice(0, 5))
    assert mean("visible", slice(-5, None)) < 0.97 * mean("visible", slice(0, 5))


# --- the command ------------------------------------------------------------------------------------------


def as_file(config: TrainConfig, path: Path) -> Path:
    path.write_text(json.dumps(config.model_dump(mode="json")))  # JSON is YAML
    return path


def test_ctrl_c_saves_and_the_same_command_goes_on(tiny_run: TrainConfig, tmp_path: Path) -> None:
    config = as_file(
        tiny_run.model_copy(update={"steps": 3000, "validate_every": 3000}), tmp_path / "run.yaml"
    )
    command = [
        sys.executable,
        "-m",
        "viewsync",
        "train",
        "--config",
        str(config),
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen([*command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    log = tmp_path / "run/log.csv"
    try:
        while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 1):
            Event().wait(0.1)  # the test's own time limit ends this
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and "go on with the same command" in errors, errors
    step = load_state(tmp_path / "run/last")["step"]
    assert 10 <= step < 3000


def test_the_command_says_what_is_wrong_in_one_line(tiny_run: TrainConfig, tmp_path: Path) -> None:
    config = as_file(tiny_run, tmp_path / "run.yaml")

    def fails(*more: str) -> str:
        result = CliRunner().invoke(
            main, ["train", "--config", str(config), "--out", str(tmp_path / "out"), *more]
        )
        assert result.exit_code == 2 and not (tmp_path / "out").exists(), result.output
        return result.output

    assert "unknown key 'stepz'; did you mean 'steps'?" in fails("--set", "stepz=5")
    assert "choose from column, none, reference-only" in fails("--set", "methods=[telepathy]")
    assert "share crowds" in fails("--set", "validation_seeds=[3, 6]")
    missing = fails("--set", "train_seeds=[10, 14]")
    assert "4 of 4 crowds are missing" in missing and "viewsync sim dataset" in missing and "10:14" in missing
    assert "another scene" in fails("--set", "scene=plaza")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_that_come_with_the_project_are_sound(path: Path) -> None:
    assert load_config(TrainConfig, path).steps > 0


@pytest.mark.parametrize("method", ["none", "reference-only"])
def test_a_baseline_with_an_encoder_of_its_own_is_trained_like_the_bundle(method: str) -> None:
    shared = ("scene", "data", "train_seeds", "validation_seeds", "batch", "kappa_s")
    shared += ("steps", "first_stage", "learning_rate", "sparsity", "start_from", "seed")
    bundle = load_config(TrainConfig, CONFIGS / "plaza.yaml")
    own = load_config(TrainConfig, CONFIGS / f"plaza-{method}.yaml")
    assert own.methods == (method,) and method in bundle.methods
    assert {key: getattr(own, key) for key in shared} == {key: getattr(bundle, key) for key in shared}


def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: x\nbatchsize: 3\n")
    with pytest.raises(ConfigError, match="batchsize"):
        load_config(TrainConfig, tmp_path / "run.yaml")
