"""The wire between agents and the hub, version 1: records, and the bytes they become. Pure: no socket, no
clock.

One ZeroMQ message is one msgpack map. Agents are DEALER sockets, the hub is a ROUTER.

    agent -> hub   FeatureMessage, ClockProbe
    hub -> agent   Ack or Refusal (of a FeatureMessage), ClockReply (to a ClockProbe)

The format is frozen: docs/wire.md describes it for people who write another client, and a committed file of
bytes in the tests must decode for as long as version 1 exists. Additions are new keys, which version 1
peers ignore; anything else is version 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from viewsync import packing, values
from viewsync.errors import WireError
from viewsync.packing import MAX_MESSAGE_BYTES, MAX_TENSOR_BYTES
from viewsync.values import WIRE_VERSION

__all__ = [
    "CLOCKS",
    "MAX_MESSAGE_BYTES",
    "MAX_TENSORS",
    "WIRE_VERSION",
    "Ack",
    "Clock",
    "ClockProbe",
    "ClockReply",
    "FeatureMessage",
    "Message",
    "OffsetEstimate",
    "Refusal",
    "Tensor",
    "decode",
    "encode",
]

MAX_TENSORS: Final = 16

Clock = Literal["rtcp", "arrival", "decode", "file"]
CLOCKS: Final[tuple[Clock, ...]] = ("rtcp", "arrival", "decode", "file")
Codec = Literal["raw", "zstd"]


@dataclass(frozen=True, slots=True)
class OffsetEstimate:
    """One clock minus another, and how far the truth may lie from it on either side, ns."""

    offset_ns: int
    uncertainty_ns: int

    def __post_init__(self) -> None:
        values.check_span("offset_ns", self.offset_ns)
        values.check_time("uncertainty_ns", self.uncertainty_ns)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A named array: uint8, float16 or float32, little-endian, finite. Decoded arrays are read-only."""

    name: str
    array: npt.NDArray[Any]

    def __post_init__(self) -> None:
        values.check_name("a tensor's name", self.name)
        packing.check_array(f"tensor {self.name}", self.array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        return (
            self.name == other.name
            and self.array.dtype == other.array.dtype
            and bool(np.array_equal(self.array, other.array))
        )

    __hash__ = None  # type: ignore[assignment]  # arrays can't be hashed


@dataclass(frozen=True, slots=True)
class FeatureMessage:
    """One frame of one view as features.

    `capture_ns` is in the clock that `clock` names: the camera's for `rtcp`, the agent's for `arrival`,
    `decode` and `file` (see `clock.capture_in_hub`). `camera_offset` is agent − camera, `hub_offset` hub −
    agent; None: not known. `session` is random per agent start, `seq` counts from 0 within it: together
    they say what *newest* means.
    """

    site: str
    scene: str
    view: str
    session: int
    seq: int
    capture_ns: int
    clock: Clock
    arrival_ns: int
    sent_ns: int
    camera_offset: OffsetEstimate | None
    hub_offset: OffsetEstimate | None
    features_hash: str
    tensors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        for field in ("site", "scene", "view"):
            values.check_name(field, getattr(self, field))
        for field in ("session", "seq"):
            values.check_counter(field, getattr(self, field))
        for field in ("capture_ns", "arrival_ns", "sent_ns"):
            values.check_time(field, getattr(self, field))
        values.check_choice("clock", self.clock, CLOCKS)
        values.check_hash("features_hash", self.features_hash)
        if not 1 <= len(self.tensors) <= MAX_TENSORS:
            raise WireError("bad-value", f"tensors has {len(self.tensors)} entries; send 1 to {MAX_TENSORS}")
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            raise WireError(
                "bad-tensor", f"two tensors of one message have the same name ({', '.join(names)})"
            )
        if sum(tensor.array.nbytes for tensor in self.tensors) > MAX_TENSOR_BYTES:
            raise WireError(
                "too-large", f"the tensors of one message exceed {MAX_TENSOR_BYTES} bytes together"
            )

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """The array of that name. Raises WireError (`bad-tensor`) where the message has none."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor.array
        have = ", ".join(tensor.name for tensor in self.tensors)
        raise WireError("bad-tensor", f"view {self.view} sent no tensor {name!r} (it sent {have})")


@dataclass(frozen=True, slots=True)
class Ack:
    """The hub has taken message (session, seq). t1 `sent_ns` is the message's own, t2 and t3 are the hub's
    clock.
    """

    session: int
    seq: int
    sent_ns: int
    received_ns: int
    replied_ns: int

    def __post_init__(self) -> None:
        values.check_counter("session", self.session)
        values.check_counter("seq", self.seq)
        for field in ("sent_ns", "received_ns", "replied_ns"):
            values.check_time(field, getattr(self, field))


@dataclass(frozen=True, slots=True)
class Refusal:
    """The hub has not taken a message, and why: `reason` is a slug for counting, `detail` a line for people.

    `session`, `seq` and `sent_ns` are None where the message could not be read so far.
    """

    session: int | None
    seq: int | None
    sent_ns: int | None
    received_ns: int
    replied_ns: int
    reason: str
    detail: str

    def __post_init__(self) -> None:
        for field in ("session", "seq"):
            if getattr(self, field) is not None:
                values.check_counter(field, getattr(self, field))
        if self.sent_ns is not None:
            values.check_time("sent_ns", self.sent_ns)
        values.check_time("received_ns", self.received_ns)
        values.check_time("replied_ns", self.replied_ns)
        values.check_name("reason", self.reason)
        values.check_text("detail", self.detail)


@dataclass(frozen=True, slots=True)
class ClockProbe:
    """An agent asks for the hub's time; t1 `sent_ns` is the agent's clock."""

    sent_ns: int

    def __post_init__(self) -> None:
        values.check_time("sent_ns", self.sent_ns)


@dataclass(frozen=True, slots=True)
class ClockReply:
    """The hub's answer: t1 echoed, t2 when the probe came and t3 when the answer left, in the hub's clock."""

    sent_ns: int
    received_ns: int
    replied_ns: int

    def __post_init__(self) -> None:
        for field in ("sent_ns", "received_ns", "replied_ns"):
            values.check_time(field, getattr(self, field))


Message = FeatureMessage | Ack | Refusal | ClockProbe | ClockReply


def encode(message: Message, codec: Codec = "zstd") -> bytes:
    """The bytes of one message; `codec` is for the tensors. Raises WireError (`too-large`) over
    MAX_MESSAGE_BYTES.
    """
    match message:
        case FeatureMessage():
            return packing.pack("features", _feature_fields(message, codec))
        case Ack():
            return packing.pack("ack", _plain(message, *_ACK_KEYS))
        case Refusal():
            return packing.pack("refusal", _plain(message, *_ACK_KEYS, "reason", "detail"))
        case ClockProbe():
            return packing.pack("clock", _plain(message, "sent_ns"))
        case ClockReply():
            return packing.pack("clock_reply", _plain(message, *_EXCHANGE_KEYS))


def decode(data: bytes | bytearray | memoryview) -> Message:
    """The record in one message's bytes. Never trusts them: every violation raises WireError with a reason.

    Keys that version 1 does not know are ignored; predictions are read by `prediction.decode_prediction`.
    """
    kind, fields = packing.unpack(data)
    match kind:
        case "features":
            return _feature_message(fields)
        case "ack":
            return Ack(**_taken(fields, *_ACK_KEYS))
        case "refusal":
            return Refusal(**_taken(fields, *_ACK_KEYS, "reason", "detail"))
        case "clock":
            return ClockProbe(**_taken(fields, "sent_ns"))
        case "clock_reply":
            return ClockReply(**_taken(fields, *_EXCHANGE_KEYS))
    raise WireError(
        "unknown-kind",
        f"the message is of kind {kind[:40]!r}; agents and hub exchange features and clock times",
    )


_EXCHANGE_KEYS: Final = ("sent_ns", "received_ns", "replied_ns")
_ACK_KEYS: Final = ("session", "seq", *_EXCHANGE_KEYS)
_FEATURE_KEYS: Final = (
    "site", "scene", "view", "session", "seq", "capture_ns", "clock", "arrival_ns", "sent_ns"
)  # fmt: skip


def _plain(message: object, *names: str) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names}


def _taken(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values.take(fields, name) for name in names}


def _feature_fields(message: FeatureMessage, codec: Codec) -> dict[str, Any]:
    fields = _plain(message, *_FEATURE_KEYS)
    fields["camera_offset"] = _offset_fields(message.camera_offset)
    fields["hub_offset"] = _offset_fields(message.hub_offset)
    fields["features_hash"] = message.features_hash
    fields["tensors"] = [
        {"name": tensor.name, **packing.pack_array(tensor.array, codec)} for tensor in message.tensors
    ]
    return fields


def _feature_message(fields: Mapping[str, Any]) -> FeatureMessage:
    tensors: list[Tensor] = []
    budget = MAX_TENSOR_BYTES
    for entry in values.as_list("tensors", values.take(fields, "tensors"), MAX_TENSORS):
        tensor_fields = values.as_map("a tensor", entry)
        name = values.take(tensor_fields, "name")
        values.check_name("a tensor's name", name)
        array = packing.unpack_array(f"tensor {name}", tensor_fields, budget=budget)
        budget -= array.nbytes
        tensors.append(Tensor(name, array))
    return FeatureMessage(
        **_taken(fields, *_FEATURE_KEYS),
        camera_offset=_offset("camera_offset", values.take(fields, "camera_offset")),
        hub_offset=_offset("hub_offset", values.take(fields, "hub_offset")),
        features_hash=values.take(fields, "features_hash"),
        tensors=tuple(tensors),
    )


def _offset_fields(estimate: OffsetEstimate | None) -> dict[str, int] | None:
    return None if estimate is None else _plain(estimate, "offset_ns", "uncertainty_ns")


def _offset(field: str, value: object) -> OffsetEstimate | None:
    if value is None:
        return None
    fields = values.as_map(field, value)
    return OffsetEstimate(values.take(fields, "offset_ns"), values.take(fields, "uncertainty_ns"))
