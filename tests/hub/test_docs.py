"""docs/hub.md and the code say the same: keys with their defaults, flags, reasons of refusals, metrics."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from hub.config import HubConfig, SecuritySection, uses_curve
from hub.metrics import HubMetrics
from viewsync.cli.hub import command as hub_command
from viewsync.cli.subscribe import command as subscribe_command
from viewsync.endpoints import is_loopback
from viewsync.errors import ConfigError
from viewsync.values import REASONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hub.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the table under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and "`" in line]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.default


def test_every_key_is_documented_with_its_default() -> None:
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows("Configuration")}
    defaults = dict(leaves(HubConfig))
    assert set(documented) == set(defaults)
    for key, default in defaults.items():
        if default is PydanticUndefined:
            assert documented[key] == "required"
        elif isinstance(default, bool):
            assert documented[key] == str(default).lower()
        elif isinstance(default, (int, float)):
            assert float(documented[key]) == default
        elif isinstance(default, str):
            assert documented[key] == default


def test_every_flag_is_documented() -> None:
    for command in (hub_command, subscribe_command):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help
                if command is hub_command:
                    assert parameter.opts[0] in PAGE, parameter.opts
    for flag in re.findall(r"`(--[a-z-]+)", PAGE.split("## Configuration")[1].split("## What")[0]):
        assert any(flag in parameter.opts for parameter in hub_command.params), flag


def test_every_reason_is_documented() -> None:
    documented = {slug for row in rows("Refusals") for slug in re.findall(r"`([a-z-]+)`", row[0])}
    code = "".join((ROOT / "hub" / f"{name}.py").read_text() for name in ("buffer", "claims", "server"))
    ours = set(re.findall(r'(?:_refuse\(|Verdict\(\s*False,|WireError\()\s*"([a-z0-9-]+)"', code))
    assert len(ours) > 10 and documented == ours | REASONS


def test_every_metric_is_documented() -> None:
    documented = {re.sub(r"\{.*|_total", "", row[0].strip("`")) for row in rows("Metrics and health")}
    registry = CollectorRegistry()
    HubMetrics(["north"], registry)
    assert documented == {family.name for family in registry.collect()}


@pytest.mark.parametrize(
    ("endpoint", "loopback"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.8.0.1:5555", True),
        ("tcp://[::1]:5555", True),
        ("tcp://localhost:5555", True),
        ("ipc:///run/viewsync/hub", True),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://*:5555", False),
        ("tcp://192.168.1.7:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://eth0:5555", False),
        ("tcp://localhost.example.org:5555", False),
    ],
)
def test_off_loopback_there_is_no_hub_without_keys(endpoint: str, loopback: bool) -> None:
    assert is_loopback(endpoint) is loopback
    auto = SecuritySection()
    if loopback:
        assert not uses_curve(auto, (endpoint,))
    else:
        for endpoints in ((endpoint,), ("ipc:///x", endpoint)):
            with pytest.raises(ConfigError, match="viewsync keys"):
                uses_curve(auto, endpoints)
    keys = {"keys": Path("hub.key"), "allow": Path("allow.yaml")}
    assert uses_curve(SecuritySection(**keys), (endpoint,))
    assert not uses_curve(SecuritySection(curve="off", **keys), (endpoint,))


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1", "tcp://127.0.0.1:99999", "tcp://*:x", "tcp://:"])
def test_an_address_without_a_possible_port_is_no_address(endpoint: str) -> None:
    with pytest.raises(ValueError, match="no port from 1 to 65535"):
        HubConfig(bundle=Path("b"), bind=endpoint)
    assert HubConfig(bundle=Path("b"), bind="tcp://127.0.0.1:*").bind


@pytest.mark.parametrize("given", [{"curve": "on"}, {"keys": Path("k")}, {"allow": Path("a")}])
def test_half_of_the_keys_are_no_keys(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="viewsync keys"):
        uses_curve(SecuritySection(**given), ("tcp://127.0.0.1:5555",))
