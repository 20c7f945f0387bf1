"""The whole agent in this process: from source to hub, whose mistake is whose, and it always stops."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from edge.agent import client_keys, run
from edge.config import EdgeConfig, SecuritySection
from hub.config import HubConfig
from hub.server import run as run_hub
from viewsync.bundle import Bundle
from viewsync.client import Subscriber
from viewsync.errors import BundleError, ConfigError, SourceError, UserError
from viewsync.keys import KeyFolder
from viewsync.prediction import Prediction

PATIENCE_S = 120.0
SIZE = (192, 144)


class Running:
    """An agent in a thread."""

    def __init__(self, config: EdgeConfig, stopwatch: Callable[..., Any]) -> None:
        self.stop = threading.Event()
        self._stopwatch = stopwatch
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
        watch = self._stopwatch()
        self.stop.set()
        self.wait()
        return float(watch.seconds())

    def _run(self) -> None:
        try:
            run(self._config, self.stop)
        except BaseException as error:  # noqa: BLE001 (the test's thread raises it again)
            self.error = error


@pytest.fixture
def start(tiny_bundle: Path, film: Path, stopwatch: Callable[..., Any]) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(url: str | None = None, view: str = "south", **other: Any) -> Running:
        source = {"url": url or str(film), **other.pop("source", {})}
        values = {"bundle": tiny_bundle, "site": "yard", "rate_hz": 30.0, **other}
        running = Running(EdgeConfig(view=view, source=source, **values), stopwatch)
        made.append(running)
        return running

    yield make
    for running in made:
        running.stop.set()


# --- from source to hub ---------------------------------------------------------------------------------


def test_a_recording_is_sent_to_its_end_and_the_agent_ends(
    start: Callable[..., Running], answering: Any, tiny_bundle: Path
) -> None:
    agent = start(hub={"endpoint": answering.endpoint}, source={"image_rate_hz": 5.0})
    agent.wait()
    received = answering.received
    # Image n is 20 n all over; the last one always comes. Of the others a busy machine, or a hub that has not
    # told its time yet, may replace some.
    images = [int(each.message.tensors[0].array.max()) // 20 for each in received]
    assert images[-1] == 11 and images == sorted(set(images)) and len(images) >= 6
    bundle = Bundle.load(tiny_bundle)
    for each in received:
        message = each.message
        assert (message.site, message.scene, message.view) == ("yard", "tiny", "south")
        assert message.features_hash == bundle.features_hash("south")
        assert message.clock == "file" and message.hub_offset is not None
        assert message.capture_ns <= message.sent_ns <= each.at_ns
        (tensor,) = message.tensors
        assert len(np.unique(tensor.array)) == 1 and tensor.array.max() % 20 == 0
    assert len({each.message.session for each in received}) == 1
    assert np.all(np.diff([each.message.seq for each in received]) > 0)


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


def _eventually(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
