"""What may import what, beyond what import-linter's contracts say by themselves."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from viewsync.cli import COMMANDS

ROOT = Path(__file__).parents[2]
RUNTIME = ["edge", "hub", "demo", "subscribe", "sim", "keys", "doctor"]


def modules(package: str) -> list[str]:
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / package).rglob("*.py")
    )


def test_the_errors_import_nothing() -> None:
    tree = ast.parse((ROOT / "viewsync" / "errors.py").read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]


def test_the_contract_names_every_shared_module() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    named = next(contract["source_modules"] for contract in contracts if "share" in contract["name"])
    assert set(named) == set(shared())


def test_every_package_carries_its_types() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for package in packages["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert (ROOT / package / "py.typed").exists()


def test_no_package_hides_under_tests() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


# What only the workshop installs, by import name: `make demo` and a camera's machine have none of it.
WORKSHOP = [
    *["torch", "lightning_fabric", "onnx", "onnxscript", "safetensors", "scipy", "matplotlib"],
    *["tensorboardX", "psutil", "hypothesis", "pytest"],
]


# What solves and serves calibrations needs the extra `calib`; agents and hubs import none of it.
CALIBRATING = ("calib.solve", "calib.page.server")


def runtime_calib() -> list[str]:
    return [name for name in modules("calib") if not name.startswith(CALIBRATING)]


def import_without(missing: list[str], wanted: list[str]) -> subprocess.CompletedProcess[str]:
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        "import importlib\n"
        f"for name in {wanted!r}: importlib.import_module(name)\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)


def shared() -> list[str]:
    stems = [path.stem for path in (ROOT / "viewsync").glob("*.py")]
    return [f"viewsync.{stem}" for stem in stems if not stem.startswith("__")]


def runtime_commands() -> list[str]:
    found = [f"viewsync.cli.{name}" for name in RUNTIME if (ROOT / f"viewsync/cli/{name}.py").exists()]
    return ["viewsync.cli", *found]


@pytest.mark.parametrize("package", ["calib", "edge", "hub", "viewsync/sim", "viewsync/demo"])
def test_the_runtime_needs_nothing_of_the_workshop(package: str) -> None:
    own = runtime_calib() if package == "calib" else modules(package)
    result = import_without(WORKSHOP, own + shared() + runtime_commands())
    assert result.returncode == 0, result.stderr


def test_a_hub_needs_no_video() -> None:
    result = import_without([*WORKSHOP, "av"], runtime_calib() + modules("hub") + shared())
    assert result.returncode == 0, result.stderr


def test_the_command_table_matches_the_modules_names() -> None:
    assert all(entry.module == f"viewsync.cli.{name}" for name, entry in COMMANDS.items())
