"""Offsets told or withheld: in training, in what is measured, and in the rows of the tables."""

import json
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from click.testing import CliRunner

from calib.scene import load_scene
from viewsync.cli import main
from viewsync.config import load_config
from viewsync.errors import ConfigError
from viewsync.nets.model import UNKNOWN_OFFSET_S
from viewsync.training.config import TrainConfig
from viewsync.training.snapshots import SnapshotSet
from viewsync.training.tables.grid import TABLES, Cell, cells
from viewsync.training.train import train


def config(small_scene: Path, small_crowds: Path, **more: object) -> TrainConfig:
    values = {
        "scene": str(small_scene),
        "data": small_crowds,
        "methods": ("column",),
        "train_seeds": (0, 4),
        "validation_seeds": (4, 6),
        "steps": 2,
        "first_stage": 0.0,
        "batch": 1,
        "validate_every": 2,
        "validation_snapshots": 2,
        "threads": 1,
        **more,
    }
    return TrainConfig.model_validate(values)


def test_offsets_are_told_always_never_or_mostly(small_scene: Path, small_crowds: Path) -> None:
    scene = load_scene(small_scene)
    views = tuple(scene.cameras)
    shares = {}
    for offsets in ("sometimes", "known", "unknown"):
        sampling = config(small_scene, small_crowds, offsets=offsets).sampling(views)
        shots = SnapshotSet(scene, small_crowds, range(4), sampling)
        drawn = [shots.draw(0, k) for k in range(60)]
        shares[offsets] = np.mean([(s.offset_s[1:] == UNKNOWN_OFFSET_S).all() for s in drawn])
        assert all(s.offset_s[0] == 0 and (abs(s.true_offset_s) <= 3).all() for s in drawn)
        plain = shots.draw(0, 0, plain=True)
        told = plain.true_offset_s[1:] if offsets != "unknown" else UNKNOWN_OFFSET_S
        assert (plain.offset_s[1:] == told).all()
    assert shares["known"] == 0 < shares["sometimes"] < 0.5 < shares["unknown"] == 1
    # What is drawn is the same frames, told or not: the same method can be measured both ways.
    concat = config(small_scene, small_crowds, methods=("none",), fusion="concat", offsets="unknown")
    assert concat.sampling(views).unknown == 1 and concat.sampling(views).drop == 0


def test_the_same_checkpoint_is_measured_both_ways(
    small_scene: Path, small_crowds: Path, tmp_path: Path
) -> None:
    parts = ("speed-limit", "iterated", "everybody")
    best = train(
        config(small_scene, small_crowds, column_parts=parts), tmp_path / "run", lambda step: None, Event()
    )
    found = {}
    for offsets in ("known", "unknown"):
        path = tmp_path / f"{offsets}.json"
        asked = ["evaluate", "--checkpoint", str(best), "--data", str(small_crowds), "--crowds", "2:4"]
        asked += [
            "--tuning",
            "0:2",
            "--frames",
            "3",
            "--threads",
            "1",
            "--offsets",
            offsets,
            "--json",
            str(path),
        ]
        done = CliRunner().invoke(main, asked)
        assert done.exit_code == 0, done.output
        found[offsets] = json.loads(path.read_text())
    assert found["unknown"]["protocol"].pop("offsets") == "unknown"
    assert found["known"]["protocol"] == found["unknown"]["protocol"]
    assert found["known"]["graphs"] != found["unknown"]["graphs"]


def test_parts_and_offsets_are_one_config_line(small_scene: Path) -> None:
    plain = {"scene": str(small_scene), "data": "nowhere", "methods": ("column",)}
    lines = ("column_parts=[iterated, shared]", "offsets=known")
    chosen = load_config(TrainConfig, None, lines, defaults=plain)
    assert chosen.model(load_scene(small_scene)).column_parts == ("iterated", "shared")
    for line in ("column_parts=[faster]", "offsets=never"):
        with pytest.raises(ConfigError):
            load_config(TrainConfig, None, (line,), defaults=plain)
    with pytest.raises(ConfigError, match="of the methods column"):
        load_config(TrainConfig, None, ("column_parts=[shared]", "methods=[none]"), defaults=plain)


def test_the_table_of_column_trains_a_row_for_each_part_and_no_row_twice() -> None:
    names = [row.name for row in TABLES["column"]]
    assert {"BaseU", "column", "iterated", "shared", "known", "unknown", "perfect-matching"} <= set(names)
    paper = {c.folder for c in cells(3)}
    shared = [c.row.name for c in cells("column", ["pets2009-sim random"]) if c.folder in paper]
    assert sorted(shared) == ["BaseU", "column", "perfect-flow", "perfect-matching"]
    only = cells("column", ["pets2009-sim random iterated"])
    assert [c.row.settings["column_parts"] for c in only] == [("iterated",)]
    assert Cell("column", *("pets2009-sim", "random"), only[0].row).folder.endswith(
        "table-column-iterated-column"
    )
