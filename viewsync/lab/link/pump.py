"""Holds real packets back for as long as a `Link` says."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import heapq
import itertools
import os
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from viewsync.lab.timeline import Link

_LARGEST: Final = 65_535
# Packets read from one device before another has its turn.
_AT_ONCE: Final = 64
_PR_SET_TIMERSLACK: Final = 29


@dataclass(frozen=True, slots=True)
class Route:
    """Packets from one descriptor to another (both TUN devices, not blocking) by way of a link."""

    source: int
    sink: int
    link: Link


def pump(routes: Sequence[Route], zero_ns: int) -> NoReturn:
    """For ever. zero_ns: the profile's time 0 in the monotonic clock."""
    be_punctual()
    by_source = {route.source: route for route in routes}
    due: list[tuple[int, int, int, bytes]] = []
    order = itertools.count()
    now_ns = time.monotonic_ns
    while True:
        while due and due[0][0] <= now_ns():
            _, _, sink, packet = heapq.heappop(due)
            # A device whose queue is full loses packets as any does.
            with contextlib.suppress(BlockingIOError):
                os.write(sink, packet)
        # select and not epoll: its timeout is finer than a millisecond.
        wait_s = max(0.0, (due[0][0] - now_ns()) * 1e-9) if due else None
        for source in select.select(by_source, (), (), wait_s)[0]:
            route = by_source[source]
            for packet in _packets(source):
                out_ns = route.link.departures(now_ns() - zero_ns, len(packet))
                if out_ns is not None:
                    heapq.heappush(due, (out_ns + zero_ns, next(order), route.sink, packet))


def _packets(source: int) -> list[bytes]:
    found = []
    with contextlib.suppress(BlockingIOError):
        for _ in range(_AT_ONCE):
            found.append(os.read(source, _LARGEST))
    return found


def be_punctual() -> None:
    """Let this process run as soon as it is due, where the system permits: what it is kept waiting on a busy
    machine would be delay that no profile has.
    """
    gc.disable()  # nothing here makes cycles
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def zero_ns(epoch_ns: int) -> int:
    """The UTC time `epoch_ns` in the monotonic clock."""
    return epoch_ns - time.time_ns() + time.monotonic_ns()
