"""The whole agent: features are what the camera saw, errors are the right people's, and it always stops."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from edge.agent import client_keys, run
from edge.config import EdgeConfig, SecuritySection
from edge.extractor import FeatureExtractor
from hub.config import HubConfig
from hub.server import run as run_hub
from viewsync.bundle import Bundle
from viewsync.client import Subscriber
from viewsync.errors import BundleError, ConfigError, SourceError, UserError
from viewsync.keys import KeyFolder
from viewsync.prediction import Prediction

PATIENCE_S = 40.0
SIZE = (192, 144)


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of the tiny scene's size."""
    folder = tmp_path_factory.mktemp("film")
    for index in range(12):
        image = np.full((SIZE[1], SIZE[0], 3), 20 * index, np.uint8)
        cv2.imwrite(str(folder / f"{index:02}.png"), image)
    return folder


class Running:
    """An agent in a thread."""

    def __init__(self, config: EdgeConfig) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._config = config
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, patience_s: float = PATIENCE_S) -> None:
        """Until it ends by itself; raises what it raised."""
        self._thread.join(patience_s)
        assert not self._thread.is_alive(), "the agent does not end"
        if self.error is not None:
            raise self.error

    def stop_and_time(self) -> float:
        start_s = time.monotonic()
        self.stop.set()
        self.wait()
        return time.monotonic() - start_s

    def _run(self) -> None:
        try:
            run(self._config, self.stop)
        except BaseException as error:  # noqa: BLE001 (the test's thread raises it again)
            self.error = error


@pytest.fixture
def start(tiny_bundle: Path, film: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(url: str | None = None, view: str = "south", **other: Any) -> Running:
        source = {"url": url or str(film), **other.pop("source", {})}
        values = {"bundle": tiny_bundle, "site": "yard", "rate_hz": 30.0, **other}
        running = Running(EdgeConfig(view=view, source=source, **values))
        made.append(running)
        return running

    yield make
    for running in made:
        running.stop.set()


@pytest.fixture
def answering(peers: ModuleType) -> Iterator[Any]:
    hub = peers.AnsweringHub()
    yield hub
    hub.close()


# --- features -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["north", "south"])
@pytest.mark.parametrize("scale", [1, 2])
def test_features_are_the_undistorted_picture(view: str, scale: int, tiny_bundle: Path) -> None:
    """The tiny encoder averages 4 × 4 pixels, so its features can be computed by other means: OpenCV's own
    undistortion, and a mean.
    """
    bundle = Bundle.load(tiny_bundle)
    camera, pinhole = bundle.scene.cameras[view], bundle.pinhole(view)
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (18, 24, 3), dtype=np.uint8)
    size = (SIZE[0] * scale, SIZE[1] * scale)
    image = cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)
    at_scale = camera.resized(*size)
    maps = cv2.initUndistortRectifyMap(
        at_scale.K, camera.distortion, None, pinhole.K, (pinhole.width, pinhole.height), cv2.CV_32FC1
    )
    seen = cv2.remap(image, *maps, cv2.INTER_LINEAR).astype(np.float64)
    colour = seen.reshape(pinhole.height // 4, 4, pinhole.width // 4, 4, 3).mean(axis=(1, 3))
    expected = np.concatenate([colour, colour.mean(axis=2, keepdims=True)], axis=2).transpose(2, 0, 1)

    extractor = FeatureExtractor.of_bundle(bundle, view, "cpu", threads=1)
    (tensor,) = extractor.extract(image, size)
    assert tensor.name == "features" and tensor.array.dtype == np.uint8
    assert tensor.array.shape == expected.shape
    # Half a level of rounding, and OpenCV's 1/32 px of sampling on a smooth picture.
    assert np.abs(tensor.array - expected).max() <= 1.0


def test_another_size_of_the_same_aspect_is_the_same_camera(tiny_bundle: Path) -> None:
    extractor = FeatureExtractor.of_bundle(Bundle.load(tiny_bundle), "north", "cpu", threads=1)
    large = cv2.resize(np.random.default_rng(4).integers(0, 256, (9, 12, 3), dtype=np.uint8), (768, 576))
    by_size = []
    for size in ((768, 576), (384, 288), (192, 144), (768, 576)):
        image = cv2.resize(large, size, interpolation=cv2.INTER_AREA)
        by_size.append(extractor.extract(image, (768, 576))[0].array.astype(int))
    assert np.array_equal(by_size[0], by_size[3])
    for other in by_size[1:3]:
        assert np.abs(other - by_size[0]).mean() < 1.5  # a pixel-centre mistake would shift edges by more


def test_another_aspect_ratio_is_refused_naming_both_sizes(tiny_bundle: Path) -> None:
    extractor = FeatureExtractor.of_bundle(Bundle.load(tiny_bundle), "north", "cpu", threads=1)
    with pytest.raises(SourceError, match=r"320x180.*192x144.*calibrate"):
        extractor.extract(np.zeros((180, 320, 3), np.uint8), (320, 180))


# --- from source to hub ---------------------------------------------------------------------------------


def test_a_recording_is_sent_to_its_end_and_the_agent_ends(
    start: Callable[..., Running], answering: Any, tiny_bundle: Path
) -> None:
    agent = start(hub={"endpoint": answering.endpoint}, source={"image_rate_hz": 5.0})
    agent.wait()
    received = answering.received
    # The first may still wait for the hub's time when the second comes.
    assert received[-1].message.seq == 11 and len(received) >= 10
    bundle = Bundle.load(tiny_bundle)
    for each in received:
        message = each.message
        assert (message.site, message.scene, message.view) == ("yard", "tiny", "south")
        assert message.features_hash == bundle.features_hash("south")
        assert message.clock == "file" and message.hub_offset is not None
        assert message.capture_ns <= message.sent_ns <= each.at_ns
        (tensor,) = message.tensors
        assert set(np.unique(tensor.array)) <= {20 * message.seq}
    assert len({each.message.session for each in received}) == 1


def test_a_real_hub_answers_the_agent_and_refuses_another_bundles(
    start: Callable[..., Running],
    rtsp: ModuleType,
    tiny: ModuleType,
    tiny_bundle: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Same scene, another camera calibration: the hub would read north's features wrongly.
    other = tmp_path / "other"
    facts_of = Bundle.load(tiny_bundle)
    _write_with_another_camera(tiny, other, facts_of)
    addresses = [f"tcp://127.0.0.1:{rtsp.free_port()}" for _ in range(2)]
    stop = threading.Event()
    config = HubConfig(bundle=tiny_bundle, site="yard", bind=addresses[0], outputs={"bind": addresses[1]})
    hub = threading.Thread(target=run_hub, args=(config, stop), daemon=True)
    hub.start()
    try:
        with Subscriber(addresses[1]) as subscriber:
            good = start(source={"image_rate_hz": 5.0, "loop": True}, hub={"endpoint": addresses[0]})
            bad = start(
                view="north",
                bundle=other,
                source={"image_rate_hz": 5.0, "loop": True},
                hub={"endpoint": addresses[0]},
            )
            _eventually(lambda: "(features-hash)" in caplog.text and "same bundle" in caplog.text)
            prediction = _next(subscriber, lambda p: True)
            used = {view.view: view.used for view in prediction.views}
            assert used["south"] and not used["north"]
            assert prediction.reference == "south"
            assert caplog.text.count("refuses (features-hash)") == 1
            assert good.stop_and_time() < 2.0
            assert bad.stop_and_time() < 2.0
    finally:
        stop.set()
        hub.join(PATIENCE_S)


def _write_with_another_camera(tiny: ModuleType, path: Path, like: Bundle) -> None:
    original = tiny.tiny_scene
    try:
        scene = original()
        camera = scene.cameras["north"]
        K = camera.K.copy()
        K[0, 0] *= 1.1
        cameras = dict(scene.cameras)
        cameras["north"] = type(camera)(K, camera.R, camera.t, camera.distortion, camera.width, camera.height)
        changed = type(scene)(scene.name, cameras, scene.ground, scene.heights_m, scene.zones)
        tiny.tiny_scene = lambda: changed
        tiny.write_tiny_bundle(path)
    finally:
        tiny.tiny_scene = original
    assert Bundle.load(path).features_hash("north") != like.features_hash("north")


def _next(subscriber: Subscriber, wanted: Callable[[Prediction], bool]) -> Prediction:
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        message = subscriber.receive(1.0)
        if isinstance(message, Prediction) and wanted(message):
            return message
    raise AssertionError("no such prediction")


def test_keys_open_the_way_to_a_hub_that_demands_them(
    start: Callable[..., Running], peers: ModuleType, tmp_path: Path
) -> None:
    from viewsync.keys import Allowed, load_keypair

    folder = KeyFolder(tmp_path / "keys")
    folder.make_hub()
    folder.make_client(Allowed("south", "agent", "yard", "tiny", ("south",)))
    pair = load_keypair(tmp_path / "keys" / "hub.key")
    hub = peers.AnsweringHub(server_key=(pair.public, pair.secret))
    try:
        keys = {"keys": tmp_path / "keys" / "agent-south.key", "hub_key": tmp_path / "keys" / "hub.pub"}
        agent = start(hub={"endpoint": hub.endpoint}, security=keys, source={"loop": True})
        hub.wait_for(lambda received: len(received) >= 2)
        assert agent.stop_and_time() < 2.0
    finally:
        hub.close()


@pytest.mark.parametrize(
    ("given", "endpoint", "said"),
    [
        ({}, "tcp://192.168.1.9:5555", "no keys"),
        ({"curve": "on"}, "tcp://127.0.0.1:5555", "there are no keys"),
        ({"keys": Path("a.key")}, "tcp://127.0.0.1:5555", r"security\.hub_key is not given"),
        ({"hub_key": Path("hub.pub")}, "tcp://127.0.0.1:5555", r"security\.keys is not given"),
    ],
)
def test_half_of_the_keys_or_none_off_loopback_are_an_error(
    given: dict[str, Any], endpoint: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=f"{said}.*viewsync keys make"):
        client_keys(SecuritySection(**given), endpoint)
    assert client_keys(SecuritySection(curve="off"), endpoint) is None


# --- the user's mistakes --------------------------------------------------------------------------------


def test_what_waiting_does_not_mend_ends_the_agent(
    start: Callable[..., Running], tmp_path: Path, answering: Any
) -> None:
    with pytest.raises(BundleError, match="no view 'nowhere'; choose one of north, south, west"):
        start(view="nowhere").wait()
    with pytest.raises(BundleError, match="no bundle at"):
        start(bundle=tmp_path / "none").wait()
    with pytest.raises(UserError, match="there is no"):
        start(str(tmp_path / "none.mp4")).wait()
    wide = tmp_path / "wide"
    wide.mkdir()
    cv2.imwrite(str(wide / "1.png"), np.zeros((90, 160, 3), np.uint8))
    with pytest.raises(SourceError, match=r"160x90.*192x144"):
        start(str(wide), hub={"endpoint": answering.endpoint}).wait()
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, pytest.raises(ConfigError, match="cannot listen on"):
        start(health={"port": taken.getsockname()[1]}).wait()


def test_a_stream_that_changes_its_aspect_later_is_refused_and_waited_for(
    start: Callable[..., Running], tmp_path: Path, answering: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(12):
        size = (90, 160) if 4 <= index < 8 else (SIZE[1], SIZE[0])
        cv2.imwrite(str(tmp_path / f"{index:02}.png"), np.full((*size, 3), index, np.uint8))
    start(str(tmp_path), hub={"endpoint": answering.endpoint}, source={"image_rate_hz": 5.0}).wait()
    sent = [each.message.seq for each in answering.received]
    assert not {4, 5, 6, 7} & set(sent) and sent[-1] == 11
    assert caplog.text.count("another aspect ratio") == 1


# --- stopping -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state", ["camera dead", "camera mute", "listening", "hub dead", "hub silent", "all well", "at once"]
)
def test_stop_within_two_seconds_in_every_state(
    state: str, start: Callable[..., Running], rtsp: ModuleType, answering: Any
) -> None:
    dead = rtsp.free_port()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        source = {
            "camera dead": {"url": f"rtsp://127.0.0.1:{dead}/north", "reconnect_max_s": 60.0},
            "camera mute": {"url": f"rtsp://127.0.0.1:{mute.getsockname()[1]}/north", "timeout_s": 60.0},
            "listening": {"url": f"rtsp://127.0.0.1:{dead}/north", "listen": True},
        }.get(state, {"loop": True})
        answering.silent = state == "hub silent"
        endpoint = f"tcp://127.0.0.1:{dead}" if state == "hub dead" else answering.endpoint
        agent = start(
            source.pop("url", None), source=source, hub={"endpoint": endpoint, "answer_timeout_s": 60.0}
        )
        if state != "at once":
            time.sleep(1.5)
        if state == "all well":
            answering.wait_for(lambda received: len(received) >= 3)
        assert agent.stop_and_time() < 2.0


# --- the command ----------------------------------------------------------------------------------------


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "viewsync", "edge", *arguments]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "source.ulr=x"], "did you mean 'url'"),
        (["FILM", "--view", "south", "--bundle", "BUNDLE", "--rate", "50"], "rate_hz"),
        (["FILM", "--view", "south", "--bundle", "BUNDLE", "--rate", "0.1"], "rate_hz"),
        (["FILM", "--view", "sooth", "--bundle", "BUNDLE"], "no view 'sooth'"),
        (["FILM", "--view", "south", "--bundle", "BUNDLE", "--hub", "tcp://10.0.0.1:5555"], "no keys"),
        (["ftp://a:secret@b/c", "--view", "south", "--bundle", "BUNDLE"], "no known kind"),
    ],
)
def test_mistakes_are_one_line_and_code_two(
    arguments: list[str], said: str, film: Path, tiny_bundle: Path
) -> None:
    places = {"FILM": str(film), "BUNDLE": str(tiny_bundle)}
    done = subprocess.run(
        _command(*(places.get(argument, argument) for argument in arguments)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert said in last and "secret" not in done.stderr and "Traceback" not in done.stderr


def test_the_command_runs_says_how_it_is_and_stops_on_a_signal(
    film: Path, tiny_bundle: Path, answering: Any, tmp_path: Path
) -> None:
    config = tmp_path / "edge.yaml"
    config.write_text(
        f"bundle: {tiny_bundle}\nview: south\nsite: yard\nrate_hz: 5\n"
        "source: {url: '${FILM}', loop: true, image_rate_hz: 5}\n"
        f"hub: {{endpoint: '{answering.endpoint}'}}\nhealth: {{port: 0}}\n"
    )
    process = subprocess.Popen(
        _command("--config", str(config), "--set", "rate_hz=10"),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FILM": str(film)},
    )
    try:
        assert process.stderr is not None
        port = next(
            int(found[1]) for line in process.stderr if (found := re.search(r"http://127.0.0.1:(\d+)", line))
        )
        answering.wait_for(lambda received: len(received) >= 3)
        assert psutil.Process(process.pid).memory_info().rss < 300e6  # the promise
        health = _get(port, "/healthz")
        assert health[0] == 200 and json.loads(health[1])["view"] == "south"
        assert b"viewsync_edge_messages_acked_total" in _get(port, "/metrics")[1]
        start_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        # Two seconds from the signal to the return of `run`; the interpreter itself takes a moment more.
        assert time.monotonic() - start_s < 4.0
    finally:
        process.kill()
        process.wait()


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _eventually(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
