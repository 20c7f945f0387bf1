"""The calibration page as a user has it: the real command, and a real browser without a window."""

import asyncio
import itertools
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from calib.page.draft import Draft
from calib.page.pictures import Shots
from calib.page.server import Files, serve
from calib.points import load_points
from calib.scene import load_scene
from viewsync.cli.calib.pictures import gather


class Served:
    """`viewsync calib serve`, running; `stop` ends it as Ctrl-C does."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "viewsync", "calib", "serve", *words, "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        said = []
        assert self._process.stderr is not None
        for line in self._process.stderr:
            said.append(line)
            found = re.search(r"page is at (http://\S+)", line)
            if found:
                self.url = found[1]
                return
        raise AssertionError("".join(said))

    def stop(self) -> int:
        self._process.terminate()
        self._process.communicate(timeout=60)
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Threaded:
    """The same server in a thread of this process, because starting a program takes longer than a test."""

    def __init__(self, scene: Path, *words: str) -> None:
        known = load_scene(scene) if scene.exists() else None
        kept_at = scene.with_name("points.yaml")
        folders = [Path(word) for key, word in itertools.pairwise(words) if key == "--frames"]
        sources = [word for key, word in itertools.pairwise(words) if key == "--source"]
        shots = Shots(gather(folders[0] if folders else None, sources))
        shots.first_sizes()
        points = load_points(kept_at) if kept_at.exists() else ()
        draft = Draft.of("plaza", known, points, shots.sizes)
        self._stop = threading.Event()
        ready: queue.Queue[str] = queue.Queue()
        served = serve(
            draft,
            shots,
            Files(scene, kept_at),
            "127.0.0.1",
            0,
            self._stop.is_set,
            ready.put,
            new=known is None,
        )
        self._thread = threading.Thread(target=asyncio.run, args=(served,))
        self._thread.start()
        self.url = ready.get(timeout=60)

    def kill(self) -> None:
        self._stop.set()
        self._thread.join(60)


@pytest.fixture
def command() -> Iterator[Any]:
    """Starts the command with these words."""
    running = []

    def start(*words: object) -> Served:
        running.append(Served(*map(str, words)))
        return running[-1]

    yield start
    for served in running:
        served.kill()


@pytest.fixture(name="serve")
def serve_in_a_thread() -> Iterator[Any]:
    """Serves what the command would with these words."""
    running = []

    def start(scene: Path, *words: object) -> Threaded:
        running.append(Threaded(scene, *map(str, words)))
        return running[-1]

    yield start
    for served in running:
        served.kill()


@dataclass
class Window:
    """A page in the browser, and what tests do with it."""

    page: Any

    def open(self, served: Any) -> "Window":
        self.page.goto(served.url)
        self.page.locator(".view").first.wait_for()
        self.settle()
        return self

    def state(self) -> Any:
        """What the server would say to a new window."""
        return self.page.evaluate("fetch('/api/state').then((answer) => answer.json())")

    def at(self, view: str, pixel: Any) -> tuple[float, float]:
        """Where on the screen a pixel of an unzoomed view is."""
        size = self.page.evaluate(
            "(name) => import('/static/store.js').then(({viewOf: of}) => [of(name).width, of(name).height])",
            view,
        )
        box = self.page.locator(f'[data-view="{view}"] canvas').bounding_box()
        scale = min(box["width"] / size[0], box["height"] / size[1])
        left = box["x"] + (box["width"] - size[0] * scale) / 2
        top = box["y"] + (box["height"] - size[1] * scale) / 2
        return left + (pixel[0] + 0.5) * scale, top + (pixel[1] + 0.5) * scale

    def click(self, view: str, pixel: Any) -> None:
        self.page.mouse.click(*self.at(view, pixel))
        self.settle()

    def settle(self) -> None:
        """Until nothing that was asked for is under way, and all is drawn."""
        self.page.evaluate(
            """async () => {
              const drawn = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
              for (let quiet = 0; quiet < 3; quiet++) {
                await drawn();
                if (document.body.getAttribute("aria-busy") !== "false") quiet = -1;
              }
            }"""
        )

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()


@pytest.fixture
def window(browser: Any) -> Iterator[Window]:
    """A window as small as a cheap laptop's."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.set_default_timeout(60_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    # Offline: whatever the page loads comes from its own server.
    page.on(
        "request", lambda request: None if "//127.0.0.1:" in request.url else problems.append(request.url)
    )
    yield Window(page)
    page.close()
    assert problems == []
