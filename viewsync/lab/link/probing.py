"""Packets with times on them over real links, one direction after the other. Sender and receiver share the
machine's clock.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np

from viewsync.demo.processes import Supervisor
from viewsync.errors import InternalError
from viewsync.lab.link.figures import (
    IP_UDP_BYTES,
    OWN_MS,
    PROBE_BYTES,
    RATE_TOLERANCE,
    RATE_TOLERANCE_LOSSY,
    Figure,
    Probes,
    Side,
    figures,
    own_delay_ms,
)
from viewsync.lab.link.network import HUB_PORT, Network
from viewsync.lab.link.proxy import HEADER_BYTES
from viewsync.lab.link.ways import Way
from viewsync.lab.profile import Direction, ViewSection, load_profile
from viewsync.units import MS_NS, SECOND_NS

_STAMP: Final = struct.Struct("<qq")
_FLOOD_BYTES: Final = 1400
# Probes fill at most so much of the rate, and come at most so densely.
_PROBE_LOAD: Final = 0.2
_SHORTEST_INTERVAL_S: Final = 0.005
_FLOOD_LOAD: Final = 1.25
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("@ll")
_PATIENCE_S: Final = 60.0
_SIDES: Final[tuple[Side, ...]] = ("up", "down")


class Bench:
    """Sends over one view's link of a network that works. epoch_ns: the profile's time 0, UTC."""

    def __init__(self, network: Network, view: str, section: ViewSection, epoch_ns: int) -> None:
        self._network, self._view, self._section, self._epoch_ns = network, view, section, epoch_ns
        self.stream = network.way == "proxy"
        # Only our own program draws chance as the model does.
        self.foretold = network.way == "tun"

    def probe(self, side: Side, seconds: float) -> Probes:
        """Probes for so long. Raises InternalError: nothing at all came through."""
        direction: Direction = getattr(self._section, side)
        bits = 8 * (PROBE_BYTES + (HEADER_BYTES if self.stream else IP_UDP_BYTES))
        load = 0.0 if direction.rate_kbit_s is None else bits / (1000 * direction.rate_kbit_s * _PROBE_LOAD)
        interval_s = max(_SHORTEST_INTERVAL_S, load)
        count = max(20, int(seconds / interval_s))
        came = np.full(count, -1, np.int64)

        def receive(number: int, at_ns: int) -> None:
            if 0 <= number < count:
                came[number] = at_ns

        with _Ends(self._network, self._view, side, receive) as ends:
            sent = np.zeros(count, np.int64)
            next_s = time.monotonic()
            for number in range(count):
                sent[number] = ends.send(number, PROBE_BYTES)
                next_s += interval_s
                time.sleep(max(0.0, next_s - time.monotonic()))
            ends.wait_for_rest(direction)
        delays = np.where(came >= 0, (came - sent) / MS_NS, np.nan)
        if np.isnan(delays).all():
            raise InternalError(f"view {self._view}, {side}: none of {count} packets came through")
        return Probes(sent - self._epoch_ns, delays)

    def rate(self, side: Side, seconds: float) -> Figure:
        """Send more than the link carries for so long, and see what comes out; kbit/s."""
        direction: Direction = getattr(self._section, side)
        assert direction.rate_kbit_s is not None
        times: list[int] = []
        header = HEADER_BYTES if self.stream else IP_UDP_BYTES
        interval_s = 8 * (_FLOOD_BYTES + header) / (1000 * direction.rate_kbit_s * _FLOOD_LOAD)
        with _Ends(self._network, self._view, side, lambda number, at_ns: times.append(at_ns)) as ends:
            start_s = next_s = time.monotonic()
            number = 0
            while time.monotonic() - start_s < seconds:
                ends.send(number, _FLOOD_BYTES)
                number += 1
                next_s += interval_s
                wait_s = next_s - time.monotonic()
                if wait_s > 0.001:
                    time.sleep(wait_s)
            ends.wait_for_rest(direction)
        if len(times) < 3:
            raise InternalError(f"view {self._view}, {side}: {len(times)} of {number} packets came through")
        # The first ones met an empty queue.
        settled = times[len(times) // 10 :]
        took_s = (settled[-1] - settled[0]) / SECOND_NS
        measured = 8e-3 * (_FLOOD_BYTES + header) * (len(settled) - 1) / took_s
        expected = direction.rate_kbit_s
        # A relay makes good for losses, and leaves gaps meanwhile.
        lossy = self.stream and direction.loss > 0
        tolerance = (RATE_TOLERANCE_LOSSY if lossy else RATE_TOLERANCE) * expected
        return Figure("rate", "kbit/s", measured, expected, tolerance)


class _Ends:
    """A sender and a receiver in its thread, at the two ends of a link: UDP, or TCP through a relay."""

    def __init__(self, network: Network, view: str, side: Side, receive: Callable[[int, int], None]) -> None:
        self._receive = receive
        self._open: list[socket.socket] = []
        make = self._through_relay if network.way == "proxy" else self._between_namespaces
        self._sender, self._receiver = make(network, view, side)
        self._tcp = network.way == "proxy"
        self._heard_s = time.monotonic()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._receiver.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join(5.0)
        for one in self._open:
            one.close()

    def send(self, number: int, size: int) -> int:
        """UTC ns at which it was sent."""
        now_ns = time.time_ns()
        self._sender.send(_STAMP.pack(number, size).ljust(size, b"\0"))
        return now_ns

    def wait_for_rest(self, direction: Direction) -> None:
        """Until nothing has come for longer than anything can take, or a loss takes to be made good."""
        quiet_s = 0.5 + 6 * (direction.delay_ms + 4 * direction.jitter_ms) / 1000
        end_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() - self._heard_s < quiet_s and time.monotonic() < end_s:
            time.sleep(0.05)

    def _between_namespaces(
        self, network: Network, view: str, side: Side
    ) -> tuple[socket.socket, socket.socket]:
        host, _ = network.hub_seen_from(view)
        hub = network.inside(None, lambda: self._udp((host, HUB_PORT)))
        agent = network.inside(view, lambda: self._udp(("0.0.0.0", 0)))
        agent.connect((host, HUB_PORT))
        hub.connect((agent.getsockname()[0], agent.getsockname()[1]))
        return (agent, hub) if side == "up" else (hub, agent)

    def _udp(self, address: tuple[str, int]) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._open.append(made)
        # The kernel notes when a packet came: whoever reads it may be kept waiting.
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.bind(address)
        return made

    def _through_relay(self, network: Network, view: str, side: Side) -> tuple[socket.socket, socket.socket]:
        with socket.create_server(network.hub_bind) as listener:
            listener.settimeout(_PATIENCE_S)
            agent = socket.create_connection(network.hub_seen_from(view), timeout=_PATIENCE_S)
            self._open.append(agent)
            hub, _ = listener.accept()
            self._open.append(hub)
        for end in (agent, hub):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return (agent, hub) if side == "up" else (hub, agent)

    def _listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            if self._tcp:
                self._listen_to_stream()
            else:
                self._listen_to_packets()

    def _listen_to_packets(self) -> None:
        while True:
            data, notes, _, _ = self._receiver.recvmsg(2048, 64)
            if not data:
                return
            stamps = [note[2] for note in notes if note[1] == _SO_TIMESTAMPNS]
            seconds, rest = _TIMESPEC.unpack(stamps[0])
            self._heard_s = time.monotonic()
            self._receive(_STAMP.unpack_from(data)[0], seconds * SECOND_NS + rest)

    def _listen_to_stream(self) -> None:
        held = b""
        while data := self._receiver.recv(65_536):
            now_ns = time.time_ns()
            self._heard_s = time.monotonic()
            held += data
            while len(held) >= _STAMP.size:
                number, size = _STAMP.unpack_from(held)
                if len(held) < size:
                    break
                self._receive(number, now_ns)
                held = held[size:]


def measure(
    profile: str, views: Sequence[str], wanted: Sequence[str], way: Way, seconds: float, stop: threading.Event
) -> dict[str, dict[Side, list[Figure]]]:
    """Lay the links of a profile and measure those of `wanted` views, both directions, each for `seconds`,
    a third of it for the rate. Ends early when `stop` is set.
    """
    epoch_ns = time.time_ns()
    loaded = load_profile(profile)
    found: dict[str, dict[Side, list[Figure]]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="viewsync-link-") as logs,
        Network(profile, views, way, epoch_ns) as network,
        Supervisor(network.programs, Path(logs)) as programs,
    ):
        programs.start(time.monotonic())
        wait_until_up(network, programs)
        for view in wanted:
            found[view] = {}
            for number, side in enumerate(_SIDES):
                if not stop.is_set():
                    seed = (loaded.seed, network.views.index(view), number)
                    section = loaded.of_views(views)[view]
                    bench = Bench(network, view, section, epoch_ns)
                    found[view][side] = _measure(bench, section, side, seed, seconds)
        for event in programs.poll(time.monotonic()):
            raise InternalError(f"a link did not last: {event}")
    return found


def _measure(
    bench: Bench, section: ViewSection, side: Side, seed: tuple[int, ...], seconds: float
) -> list[Figure]:
    direction: Direction = getattr(section, side)
    probes = bench.probe(side, seconds * 2 / 3)
    found = figures(probes, section, side, seed, bench.stream)
    if bench.foretold:
        own, same = own_delay_ms(probes, direction, seed)
        found.append(Figure("its own delay, median", "ms", float(np.nanmedian(own)), 0.0, OWN_MS))
        found.append(Figure("lost as the seed foretold", "", float(same), 1.0, 0.0))
    if direction.rate_kbit_s is not None:
        found.append(bench.rate(side, seconds / 3))
    return found


def wait_until_up(network: Network, programs: Supervisor) -> None:
    """Until every link does its work: netem's rule is there, a relay listens. Raises InternalError.

    A user-space link takes what was sent before it started, once it has.
    """
    end_s = time.monotonic() + _PATIENCE_S
    for view in network.views:
        while not network.is_up(view):
            programs.poll(time.monotonic())
            if time.monotonic() > end_s:
                raise InternalError(f"the link of view {view} did not start within {_PATIENCE_S:.0f} s")
            time.sleep(0.05)
