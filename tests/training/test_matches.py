"""Whether people are found again: planted flow against planted people, and the command on a small scene."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from calib.ground import GroundGrid
from viewsync.cli import main
from viewsync.nets.config import ModelConfig
from viewsync.nets.model import CountingModel
from viewsync.sim.dataset import Filming, make_set
from viewsync.sim.scenes import load
from viewsync.training.checkpoint import save_checkpoint
from viewsync.training.config import TrainConfig
from viewsync.training.matches import Sought, of_snapshot
from viewsync.training.snapshots import Snapshot

GROUND = GroundGrid(-2.0, 1.0, 0.25, columns=40, rows=24)
# Person 0 and 3 are in both views, 1 in the reference only, 2 in the other only, 4 has left the ground.
HERE = np.array([[0.1, 2.1], [3.1, 4.1], [5.1, 3.1], [5.1, 5.6], [0.6, 5.6]])
THERE = np.array([[2.1, 3.1], [3.1, 5.1], [5.1, 1.1], [7.1, 5.6], [0.6, 7.6]])
SEEN = np.array([[True, True, False, True, True], [True, False, True, True, True]])


def shot(present: float = 1.0) -> Snapshot:
    offset = np.array([0.0, -2.0], np.float32)
    return Snapshot(
        images=np.zeros((2, 4, 4, 3), np.uint8),
        view=np.arange(2),
        present=np.array([1.0, present], np.float32),
        true_offset_s=offset,
        offset_s=offset,
        xy=np.stack([HERE, THERE]),
        seen=SEEN,
    )


def said(*flow: tuple[int, float, float]) -> dict[str, np.ndarray]:
    """Flow (x, y) metres at the cells of persons, each (person, x, y); a match of 0.5 everywhere."""
    out = np.zeros((2, 12, 20, 2), np.float32)
    for person, *metres in flow:
        row, column = GROUND.coarser(2).cell_of(HERE[person : person + 1])[0]
        out[1, row, column] = metres
    return {"flow_m": out, "match": np.full((2, 12, 20), 0.5, np.float32)}


def test_who_is_led_to_where_they_are_is_found() -> None:
    right = Sought.of([of_snapshot(said((0, 2.0, 1.0), (3, 1.5, 0.0)), shot(), GROUND)])
    assert right.partners == 2 and right.offset_s.tolist() == [2.0] * 4
    assert right.moved_m[[0, 2]] == pytest.approx([5**0.5, 2.0]) and np.isnan(right.moved_m[[1, 3]]).all()
    assert right.missed_m[[0, 2]] == pytest.approx([0.0, 0.5], abs=1e-6)
    assert right.found() == 1.0 and right.still() == 0.0
    assert right.matched(True) == right.matched(False) == 0.5
    wrong = Sought.of([of_snapshot(said((0, 2.0, 1.0), (3, -1.5, 0.0)), shot(), GROUND)])
    assert wrong.found() == 0.5
    still = Sought.of([of_snapshot(said(), shot(), GROUND)])
    assert still.found() == still.still() == 0.0
    assert right.between(0.0, 1.9).partners == 0 and np.isnan(right.between(0.0, 1.9).found())
    assert right.between(1.5, 2.5).partners == 2 and right.between(1.0, 2.0).partners == 0


def test_an_absent_view_has_nobody_to_find() -> None:
    none = Sought.of([of_snapshot(said(), shot(present=0.0), GROUND)])
    assert none.partners == 0 and not len(none.match) and np.isnan(none.found())


def test_the_command_prints_who_is_found(small_scene: Path, small_crowds: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TrainConfig(scene=str(small_scene), data=small_crowds, methods=("column", "none"))
    folder = tmp_path / "run" / "best"
    state = {"step": 1, "config": config.model_dump(mode="json")}
    save_checkpoint(folder, CountingModel(config.model(load(str(small_scene)).scene)), None, state)
    words = ["evaluate", "--matches", "--data", str(small_crowds), "--crowds", "0:2", "--frames", "4"]
    done = CliRunner().invoke(main, [*words, "--checkpoint", str(folder), "--threads", "1"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "column on small: found means within 0.75 m" and len(lines) == 7
    shares = [line.split()[3:] for line in lines[2:]]
    assert sum(int(s[0]) for s in shares[:4]) >= int(shares[4][0]) > 0
    assert all(0 <= float(v) <= 1 for v in shares[4][1:])
    assert CliRunner().invoke(main, ["evaluate", "--matches"]).exit_code == 2
    for wrong in (["--json", str(tmp_path / "x.json")], ["--scene", "rigs"]):
        assert CliRunner().invoke(main, [*words, "--checkpoint", str(folder), *wrong]).exit_code == 2
    other = CountingModel(ModelConfig(methods=("none",)))
    save_checkpoint(folder, other, None, state)
    refused = CliRunner().invoke(main, [*words, "--checkpoint", str(folder)])
    assert (
        refused.exit_code == 2 and "answers none; where on the ground people went is told" in refused.output
    )


def test_the_command_asks_a_bundle_too(tmp_path: Path) -> None:
    make_set("plaza", tmp_path, range(7, 8), Filming(2), workers=1)
    bundle = Path(__file__).parents[2] / "bundles" / "plaza"
    words = ["evaluate", "--matches", "--bundle", str(bundle), "--data", str(tmp_path), "--crowds", "7:8"]
    done = CliRunner().invoke(main, [*words, "--frames", "1"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("column-2 on plaza: found means within 0.75 m")
    assert int(done.output.splitlines()[-1].split()[3]) > 0
