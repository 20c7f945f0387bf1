"""A publisher that can send nothing waits: it does not look again and again whether it can."""

import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge.counts import EdgeCounts
from edge.hub_time import PROBE_EVERY_NS
from edge.publisher import Publisher
from viewsync.clock import ClockExchange, SteadyClock
from viewsync.units import SECOND_NS
from viewsync.wire import FeatureMessage, Tensor

PATIENCE_S = 120.0
TIMEOUT_NS = 60 * SECOND_NS
WINDOW = 20
# libzmq holds WINDOW + 1 messages, and hears only after half of that number that some are on their way: with
# so many before, it still counts these and has no room for the whole window.
SENT_BEFORE = 8
now = SteadyClock(time.time_ns, time.monotonic_ns)


class Blocked:
    """A publisher with a message waiting for room, behind a link that passes nothing."""

    def __init__(self, peers: ModuleType, counts: EdgeCounts) -> None:
        self.ahead_ns = 0
        self.counts = counts
        self.hub = peers.AnsweringHub(now=now)
        self.link = peers.SlowLink(self.hub.port, 50e6)
        self.publisher = Publisher(
            self.link.endpoint, None, 7, WINDOW, TIMEOUT_NS, 0.5, ClockExchange(), counts, self.now
        )
        self.publisher.start()
        for seq in range(SENT_BEFORE):
            self.publisher.send(self.message(seq, bytes_=10))
            assert self.publisher.drain(PATIENCE_S)
        self.link.stall()
        for seq in range(SENT_BEFORE, SENT_BEFORE + WINDOW):
            had = self.value("messages_sent_total")
            self.publisher.send(self.message(seq, bytes_=600_000))
            deadline_s = time.monotonic() + 0.5
            while self.value("messages_sent_total") == had and time.monotonic() < deadline_s:
                time.sleep(0.01)
            if self.value("messages_sent_total") == had:
                return
        raise AssertionError("libzmq took the whole window")

    def now(self) -> int:
        return now() + self.ahead_ns

    def message(self, seq: int, bytes_: int) -> FeatureMessage:
        """Features that do not compress, of a frame that is nearly stale."""
        features = np.random.default_rng(0).integers(0, 256, (10, bytes_ // 10, 1), dtype=np.uint8)
        at_ns = self.now()
        arrival_ns = at_ns - TIMEOUT_NS + 4 * SECOND_NS
        return FeatureMessage(
            site="yard",
            scene="tiny",
            view="north",
            session=7,
            seq=seq,
            capture_ns=arrival_ns,
            clock="arrival",
            arrival_ns=arrival_ns,
            sent_ns=at_ns,
            camera_offset=None,
            hub_offset=None,
            features_hash="0" * 64,
            tensors=(Tensor("features", features),),
        )

    def value(self, name: str) -> float:
        return self.counts.registry.get_sample_value(f"viewsync_edge_{name}") or 0.0

    def close(self) -> None:
        self.publisher.close()
        self.link.close()
        self.hub.close()


@pytest.fixture
def blocked(peers: ModuleType, counts: EdgeCounts) -> Iterator[Blocked]:
    made = Blocked(peers, counts)
    yield made
    made.close()


def _busy(publisher: Publisher, wake: Callable[[], Any]) -> float:
    """Share of a second that this process computed, after something has woken the publisher up."""
    wake()
    time.sleep(0.2)
    start_s = time.process_time()
    time.sleep(1.0)
    return time.process_time() - start_s


def test_a_probe_that_there_is_no_room_for_waits_for_room(blocked: Blocked) -> None:
    blocked.ahead_ns = PROBE_EVERY_NS + SECOND_NS
    wake = blocked.message(SENT_BEFORE + WINDOW, bytes_=10)
    assert _busy(blocked.publisher, lambda: blocked.publisher.send(wake)) < 0.2
    probes = blocked.hub.probes
    blocked.link.flow()
    assert blocked.publisher.drain(PATIENCE_S)
    deadline_s = time.monotonic() + PATIENCE_S
    while blocked.hub.probes == probes:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_message_that_went_stale_while_there_was_no_room_is_not_waited_for(blocked: Blocked) -> None:
    sent = blocked.value("messages_sent_total")
    blocked.ahead_ns = 5 * SECOND_NS  # and no probe is due yet
    blocked.link.flow()
    assert blocked.publisher.drain(PATIENCE_S)
    assert _busy(blocked.publisher, lambda: None) < 0.2
    assert blocked.value("messages_sent_total") == sent
