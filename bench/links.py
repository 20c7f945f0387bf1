"""The laboratory's user-space link with nothing to do: what it adds by itself, and what it carries."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from bench.rows import Promise, Row
from viewsync.demo.processes import Supervisor
from viewsync.lab.link.figures import own_delay_ms
from viewsync.lab.link.network import HUB_PORT, Network
from viewsync.lab.link.probing import Bench, wait_until_up
from viewsync.lab.link.ways import why_not
from viewsync.lab.profile import Direction, ViewSection

_DELAY = "link: what the user-space link adds to a packet's delay, p50"
_RATE = "link: what one TCP stream gets through the user-space link"
_CHUNK = 1 << 16


def link_rows(seconds: float) -> list[Row]:
    """Own delay of single packets, then the rate of one TCP stream, each for `seconds`."""
    missing = why_not("tun")
    if missing:
        return [
            Row("link.own_delay", _DELAY, "ms", promise=Promise(1.0), skipped=missing),
            Row("link.rate", _RATE, "Mbit/s", promise=Promise(100.0, at_least=True), skipped=missing),
        ]
    epoch_ns = time.time_ns()
    with tempfile.TemporaryDirectory(prefix="viewsync-bench-") as folder:
        profile = Path(folder) / "nothing.yaml"
        profile.write_text("about: A perfect link.\n", encoding="utf-8")
        with (
            Network(str(profile), ("one",), "tun", epoch_ns) as network,
            Supervisor(network.programs, Path(folder)) as programs,
        ):
            programs.start(time.monotonic())
            wait_until_up(network, programs)
            probes = Bench(network, "one", ViewSection(), epoch_ns).probe("up", seconds)
            rate = _stream_mbit_s(network, seconds)
    own, _ = own_delay_ms(probes, Direction(), (0, 0, 0))
    facts = {"p99_ms": float(np.nanpercentile(own, 99)), "fastest_ms": float(np.nanmin(own))}
    return [
        Row("link.own_delay", _DELAY, "ms", float(np.nanmedian(own)), Promise(1.0), len(own), facts=facts),
        Row("link.rate", _RATE, "Mbit/s", rate, Promise(100.0, at_least=True), 1),
    ]


def _stream_mbit_s(network: Network, seconds: float) -> float:
    host, _ = network.hub_seen_from("one")
    listener = network.inside(None, lambda: socket.create_server((host, HUB_PORT)))
    sender = network.inside("one", lambda: socket.create_connection((host, HUB_PORT), timeout=10.0))
    receiver, _ = listener.accept()
    end_s = time.monotonic() + seconds

    def send() -> None:
        data = bytes(_CHUNK)
        sender.sendall(data)
        while time.monotonic() < end_s:
            sender.sendall(data)
        sender.shutdown(socket.SHUT_WR)

    sending = threading.Thread(target=send)
    sending.start()
    start_s, received = time.monotonic(), 0
    while data := receiver.recv(_CHUNK):
        received += len(data)
    took_s = time.monotonic() - start_s
    sending.join()
    for one in (sender, receiver, listener):
        one.close()
    return 8e-6 * received / took_s
