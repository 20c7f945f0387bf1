"""What hub tests share: real messages, real peers on real sockets, and a hub in a thread."""

import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import zmq

from hub.buffer import BufferRules, ViewBuffer
from hub.config import HubConfig, policy_of, rules_of
from hub.fusion import Fusion
from hub.reference import Policy
from hub.server import run
from viewsync.bundle import Bundle
from viewsync.client import Subscriber
from viewsync.keys import ClientKeys
from viewsync.prediction import Prediction, Status
from viewsync.wire import (
    Ack,
    ClockProbe,
    ClockReply,
    FeatureMessage,
    OffsetEstimate,
    Refusal,
    Tensor,
    decode,
    encode,
)

# An arbitrary hub time for tests in virtual time, and the patience of tests on real sockets: a loaded
# machine may be slow.
NOON_NS = 1_800_000_000_000_000_000
PATIENCE_S = 90.0


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture(scope="session")
def fusion(bundle: Bundle) -> Fusion:
    """All three graphs; its timer stands still, so that answers repeat to the last bit."""
    return Fusion(bundle, ("column", "none", "reference-only"), timer=lambda: 0)


@pytest.fixture(scope="session")
def config(tiny_bundle: Path) -> HubConfig:
    return HubConfig(bundle=tiny_bundle, site="yard")


@pytest.fixture(scope="session")
def rules(config: HubConfig, bundle: Bundle) -> BufferRules:
    return rules_of(config, bundle)


@pytest.fixture(scope="session")
def policy(config: HubConfig, bundle: Bundle) -> Policy:
    return policy_of(config, bundle)


@pytest.fixture
def buffer(rules: BufferRules) -> ViewBuffer:
    return ViewBuffer(rules, session=7)


Frames = Callable[..., FeatureMessage]


@pytest.fixture(scope="session")
def frame(bundle: Bundle) -> Frames:
    """frame(view, seq, capture_ns): a good message by the hub's own clock; other fields by name."""

    def make(view: str = "north", seq: int = 0, capture_ns: int = NOON_NS, **other: Any) -> FeatureMessage:
        spec = bundle.manifest.features
        rng = np.random.default_rng(
            [bundle.manifest.views.index(view) if view in bundle.manifest.views else 9, seq]
        )
        features = rng.integers(0, spec.levels, (spec.channels, spec.height, spec.width), dtype=np.uint8)
        message = FeatureMessage(
            site="yard",
            scene="tiny",
            view=view,
            session=other.pop("session", 1000),
            seq=seq,
            capture_ns=capture_ns,
            clock="file",
            arrival_ns=capture_ns,
            sent_ns=capture_ns,
            camera_offset=None,
            hub_offset=OffsetEstimate(0, 1_000_000),
            features_hash=bundle.manifest.hashes.features.get(view, "0" * 64),
            tensors=(Tensor("features", features),),
        )
        return dataclasses.replace(message, **other)

    return make


class Agent:
    """A real DEALER peer that speaks bytes."""

    def __init__(self, context: "zmq.Context[Any]", endpoint: str, keys: ClientKeys | None = None) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.immediate = 1
        self.socket.reconnect_ivl = 50
        if keys is not None:
            keys.secure(self.socket)
        self.socket.connect(endpoint)

    def receive(self, patience_s: float = PATIENCE_S) -> Ack | Refusal | ClockReply | None:
        if not self.socket.poll(round(1000 * patience_s)):
            return None
        reply = decode(self.socket.recv())
        assert isinstance(reply, (Ack, Refusal, ClockReply))
        return reply

    def ask(self, payload: FeatureMessage | ClockProbe | bytes) -> Ack | Refusal | ClockReply | None:
        """Send one message and wait for what the hub says to it."""
        assert self.socket.poll(round(1000 * PATIENCE_S), zmq.POLLOUT), "the hub cannot be reached"
        self.socket.send(payload if isinstance(payload, bytes) else encode(payload))
        return self.receive()

    def close(self) -> None:
        self.socket.close(linger=0)


class LiveHub:
    """A hub in a thread, with its addresses."""

    def __init__(self, config: HubConfig, stopwatch: Callable[..., Any]) -> None:
        self.config = config
        self._stopwatch = stopwatch
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._context: zmq.Context[Any] = zmq.Context()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            run(self.config, self.stop)
        except BaseException as error:  # noqa: BLE001 (the test's thread raises it again)
            self.error = error

    def agent(self, keys: ClientKeys | None = None) -> Agent:
        return Agent(self._context, self.config.bind, keys)

    def subscriber(self, keys: ClientKeys | None = None) -> Subscriber:
        """Connected, and the hub has heard of the subscription: a status has come through."""
        return Subscriber(self.config.outputs.bind, keys)

    def stop_and_time(self) -> float:
        """Stop; returns how long that took, seconds."""
        watch = self._stopwatch()
        self.stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the hub does not stop"
        return float(watch.seconds())

    def close(self) -> None:
        """Stop and free the sockets. Raises what the hub raised."""
        self.stop_and_time()
        self._context.destroy(linger=0)
        if self.error is not None:
            raise self.error


@pytest.fixture(scope="session")
def stopwatch(support: Callable[[str], ModuleType]) -> Callable[..., Any]:
    """tests/support/stopwatch.py: how long something took, less what the machine let it wait for a core."""
    made: Callable[..., Any] = support("stopwatch").Stopwatch
    return made


@pytest.fixture
def live(config: HubConfig, tmp_path: Path, stopwatch: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """live(**sections): a context manager of a running LiveHub on sockets of its own."""

    @contextmanager
    def start(**sections: Any) -> Iterator[LiveHub]:
        place = f"ipc://{tmp_path}"
        values = {"bind": f"{place}/features", "outputs": {"bind": f"{place}/predictions"}, **sections}
        hub = LiveHub(HubConfig(**{**config.model_dump(), **values}), stopwatch)
        try:
            yield hub
        finally:
            hub.close()

    yield start


@pytest.fixture
def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def next_prediction(subscriber: Subscriber, patience_s: float = PATIENCE_S) -> Prediction:
    """The next prediction, statuses skipped."""
    deadline = time.monotonic() + patience_s
    while (left := deadline - time.monotonic()) > 0:
        message = subscriber.receive(left)
        if isinstance(message, Prediction):
            return message
    raise AssertionError("no prediction came")


def first_status(subscriber: Subscriber) -> Status:
    """The next status; also the sign that the subscription has reached the hub."""
    message = subscriber.receive(PATIENCE_S)
    assert isinstance(message, Status), message
    return message


@pytest.fixture(scope="session")
def hub_tools() -> ModuleType:
    """This file's helpers, for tests that need them by name."""
    module = ModuleType("hub_tools")
    for helper in (Agent, LiveHub, next_prediction, first_status):
        setattr(module, helper.__name__, helper)
    module.NOON_NS = NOON_NS  # type: ignore[attr-defined]
    return module
