"""Every run ends with the list of skipped tests; in CI a skip that nobody agreed to fails the run."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Laws are about what holds, not how fast: a loaded machine must not turn one red.
settings.register_profile("viewsync", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("viewsync")

_ALLOWED = Path(__file__).with_name("allowed-skips.txt")
_SUPPORT = Path(__file__).with_name("support")
_skipped: dict[str, str] = {}


def _allowed(nodeid: str, reason: str) -> bool:
    # Real data is not part of the repository: its absence is agreed to, a skip in its presence is not.
    if "VIEWSYNC_DATA" in reason and "VIEWSYNC_DATA" not in os.environ:
        return True
    lines = (line.strip() for line in _ALLOWED.read_text(encoding="utf-8").splitlines())
    patterns = (line.partition(": ")[0] for line in lines if line and not line.startswith("#"))
    return any(nodeid == pattern or fnmatch(nodeid, pattern) for pattern in patterns)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped[report.nodeid] = _reason(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped[report.nodeid] = _reason(report)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _skipped.update(getattr(node, "workeroutput", {}).get("skipped", {}))


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    if hasattr(session.config, "workeroutput"):
        # A file that is skipped whole is known only to the process that collected it.
        session.config.workeroutput["skipped"] = dict(_skipped)
    yield
    if _unexpected() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _unexpected() -> list[str]:
    if os.environ.get("CI", "").lower() not in ("1", "true"):
        return []
    return [nodeid for nodeid, reason in _skipped.items() if not _allowed(nodeid, reason)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section(f"{len(_skipped)} skipped")
    unexpected = set(_unexpected())
    for nodeid, reason in sorted(_skipped.items()):
        mark = f"NOT IN {_ALLOWED.name}: " if nodeid in unexpected else ""
        terminalreporter.line(f"{mark}{nodeid}: {reason.removeprefix('Skipped: ')}")


def _support(name: str) -> ModuleType:
    # Loaded by path: tests are no packages, and nothing of theirs belongs on sys.path.
    spec = importlib.util.spec_from_file_location(f"tests_support_{name}", _SUPPORT / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def support() -> Callable[[str], ModuleType]:
    """support("video") is tests/support/video.py."""
    return _support


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """tests/support/tiny_bundle.py: its scene, its sizes, and `write_tiny_bundle` for variants."""
    return _support("tiny_bundle")


@pytest.fixture(scope="session")
def tiny_bundle(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small real bundle, shared by all tests: copy it before you change it."""
    path: Path = tiny.write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").path
    return path


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scene.yaml of tests/support/small_scene.py."""
    path: Path = _support("small_scene").write_small_scene(tmp_path_factory.mktemp("scene"))
    return path


@pytest.fixture(scope="session")
def small_crowds(small_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the small scene's crowds 0 to 5, five frames per view: do not change it."""
    from viewsync.sim.dataset import Filming, make_set

    folder = tmp_path_factory.mktemp("crowds")
    make_set(str(small_scene), folder, range(6), Filming(5), workers=1)
    return folder


@pytest.fixture(scope="session")
def crowds_together(small_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the small scene's crowds 0 to 2, five frames per view, all views at the same instants."""
    from viewsync.sim.dataset import Filming, make_set

    folder = tmp_path_factory.mktemp("together")
    make_set(str(small_scene), folder, range(3), Filming(5, together=True), workers=1)
    return folder
