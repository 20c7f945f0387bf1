"""Laws of the one model of a link."""

import math
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewsync.lab.profile import Direction, Period, load_profile, names
from viewsync.lab.timeline import Link, delays_ns, links
from viewsync.units import MS_NS, SECOND_NS

VIEWS = ("north", "east", "south")


def delivered(direction: Direction, sent_ns: list[int], size: int = 1000, seed: int = 0) -> list[int | None]:
    link = Link(direction, (seed,))
    return [link.departures(at_ns, size) for at_ns in sent_ns]


def every(interval_ns: int, count: int) -> list[int]:
    return [number * interval_ns for number in range(count)]


def test_a_perfect_link_changes_nothing() -> None:
    sent_ns = every(12_345, 100)
    assert delivered(Direction(), sent_ns) == sent_ns


def test_a_constant_delay_is_added() -> None:
    sent_ns = every(MS_NS, 50)
    assert delivered(Direction(delay_ms=40), sent_ns) == [at_ns + 40 * MS_NS for at_ns in sent_ns]


@given(
    st.lists(st.integers(0, 50 * MS_NS), min_size=2, max_size=60),
    st.sampled_from(["normal", "uniform", "pareto"]),
    st.integers(0, 99),
)
def test_packets_keep_their_order_and_none_is_early(gaps: list[int], kind: str, seed: int) -> None:
    sent_ns = np.cumsum(gaps).tolist()
    direction = Direction(delay_ms=30, jitter_ms=25, jitter_distribution=kind, loss=0.2, rate_kbit_s=5000)
    came = delivered(direction, sent_ns, seed=seed)
    pairs = [(at, out) for at, out in zip(sent_ns, came, strict=True) if out is not None]
    assert all(out >= at for at, out in pairs)
    # 1000 bytes take 1.6 ms at 5 Mbit/s.
    assert all(later[1] - one[1] >= 1.6 * MS_NS - 1 for one, later in pairwise(pairs))


def test_a_burst_leaves_at_the_rate() -> None:
    came = delivered(Direction(delay_ms=10, rate_kbit_s=1000), [0] * 100, size=1250)
    # 1250 bytes are 10 kbit: 10 ms each, the first one after the delay.
    assert came == [(10 + 10 * number) * MS_NS for number in range(1, 101)]


def test_what_the_queue_cannot_hold_is_lost_and_room_comes_back() -> None:
    direction = Direction(rate_kbit_s=1000, queue_packets=5)
    came = delivered(direction, [0] * 8 + [35 * MS_NS], size=1250)
    assert [out is None for out in came] == [False] * 5 + [True] * 3 + [False]
    assert came[-1] == 60 * MS_NS


@pytest.mark.parametrize(
    ("kind", "quantiles"),
    [
        # Of the standard normal; of ±1; of (4/3)(u^(−1/3) − 3/2), by the inverse of u.
        ("normal", {0.05: -1.6449, 0.5: 0.0, 0.95: 1.6449}),
        ("uniform", {0.05: -0.9, 0.5: 0.0, 0.95: 0.9}),
        ("pareto", {q: 4 / 3 * ((1 - q) ** (-1 / 3) - 1.5) for q in (0.05, 0.5, 0.95)}),
    ],
)
def test_jitter_has_its_distribution(kind: str, quantiles: dict[float, float]) -> None:
    direction = Direction(delay_ms=100, jitter_ms=20, jitter_distribution=kind)
    drawn_ms = delays_ns(direction, np.random.default_rng(1), 200_000) / MS_NS
    for share, spread in quantiles.items():
        # The 95 % point of 200,000 draws errs by 0.3 % of the scale, of a pareto by 1 %.
        assert np.quantile(drawn_ms, share) == pytest.approx(100 + 20 * spread, abs=0.4)
    assert drawn_ms.max() <= 180 and drawn_ms.min() >= 20


def test_losses_are_of_their_share() -> None:
    lost = [out is None for out in delivered(Direction(loss=0.03), every(MS_NS, 50_000))]
    assert np.mean(lost) == pytest.approx(0.03, abs=4 * math.sqrt(0.03 * 0.97 / 50_000))


def test_losses_come_in_bursts_of_their_length_and_still_of_their_share() -> None:
    direction = Direction(loss=0.05, loss_burst_packets=5)
    lost = [out is None for out in delivered(direction, every(MS_NS, 100_000))]
    runs = [len(list(group)) for fate, group in groupby(lost) if fate]
    # About 1000 bursts: each figure within four standard errors.
    assert np.mean(lost) == pytest.approx(0.05, abs=0.009)
    assert np.mean(runs) == pytest.approx(5, abs=0.6)
    half = Direction(loss=0.05, loss_burst_packets=20, loss_in_burst=0.5)
    assert np.mean([out is None for out in delivered(half, every(MS_NS, 100_000))]) == pytest.approx(
        0.05, abs=0.014
    )


def test_everything_is_lost_in_an_outage_and_nothing_else() -> None:
    direction = Direction(outages=(Period(at_s=2, for_s=3), Period(at_s=8)))
    came = delivered(direction, every(SECOND_NS, 12))
    assert [at for at, out in enumerate(came) if out is None] == [2, 3, 4, 8, 9, 10, 11]


def test_some_overtake() -> None:
    came = delivered(Direction(delay_ms=50, reorder=0.1), every(10 * MS_NS, 3000))
    at_once = [out == at for at, out in zip(every(10 * MS_NS, 3000), came, strict=True)]
    assert np.mean(at_once) == pytest.approx(0.1, abs=0.02)
    assert any(later < one for one, later in pairwise(came) if one is not None and later is not None)


@pytest.mark.parametrize("name", names())
def test_the_same_seed_gives_the_same_timeline(name: str) -> None:
    sent_ns = every(7 * MS_NS, 300)

    def run() -> list[list[int | None]]:
        pairs = links(load_profile(name), VIEWS).values()
        return [[link.departures(at, 500) for at in sent_ns] for pair in pairs for link in pair]

    first = run()
    assert first == run()
    # Each direction of each view has chance of its own.
    assert len({tuple(way) for way in first}) == len(first)


def test_the_fate_of_the_nth_packet_depends_on_nothing_but_the_seed() -> None:
    direction = Direction(delay_ms=40, jitter_ms=10, loss=0.1)
    slow = delivered(direction, every(SECOND_NS, 300), seed=5)
    fast = delivered(direction, every(SECOND_NS // 2, 300), size=9, seed=5)
    late_slow = [None if out is None else out - n * SECOND_NS for n, out in enumerate(slow)]
    late_fast = [None if out is None else out - n * SECOND_NS // 2 for n, out in enumerate(fast)]
    assert late_slow == late_fast
    assert delivered(direction, every(SECOND_NS, 300), seed=6) != slow
