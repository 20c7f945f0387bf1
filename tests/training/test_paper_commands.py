"""The commands of docs/train.md about the paper's models, as printed and in their order, on a small scene."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from viewsync.bundle import Bundle
from viewsync.cli import main
from viewsync.training.checkpoint import load_state

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/train.md").read_text("utf-8")


def _support(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tests_support_{name}", ROOT / f"tests/support/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What is swapped to take seconds: another scene, fewer crowds, fewer steps.
SWAPS = {
    "configs/plaza-cls-epi.yaml": str(ROOT / "configs/plaza-cls-epi.yaml"),
    "0:267": "0:3",
    "100000:100036": "0:3",
    "east=3": "right=1",
    "south=-3": "far=-1",
}
MORE = {
    "sim dataset --scene --out --crowds --together": "--frames 6 --workers 1",
    "train --config --out --set": "--set steps=2 --set batch=1 --set train_seeds=[0,2] --set reference=left "
    "--set validation_seeds=[2,3] --set validate_every=2 --set validation_snapshots=1 "
    "--set data=runs/data/plaza-together",
    "export --checkpoint --scene --out": "--data runs/data/export-test --crowds 0:2 --snapshots 2",
    "evaluate --bundle --checkpoint --data --tau --kappa": "--crowds 0:2 --tuning 2:3 --frames 3 --threads 1 "
    "--json runs/found.json",
}


def test_the_paper_s_models_as_printed(
    small_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.split("## The paper's models\n")[1].split("\n## ")[0]
    commands = [c for c in _support("printed").printed(section, "train.md") if not c.inline]
    assert len(commands) == 9
    found = []
    for command in commands:
        name, *words = command.words[1:]
        (row,) = (row for row in MORE if row.split()[0] == name)
        words = [str(small_scene) if word == "plaza" else SWAPS.get(word, word) for word in words]
        more = MORE[row].split()
        if name == "train":
            more += ["--set", f"scene={small_scene}"]
            if not any(word.startswith("start_from=") for word in words):
                more += ["--set", "start_from=null"]
        if name == "evaluate":
            more += ["--scene", str(small_scene)]
        done = CliRunner().invoke(main, [name, *words, *more])
        assert done.exit_code == 0, (command.words, done.output)
        if name == "evaluate":
            found.append(json.loads(Path("runs/found.json").read_text())["protocol"])
    assert Bundle.load("runs/cls-epi-bundle").manifest.references == ("left",)
    assert load_state(Path("runs/base-su/last"))["before"][0]["config"]["kappa_s"] == 0
    # A view's frames come about every second: the nearest one is taken.
    assert found[0]["tau_s"] == {"right": 1.0, "far": -1.0} and abs(found[0]["mean_offset_s"] - 1.0) < 0.5
    assert found[1]["mean_offset_s"] == 0.0 and {p["reference"] for p in found} == {"left"}
