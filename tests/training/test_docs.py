"""docs/train.md and the code say the same: keys with their defaults, and every flag."""

import re
from pathlib import Path

import click
import pytest
from pydantic_core import PydanticUndefined

from viewsync.cli import evaluate, export, sim, train
from viewsync.training.config import TrainConfig

PAGE = (Path(__file__).parents[2] / "docs" / "train.md").read_text(encoding="utf-8")
COMMANDS = {
    "sim dataset": sim.dataset,
    "sim rigs": sim.rigs,
    "sim describe": sim.describe,
    "train": train.command,
    "evaluate": evaluate.command,
    "export": export.command,
}


def rows(heading: str) -> list[list[str]]:
    """Cells of the table under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and "`" in line]
    return [[cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")] for line in lines]


def test_every_key_is_documented_with_its_default() -> None:
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows("Configuration")}
    assert list(documented) == [name for name in TrainConfig.model_fields if name in documented]
    assert set(documented) == set(TrainConfig.model_fields)
    for name, field in TrainConfig.model_fields.items():
        default = field.default
        if default is PydanticUndefined:
            assert documented[name] == ("" if field.default_factory else "required"), name
        elif default is None:
            assert documented[name] == "", name
        elif isinstance(default, tuple):
            assert documented[name] == ", ".join(str(part) for part in default), name
        elif isinstance(default, str):
            assert documented[name] == default, name
        else:
            assert float(documented[name]) == default, name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_documented_and_no_other(name: str) -> None:
    documented: set[str] = set()
    current = ""
    for command, flags, _ in rows("Flags"):
        current = command.strip("`") or current
        if current == name:
            documented |= set(re.findall(r"--[a-z-]+", flags))
    options = {p.opts[0] for p in COMMANDS[name].params if isinstance(p, click.Option)}
    assert documented == options - {"--log-level"}
    assert all(p.help for p in COMMANDS[name].params if isinstance(p, click.Option))
