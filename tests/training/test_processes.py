"""Several processes train what one does: real ones, started by torchrun, over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load_file

from viewsync.errors import UserError
from viewsync.nets.model import CountingModel
from viewsync.sim.scenes import load
from viewsync.training.config import TrainConfig
from viewsync.training.processes import Processes
from viewsync.training.train import Progress, train

TWO = Path(__file__).parents[1] / "support/two_processes.py"


@pytest.fixture(scope="module")
def small_run(small_scene: Path, small_crowds: Path) -> TrainConfig:
    return TrainConfig(
        scene=str(small_scene),
        data=small_crowds,
        methods=("column", "none"),
        train_seeds=(0, 4),
        validation_seeds=(4, 6),
        steps=6,
        first_stage=0.34,
        batch=2,
        validate_every=3,
        validation_snapshots=3,
        threads=1,
        accelerator="cpu",
    )


@pytest.fixture(scope="module")
def both(small_run: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what two processes under torchrun did."""
    out = tmp_path_factory.mktemp("both")
    (out / "run.json").write_text(small_run.model_dump_json())
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(TWO)]
    done = subprocess.run(
        [sys.executable, *command, str(out / "run.json"), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return out


def told(out: Path, process: int) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / f"process-{process}.json").read_text())
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def test_two_processes_take_the_steps_of_one(small_run: TrainConfig, both: Path, tmp_path: Path) -> None:
    alone: list[Progress] = []
    train(small_run, tmp_path, alone.append, Event())
    together = told(both, 0)["losses"]
    assert isinstance(together, list) and len(together) == len(alone) == 6
    assert told(both, 1)["losses"] == []  # the first one reports
    # The first step's losses differ by rounding; later ones by what it makes of weights whose gradient is
    # next to nothing, because Adam normalises it. About 0.02 of the way when this was written.
    assert together[0] == pytest.approx(alone[0].losses, rel=1e-5)
    for ours, theirs in zip(together[1:], alone[1:], strict=True):
        assert ours == pytest.approx(theirs.losses, rel=2e-2, abs=2e-2)
    one, two = weights(tmp_path / "last"), weights(both / "whole/last")
    torch.manual_seed(small_run.seed)
    model = CountingModel(small_run.model(load(small_run.scene).scene))
    start = dict(model.named_parameters())
    apart, way = (
        torch.cat([(one[name] - other[name]).flatten() for name in start]).norm() for other in (two, start)
    )
    assert apart < 0.05 * way
    statistics = [name for name in one if "running" in name]
    assert statistics and all(torch.allclose(one[n], two[n], rtol=0.01, atol=1e-3) for n in statistics)


def test_a_stop_of_one_stops_both_and_both_go_on_to_the_same_weights(both: Path) -> None:
    assert [told(both, p)["halfway"] for p in (0, 1)] == [4, 4]
    assert told(both, 0)["stopped"] and told(both, 1)["stopped"]
    for folder in ("last", "best"):
        whole, halves = weights(both / "whole" / folder), weights(both / "halves" / folder)
        assert all(torch.equal(whole[name], halves[name]) for name in whole)
    assert (both / "whole/log.csv").read_text() == (both / "halves/log.csv").read_text()


def test_a_stop_of_one_while_a_frozen_encoder_looks_stops_both_with_nothing_half_written(both: Path) -> None:
    assert told(both, 0)["looked"] and told(both, 1)["looked"]


def test_a_loss_of_one_that_is_not_a_number_stops_both_with_one_message(both: Path) -> None:
    first, second = told(both, 0), told(both, 1)
    assert "step 5: marks is not a number, on snapshots 9 to 9 of seed 0" in str(first["said"])
    assert first["said"] == second["said"] and not first["elsewhere"] and second["elsewhere"]
    assert json.loads((both / "poisoned/last/state.json").read_text())["step"] == 3


def test_a_checkpoint_that_cannot_be_written_stops_both(both: Path) -> None:
    assert told(both, 0)["unsaved"] == "no space left"
    assert "the first process could not write its checkpoint" in str(told(both, 1)["unsaved"])


def test_what_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"wants 1 CUDA GPUs, but torch .* finds 0 here; set acc"):
            Processes("cuda")
    alone = Processes()
    assert (alone.rank, alone.count, alone.device.type) == (0, 1, "cpu") and alone.first
    assert alone.share(4) == range(4)
    monkeypatch.setattr(Processes, "count", 3)
    with pytest.raises(UserError, match="batch 4 cannot be shared by 3 processes"):
        alone.share(4)
