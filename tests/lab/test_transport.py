"""What TCP must do on any link, and what it costs on links whose cost is known."""

import random

from hypothesis import given
from hypothesis import strategies as st

from viewsync.lab.events import Events
from viewsync.lab.transport import SEGMENT_BYTES, Channel, Stream
from viewsync.units import MS_NS, SECOND_NS

DELAY_NS = 50 * MS_NS


def steady(sent_ns: int, size: int) -> int | None:
    return sent_ns + DELAY_NS


def lossy(loss: float, seed: int) -> Channel:
    chance = random.Random(seed)
    return lambda sent_ns, size: None if chance.random() < loss else sent_ns + DELAY_NS


def arrival_ns(segments: int, there: Channel = steady, back: Channel = steady) -> int:
    """When a message of so many segments that is sent at 0 is there."""
    events, at = Events(), []
    stream = Stream(events, there, back)
    stream.send(segments * SEGMENT_BYTES, lambda: at.append(events.now_ns))
    events.run_until(1000 * SECOND_NS)
    (only,) = at
    return only


def test_ten_segments_take_one_way_and_more_take_a_round_trip_for_each_doubling() -> None:
    assert arrival_ns(1) == arrival_ns(10) == DELAY_NS
    assert arrival_ns(11) == arrival_ns(30) == 3 * DELAY_NS
    assert arrival_ns(31) == arrival_ns(70) == 5 * DELAY_NS


def test_a_lost_segment_before_others_costs_a_round_trip_and_a_lost_last_one_the_timer() -> None:
    def losing(number: int) -> Channel:
        sent = iter(range(10_000))
        return lambda sent_ns, size: None if next(sent) == number else sent_ns + DELAY_NS

    # Nothing tells of an early loss until what was sent after it is acknowledged; all ten go at once.
    first, last = arrival_ns(10, losing(0)), arrival_ns(10, losing(9))
    assert 3 * DELAY_NS <= first <= 3 * DELAY_NS + 300 * MS_NS
    assert 200 * MS_NS + 2 * DELAY_NS < last < SECOND_NS


@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.5), sizes=st.lists(st.integers(1, 60_000), max_size=8))
def test_every_message_arrives_once_whole_and_in_order_whatever_is_lost(
    seed: int, loss: float, sizes: list[int]
) -> None:
    events, there = Events(), []
    stream = Stream(events, lossy(loss, seed), lossy(loss, seed + 1))
    for number, size in enumerate(sizes):
        events.at(
            number * 100 * MS_NS,
            lambda number=number, size=size: stream.send(size, lambda: there.append(number)),  # type: ignore[misc]
        )
    events.run_until(100_000 * SECOND_NS)
    assert there == list(range(len(sizes)))


def test_an_outage_holds_everything_up_and_the_timer_finds_its_end() -> None:
    def out(sent_ns: int, size: int) -> int | None:
        return None if sent_ns < 20 * SECOND_NS else sent_ns + DELAY_NS

    # Tries double from 1 s on: at 1, 3, 7, 15 and 31 s.
    assert arrival_ns(1, out) == 31 * SECOND_NS + DELAY_NS


def test_a_closed_stream_delivers_nothing_more() -> None:
    events, there = Events(), []
    stream = Stream(events, steady, steady)
    stream.send(100, lambda: there.append(1))
    stream.close()
    stream.send(100, lambda: there.append(2))
    events.run_until(SECOND_NS)
    assert there == []
