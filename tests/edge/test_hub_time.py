"""Asking a hub for its time, in virtual time: at once, then every ten seconds, one question at a time."""

from edge.hub_time import PROBE_EVERY_NS, HubTime
from viewsync.clock import ClockExchange
from viewsync.units import SECOND_NS
from viewsync.wire import ClockReply

NOON_NS = 1_800_000_000_000_000_000
TIMEOUT_NS = 4 * SECOND_NS
AHEAD_NS = 7 * SECOND_NS


def _reply(sent_ns: int) -> ClockReply:
    """From a hub whose clock is ahead, a millisecond away."""
    at_ns = sent_ns + 1_000_000 + AHEAD_NS
    return ClockReply(sent_ns, at_ns, at_ns)


def test_one_question_at_a_time_and_again_after_ten_seconds() -> None:
    time = HubTime(ClockExchange(), TIMEOUT_NS)
    asked_ns = []
    answer_ns = None
    for now_ns in range(NOON_NS, NOON_NS + 60 * SECOND_NS, SECOND_NS // 4):
        if answer_ns is not None and now_ns >= answer_ns:
            assert time.is_ours(_reply(asked_ns[-1])) and not time.is_ours(_reply(asked_ns[-1]))
            answer_ns = None
        if time.is_probe_due(now_ns):
            assert answer_ns is None
            due_ns = time.probe_due_ns()
            assert due_ns is None if not asked_ns else due_ns is not None and due_ns <= now_ns
            time.asked(now_ns)
            assert time.probe_due_ns() is None and not time.is_probe_due(now_ns + 100 * SECOND_NS)
            assert time.answer_due_ns() == now_ns + TIMEOUT_NS
            asked_ns.append(now_ns)
            answer_ns = now_ns + SECOND_NS
    assert asked_ns == list(range(NOON_NS, NOON_NS + 60 * SECOND_NS, PROBE_EVERY_NS))


def test_what_nobody_asked_for_and_what_came_after_the_connection_tells_nothing() -> None:
    time = HubTime(ClockExchange(), TIMEOUT_NS)
    assert not time.is_ours(_reply(NOON_NS)) and not time.known
    time.asked(NOON_NS)
    assert not time.is_ours(_reply(NOON_NS + 1)) and not time.known
    time.disconnected()
    assert not time.is_ours(_reply(NOON_NS)) and not time.known
    assert time.answer_due_ns() is None and time.is_probe_due(NOON_NS)


def test_the_offset_is_the_hubs_and_another_hub_is_measured_anew() -> None:
    time = HubTime(ClockExchange(), TIMEOUT_NS)
    time.connected()
    time.asked(NOON_NS)
    assert time.offset(NOON_NS) is None
    reply = _reply(NOON_NS)
    assert time.is_ours(reply)
    offset = time.learn(reply, NOON_NS + 2_000_000)
    assert offset is not None and abs(offset.offset_ns - AHEAD_NS) <= offset.uncertainty_ns < 2_000_000
    assert time.learn(reply, NOON_NS - SECOND_NS) is None  # answered before it was asked
    time.disconnected()
    assert time.offset(NOON_NS) is not None and not time.known
    time.connected()
    assert time.offset(NOON_NS) is None
