"""What was measured of a link, beside what its profile says. Pure.

What to expect is worked out by running the model on the very same sending times under many other seeds: that
gives each figure's mean and how far chance moves it. A figure holds where it lies within four standard
deviations of that mean, and of delays 1 ms more, which is the link's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from viewsync.lab.link.proxy import arrivals, first_wait_ns
from viewsync.lab.profile import Direction, ViewSection
from viewsync.lab.timeline import Link
from viewsync.units import MS_NS

Floats = NDArray[np.float64]
Side = Literal["up", "down"]

OWN_MS: Final = 1.0
RATE_TOLERANCE: Final = 0.05
# Of a stream through a relay that makes good for losses.
RATE_TOLERANCE_LOSSY: Final = 0.25
_SIGMAS: Final = 4.0
_SEEDS: Final = 40
_SHARES: Final = (0.05, 0.5, 0.95)
PROBE_BYTES: Final = 100
IP_UDP_BYTES: Final = 28


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one direction. tolerance: how far `measured` may be from `expected`."""

    name: str
    unit: str
    measured: float
    expected: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return bool(abs(self.measured - self.expected) <= self.tolerance)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {name: round(getattr(self, name), 4) for name in ("measured", "expected", "tolerance")}
        return {"name": self.name, "unit": self.unit, **values, "holds": self.holds}


@dataclass(frozen=True, slots=True)
class Probes:
    """sent_ns (N,): since the profile's time 0; delay_ms (N,): NaN where it was lost."""

    sent_ns: NDArray[np.int64]
    delay_ms: Floats


def figures(
    probes: Probes, section: ViewSection, side: Side, seed: Sequence[int], stream: bool
) -> list[Figure]:
    """Delays' 5, 50 and 95 % points and the share lost, beside the model's over other seeds than `seed`.

    stream: the probes were part of a TCP stream through a relay, which loses nothing.
    """
    direction: Direction = getattr(section, side)
    others = [
        _modelled(Link(direction, (*seed, 1 + number)), probes.sent_ns, section, stream)
        for number in range(_SEEDS)
    ]
    found = []
    for share in _SHARES:
        many = np.array([_quantile(delays, share) for delays in others])
        mean, tolerance = float(np.nanmean(many)), _SIGMAS * float(np.nanstd(many)) + OWN_MS
        name = f"delay, {100 * share:.0f} % point"
        found.append(Figure(name, "ms", _quantile(probes.delay_ms, share), mean, tolerance))
    if not stream:
        lost = np.array([100 * np.isnan(delays).mean() for delays in others])
        # What never happens in forty runs may still happen once.
        tolerance = _SIGMAS * float(lost.std()) + 100 / len(probes.sent_ns)
        measured = 100 * float(np.isnan(probes.delay_ms).mean())
        found.append(Figure("lost", "%", measured, float(lost.mean()), tolerance))
    return found


def own_delay_ms(probes: Probes, direction: Direction, seed: Sequence[int]) -> tuple[Floats, bool]:
    """What a user-space link adds to the delay that the same seed foretells, per packet (N,), NaN for the
    lost; and whether exactly the foretold were lost.
    """
    foretold = _modelled(Link(direction, seed), probes.sent_ns, ViewSection(), False)
    same = bool((np.isnan(foretold) == np.isnan(probes.delay_ms)).all())
    return probes.delay_ms - foretold, same


def _modelled(link: Link, sent_ns: NDArray[np.int64], section: ViewSection, stream: bool) -> Floats:
    """Delays (N,) in ms that the model gives to probes sent then; NaN: lost."""
    times = sent_ns.tolist()
    out: Sequence[int | None]
    if stream:
        out = arrivals(link, times, PROBE_BYTES, first_wait_ns(section))
    else:
        out = [link.departures(at_ns, PROBE_BYTES + IP_UDP_BYTES) for at_ns in times]
    pairs = zip(times, out, strict=True)
    return np.array([np.nan if there is None else (there - at_ns) / MS_NS for at_ns, there in pairs])


def _quantile(delays_ms: Floats, share: float) -> float:
    return float(np.nanquantile(delays_ms, share)) if not np.isnan(delays_ms).all() else float("nan")
