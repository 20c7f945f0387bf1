"""Rubbish on the real features port, of every kind, while a good agent keeps being answered."""

import os
import pickle
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from viewsync.values import MAX_TIME_NS
from viewsync.wire import MAX_MESSAGE_BYTES, Ack, FeatureMessage, OffsetEstimate, Refusal, encode

Frames = Callable[..., FeatureMessage]


class _Bomb:
    """Unpickling this makes a folder: a hub that unpickles shows itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def attacked(live: Any, frame: Frames, tmp_path: Path) -> Iterator[Callable[[bytes], str | None]]:
    """attacked(bytes): send them from a stranger, see that a good agent is still acknowledged, return the
    refusal.
    """
    with live(bind=f"ipc://{tmp_path}/features") as hub:
        good, stranger = hub.agent(), hub.agent()
        seq = 0

        def attack(payload: bytes) -> str | None:
            nonlocal seq
            reply = stranger.ask(payload)
            seq += 1
            assert isinstance(good.ask(frame("north", seq, time.time_ns())), Ack)
            return reply.reason if isinstance(reply, Refusal) else None

        yield attack


def test_random_bytes(attacked: Callable[[bytes], str | None]) -> None:
    chance = random.Random(5)
    for _ in range(150):
        assert attacked(chance.randbytes(chance.choice([0, 1, 2, 7, 40, 600, 5000, 60_000])))


def test_truncated_and_damaged_messages(attacked: Callable[[bytes], str | None], frame: Frames) -> None:
    whole = encode(frame("south", 1, time.time_ns()))
    chance = random.Random(6)
    for length in [*range(0, 400, 11), *chance.sample(range(400, len(whole)), 20)]:
        assert attacked(whole[:length]) in ("not-msgpack", "missing-key", "bad-value", "bad-tensor")
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        attacked(bytes(damaged))  # a flipped bit of a feature is still a message; nothing may break


def test_pickles_are_never_opened(attacked: Callable[[bytes], str | None], tmp_path: Path) -> None:
    for protocol in range(6):
        assert attacked(pickle.dumps(_Bomb(tmp_path / "opened"), protocol)) == "not-msgpack"
    assert not (tmp_path / "opened").exists()


def test_what_is_no_feature_message(attacked: Callable[[bytes], str | None], frame: Frames) -> None:
    fields = msgpack.unpackb(encode(frame("south", 1, time.time_ns())))
    nan = np.full((4, 18, 24), np.nan, "<f4").tobytes()
    tensor = fields["tensors"][0]
    cases = {
        "wire-version": {**fields, "v": 2},
        "unknown-kind": {**fields, "kind": "prediction"},
        "unknown-kind ": {
            "v": 1,
            "kind": "ack",
            "session": 1,
            "seq": 1,
            "sent_ns": 1,
            "received_ns": 1,
            "replied_ns": 1,
        },
        "not-finite": {**fields, "tensors": [{**tensor, "dtype": "<f4", "codec": "raw", "data": nan}]},
        "bad-tensor": {**fields, "tensors": [{**tensor, "shape": [4, 18, 25]}]},
        "too-large": {**fields, "tensors": [{**tensor, "shape": [65_536, 65_536]}]},
        "bad-value": {**fields, "view": "../../etc"},
        "bad-value ": {**fields, "capture_ns": -(2**63)},
        "bad-value  ": {**fields, "seq": True},
        "missing-key": {"v": 1, "kind": "features"},
    }
    for reason, case in cases.items():
        assert attacked(msgpack.packb(case)) == reason.strip()
    assert attacked(msgpack.packb([[[]]] * 200)) == "not-msgpack"
    assert attacked(b"\x91" * 100_000) == "not-msgpack"


def test_oversized_messages_cost_their_sender_the_connection_and_nobody_else(
    live: Any, frame: Frames
) -> None:
    with live() as hub:
        good, stranger = hub.agent(), hub.agent()
        refusal = stranger.ask(b"\x00" * MAX_MESSAGE_BYTES)
        assert isinstance(refusal, Refusal) and refusal.reason == "not-msgpack"
        events = stranger.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        stranger.socket.send(b"\x00" * (MAX_MESSAGE_BYTES + 1))
        assert events.poll(90_000), "libzmq drops the connection before it stores the message"
        assert isinstance(good.ask(frame("north", 1, time.time_ns())), Ack)
        stranger.socket.disable_monitor()


def test_several_parts_and_none(live: Any, frame: Frames) -> None:
    with live() as hub:
        good, stranger = hub.agent(), hub.agent()
        message = encode(frame("south", 1, time.time_ns()))
        for parts in ([b""], [b"", message], [message, message], [b""] * 500, [message] * 3):
            stranger.socket.send_multipart(parts)
            refusal = stranger.receive()
            assert isinstance(refusal, Refusal)
            assert refusal.reason == ("not-msgpack" if parts == [b""] else "not-one-part")
        assert isinstance(good.ask(frame("north", 1, time.time_ns())), Ack)


def test_what_is_not_even_zeromq(live: Any, frame: Frames, hub_tools: ModuleType, free_port: int) -> None:
    with live(bind=f"tcp://127.0.0.1:{free_port}") as hub:
        good = hub.agent()
        assert isinstance(good.ask(frame("north", 0, time.time_ns())), Ack)
        greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL".ljust(64, b"\0")
        for raw in (
            b"GET / HTTP/1.1\r\n\r\n",
            os.urandom(5000),
            greeting[:20],
            greeting + b"\x02" + struct.pack(">Q", 2**62) + b"\x05READY",
            greeting + b"\x06" + struct.pack(">Q", 2**63 - 1),
        ):
            with socket.create_connection(("127.0.0.1", free_port), 5) as connection:
                connection.sendall(raw)
        for seq in range(1, 20):
            assert isinstance(good.ask(frame("north", seq, time.time_ns())), Ack)


def test_a_flood_does_not_keep_a_good_agent_waiting_for_ever(live: Any, frame: Frames) -> None:
    """Four strangers send as fast as their sockets take it."""
    with live() as hub:
        good = hub.agent()
        strangers = [hub.agent() for _ in range(4)]
        for seq in range(20):
            for stranger in strangers:
                for _ in range(200):
                    try:
                        stranger.socket.send(b"\x00" * 3000, zmq.NOBLOCK)
                    except zmq.Again:
                        break
            assert isinstance(good.ask(frame("north", seq, time.time_ns())), Ack)


def test_a_new_connection_does_not_take_the_place_of_another(live: Any, frame: Frames) -> None:
    """A stranger may call itself what the hub calls the owner: libzmq refuses it the name."""
    with live() as hub:
        context = zmq.Context.instance()
        named = context.socket(zmq.DEALER)
        named.routing_id, named.linger = b"owner", 0
        named.connect(hub.config.bind)
        named.send(encode(frame("north", 0, time.time_ns(), session=1)))
        assert named.poll(90_000)
        named.recv()
        thief = context.socket(zmq.DEALER)
        thief.routing_id, thief.linger = b"owner", 0
        thief.connect(hub.config.bind)
        thief.send(encode(frame("north", 9, time.time_ns(), session=2)))
        assert not thief.poll(500)
        named.send(encode(frame("north", 1, time.time_ns(), session=1)))
        assert named.poll(90_000)
        named.close(linger=0)
        thief.close(linger=0)


def test_a_time_that_nobody_can_be_that_unsure_of_stops_nobody(
    attacked: Callable[[bytes], str | None], frame: Frames
) -> None:
    """Each within what the wire allows; their sum, and what a prediction would say of it, beyond."""
    vast = OffsetEstimate(0, MAX_TIME_NS)
    now_ns = time.time_ns()
    assert attacked(encode(frame("south", 1, now_ns, hub_offset=vast))) == "implausible-time"
    message = frame("south", 2, now_ns, clock="rtcp", hub_offset=vast, camera_offset=vast)
    assert attacked(encode(message)) == "implausible-time"
