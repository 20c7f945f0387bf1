"""What one direction of a link does to packets: pure, seeded, and the one model that everything here uses.

The user-space link and the proxies run it on real packets, virtual time on simulated ones, and Linux's netem
follows the same rules by itself, where it is given a rate: a packet leaves

    max(sent + delay + jitter, when the packet before it left) + size / rate

so that packets keep their order, however their jitter falls. Chance is drawn per packet: the n-th packet of a
direction has the same fate under the same seed, whatever it holds and whenever it comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from viewsync.lab.profile import Direction, Profile
from viewsync.units import MS_NS, SECOND_NS

# Draws made at a time.
_BLOCK: Final = 4096
# netem's tables end here.
_FURTHEST: Final = 4.0
_UP, _DOWN = 0, 1


class Link:
    """One direction. State: when the last packet left, those under way, whether losses are in a burst.

    seed: any non-negative numbers. Times are nanoseconds since the profile's time 0.
    """

    __slots__ = ("_bits_ns", "_delays", "_direction", "_last_ns", "_losses", "_outages", "_overtakes", "_way")

    def __init__(self, direction: Direction, seed: Sequence[int]) -> None:
        # One stream for each kind of chance: what one draws does not move the others.
        jitter, loss, order = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
        self._direction = direction
        self._delays = _endless(lambda: delays_ns(direction, jitter, _BLOCK))
        self._losses = _losses(direction, loss)
        self._overtakes = _endless(lambda: order.random(_BLOCK) < direction.reorder)
        rate = direction.rate_kbit_s
        self._bits_ns = 0.0 if rate is None else 1e6 / rate
        self._outages = tuple(
            (round(outage.at_s * SECOND_NS), _end_ns(outage.at_s, outage.for_s))
            for outage in direction.outages
        )
        self._last_ns = 0
        self._way: deque[int] = deque()

    def departures(self, sent_ns: int, size: int) -> int | None:
        """When a packet of `size` bytes (IP header and all) that is sent at `sent_ns` comes out, or None
        where it is lost. Call it in the order of sending.
        """
        delay_ns, lost, overtakes = next(self._delays), next(self._losses), next(self._overtakes)
        if lost or self.is_out(sent_ns):
            return None
        way = self._way
        while way and way[0] <= sent_ns:
            way.popleft()
        if len(way) >= self._direction.queue_packets:
            return None
        if overtakes:
            return sent_ns
        self._last_ns = max(sent_ns + delay_ns, self._last_ns) + round(8 * size * self._bits_ns)
        way.append(self._last_ns)
        return self._last_ns

    def is_out(self, at_ns: int) -> bool:
        """Whether an outage covers `at_ns`."""
        return any(start_ns <= at_ns < end_ns for start_ns, end_ns in self._outages)


def links(profile: Profile, views: Sequence[str]) -> dict[str, tuple[Link, Link]]:
    """The links (up, down) of all views: the same for the same profile and place of the view, always.

    Raises ConfigError where the profile speaks of a view that is not there.
    """
    return {
        view: (Link(section.up, (profile.seed, place, _UP)), Link(section.down, (profile.seed, place, _DOWN)))
        for place, (view, section) in enumerate(profile.of_views(views).items())
    }


def delays_ns(direction: Direction, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Delays (count,) in ns drawn as netem draws them, before order and rate have their say.

    normal: z, cut at ±4; uniform: within ±1; pareto: (4/3)(u^(−1/3) − 3/2), cut at 4, u uniform in (0, 1], as
    iproute2's table; each times the jitter, and no delay below 0.
    """
    if not direction.jitter_ms:
        spread = np.zeros(count)
    elif direction.jitter_distribution == "normal":
        spread = np.clip(rng.standard_normal(count), -_FURTHEST, _FURTHEST)
    elif direction.jitter_distribution == "uniform":
        spread = rng.uniform(-1.0, 1.0, count)
    else:
        spread = np.minimum(4.0 / 3.0 * ((1.0 - rng.random(count)) ** (-1.0 / 3.0) - 1.5), _FURTHEST)
    delays = (direction.delay_ms + direction.jitter_ms * spread) * MS_NS
    return np.rint(np.maximum(delays, 0.0)).astype(np.int64)


def _losses(direction: Direction, rng: np.random.Generator) -> Iterator[bool]:
    if direction.loss_burst_packets is None or not direction.loss:
        return _endless(lambda: rng.random(_BLOCK) < direction.loss)
    return _bursts(direction, rng)


def _bursts(direction: Direction, rng: np.random.Generator) -> Iterator[bool]:
    """Gilbert and Elliott's chain in netem's order: a packet's fate is its state's before it changes."""
    to_bad, to_good, in_burst = direction.to_bad, direction.to_good, direction.loss_in_burst
    bad = bool(rng.random() < to_bad / (to_bad + to_good))
    pairs = _endless(lambda: rng.random((_BLOCK, 2)))
    for change, fate in pairs:
        yield bad and fate < in_burst
        if change < (to_good if bad else to_bad):
            bad = not bad


def _endless(draw: Callable[[], NDArray[Any]]) -> Iterator[Any]:
    while True:
        yield from draw().tolist()


def _end_ns(at_s: float, for_s: float | None) -> float:
    return float("inf") if for_s is None else (at_s + for_s) * SECOND_NS
