"""The relay: a stream whole, in order, as late as the link says; no connection outlives its other half."""

import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from viewsync.errors import UserError
from viewsync.lab.link.proxy import Proxy, arrivals, first_wait_ns
from viewsync.lab.profile import Direction, Period, ViewSection
from viewsync.lab.timeline import Link
from viewsync.units import MS_NS, SECOND_NS


class Relayed:
    """A relay in a thread, in front of a listening socket."""

    def __init__(self, section: ViewSection) -> None:
        self.hub = socket.create_server(("127.0.0.1", 0))
        links = (Link(section.up, (1,)), Link(section.down, (2,)))
        address = self.hub.getsockname()[:2]
        self.relay = Proxy(("127.0.0.1", 0), address, section, links, time.monotonic_ns())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.relay.run, args=(self._stop.is_set,))
        self._thread.start()

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """(agent's end, hub's end)."""
        agent = socket.create_connection(self.relay.address, timeout=20)
        self.hub.settimeout(20)
        hub, _ = self.hub.accept()
        hub.settimeout(20)
        return agent, hub

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.hub.close()


@pytest.fixture
def relayed(request: pytest.FixtureRequest) -> Iterator[Relayed]:
    made = Relayed(request.param)
    yield made
    made.close()


def read(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = end.recv(65_536)
        assert more, f"ended after {len(data)} of {size} bytes"
        data += more
    return data


LOSSY = ViewSection(
    up=Direction(delay_ms=20, jitter_ms=10, loss=0.1, rate_kbit_s=20_000), down=Direction(delay_ms=10)
)
PLAIN = ViewSection(up=Direction(delay_ms=60), down=Direction(delay_ms=40))
SLOW = ViewSection(up=Direction(rate_kbit_s=400))


@pytest.mark.parametrize("relayed", [LOSSY], indirect=True)
def test_a_stream_comes_whole_and_in_order_over_losses(relayed: Relayed) -> None:
    agent, hub = relayed.connect()
    data = np.random.default_rng(0).bytes(100_000)
    sending = threading.Thread(target=agent.sendall, args=(data,))
    sending.start()
    assert read(hub, len(data)) == data
    sending.join()
    hub.sendall(b"thanks")
    assert read(agent, 6) == b"thanks"


@pytest.mark.parametrize("relayed", [PLAIN], indirect=True)
def test_nothing_is_there_before_the_link_lets_it(relayed: Relayed) -> None:
    agent, hub = relayed.connect()
    # The first data wait for the round trip by which the connection comes about, 100 ms.
    start_s = time.monotonic()
    agent.sendall(b"a")
    read(hub, 1)
    assert time.monotonic() - start_s >= 0.150
    start_s = time.monotonic()
    agent.sendall(b"b")
    read(hub, 1)
    hub.sendall(b"c")
    read(agent, 1)
    assert time.monotonic() - start_s >= 0.099


@pytest.mark.parametrize("relayed", [SLOW], indirect=True)
def test_no_more_comes_than_the_rate(relayed: Relayed) -> None:
    agent, hub = relayed.connect()
    start_s = time.monotonic()
    agent.sendall(bytes(30_000))
    read(hub, 30_000)
    # 240 kbit and headers at 400 kbit/s.
    assert time.monotonic() - start_s >= 0.6


@pytest.mark.parametrize("relayed", [PLAIN], indirect=True)
def test_each_side_sees_the_other_end(relayed: Relayed) -> None:
    agent, hub = relayed.connect()
    agent.sendall(b"last")
    agent.shutdown(socket.SHUT_WR)
    assert read(hub, 4) == b"last" and hub.recv(1) == b""
    hub.sendall(b"still here")
    assert read(agent, 10) == b"still here"
    hub.close()
    agent.settimeout(20)
    assert agent.recv(1) == b""


@pytest.mark.parametrize("relayed", [PLAIN], indirect=True)
def test_without_a_hub_connections_end_and_with_it_they_work_again(relayed: Relayed) -> None:
    address = relayed.hub.getsockname()
    relayed.hub.close()
    with socket.create_connection(relayed.relay.address, timeout=20) as agent:
        assert agent.recv(1) == b""
    relayed.hub = socket.create_server(address)
    agent, hub = relayed.connect()
    agent.sendall(b"x")
    assert read(hub, 1) == b"x"


def test_an_address_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        section = ViewSection()
        links = (Link(section.up, (1,)), Link(section.down, (2,)))
        with pytest.raises(UserError, match="choose another address"):
            Proxy(taken.getsockname()[:2], ("127.0.0.1", 1), section, links, 0)


def test_losses_hold_up_what_follows_and_outages_are_outlasted() -> None:
    section = ViewSection(
        up=Direction(delay_ms=50, outages=(Period(at_s=1, for_s=2),)), down=Direction(delay_ms=50)
    )
    sent_ns = [number * 100 * MS_NS for number in range(40)]
    out_ns = arrivals(Link(section.up, (0,)), sent_ns, 100, first_wait_ns(section))
    assert out_ns == sorted(out_ns)
    late_s = [(out - at) / SECOND_NS for at, out in zip(sent_ns, out_ns, strict=True)]
    assert late_s[:10] == [0.05] * 10
    # Sent again after 126, 252, 504, 1008 and 2016 ms: the last of these is the first after the outage.
    assert out_ns[10] == sent_ns[10] + (126 + 252 + 504 + 1008 + 2016 + 50) * MS_NS
    assert min(late_s[10:30]) > 1.0
