"""Measured figures are judged by the model and chance, and a link that is not as told is found out."""

import numpy as np
import pytest

from viewsync.lab.link.figures import Probes, figures, own_delay_ms
from viewsync.lab.profile import Direction, ViewSection
from viewsync.lab.timeline import Link
from viewsync.units import MS_NS

SENT_NS = np.arange(1000, dtype=np.int64) * 10 * MS_NS
TOLD = Direction(delay_ms=80, jitter_ms=20, loss=0.05, rate_kbit_s=5000)


def through(direction: Direction, seed: int, own_ms: float = 0.0) -> Probes:
    link = Link(direction, (seed,))
    out = [link.departures(at_ns, 128) for at_ns in SENT_NS.tolist()]
    delays = [
        np.nan if there is None else (there - at_ns) / MS_NS + own_ms
        for at_ns, there in zip(SENT_NS.tolist(), out, strict=True)
    ]
    return Probes(SENT_NS, np.array(delays))


def wrong(direction: Direction, own_ms: float = 0.0) -> list[str]:
    found = figures(through(direction, 77, own_ms), ViewSection(up=TOLD), "up", (5,), False)
    return [figure.name for figure in found if not figure.holds]


def test_a_link_that_is_as_told_holds() -> None:
    assert wrong(TOLD) == [] and wrong(TOLD, own_ms=0.5) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"delay_ms": 90}, "delay, 50 % point"),
        ({"jitter_ms": 40}, "delay, 95 % point"),
        ({"jitter_ms": 0}, "delay, 95 % point"),
        ({"loss": 0.1}, "lost"),
        ({"loss": 0}, "lost"),
    ],
)
def test_one_that_is_not_is_found_out(change: dict[str, float], name: str) -> None:
    assert name in wrong(TOLD.model_copy(update=change))


def test_its_own_delay_is_what_the_seed_did_not_foretell() -> None:
    own, same = own_delay_ms(through(TOLD, 3, own_ms=0.25), TOLD, (3,))
    assert same and np.nanmedian(own) == pytest.approx(0.25)
    assert not own_delay_ms(through(TOLD, 4), TOLD, (3,))[1]
