"""What may import what, beyond what import-linter's contracts say by themselves."""

import ast
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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
    shared = {
        f"viewsync.{path.stem}" for path in (ROOT / "viewsync").glob("*.py") if not path.stem.startswith("__")
    }
    assert set(named) == shared


def test_every_package_carries_its_types() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for package in packages["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert (ROOT / package / "py.typed").exists()


def test_no_package_hides_under_tests() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("forbidden", ["torch", "av"])
def test_the_runtime_imports_without_torch_and_the_shared_part_without_av(forbidden: str) -> None:
    wanted = modules("calib") + modules("hub")
    if forbidden == "torch":
        commands = [f"viewsync.cli.{name}" for name in RUNTIME if (ROOT / f"viewsync/cli/{name}.py").exists()]
        wanted += (
            modules("edge") + modules("viewsync/sim") + modules("viewsync/demo") + ["viewsync.cli", *commands]
        )
    wanted += [
        f"viewsync.{path.stem}" for path in (ROOT / "viewsync").glob("*.py") if path.stem != "__main__"
    ]
    script = (
        f"import sys; sys.modules[{forbidden!r}] = None\n"
        "import importlib\n"
        f"for name in {wanted!r}: importlib.import_module(name)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_the_command_table_names_real_modules_or_none() -> None:
    from viewsync.cli import COMMANDS

    for name, entry in COMMANDS.items():
        assert entry.module == f"viewsync.cli.{name}"
        assert importlib.util.find_spec("viewsync.cli") is not None
