"""The subscriber against a real PUB socket, with and without CURVE."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import zmq
from zmq.utils import z85

from calib.ground import GroundGrid
from viewsync.client import Subscriber
from viewsync.errors import UserError, WireError
from viewsync.keys import ClientKeys, KeyPair
from viewsync.prediction import Prediction, Status, ViewReport, encode_prediction

PREDICTION = Prediction(
    "yard", "plaza", 1, 0, 20, 10, 1, "north", "none", 2.0, {"none": 2.0}, np.zeros((2, 3), "<f4"),
    GroundGrid(0, 0, 1, 3, 2), (ViewReport("north", True, ""),), "0" * 64, 10, 1, False,
)  # fmt: skip
STATUS = Status("yard", "plaza", 30, True, ("silent",), ())
WAIT_S = 10.0  # a limit for a broken test, not a measurement


class Hub:
    """An XPUB socket, so that a test can wait for the subscription itself, and a list of welcome keys."""

    def __init__(self, keys: KeyPair | None = None, endpoint: str = "tcp://127.0.0.1:*") -> None:
        self.context = zmq.Context()
        self.welcome: set[bytes] = set()
        self._zap = self.context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._authenticate, daemon=True)
        self._thread.start()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.linger = 0
        if keys is not None:
            self.socket.curve_server = True
            self.socket.curve_secretkey = keys.secret
            self.socket.curve_publickey = keys.public
            self.socket.zap_domain = b"test"
        self.socket.bind(endpoint)
        self.endpoint = self.socket.last_endpoint.decode()

    def _authenticate(self) -> None:
        while not self._stop.is_set():
            if self._zap.poll(50):
                version, request, _domain, _address, _id, _mechanism, key = self._zap.recv_multipart()
                status = b"200" if z85.encode(key) in self.welcome else b"400"
                self._zap.send_multipart([version, request, status, b"", b"", b""])

    def send(self, *messages: Prediction | Status | bytes) -> None:
        for message in messages:
            self.socket.send(message if isinstance(message, bytes) else encode_prediction(message))

    def await_subscriber(self) -> None:
        assert self.socket.poll(WAIT_S * 1000) and self.socket.recv() == b"\x01"

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.context.destroy(linger=0)


def new_pair() -> KeyPair:
    return KeyPair(*zmq.curve_keypair())


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.close()


@pytest.fixture
def locked() -> Iterator[tuple[Hub, KeyPair, KeyPair]]:
    """A hub with CURVE, its keys, and the keys of a subscriber that it knows."""
    hub_keys, known = new_pair(), new_pair()
    made = Hub(hub_keys)
    made.welcome.add(known.public)
    yield made, hub_keys, known
    made.close()


def seq(number: int, session: int = 1) -> Prediction:
    return replace(PREDICTION, seq=number, session=session)


def test_every_message_arrives_in_order(hub: Hub) -> None:
    with Subscriber(hub.endpoint) as subscriber:
        hub.await_subscriber()
        hub.send(seq(0), STATUS, seq(1), seq(2))
        assert [subscriber.receive(WAIT_S) for _ in range(4)] == [seq(0), STATUS, seq(1), seq(2)]
        assert (subscriber.received, subscriber.lost) == (3, 0)
        assert subscriber.connected


def test_it_iterates(hub: Hub) -> None:
    with Subscriber(hub.endpoint) as subscriber:
        hub.await_subscriber()
        hub.send(seq(0), STATUS)
        messages = iter(subscriber)
        assert next(messages) == seq(0) and next(messages) == STATUS


def test_gaps_are_counted_and_a_restarted_hub_is_none(hub: Hub) -> None:
    with Subscriber(hub.endpoint) as subscriber:
        hub.await_subscriber()
        hub.send(seq(5), seq(6), seq(9), seq(0, session=2), seq(1, session=2), seq(3, session=2))
        for _ in range(6):
            assert subscriber.receive(WAIT_S) is not None
        assert (subscriber.received, subscriber.lost) == (6, 3)


def test_newest_only_skips_what_waits(hub: Hub) -> None:
    with Subscriber(hub.endpoint, newest_only=True) as subscriber:
        hub.await_subscriber()
        hub.send(*[seq(n) for n in range(50)])
        got: list[Prediction] = []
        while not got or got[-1].seq < 49:
            message = subscriber.receive(WAIT_S)
            assert isinstance(message, Prediction)
            got.append(message)
        assert len(got) + subscriber.skipped == subscriber.received == 50
        assert subscriber.lost == 0


def test_silence_is_none(hub: Hub) -> None:
    with Subscriber(hub.endpoint) as subscriber:
        hub.await_subscriber()
        assert subscriber.receive(0) is None
        assert subscriber.receive(0.05) is None


def test_a_hub_that_is_not_there_yet_is_found_when_it_comes() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with Subscriber(endpoint) as subscriber:
        assert subscriber.receive(0.1) is None and not subscriber.connected
        hub = Hub(endpoint=endpoint)
        try:
            hub.await_subscriber()
            hub.send(seq(0))
            assert subscriber.receive(WAIT_S) == seq(0)
        finally:
            hub.close()


def test_it_comes_back_to_a_hub_that_was_restarted() -> None:
    first = Hub()
    with Subscriber(first.endpoint) as subscriber:
        first.await_subscriber()
        first.send(seq(0))
        assert subscriber.receive(WAIT_S) == seq(0)
        first.close()
        while subscriber.connected:
            assert subscriber.receive(0.05) is None
        second = Hub(endpoint=first.endpoint)
        try:
            second.await_subscriber()
            second.send(seq(0, session=2))
            assert subscriber.receive(WAIT_S) == seq(0, session=2)
        finally:
            second.close()


def test_a_message_of_another_format_is_an_error_and_not_the_end(hub: Hub) -> None:
    with Subscriber(hub.endpoint) as subscriber:
        hub.await_subscriber()
        hub.send(b"\x80\x04pickled", seq(0))
        with pytest.raises(WireError, match="not-msgpack"):
            subscriber.receive(WAIT_S)
        assert subscriber.receive(WAIT_S) == seq(0)


@pytest.mark.parametrize(
    "endpoint", ["localhost", "tcp://", "tcp://127.0.0.1", "http://127.0.0.1:80", "tcp://127.0.0.1:99999"]
)
def test_an_unusable_endpoint_is_named(endpoint: str) -> None:
    with pytest.raises(UserError, match=r"tcp://127\.0\.0\.1:5556"):
        Subscriber(endpoint)


def test_curve(locked: tuple[Hub, KeyPair, KeyPair]) -> None:
    hub, hub_keys, known = locked
    with Subscriber(hub.endpoint, ClientKeys(known, hub_keys.public)) as subscriber:
        hub.await_subscriber()
        hub.send(seq(0))
        assert subscriber.receive(WAIT_S) == seq(0)


def test_an_unknown_key_is_told_so_and_tried_again(locked: tuple[Hub, KeyPair, KeyPair]) -> None:
    hub, hub_keys, _ = locked
    stranger = new_pair()
    with Subscriber(hub.endpoint, ClientKeys(stranger, hub_keys.public)) as subscriber:
        with pytest.raises(UserError, match="allow-list"):
            subscriber.receive(WAIT_S)
        hub.welcome.add(stranger.public)
        deadline = time.monotonic() + WAIT_S
        while not subscriber.connected and time.monotonic() < deadline:
            try:
                subscriber.receive(0.2)
            except UserError:
                continue  # it had tried again before the key was welcome
        hub.await_subscriber()
        hub.send(seq(0))
        assert subscriber.receive(WAIT_S) == seq(0)


def test_wrong_or_missing_keys_are_told_apart(locked: tuple[Hub, KeyPair, KeyPair], hub: Hub) -> None:
    curve, _, known = locked
    for endpoint, keys, expected in (
        (curve.endpoint, None, "demands keys"),
        (curve.endpoint, ClientKeys(known, new_pair().public), "another hub's"),
        (hub.endpoint, ClientKeys(known, new_pair().public), "uses no keys"),
    ):
        with Subscriber(endpoint, keys) as subscriber, pytest.raises(UserError, match=expected):
            subscriber.receive(WAIT_S)


def test_closing_twice_is_fine(hub: Hub) -> None:
    subscriber = Subscriber(hub.endpoint)
    subscriber.close()
    subscriber.close()
