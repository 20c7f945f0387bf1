"""What edge tests share."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from edge.config import SourceSection
from edge.counts import EdgeCounts
from edge.frames import Frame
from edge.source import Source, open_source
from viewsync.clock import SteadyClock
from viewsync.errors import SourceError

# The patience of tests on real sockets and servers: a loaded machine may be slow.
PATIENCE_S = 120.0
CLIP = "ingest-clips/one-by-one-person-detection.mp4"
now = SteadyClock(time.time_ns, time.monotonic_ns)


@pytest.fixture(scope="session")
def video(support: Callable[[str], ModuleType]) -> ModuleType:
    """tests/support/video.py: pictures through real encoders."""
    return support("video")


@pytest.fixture(scope="session")
def peers(support: Callable[[str], ModuleType]) -> ModuleType:
    """tests/support/peers.py: a hub that is a real ROUTER, and a slow link to it."""
    return support("peers")


@pytest.fixture(scope="session")
def rtsp(support: Callable[[str], ModuleType]) -> ModuleType:
    """tests/support/rtsp.py: a real RTSP server, independent readers, and a camera that pushes."""
    return support("rtsp")


@pytest.fixture
def counts() -> EdgeCounts:
    return EdgeCounts(CollectorRegistry())


@pytest.fixture
def value(counts: EdgeCounts) -> Callable[..., float]:
    """value("frames_read_total", reason=...): a metric now; 0 where it was never touched."""

    def read(name: str, **labels: str) -> float:
        return counts.registry.get_sample_value(f"viewsync_edge_{name}", labels) or 0.0

    return read


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds, or fail."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)

    return wait


class Watched:
    """A source whose frames are collected by a thread, as the agent would."""

    def __init__(self, source: Source, stopwatch: Callable[..., Any]) -> None:
        self.source = source
        self._stopwatch = stopwatch
        self.frames: list[Frame] = []
        self.error: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        source.start()
        self._thread.start()

    def wait_for(
        self, condition: Callable[[list[Frame]], bool], patience_s: float = PATIENCE_S
    ) -> list[Frame]:
        with self._changed:
            self._changed.wait_for(lambda: condition(self.frames) or self.error, patience_s)
            assert self.error is None, self.error
            assert condition(self.frames), (len(self.frames), self.source.state())
            return list(self.frames)

    def stop(self) -> float:
        """Stop, and how long it took, seconds."""
        watch = self._stopwatch()
        self.source.close()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return float(watch.seconds())

    def _collect(self) -> None:
        try:
            for frame in self.source.frames():
                with self._changed:
                    self.frames.append(frame)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 (the tests look at it)
            with self._changed:
                self.error = error
                self._changed.notify_all()


@pytest.fixture(scope="session")
def stopwatch(support: Callable[[str], ModuleType]) -> Callable[..., Any]:
    """tests/support/stopwatch.py: how long something took, less what the machine let it wait for a core."""
    made: Callable[..., Any] = support("stopwatch").Stopwatch
    return made


@pytest.fixture
def watch(counts: EdgeCounts, stopwatch: Callable[..., Any]) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(
        url: str,
        rate_hz: float = 30.0,
        wanted_size: tuple[int, int] | None = None,
        clock: Callable[[], int] = now,
        **settings: Any,
    ) -> Watched:
        section = SourceSection(url=url, **settings)
        source = open_source(section, "north", rate_hz, wanted_size, counts, clock)
        watched = Watched(source, stopwatch)
        made.append(watched)
        return watched

    yield make
    for watched in made:
        assert watched.stop() < 2.0


@pytest.fixture
def serve(rtsp: ModuleType) -> Iterator[Callable[..., Any]]:
    made = []

    def make(launch: str, account: tuple[str, str] | None = None) -> Any:
        try:
            server = rtsp.ClipServer(launch, account)
        except SourceError as missing:
            pytest.skip(f"no real RTSP server to test against: {missing}")
        made.append(server)
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def clip() -> Path:
    if "VIEWSYNC_DATA" not in os.environ:
        pytest.skip("VIEWSYNC_DATA is not set: there is no real camera's clip")
    return Path(os.environ["VIEWSYNC_DATA"]) / CLIP


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of the tiny scene's size."""
    folder = tmp_path_factory.mktemp("film")
    for index in range(12):
        image = np.full((144, 192, 3), 20 * index, np.uint8)
        cv2.imwrite(str(folder / f"{index:02}.png"), image)
    return folder


@pytest.fixture
def answering(peers: ModuleType) -> Iterator[Any]:
    hub = peers.AnsweringHub()
    yield hub
    hub.close()
