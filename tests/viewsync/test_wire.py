"""Version 1 is frozen: committed bytes decode for ever, and no bytes at all do harm."""

from __future__ import annotations

import math
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from viewsync import packing, values, wire
from viewsync.errors import WireError
from viewsync.wire import Ack, ClockProbe, ClockReply, FeatureMessage, OffsetEstimate, Refusal, Tensor

GOLDEN = Path(__file__).parent / "golden"
HASH = "0123456789abcdef" * 4

TENSORS = (
    Tensor("features", np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)),
    Tensor("half", np.array([0.5, -2.0, 65504.0], "<f2")),
    Tensor("single", np.array([[1.5, -0.25]], "<f4")),
)
FEATURES = FeatureMessage(
    site="yard",
    scene="plaza",
    view="north",
    session=2**63 - 1,
    seq=7,
    capture_ns=1_700_000_000_123_456_789,
    clock="rtcp",
    arrival_ns=1_700_000_005_200_000_000,
    sent_ns=1_700_000_005_230_000_000,
    camera_offset=OffsetEstimate(5_000_000_000, 500_000_000),
    hub_offset=OffsetEstimate(-1_250_000, 800_000),
    features_hash=HASH,
    tensors=TENSORS,
)
MESSAGES: dict[str, wire.Message] = {
    "features": FEATURES,
    "features-no-offsets": replace(
        FEATURES, clock="arrival", camera_offset=None, hub_offset=None, tensors=TENSORS[:1]
    ),
    "ack": Ack(5, 7, 100, 200, 300),
    "refusal": Refusal(5, 7, 100, 200, 300, "future", "view north is 3.2 s ahead of the hub's clock"),
    "refusal-unread": Refusal(None, None, None, 200, 300, "not-msgpack", "the message is not valid msgpack"),
    "clock": ClockProbe(100),
    "clock_reply": ClockReply(100, 200, 300),
}


def tampered(**changes: Any) -> bytes:
    """FEATURES' bytes with keys replaced, added, or (…) removed."""
    fields = msgpack.unpackb(wire.encode(FEATURES, "raw"))
    for key, value in changes.items():
        if value is ...:
            del fields[key]
        else:
            fields[key] = value
    return msgpack.packb(fields)  # type: ignore[no-any-return]


def tensor_with(**changes: Any) -> bytes:
    fields: dict[str, Any] = {"name": "t", "dtype": "|u1", "shape": [2, 3], "codec": "raw", "data": b"abcdef"}
    return tampered(tensors=[{k: v for k, v in (fields | changes).items() if v is not ...}])


def reason_of(data: bytes) -> str:
    with pytest.raises(WireError) as caught:
        wire.decode(data)
    assert caught.value.reason in values.REASONS
    assert "\n" not in str(caught.value)
    return caught.value.reason


# --- the format -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_bytes_of_version_1_decode_for_ever_and_are_still_written(name: str) -> None:
    data = (GOLDEN / f"{name}.bin").read_bytes()
    assert wire.decode(data) == MESSAGES[name]
    assert wire.encode(MESSAGES[name], "raw") == data


def test_golden_zstd_bytes_decode_for_ever() -> None:
    # What the compressor writes may change with its version, what it wrote must stay readable.
    message = replace(FEATURES, tensors=(Tensor("features", np.zeros((1, 16, 18, 24), np.uint8)),))
    assert wire.decode((GOLDEN / "features-zstd.bin").read_bytes()) == message


def test_the_documented_keys_are_the_keys_on_the_wire() -> None:
    fields = msgpack.unpackb(wire.encode(FEATURES))
    assert fields["v"] == 1 and fields["kind"] == "features"
    documented = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
    for key in [*fields, *fields["tensors"][0], *fields["hub_offset"]]:
        assert f"`{key}`" in documented, key
    for name, message in MESSAGES.items():
        for key in msgpack.unpackb(wire.encode(message)):
            assert f"`{key}`" in documented, (name, key)
    for reason in values.REASONS:
        assert f"`{reason}`" in documented, reason


_dtype = st.sampled_from(["|u1", "<f2", "<f4"])


@st.composite
def tensors(draw: st.DrawFn) -> tuple[Tensor, ...]:
    name = st.from_regex(r"[a-z][a-z0-9._-]{0,9}", fullmatch=True)
    names = draw(st.lists(name, min_size=1, max_size=4, unique=True))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    result = []
    for each in names:
        shape = draw(st.lists(st.integers(1, 7), min_size=0, max_size=5))
        result.append(Tensor(each, np.asarray(rng.integers(0, 100, shape)).astype(draw(_dtype))))
    return tuple(result)


times = st.integers(0, values.MAX_TIME_NS)
offsets = st.none() | st.builds(OffsetEstimate, st.integers(-values.MAX_TIME_NS, values.MAX_TIME_NS), times)
feature_messages = st.builds(
    FeatureMessage,
    *[st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)] * 3,
    session=st.integers(0, 2**63 - 1),
    seq=st.integers(0, 2**63 - 1),
    capture_ns=times,
    clock=st.sampled_from(wire.CLOCKS),
    arrival_ns=times,
    sent_ns=times,
    camera_offset=offsets,
    hub_offset=offsets,
    features_hash=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    tensors=tensors(),
)


@given(feature_messages, st.sampled_from(["raw", "zstd"]))
def test_decode_undoes_encode(message: FeatureMessage, codec: Any) -> None:
    assert wire.decode(wire.encode(message, codec)) == message


def test_compression_is_used_where_it_pays_only() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64)).astype(np.uint8)
    for array, codec in ((np.zeros((64, 64), np.uint8), "zstd"), (noise, "raw")):
        fields = msgpack.unpackb(wire.encode(replace(FEATURES, tensors=(Tensor("t", array),))))
        assert fields["tensors"][0]["codec"] == codec


def test_a_decoded_tensor_cannot_be_written_to() -> None:
    message = wire.decode(wire.encode(FEATURES))
    assert isinstance(message, FeatureMessage)
    with pytest.raises(ValueError, match="read-only"):
        message.tensor("features")[0] = 1
    with pytest.raises(WireError, match="no tensor 'flow'"):
        message.tensor("flow")


def test_keys_of_a_later_addition_are_ignored() -> None:
    with_more = msgpack.unpackb(tampered(weather={"rain": 1.5}, notes=["a"]))
    with_more["tensors"][0]["scale"] = 2.0
    with_more["hub_offset"]["drift_ppm"] = 3
    assert wire.decode(msgpack.packb(with_more)) == FEATURES


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not-msgpack"),
        (b"\xc1", "not-msgpack"),
        (b"GET / HTTP/1.1\r\n\r\n", "not-msgpack"),
        (pickle.dumps({"v": 1, "kind": "clock", "sent_ns": 1}), "not-msgpack"),
        (msgpack.packb([1, 2]), "not-msgpack"),
        (msgpack.packb({1: 2}), "not-msgpack"),
        (msgpack.packb({b"v": 1}), "not-msgpack"),
        (msgpack.packb({"v": 1, "kind": "clock", "sent_ns": msgpack.ExtType(3, b"x")}), "not-msgpack"),
        (msgpack.packb({"v": 1, "kind": "clock", "sent_ns": msgpack.Timestamp(1)}), "not-msgpack"),
        (b"\x82\xa1v\x01\xa1v\x01", "not-msgpack"),  # a key twice
        (wire.encode(ClockProbe(1)) + b"\x00", "not-msgpack"),
        (b"\x91" * 100_000, "not-msgpack"),  # nested too deep
        (b"\xdd\xff\xff\xff\xff", "not-msgpack"),  # a list of four thousand million
        (b"\xc6\xff\xff\xff\xff", "not-msgpack"),  # 4 GiB of data
        (msgpack.packb({"kind": "clock", "sent_ns": 1}), "missing-key"),
        (msgpack.packb({"v": 2, "kind": "clock", "sent_ns": 1}), "wire-version"),
        (msgpack.packb({"v": True, "kind": "clock", "sent_ns": 1}), "wire-version"),
        (msgpack.packb({"v": 1.0, "kind": "clock", "sent_ns": 1}), "wire-version"),
        (msgpack.packb({"v": 1, "kind": "prediction"}), "unknown-kind"),
        (msgpack.packb({"v": 1, "kind": 3}), "unknown-kind"),
        (msgpack.packb({"v": 1, "kind": "clock"}), "missing-key"),
        (msgpack.packb({"v": 1, "kind": "clock", "sent_ns": True}), "bad-value"),
        (msgpack.packb({"v": 1, "kind": "clock", "sent_ns": 1.0}), "bad-value"),
        (msgpack.packb({"v": 1, "kind": "clock", "sent_ns": -1}), "bad-value"),
        (msgpack.packb({"v": 1, "kind": "clock", "sent_ns": 2**63}), "bad-value"),
        (bytes(packing.MAX_MESSAGE_BYTES + 1), "too-large"),
        (tampered(seq=-1), "bad-value"),
        (tampered(session="5"), "bad-value"),
        (tampered(view="../etc"), "bad-value"),
        (tampered(view="north\nERROR forged"), "bad-value"),
        (tampered(view=""), "bad-value"),
        (tampered(view="x" * 65), "bad-value"),
        (tampered(site=None), "bad-value"),
        (tampered(scene=["plaza"]), "bad-value"),
        (tampered(clock="guess"), "bad-value"),
        (tampered(clock=["rtcp"]), "bad-value"),
        (tampered(features_hash="abc"), "bad-value"),
        (tampered(hub_offset=5), "bad-value"),
        (tampered(hub_offset={"offset_ns": 5}), "missing-key"),
        (tampered(camera_offset={"offset_ns": 5, "uncertainty_ns": -1}), "bad-value"),
        (tampered(camera_offset=...), "missing-key"),
        (tampered(tensors=...), "missing-key"),
        (tampered(tensors=[]), "bad-value"),
        (tampered(tensors={}), "bad-value"),
        (tampered(tensors=[1]), "bad-value"),
        (tensor_with(name=7), "bad-value"),
        (tensor_with(data=...), "missing-key"),
        (tensor_with(data="abcdef"), "bad-tensor"),
        (tensor_with(data=b"abcde"), "bad-tensor"),
        (tensor_with(dtype="|O"), "bad-tensor"),
        (tensor_with(dtype="<f8"), "bad-tensor"),
        (tensor_with(dtype=["|u1"]), "bad-tensor"),
        (tensor_with(codec="pickle"), "bad-tensor"),
        (tensor_with(codec="zstd"), "bad-tensor"),
        (tensor_with(shape=[2, -3]), "bad-tensor"),
        (tensor_with(shape=[0, 6]), "bad-tensor"),
        (tensor_with(shape=[2.0, 3]), "bad-tensor"),
        (tensor_with(shape=[True, 6]), "bad-tensor"),
        (tensor_with(shape=[1] * 7), "bad-value"),
        (tensor_with(shape=[65_536] * 6), "too-large"),
        (tensor_with(shape=[2**62, 4]), "bad-tensor"),
        (tensor_with(dtype="<f4", shape=[1], data=np.float32("nan").tobytes()), "not-finite"),
        (tensor_with(dtype="<f2", shape=[1], data=np.float16("-inf").tobytes()), "not-finite"),
        (msgpack.packb(msgpack.unpackb(tampered()) | {"tensors": [
            {"name": "t", "dtype": "|u1", "shape": [1], "codec": "raw", "data": b"a"}] * 2}), "bad-tensor"),
    ],
)  # fmt: skip
def test_what_breaks_the_format_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def compressed(size: int, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(level=19, **options).compress(bytes(size))


@pytest.mark.parametrize(
    "data",
    [
        compressed(packing.MAX_TENSOR_BYTES),  # a bomb under a small shape
        compressed(5),
        compressed(6, write_content_size=False),
        compressed(6) + b"x",
        compressed(6) + compressed(6),
        compressed(6)[:-1],
        b"\x28\xb5\x2f\xfd" + b"\xff" * 20,
        b"",
    ],
)
def test_a_zstd_frame_must_hold_exactly_what_the_shape_says(data: bytes) -> None:
    assert reason_of(tensor_with(codec="zstd", data=data)) == "bad-tensor"


def test_many_tensors_cannot_add_up_to_more_than_one_may_have() -> None:
    size = packing.MAX_TENSOR_BYTES // 2
    entry = {"dtype": "|u1", "shape": [size // 4096, 4096], "codec": "zstd", "data": compressed(size)}
    entries = [{"name": f"t{i}", **entry} for i in range(wire.MAX_TENSORS)]
    assert reason_of(tampered(tensors=entries)) == "too-large"


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x90" * packing.MAX_MESSAGE_BYTES,
        (b"\xdc\x01\x00" + b"\x90" * 256) * 32_000,
        b"\xdc\x01\x00" + (b"\xdc\x01\x00" + b"\x90" * 256) * 256,
        b"\xdc\x01\x00" * (packing.MAX_MESSAGE_BYTES // 3),
        b"\xdc\x01\x00" + b"\xdc\x01\x00" * 256 + b"\xdc\x01\x00" * 256,
        tensor_with(codec="zstd", data=compressed(2**27)),
        tensor_with(codec="zstd", shape=[65_536, 65_536], data=compressed(2**27)),
    ],
)
def test_no_message_makes_the_receiver_allocate_much_more_than_its_size(bomb: bytes) -> None:
    tracemalloc.start()
    try:
        reason_of(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Twice the message, for copies inside msgpack; 4 MiB for lists it had begun (1024 of 256 pointers).
    assert peak < 2 * len(bomb) + 4 * 2**20


def test_what_would_be_refused_there_is_not_sent_here() -> None:
    with pytest.raises(WireError, match="NaN"):
        Tensor("t", np.array([1.0, math.nan], np.float32))
    with pytest.raises(WireError, match="dtype"):
        Tensor("t", np.zeros(3))
    with pytest.raises(WireError, match="same name"):
        replace(FEATURES, tensors=(TENSORS[0], TENSORS[0]))
    noise = np.random.default_rng(0).integers(0, 256, (9, 1024, 1024)).astype(np.uint8)
    with pytest.raises(WireError, match="too-large"):
        wire.encode(replace(FEATURES, tensors=(Tensor("t", noise),)))


# --- fuzz: whatever the bytes, a message or a WireError -------------------------------------------------


def decodes_or_refuses(data: bytes) -> None:
    try:
        message = wire.decode(data)
    except WireError as error:
        assert error.reason in values.REASONS
    else:
        assert wire.decode(wire.encode(message)) == message


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_random_bytes(data: bytes) -> None:
    decodes_or_refuses(data)


@given(st.sampled_from(sorted(MESSAGES)), st.data())
@settings(max_examples=300)
def test_truncation(name: str, data: st.DataObject) -> None:
    whole = wire.encode(MESSAGES[name])
    cut = data.draw(st.integers(0, len(whole) - 1))
    reason_of(whole[:cut])


@given(
    st.sampled_from(sorted(MESSAGES)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1),
)
@settings(max_examples=500)
def test_bit_flips(name: str, flips: list[tuple[float, int]]) -> None:
    data = bytearray(wire.encode(MESSAGES[name]))
    for where, bit in flips:
        data[int(where * len(data))] ^= 1 << bit
    decodes_or_refuses(bytes(data))


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
_keys = sorted(msgpack.unpackb(wire.encode(FEATURES)))


@given(st.dictionaries(st.sampled_from(_keys), json_like, min_size=1, max_size=3))
@settings(max_examples=500)
def test_any_value_under_any_key(changes: dict[str, Any]) -> None:
    decodes_or_refuses(tampered(**changes))


@given(st.dictionaries(st.sampled_from(["name", "dtype", "shape", "codec", "data"]), json_like, min_size=1))
@settings(max_examples=500)
def test_any_value_in_a_tensor(changes: dict[str, Any]) -> None:
    decodes_or_refuses(tensor_with(**changes))
