"""docs/edge.md and the code say the same: keys with their defaults, flags, metrics, reasons of refusals."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from edge.config import EdgeConfig
from edge.counts import EdgeCounts
from edge.refusals import _ADVICE
from viewsync.cli.edge import command

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "edge.md").read_text(encoding="utf-8")


def _rows(heading: str) -> list[list[str]]:
    """Cells of the table under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")] for line in lines]


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.default


def test_every_key_is_documented_with_its_default() -> None:
    documented = {row[0].strip("`"): row[1].strip("`") for row in _rows("Configuration")}
    defaults = dict(_leaves(EdgeConfig))
    assert set(documented) == set(defaults)
    for key, default in defaults.items():
        if default is PydanticUndefined:
            assert documented[key] == "required", key
        elif default is None:
            assert documented[key] == "", key
        elif isinstance(default, (bool, str)):
            assert documented[key] == str(default).lower(), key
        else:
            assert float(documented[key]) == default, key


def test_every_flag_is_documented() -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.opts[0] != "--log-level":
            assert parameter.help and parameter.opts[0] in PAGE, parameter.opts
    for flag in re.findall(r"\(`(--[a-z-]+)", PAGE):
        assert any(flag in parameter.opts for parameter in command.params), flag


def test_every_metric_is_documented(counts: EdgeCounts) -> None:
    documented = {re.sub(r"\{.*|_total", "", row[0].strip("`")) for row in _rows("Metrics and health")}
    assert documented == {family.name for family in counts.registry.collect()}


def test_the_agent_has_advice_for_what_the_hub_may_refuse() -> None:
    refusals = (DOCS / "hub.md").read_text(encoding="utf-8").split("## Refusals\n")[1].split("\n## ")[0]
    rows = [line for line in refusals.splitlines() if line.startswith("| `")]
    # The last row is what only a program that is no agent sends.
    reasons = {reason for row in rows[:-1] for reason in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    assert reasons - {"old-seq"} <= set(_ADVICE)
