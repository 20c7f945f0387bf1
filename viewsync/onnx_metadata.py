"""Reading and writing one entry of an ONNX file's metadata, without the onnx package (edge and hub have
none).

An ONNX file is one protobuf message; `metadata_props` is its repeated field 14, each entry a message with
key (1) and value (2) (onnx.proto3, ModelProto and StringStringEntryProto). Everything else is stepped over
unread.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

KEY: Final = "viewsync"
_METADATA_PROPS: Final = 14
_LENGTH_DELIMITED: Final = 2


def read_metadata(model: bytes) -> dict[str, Any] | None:
    """The facts that `stamp` wrote, None where there are none. Raises ValueError where the bytes are no
    ONNX model.
    """
    found = None
    for _, _, key, value in _entries(model):
        if key == KEY:
            found = json.loads(value)
            if not isinstance(found, dict):
                raise ValueError(f"metadata {KEY!r} is not a JSON map")
    return found


def stamp(model: bytes, facts: Mapping[str, Any]) -> bytes:
    """The same model with `facts` (JSON values) as metadata entry "viewsync", in place of any it had."""
    kept = bytearray()
    end = 0
    for start, stop, key, _ in _entries(model):
        if key == KEY:
            kept += model[end:start]
            end = stop
    kept += model[end:]
    value = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
    entry = _field(1, KEY.encode()) + _field(2, value)
    return bytes(kept) + _field(_METADATA_PROPS, entry)  # fields of a protobuf message come in any order


def _entries(model: bytes) -> Iterator[tuple[int, int, str, str]]:
    """(start, stop, key, value) of each metadata entry."""
    for start, stop, number, body in _fields(model):
        if number == _METADATA_PROPS and body is not None:
            texts = {inner: text for _, _, inner, text in _fields(body) if text is not None}
            yield start, stop, texts.get(1, b"").decode(), texts.get(2, b"").decode()


def _fields(data: bytes) -> Iterator[tuple[int, int, int, bytes | None]]:
    """(start, stop, number, body) of each field; body is None unless length-delimited."""
    position = 0
    while position < len(data):
        start = position
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        body = None
        if kind == 0:
            _, position = _varint(data, position)
        elif kind == 1:
            position += 8
        elif kind == 5:
            position += 4
        elif kind == _LENGTH_DELIMITED:
            length, position = _varint(data, position)
            # Only metadata is copied: the graph next to it holds all the weights.
            small = number in (1, 2, _METADATA_PROPS)
            body = data[position : position + length] if small else None
            position += length
        else:
            raise ValueError(f"not an ONNX model: wire type {kind} at byte {start}")
        if number == 0 or position > len(data):
            raise ValueError(f"not an ONNX model: broken field at byte {start}")
        yield start, position, number, body


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError(f"not an ONNX model: broken number at byte {position}")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position


def _field(number: int, body: bytes) -> bytes:
    return _as_varint(number << 3 | _LENGTH_DELIMITED) + _as_varint(len(body)) + body


def _as_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
