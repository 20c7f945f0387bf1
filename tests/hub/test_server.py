"""A running hub on real sockets: replies, refusals that disturb nobody, views and their owners, stopping."""

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import zmq

from hub.config import HubConfig
from hub.server import run
from viewsync.errors import ConfigError
from viewsync.prediction import Prediction, Status
from viewsync.wire import Ack, ClockProbe, ClockReply, FeatureMessage, OffsetEstimate, Refusal

HOUR_NS = 3600 * 10**9
Frames = Callable[..., FeatureMessage]
Live = Callable[..., Any]


@pytest.fixture
def fresh(frame: Frames) -> Frames:
    """A good message captured just now."""
    return lambda view="north", seq=0, **other: frame(
        view, seq, other.pop("capture_ns", time.time_ns()), **other
    )


def test_a_message_is_acknowledged_with_the_hubs_clock_and_answered(
    live: Live, fresh: Frames, hub_tools: ModuleType
) -> None:
    with live(rate={"silence_ms": 100}) as hub, hub.subscriber() as subscriber:
        hub_tools.first_status(subscriber)
        agent = hub.agent()
        message = fresh("west", 4)
        before_ns = time.time_ns()
        reply = agent.ask(message)
        after_ns = time.time_ns()
        assert isinstance(reply, Ack)
        assert (reply.session, reply.seq, reply.sent_ns) == (message.session, 4, message.sent_ns)
        # The hub's clock started from this machine's; both only run on.
        assert before_ns - 10**7 <= reply.received_ns <= reply.replied_ns <= after_ns + 10**7
        prediction = hub_tools.next_prediction(subscriber)
        assert prediction.reference == "west" and prediction.seq == 0
        assert prediction.latency_ns == prediction.published_ns - message.capture_ns > 0
        assert 0 < prediction.fuse_ns <= prediction.latency_ns


def test_clock_probes_are_answered(live: Live) -> None:
    with live() as hub:
        agent = hub.agent()
        for sent_ns in (5, 17, 2**61):
            reply = agent.ask(ClockProbe(sent_ns))
            assert isinstance(reply, ClockReply) and reply.sent_ns == sent_ns
            assert reply.received_ns <= reply.replied_ns


def test_arrivals_wake_the_hub(live: Live, fresh: Frames, hub_tools: ModuleType) -> None:
    """No clock of the hub's own is near: an answer can come only because a frame did."""
    with live(rate={"silence_ms": 3_600_000, "max_rate_hz": 1000}) as hub, hub.subscriber() as subscriber:
        agents = {view: hub.agent() for view in ("north", "south", "west")}
        # Until the subscription has arrived, predictions go nowhere.
        seq = 0
        while subscriber.receive(0.05) is None:
            assert isinstance(agents["north"].ask(fresh("north", seq)), Ack)
            seq += 1
        while subscriber.receive(0.3) is not None:
            pass
        for round_number in range(3):
            for view, agent in agents.items():
                assert isinstance(agent.ask(fresh(view, 1000 + round_number)), Ack)
                newest = hub_tools.next_prediction(subscriber)
                report = next(report for report in newest.views if report.view == view)
                assert report.used and report.seq == 1000 + round_number
        assert subscriber.receive(0.3) is None, "nothing changed, nothing is said"
        assert subscriber.lost == 0


def test_silence_is_a_degraded_status_repeated(live: Live, fresh: Frames, hub_tools: ModuleType) -> None:
    with live(rate={"silence_ms": 150}) as hub, hub.subscriber() as subscriber:
        hub_tools.first_status(subscriber)
        assert isinstance(hub.agent().ask(fresh()), Ack)
        hub_tools.next_prediction(subscriber)
        statuses = [subscriber.receive(20) for _ in range(3)]
        assert all(isinstance(status, Status) and status.degraded for status in statuses)
        assert all("no new frame for" in status.reasons[0] for status in statuses)
        gaps_ms = [(b.published_ns - a.published_ns) / 1e6 for a, b in itertools.pairwise(statuses)]
        assert all(gap >= 149 for gap in gaps_ms)


def test_a_burst_is_answered_no_faster_than_allowed_and_ends_with_the_newest(
    live: Live, fresh: Frames, hub_tools: ModuleType
) -> None:
    with live(rate={"silence_ms": 200, "max_rate_hz": 5}) as hub, hub.subscriber() as subscriber:
        hub_tools.first_status(subscriber)
        agent = hub.agent()
        for seq in range(60):
            assert isinstance(agent.ask(fresh("north", seq)), Ack)
        answers: list[Prediction] = []
        while not answers or answers[-1].views[0].seq != 59:
            answers.append(hub_tools.next_prediction(subscriber))
        # Published is the start of the step plus its elapsed time, so the spacing is exact to that.
        for earlier, later in itertools.pairwise(answers):
            assert later.published_ns - earlier.published_ns > 0.2e9 - earlier.fuse_ns - 0.05e9
        assert len({answer.views[0].seq for answer in answers}) == len(answers)


def bad_messages(fresh: Frames) -> dict[str, FeatureMessage]:
    now_ns = time.time_ns()
    return {
        "unknown-view": fresh("east", 9),
        "features-hash": fresh(seq=9, features_hash="f" * 64),
        "foreign-site": fresh(seq=9, site="elsewhere"),
        "future": fresh(seq=9, capture_ns=now_ns + 60 * 10**9),
        "implausible-time": fresh(seq=9, capture_ns=10**9),
        "too-old": fresh(seq=9, capture_ns=now_ns - 60 * 10**9),
        "clock-unknown": fresh(seq=9, hub_offset=None),
        "future ": fresh(seq=9, hub_offset=OffsetEstimate(HOUR_NS // 2, 10)),
    }


def test_bad_messages_are_refused_with_a_reason_and_the_same_agent_goes_on(
    live: Live, fresh: Frames, hub_tools: ModuleType
) -> None:
    with live(rate={"silence_ms": 100}) as hub, hub.subscriber() as subscriber:
        hub_tools.first_status(subscriber)
        agent = hub.agent()
        for seq, (reason, bad) in enumerate(bad_messages(fresh).items()):
            refusal = agent.ask(bad)
            assert isinstance(refusal, Refusal) and refusal.reason == reason.strip()
            assert (refusal.session, refusal.seq, refusal.sent_ns) == (bad.session, bad.seq, bad.sent_ns)
            assert len(refusal.detail) > 20
            assert isinstance(agent.ask(fresh("north", seq)), Ack)
            assert hub_tools.next_prediction(subscriber).views[0].seq == seq


def test_without_keys_a_view_stays_with_its_first_agent_until_that_is_gone(live: Live, fresh: Frames) -> None:
    with live() as hub:
        owner, second = hub.agent(), hub.agent()
        assert isinstance(owner.ask(fresh("north", 0, session=1)), Ack)
        for seq in range(3):
            refusal = second.ask(fresh("north", 100 + seq, session=2))
            assert isinstance(refusal, Refusal) and refusal.reason == "view-taken"
            # The owner may see its last acknowledgement once more; then comes the one it waits for.
            reply = owner.ask(fresh("north", 1 + seq, session=1))
            while isinstance(reply, Ack) and reply.seq < 1 + seq:
                reply = owner.receive()
            assert isinstance(reply, Ack) and reply.seq == 1 + seq
        assert isinstance(second.ask(fresh("south", 200, session=2)), Ack), "other views are free"
        owner.close()
        deadline = time.monotonic() + 10
        seq = 300
        while isinstance(reply := second.ask(fresh("north", seq, session=2)), Refusal):
            assert reply.reason == "view-taken" and time.monotonic() < deadline
            seq += 1
        assert isinstance(reply, Ack), "the owner is gone: the next agent takes over at once"


def test_without_keys_an_agent_that_reconnects_keeps_its_view(live: Live, fresh: Frames) -> None:
    with live() as hub:
        first, again = hub.agent(), hub.agent()
        assert isinstance(first.ask(fresh("north", 0, session=1)), Ack)
        assert isinstance(again.ask(fresh("north", 1, session=1)), Ack), "the same session is the same agent"


def test_without_keys_a_silent_owner_loses_its_view(live: Live, fresh: Frames) -> None:
    with live(security={"owner_silence_s": 0.2}) as hub:
        owner, second = hub.agent(), hub.agent()
        assert isinstance(owner.ask(fresh("north", 0, session=1)), Ack)
        deadline = time.monotonic() + 10
        while isinstance(second.ask(fresh("north", 0, session=2)), Refusal):
            assert time.monotonic() < deadline
        reply = owner.ask(fresh("north", 1, session=1))
        while isinstance(reply, Ack) and reply.seq == 0:
            reply = owner.receive()
        assert isinstance(reply, Refusal) and reply.reason == "view-taken"


def test_a_peer_that_never_reads_its_replies_disturbs_nobody(live: Live, fresh: Frames) -> None:
    with live() as hub:
        deaf = zmq.Context.instance().socket(zmq.DEALER)
        deaf.rcvhwm = 1
        deaf.linger = 0
        deaf.connect(hub.config.bind)
        agent = hub.agent()
        for seq in range(300):
            for _ in range(20):
                try:
                    deaf.send(b"\x00" * 40, zmq.NOBLOCK)
                except zmq.Again:
                    break
            if seq % 30 == 0:
                assert isinstance(agent.ask(fresh("north", seq)), Ack)
        deaf.close(linger=0)


def test_a_concat_graph_waits_for_all_its_views(
    live: Live, fresh: Frames, tiny: ModuleType, tmp_path: Path, hub_tools: ModuleType, monkeypatch: Any
) -> None:
    write = tiny.write_bundle

    def write_concat(path: Path, facts: dict[str, Any], *parts: Any) -> Any:
        facts["fusion"]["none"]["fusion"] = "concat"
        return write(path, facts, *parts)

    monkeypatch.setattr(tiny, "write_bundle", write_concat)
    bundle = tiny.write_tiny_bundle(tmp_path / "concat", ("none",)).path
    sections = {
        "bundle": bundle,
        "reference": {"policy": "fixed", "view": "north"},
        "rate": {"silence_ms": 100},
    }
    with live(**sections) as hub, hub.subscriber() as subscriber:
        hub_tools.first_status(subscriber)
        capture_ns = time.time_ns()
        for view in ("north", "south"):
            message = fresh(view, capture_ns=capture_ns, features_hash=_hash(bundle, view))
            assert isinstance(hub.agent().ask(message), Ack)
        status = hub_tools.first_status(subscriber)
        while "south" in status.reasons[0] or "no view" in status.reasons[0]:
            status = hub_tools.first_status(subscriber)
        assert status.reasons[0] == "graph none needs all views; missing: west"
        message = fresh("west", capture_ns=capture_ns, features_hash=_hash(bundle, "west"))
        assert isinstance(hub.agent().ask(message), Ack)
        assert not hub_tools.next_prediction(subscriber).degraded


def _hash(path: Path, view: str) -> str:
    from viewsync.bundle import Bundle

    return Bundle.load(path).features_hash(view)


@pytest.mark.parametrize("busy", [False, True])
def test_it_stops_within_two_seconds(live: Live, fresh: Frames, busy: bool) -> None:
    with live() as hub:
        agent = hub.agent()
        assert isinstance(agent.ask(fresh()), Ack)
        flood = threading.Event()

        def keep_sending() -> None:
            while not flood.is_set():
                agent.socket.send(b"x" * 2000)

        thread = threading.Thread(target=keep_sending)
        agent.socket.sndtimeo = 100
        if busy:
            thread = threading.Thread(target=_quietly(keep_sending))
            thread.start()
        took_s = hub.stop_and_time()
        flood.set()
        if busy:
            thread.join()
        assert took_s < 2.0


def _quietly(send: Callable[[], None]) -> Callable[[], None]:
    def until_nobody_takes_it() -> None:
        try:
            send()
        except zmq.ZMQError:
            pass

    return until_nobody_takes_it


def test_an_address_in_use_is_named_with_its_key(live: Live, config: HubConfig, tmp_path: Path) -> None:
    with live() as hub:
        assert isinstance(hub.agent().ask(ClockProbe(1)), ClockReply)
        taken = zmq.Context.instance().socket(zmq.PUB)
        port = taken.bind_to_random_port("tcp://127.0.0.1")
        for key, values in {
            "bind": {"bind": f"tcp://127.0.0.1:{port}"},
            "outputs.bind": {
                "bind": f"ipc://{tmp_path}/other",
                "outputs": {"bind": f"tcp://127.0.0.1:{port}"},
            },
            "health": {
                "bind": f"ipc://{tmp_path}/third",
                "outputs": {"bind": f"ipc://{tmp_path}/fourth"},
                "health": {"port": port},
            },
        }.items():
            second = HubConfig(**{**config.model_dump(), **values})
            with pytest.raises(ConfigError, match=rf"^{key}: cannot .*in use; stop the other program"):
                run(second, threading.Event())
        taken.close(linger=0)


def test_the_fields_of_a_message_cannot_be_forged_by_its_copy(live: Live, fresh: Frames) -> None:
    """A replayed message is a duplicate, and the same frame under another number of the same session is
    older.
    """
    with live() as hub:
        agent = hub.agent()
        message = fresh("north", 5)
        assert isinstance(agent.ask(message), Ack)
        replayed = agent.ask(message)
        assert isinstance(replayed, Refusal) and replayed.reason == "duplicate"
        older = agent.ask(dataclasses.replace(message, seq=4))
        assert isinstance(older, Refusal) and older.reason == "old-seq"
