"""The publisher against a real ROUTER: what arrives, how old it is, and what happens when things break."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import zmq

from edge.counts import EdgeCounts
from edge.publisher import Publisher
from viewsync.clock import ClockExchange, SteadyClock
from viewsync.errors import ConfigError
from viewsync.keys import ClientKeys, KeyPair
from viewsync.units import SECOND_NS
from viewsync.wire import FeatureMessage, OffsetEstimate, Tensor

SESSION = 7
PATIENCE_S = 120.0
now = SteadyClock(time.time_ns, time.monotonic_ns)


def _message(seq: int, features: np.ndarray | None = None) -> FeatureMessage:
    at_ns = now()
    array = np.zeros((2, 3, 4), np.uint8) if features is None else features
    tensors = (Tensor("features", array),)
    return FeatureMessage(
        "yard", "tiny", "north", SESSION, seq, at_ns, "arrival", at_ns, at_ns, None, None, "0" * 64, tensors
    )


def _noise(bytes_: int) -> np.ndarray:
    """Features that do not compress."""
    return np.random.default_rng(0).integers(0, 256, (1, 1, bytes_), dtype=np.uint8)


@pytest.fixture
def hub(peers: ModuleType) -> Iterator[Any]:
    with_clock = peers.AnsweringHub(now=now)
    yield with_clock
    with_clock.close()


@pytest.fixture
def publish(counts: EdgeCounts, stopwatch: Callable[..., Any]) -> Iterator[Callable[..., Publisher]]:
    made = []

    def make(
        endpoint: str, keys: ClientKeys | None = None, timeout_s: float = 10.0, window: int = 1
    ) -> Publisher:
        exchange = ClockExchange()
        timeout_ns = round(timeout_s * SECOND_NS)
        publisher = Publisher(endpoint, keys, SESSION, window, timeout_ns, 0.5, exchange, counts, now)
        made.append(publisher)
        publisher.start()
        return publisher

    yield make
    for publisher in made:
        watch = stopwatch()
        publisher.close()
        assert watch.seconds() < 2.0


def _value(counts: EdgeCounts, name: str, **labels: str) -> float:
    return counts.registry.get_sample_value(f"viewsync_edge_{name}", labels) or 0.0


def _eventually(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_message_arrives_with_the_offset_to_the_hubs_clock(
    peers: ModuleType, publish: Callable[..., Publisher], counts: EdgeCounts
) -> None:
    ahead_ns = 5 * SECOND_NS
    hub = peers.AnsweringHub(now=lambda: now() + ahead_ns)
    try:
        publisher = publish(hub.endpoint)
        assert publisher.send(_message(0))
        (received,) = hub.wait_for(lambda received: bool(received))
        assert isinstance(received.message.hub_offset, OffsetEstimate)
        offset = received.message.hub_offset
        assert abs(offset.offset_ns - ahead_ns) <= offset.uncertainty_ns
        assert received.message.sent_ns >= received.message.arrival_ns
        assert publisher.drain(PATIENCE_S)
        _eventually(lambda: _value(counts, "messages_acked_total") == 1)
        assert publisher.state()[0]
    finally:
        hub.close()


# 256 kbit/s, a message of 0.75 s: frames far faster than the link, and slower than it.
@pytest.mark.parametrize("interval_s", [0.15, 1.1])
def test_over_a_slow_link_no_message_is_older_than_an_interval_and_two_transfers(
    interval_s: float, peers: ModuleType, hub: Any, publish: Callable[..., Publisher], counts: EdgeCounts
) -> None:
    bytes_per_s = 256_000 / 8
    link = peers.SlowLink(hub.port, bytes_per_s)
    try:
        publisher = publish(link.endpoint)
        features = _noise(24_000)
        frames = round(10.0 / interval_s)
        tick = threading.Event()
        for seq in range(frames):
            publisher.send(_message(seq, features))
            tick.wait(interval_s)
        publisher.drain(PATIENCE_S)
        received = list(hub.received)
        transfer_s = received[0].size / bytes_per_s
        ages_s = [(each.at_ns - each.message.capture_ns) / SECOND_NS for each in received]
        assert max(ages_s) <= interval_s + 2 * transfer_s, ages_s
        # Newest only, not nothing: the link is kept busy, and the last frame gets through.
        assert len(received) >= 0.6 * min(frames, 10.0 / transfer_s)
        assert received[-1].message.seq == frames - 1
        assert [each.message.seq for each in received] == sorted({each.message.seq for each in received})
        replaced = _value(counts, "messages_replaced_total")
        assert len(received) + replaced == frames
    finally:
        link.close()


def test_a_hub_that_is_not_there_yet_gets_the_newest_message_when_it_comes(
    peers: ModuleType, publish: Callable[..., Publisher], caplog: pytest.LogCaptureFixture
) -> None:
    placeholder = peers.AnsweringHub()
    endpoint = placeholder.endpoint
    placeholder.close()
    publisher = publish(endpoint)
    _eventually(lambda: any("nobody listens" in record.message for record in caplog.records))
    results = [publisher.send(_message(seq)) for seq in range(5)]
    assert results == [True, False, False, False, False]
    assert not publisher.state()[0]
    hub = peers.AnsweringHub(endpoint, now=now)
    try:
        (received,) = hub.wait_for(lambda received: bool(received))
        assert received.message.seq == 4
        assert sum("nobody listens" in record.message for record in caplog.records) == 1
    finally:
        hub.close()


def test_a_hub_that_comes_back_goes_on_with_fresh_messages(
    peers: ModuleType, publish: Callable[..., Publisher], counts: EdgeCounts
) -> None:
    hub = peers.AnsweringHub(now=now)
    publisher = publish(hub.endpoint)
    publisher.send(_message(0))
    hub.wait_for(lambda received: bool(received))
    hub.close()
    _eventually(lambda: not publisher.state()[0])
    for seq in (1, 2):
        publisher.send(_message(seq))
    again = peers.AnsweringHub(hub.endpoint, now=now)
    try:
        received = again.wait_for(lambda received: bool(received))
        assert [each.message.seq for each in received] == [2]
        publisher.send(_message(3))
        again.wait_for(lambda received: received[-1].message.seq == 3)
        assert _value(counts, "hub_reconnects_total") == 1
    finally:
        again.close()


def test_a_hub_that_stops_answering_gets_a_new_connection_and_the_newest_again(
    peers: ModuleType, hub: Any, publish: Callable[..., Publisher], counts: EdgeCounts
) -> None:
    publisher = publish(hub.endpoint, timeout_s=0.5)
    publisher.send(_message(0))
    assert publisher.drain(PATIENCE_S)
    hub.silent = True
    publisher.send(_message(1))
    hub.wait_for(lambda received: received[-1].message.seq == 1)
    _eventually(lambda: _value(counts, "hub_reconnects_total") >= 1)
    hub.silent = False
    publisher.send(_message(2))
    hub.wait_for(lambda received: received[-1].message.seq == 2)
    assert publisher.drain(PATIENCE_S)
    assert _value(counts, "messages_acked_total") >= 2


def test_a_cut_line_is_noticed_and_the_message_under_way_is_sent_again(
    peers: ModuleType, hub: Any, publish: Callable[..., Publisher]
) -> None:
    link = peers.SlowLink(hub.port, 1e6)
    try:
        publisher = publish(link.endpoint)
        publisher.send(_message(0))
        assert publisher.drain(PATIENCE_S)
        link.stall()
        publisher.send(_message(1))
        time.sleep(0.2)
        link.cut()
        link.flow()
        hub.wait_for(lambda received: received[-1].message.seq == 1)
    finally:
        link.close()


def test_refusals_are_counted_each_and_said_once_with_what_to_do(
    hub: Any, publish: Callable[..., Publisher], counts: EdgeCounts, caplog: pytest.LogCaptureFixture
) -> None:
    hub.refuse_with = "features-hash"
    publisher = publish(hub.endpoint)
    for seq in range(3):
        publisher.send(_message(seq))
        assert publisher.drain(PATIENCE_S)
    _eventually(lambda: _value(counts, "messages_refused_total", reason="features-hash") == 3)
    said = [record.message for record in caplog.records if "refuses" in record.message]
    assert len(said) == 1 and "same bundle" in said[0] and "features-hash" in said[0]
    assert _value(counts, "messages_acked_total") == 0
    hub.refuse_with = None
    publisher.send(_message(3))
    assert publisher.drain(PATIENCE_S)
    _eventually(lambda: _value(counts, "messages_acked_total") == 1)


def test_a_window_lets_that_many_under_way(hub: Any, publish: Callable[..., Publisher]) -> None:
    publisher = publish(hub.endpoint, window=3)
    publisher.send(_message(0))
    assert publisher.drain(PATIENCE_S)
    hub.silent = True
    for seq in (1, 2, 3):
        publisher.send(_message(seq))
        hub.wait_for(lambda received, seq=seq: received[-1].message.seq == seq)
    for seq in (4, 5):
        publisher.send(_message(seq))
    time.sleep(0.3)
    assert [each.message.seq for each in hub.received] == [0, 1, 2, 3]


def test_curve_with_the_right_keys_and_with_none(
    peers: ModuleType, publish: Callable[..., Publisher], caplog: pytest.LogCaptureFixture
) -> None:
    server, agent = zmq.curve_keypair(), zmq.curve_keypair()
    hub = peers.AnsweringHub(now=now, server_key=server)
    try:
        publish(hub.endpoint, ClientKeys(KeyPair(*agent), server[0])).send(_message(0))
        hub.wait_for(lambda received: bool(received))
        with caplog.at_level(logging.WARNING):
            stranger = publish(hub.endpoint)
            _eventually(lambda: "demands keys" in caplog.text)
            time.sleep(3.0)  # it goes on trying
        assert "nobody listens" not in caplog.text and caplog.text.count("demands keys") == 1
        assert not stranger.state()[0]
    finally:
        hub.close()


def test_the_wrong_hub_key_is_said(
    peers: ModuleType, publish: Callable[..., Publisher], caplog: pytest.LogCaptureFixture
) -> None:
    hub = peers.AnsweringHub(now=now, server_key=zmq.curve_keypair())
    try:
        publish(hub.endpoint, ClientKeys(KeyPair(*zmq.curve_keypair()), zmq.curve_keypair()[0]))
        _eventually(lambda: "another hub's" in caplog.text)
    finally:
        hub.close()


def test_an_endpoint_that_cannot_be_is_the_users_mistake(counts: EdgeCounts) -> None:
    with pytest.raises(ConfigError, match=r"hub\.endpoint.*tcp://192"):
        Publisher("tcp://nowhere", None, SESSION, 1, SECOND_NS, 1.0, ClockExchange(), counts, now)
