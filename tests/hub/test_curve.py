"""CURVE with real keys: who may speak, who may listen, and that nobody speaks for another."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from viewsync.errors import UserError
from viewsync.keys import ALLOW, Allowed, ClientKeys, KeyFolder, load_client_keys
from viewsync.wire import Ack, ClockProbe, ClockReply, FeatureMessage, Refusal

Frames = Callable[..., FeatureMessage]


@pytest.fixture
def keys(tmp_path: Path) -> Callable[[str], ClientKeys]:
    """keys("agent-north"): its keys; the folder has a hub, two agents, an agent of another site, and a
    subscriber.
    """
    folder = KeyFolder(tmp_path / "keys")
    folder.make_hub()
    for allowed in (
        Allowed("north", "agent", "yard", "tiny", ("north",)),
        Allowed("south", "agent", "yard", "tiny", ("south",)),
        Allowed("abroad", "agent", "elsewhere", "tiny", ("north",)),
        Allowed("wall", "subscriber"),
    ):
        folder.make_client(allowed)
    return lambda name: load_client_keys(folder.folder / f"{name}.key", folder.folder / "hub.pub")


@pytest.fixture
def hub(live: Any, keys: object, tmp_path: Path) -> Iterator[Any]:
    folder = tmp_path / "keys"
    security = {"keys": folder / "hub.key", "allow": folder / ALLOW}
    with live(security=security, rate={"silence_ms": 100}) as running:
        yield running


def fresh(frame: Frames, view: str, seq: int, **other: Any) -> FeatureMessage:
    return frame(view, seq, time.time_ns(), **other)


def test_agents_and_subscribers_of_the_list_are_served(
    hub: Any, keys: Callable[[str], ClientKeys], frame: Frames, hub_tools: ModuleType
) -> None:
    with hub.subscriber(keys("subscriber-wall")) as subscriber:
        hub_tools.first_status(subscriber)
        agent = hub.agent(keys("agent-north"))
        assert isinstance(agent.ask(ClockProbe(1)), ClockReply)
        assert isinstance(agent.ask(fresh(frame, "north", 3)), Ack)
        assert hub_tools.next_prediction(subscriber).views[0].seq == 3


def test_an_agent_that_claims_anothers_view_is_refused_and_the_owner_goes_on(
    hub: Any, keys: Callable[[str], ClientKeys], frame: Frames, hub_tools: ModuleType
) -> None:
    with hub.subscriber(keys("subscriber-wall")) as subscriber:
        hub_tools.first_status(subscriber)
        north, south = hub.agent(keys("agent-north")), hub.agent(keys("agent-south"))
        for seq in range(3):
            refusal = south.ask(fresh(frame, "north", 50 + seq, session=2))
            assert isinstance(refusal, Refusal) and refusal.reason == "not-allowed"
            assert "may send yard/tiny south, not yard/tiny north" in refusal.detail
            assert isinstance(north.ask(fresh(frame, "north", seq, session=1)), Ack)
            assert hub_tools.next_prediction(subscriber).views[0].seq == seq
        assert isinstance(south.ask(fresh(frame, "south", 60)), Ack), "its own view it may still send"


def test_a_key_is_for_one_site(hub: Any, keys: Callable[[str], ClientKeys], frame: Frames) -> None:
    abroad = hub.agent(keys("agent-abroad"))
    refusal = abroad.ask(fresh(frame, "north", 1))
    assert isinstance(refusal, Refusal) and refusal.reason == "not-allowed"
    refusal = abroad.ask(fresh(frame, "north", 1, site="elsewhere"))
    assert isinstance(refusal, Refusal) and refusal.reason == "foreign-site"


@pytest.mark.parametrize(
    "who", ["nobody", "a stranger", "a subscriber", "an agent who takes another for the hub"]
)
def test_who_is_not_an_agent_of_the_list_cannot_speak(
    who: str, hub: Any, keys: Callable[[str], ClientKeys], frame: Frames, tmp_path: Path
) -> None:
    stranger = KeyFolder(tmp_path / "elsewhere")
    stranger.make_hub()
    stranger.make_client(Allowed("north", "agent", "yard", "tiny", ("north",)))
    own = stranger.folder / "agent-north.key"
    presented = {
        "nobody": None,
        "a stranger": load_client_keys(own, tmp_path / "keys" / "hub.pub"),
        "a subscriber": keys("subscriber-wall"),
        "an agent who takes another for the hub": load_client_keys(
            tmp_path / "keys" / "agent-north.key", stranger.folder / "hub.pub"
        ),
    }[who]
    owner = hub.agent(keys("agent-north"))
    assert isinstance(owner.ask(fresh(frame, "north", 0, session=1)), Ack)
    intruder = hub.agent(presented)
    # With IMMEDIATE set, a socket takes messages only once its handshake has succeeded.
    assert not intruder.socket.poll(1000, 2), "the handshake must not succeed"
    assert isinstance(owner.ask(fresh(frame, "north", 1, session=1)), Ack)


def test_an_agents_key_cannot_listen(hub: Any, keys: Callable[[str], ClientKeys]) -> None:
    refused = pytest.raises(UserError, match="allow-list as a subscriber")
    with hub.subscriber(keys("agent-north")) as subscriber, refused:
        while True:
            assert subscriber.receive(10) is None


def test_an_agent_added_while_the_hub_runs_is_let_in_and_a_removed_one_refused(
    hub: Any, keys: Callable[[str], ClientKeys], frame: Frames, tmp_path: Path
) -> None:
    north = hub.agent(keys("agent-north"))
    assert isinstance(north.ask(fresh(frame, "north", 0)), Ack)
    folder = KeyFolder(tmp_path / "keys")
    before = (folder.folder / ALLOW).read_text()
    folder.make_client(Allowed("west", "agent", "yard", "tiny", ("west",)))
    west = hub.agent(keys("agent-west"))
    assert isinstance(west.ask(fresh(frame, "west", 0)), Ack)
    _replace(folder.folder / ALLOW, before)
    refusal = west.ask(fresh(frame, "west", 1))
    assert isinstance(refusal, Refusal) and refusal.reason == "not-allowed"
    _replace(folder.folder / ALLOW, "allow: [broken")
    assert isinstance(north.ask(fresh(frame, "north", 1)), Ack), (
        "a broken list leaves the one before in force"
    )


def _replace(path: Path, text: str) -> None:
    """As editors and `viewsync keys` do it: whole or not at all."""
    (path.parent / "new").write_text(text)
    os.replace(path.parent / "new", path)
