"""What the pages print, really run: by a reader who types it into a folder with a bundle and a camera."""

import importlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import zmq
from click.testing import CliRunner

from viewsync.cli import main
from viewsync.config import load_config
from viewsync.prediction import decode_prediction

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def _support(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tests_support_{name}", ROOT / f"tests/support/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = _support("printed")
CONFIGURATIONS = {
    name: block
    for page in pages.PAGES
    for block, name in re.findall(
        r"^```yaml\n(# (\S+\.yaml)\n.*?)^```$", page.read_text("utf-8"), re.M | re.S
    )
}


class Reader:
    """Types what a page prints, in a folder that holds what the page supposes; ends what runs then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._commands = [p for p in pages.on_the_pages() if p.words[0] == "viewsync" and not p.elided]
        self._running: list[subprocess.Popen[str]] = []

    def read(self, page: str, *path: str, option: str = "") -> list[str]:
        """The words of the first such command of the page that is more than a name."""
        for command in self._commands:
            names, rest = command.words[1 : len(path) + 1], command.words[len(path) + 1 :]
            if command.where.startswith(f"{page}:") and names == path and rest and option in ("", *rest):
                return [*names, *rest]
        raise AssertionError(f"{page} prints no {' '.join(path)} {option}")

    def all(self, *path: str) -> list[list[str]]:
        """The words of every such command of all pages."""
        return [list(p.words[1:]) for p in self._commands if p.words[1 : len(path) + 1] == path]

    def run(self, words: list[str], **swaps: str) -> str:
        done = CliRunner().invoke(main, [swaps.get(word, word) for word in words])
        assert done.exit_code == 0, done.output
        return done.stdout

    def start(self, words: list[str], swaps: dict[str, str], *more: str, **environ: str) -> Any:
        """Run it, with addresses and names that are only the page's swapped for those that are here."""
        given = "\n".join(words)
        for old, new in swaps.items():
            given = given.replace(old, new)
        process = subprocess.Popen(
            [sys.executable, "-m", "viewsync", *given.split("\n"), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
        )
        self._running.append(process)
        return process

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def reader(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-bundle").symlink_to(tiny_bundle)
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    reader = Reader(tmp_path)
    yield reader
    reader.end()


@pytest.fixture
def ports() -> tuple[str, str]:
    """Two that are free."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1]), str(other.getsockname()[1])


def wait_for(words: str, process: "subprocess.Popen[str]") -> str:
    """The line of its log that has the words."""
    said = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if words in line:
            return line
    raise AssertionError("".join(said))


def stop(*processes: "subprocess.Popen[str]") -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        assert process.wait(PATIENCE_S) == 0


def test_quick_ones_as_printed(reader: Reader) -> None:
    # What the last one lists, the first ones have made; `keys make` alone is a mention.
    for name in (("doctor",), ("keys", "make"), ("keys", "list")):
        asked = [words for words in reader.all(*name) if words != ["keys", "make"]]
        assert asked
        for words in asked:
            reader.run(words)
    assert "agent north default/plaza north" in reader.run(["keys", "list"])


def test_ones_own_cameras_as_the_readme_has_it(reader: Reader, ports: tuple[str, str]) -> None:
    reader.run(reader.read("README.md", "keys", "make"), **{"my-scene": "tiny"})
    (reader.folder / "film").mkdir()
    for number in range(20):
        picture = np.full((144, 192, 3), 5 * number, np.uint8)
        assert cv2.imwrite(str(reader.folder / "film" / f"{number:02d}.png"), picture)
    swaps = {":5555": f":{ports[0]}", ":5556": f":{ports[1]}", "//HUB:": "//127.0.0.1:"}
    wall = reader.start(reader.read("README.md", "subscribe"), swaps, "--count", "1")
    agent = reader.start(
        reader.read("README.md", "edge"), {**swaps, "rtsp://camera-1/stream": "film"}, "--loop"
    )
    hub = reader.start(reader.read("README.md", "hub"), swaps)
    said, complained = wall.communicate(timeout=PATIENCE_S)
    assert wall.returncode == 0, complained
    assert " count " in said and "north +0.00" in said
    stop(agent, hub)


def test_a_simulated_camera_and_an_agent_as_the_page_has_it(reader: Reader, ports: tuple[str, str]) -> None:
    swaps = {":8601": f":{ports[0]}"}
    nowhere = f"ipc://{reader.folder}/no-hub"
    agent = reader.start(reader.read("docs/demo.md", "edge"), swaps, VIEWSYNC_HUB__ENDPOINT=nowhere)
    # An agent has a camera once it has two frames: more of them, for a test's sake.
    camera = reader.start(reader.read("docs/demo.md", "sim", "camera"), swaps, "--fps", "3")
    wait_for("frames come from rtsp://", agent)
    stop(agent, camera)


def test_a_hub_by_its_printed_configuration(reader: Reader, ports: tuple[str, str]) -> None:
    reader.run(reader.read("docs/hub.md", "keys", "make"))
    text = CONFIGURATIONS["hub.yaml"].replace(":5555", f":{ports[0]}").replace(":5556", f":{ports[1]}")
    (reader.folder / "hub.yaml").write_text(text)
    hub = reader.start(reader.read("docs/hub.md", "hub", option="--config"), {}, VIEWSYNC_HEALTH__PORT="0")
    assert "with CURVE" in wait_for("features on", hub)
    stop(hub)


def test_the_printed_program_prints_what_a_hub_publishes(ports: tuple[str, str]) -> None:
    (program,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "hub.md").read_text("utf-8"), re.M | re.S
    )
    golden = ROOT / "tests" / "viewsync" / "golden"
    prediction, status = ((golden / f"{name}.bin").read_bytes() for name in ("prediction", "status"))
    with zmq.Context() as context, context.socket(zmq.XPUB) as hub:
        hub.linger = 0
        hub.bind(f"tcp://127.0.0.1:{ports[1]}")
        with subprocess.Popen(
            [sys.executable, "-u", "-c", program.replace(":5556", f":{ports[1]}")],
            stdout=subprocess.PIPE,
            text=True,
        ) as listener:
            try:
                assert hub.poll(round(1000 * PATIENCE_S)), "it never subscribed"
                hub.send(prediction)
                hub.send(status)
                assert listener.stdout is not None
                count = decode_prediction(prediction).count
                assert f" {count} " in listener.stdout.readline()
                assert listener.stdout.readline().startswith("no answer: ")
            finally:
                listener.kill()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_printed_configuration_is_one(name: str, tmp_path: Path) -> None:
    module, model = {
        "edge.yaml": ("edge.config", "EdgeConfig"),
        "hub.yaml": ("hub.config", "HubConfig"),
        "train.yaml": ("viewsync.training.config", "TrainConfig"),
        "my-profile.yaml": ("viewsync.lab.profile", "_File"),
    }[name]
    (tmp_path / name).write_text(CONFIGURATIONS[name])
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", CONFIGURATIONS[name]), "x")
    load_config(getattr(importlib.import_module(module), model), tmp_path / name, (), environ)
