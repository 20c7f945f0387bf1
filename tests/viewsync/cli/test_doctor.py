import importlib.metadata
import json
import socket

import pytest
from click.testing import CliRunner, Result

from viewsync.cli import main


def doctor(*args: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *args])


def findings(result: Result) -> dict[str, dict[str, object]]:
    return {finding["what"]: finding for finding in map(json.loads, result.stdout.splitlines())}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """Pretend that distributions have other versions; None: not installed."""
    real = importlib.metadata.version

    def pretend(**versions: str | None) -> None:
        def version(name: str) -> str:
            found = versions[name.replace("-", "_")] if name.replace("-", "_") in versions else real(name)
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(importlib.metadata, "version", version)

    return pretend


def test_this_machine_is_well() -> None:
    result = doctor("--for", "edge", "--for", "hub", "--json")
    assert result.exit_code == 0
    found = findings(result)
    assert {"av", "onnxruntime", "pyzmq", "h264 decoder"} <= set(found)
    assert not any(finding["fatal"] for finding in found.values())


def test_only_what_was_asked_for_is_missed(without) -> None:
    without(torch=None)
    assert doctor("--for", "hub").exit_code == 0
    result = doctor("--for", "train")
    assert result.exit_code == 2
    assert "torch" in result.stderr
    assert "pip install -c constraints.txt -e '.[train]'" in result.stdout


def test_an_old_version_is_named_beside_the_least_one(without) -> None:
    without(av="9.2.0")
    result = doctor("--for", "edge", "--json")
    assert result.exit_code == 2
    assert findings(result)["av"]["found"] == "9.2.0 is older than 18.1"


def test_two_builds_of_one_runtime_are_told_apart(without) -> None:
    without(onnxruntime="1.30.0", onnxruntime_gpu="1.30.0")
    assert "overwrite each other" in doctor("--for", "hub").stdout
    without(onnxruntime=None, onnxruntime_gpu="1.30.0")
    assert doctor("--for", "hub").exit_code == 0


def test_a_port_in_use_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("viewsync.cli.doctor._PORTS", {taken.getsockname()[1]: "hub: features"})
        result = doctor("--for", "hub")
    assert result.exit_code == 0
    assert "in use; stop the other program" in result.stdout
