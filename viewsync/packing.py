"""Bytes in and out of msgpack maps, with every cap in one place: what wire.py and prediction.py have in
common.

A peer's bytes are hostile until shown otherwise. So: the whole message is capped before it is parsed,
containers are counted while they are parsed (a message of empty lists would otherwise cost 60 times its
size in memory), a tensor's size is computed from its shape before its data is decompressed, and nothing
here can run code (no pickle, no extension types).

Every violation is a `WireError` whose `reason` is one of REASONS: a slug fit for a counter's label.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import msgpack
import numpy as np
import numpy.typing as npt
import zstandard

from viewsync.errors import WireError

WIRE_VERSION: Final = 1
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
MAX_TENSOR_BYTES: Final = 16 * 1024 * 1024  # all tensors of one message together, decompressed
MAX_ITEMS: Final = 256  # in any one list or map
MAX_CONTAINERS: Final = 1024  # lists and maps in one message
MAX_TEXT: Final = 1024  # characters in any free text
MAX_RANK: Final = 6
MAX_SIDE: Final = 65_536  # any one dimension of a tensor
MAX_COUNTER: Final = 2**63 - 1  # session, seq
MAX_TIME_NS: Final = 2**62 - 1  # year 2116; leaves room to add two offsets within int64
ZSTD_LEVEL: Final = 1  # measured: the right default for quantised features

REASONS: Final = frozenset(
    {
        "too-large",  # the message or a tensor is over its cap
        "not-msgpack",  # not one msgpack map: random, truncated, pickled, nested too deep, duplicate keys
        "wire-version",  # another version of the protocol
        "unknown-kind",  # a map of no kind that this side reads
        "missing-key",
        "bad-value",  # wrong type or out of range
        "bad-tensor",  # shape, dtype, codec and data disagree
        "not-finite",  # NaN or infinity
        "clock-unknown",  # a capture time that nothing relates to the hub's clock (clock.capture_in_hub)
    }
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_FEATURE_DTYPES: Final = ("|u1", "<f2", "<f4")


class _TooManyContainersError(ValueError):
    pass


class _DuplicateKeyError(ValueError):
    pass


# --- values -----------------------------------------------------------------------------------------------


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_int(field: str, value: object, low: int, high: int) -> None:
    """Refuse anything but an int (a bool is none) within [low, high]."""
    if type(value) is not int or not low <= value <= high:
        raise WireError("bad-value", f"{field} is {_shown(value)}; send an integer from {low} to {high}")


def check_counter(field: str, value: object) -> None:
    """`session` and `seq`: 0 … 2^63 − 1."""
    check_int(field, value, 0, MAX_COUNTER)


def check_time(field: str, value: object) -> None:
    """A UTC time in nanoseconds, 1970 … 2116. That it is *plausible* is for the receiver's policy, not for
    the wire.
    """
    check_int(field, value, 0, MAX_TIME_NS)


def check_span(field: str, value: object) -> None:
    """A signed difference of two times, ns."""
    check_int(field, value, -MAX_TIME_NS, MAX_TIME_NS)


def check_number(field: str, value: object, low: float = -math.inf, high: float = math.inf) -> None:
    """Refuse anything but a finite float or int within [low, high]."""
    if type(value) not in (float, int):
        raise WireError("bad-value", f"{field} is {_shown(value)}; send a number")
    if not math.isfinite(value):  # type: ignore[arg-type]
        raise WireError("not-finite", f"{field} is {_shown(value)}; send a finite number")
    if not low <= value <= high:  # type: ignore[operator]
        raise WireError("bad-value", f"{field} is {_shown(value)}; send a number from {low} to {high}")


def check_bool(field: str, value: object) -> None:
    if type(value) is not bool:
        raise WireError("bad-value", f"{field} is {_shown(value)}; send true or false")


def check_name(field: str, value: object) -> None:
    """A name that is safe in logs, labels and file names: letters, digits, '.', '_', '-'; at most 64 of
    them.
    """
    if type(value) is not str or not _NAME.fullmatch(value):
        rule = "1-64 letters, digits, '.', '_' or '-', a letter or digit first"
        raise WireError("bad-value", f"{field} is {_shown(value)}; use {rule}")


def check_hash(field: str, value: object) -> None:
    """A SHA-256 in lower-case hex."""
    if type(value) is not str or not _HASH.fullmatch(value):
        raise WireError("bad-value", f"{field} is {_shown(value)}; send a SHA-256 (64 lower-case hex digits)")


def check_text(field: str, value: object) -> None:
    """Free text for people: at most MAX_TEXT printable characters (so that it cannot forge log lines)."""
    if type(value) is not str or len(value) > MAX_TEXT or not value.isprintable():
        raise WireError(
            "bad-value", f"{field} is {_shown(value)}; send {MAX_TEXT} printable characters at most"
        )


def check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if type(value) is not str or value not in choices:
        raise WireError("bad-value", f"{field} is {_shown(value)}; send one of {', '.join(choices)}")


def take(fields: Mapping[str, Any], key: str) -> Any:
    """The value of a key that must be there. Its type is checked by the record that it becomes part of."""
    try:
        return fields[key]
    except KeyError:
        raise WireError(
            "missing-key", f"the message has no {key!r}, which version {WIRE_VERSION} needs"
        ) from None


def as_map(field: str, value: object) -> dict[str, Any]:
    if type(value) is not dict:
        raise WireError("bad-value", f"{field} is {_shown(value)}; send a map")
    return value


def as_list(field: str, value: object, longest: int = MAX_ITEMS) -> list[Any]:
    if type(value) is not list or len(value) > longest:
        raise WireError("bad-value", f"{field} is {_shown(value)}; send a list of at most {longest}")
    return value


# --- messages ---------------------------------------------------------------------------------------------


def pack(kind: str, fields: Mapping[str, Any]) -> bytes:
    """One message: `fields` with the version and the kind before them."""
    try:
        data = msgpack.packb({"v": WIRE_VERSION, "kind": kind, **fields}, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError("bad-value", f"a {kind} message cannot be written: {error}") from error
    assert isinstance(data, bytes)
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(
            "too-large",
            f"a {kind} message has {len(data)} bytes, the limit is {MAX_MESSAGE_BYTES}; "
            "send fewer channels or a coarser stride",
        )
    return data


def unpack(data: bytes | bytearray | memoryview) -> tuple[str, dict[str, Any]]:
    """(kind, fields) of one message of this wire version.

    Unknown keys stay in `fields` and are ignored by the records: a later minor addition does not break a
    version 1 peer. Raises WireError for everything else.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError("too-large", f"the message has {len(data)} bytes, the limit is {MAX_MESSAGE_BYTES}")
    fields = _parse(data)
    version = take(fields, "v")
    if type(version) is not int or version != WIRE_VERSION:
        raise WireError(
            "wire-version",
            f"the message has wire version {_shown(version)}, this side speaks {WIRE_VERSION}; "
            "install the same viewsync version on both sides",
        )
    kind = take(fields, "kind")
    if type(kind) is not str:
        raise WireError("unknown-kind", f"the message's kind is {_shown(kind)}; send a string")
    return kind, fields


def _parse(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    containers = 0

    def count_list(items: list[Any]) -> list[Any]:
        nonlocal containers
        containers += 1
        if containers > MAX_CONTAINERS:
            raise _TooManyContainersError
        return items

    def make_map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal containers
        containers += 1
        if containers > MAX_CONTAINERS:
            raise _TooManyContainersError
        result = dict(pairs)
        if len(result) != len(pairs):
            raise _DuplicateKeyError
        return result

    try:
        fields = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            list_hook=count_list,
            object_pairs_hook=make_map,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_str_len=4 * MAX_TEXT,
            max_bin_len=MAX_MESSAGE_BYTES,
            max_ext_len=0,
        )
    except _TooManyContainersError:
        raise WireError("not-msgpack", f"the message has more than {MAX_CONTAINERS} lists and maps") from None
    except _DuplicateKeyError:
        raise WireError("not-msgpack", "a map in the message has a key twice") from None
    except (msgpack.UnpackException, ValueError, TypeError, OverflowError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"[:200]
        raise WireError("not-msgpack", f"the message is not valid msgpack ({why})") from None
    if type(fields) is not dict or not all(type(key) is str for key in fields):
        raise WireError("not-msgpack", "the message is not a msgpack map with text keys")
    return fields


# --- arrays -----------------------------------------------------------------------------------------------


def check_array(field: str, array: object, dtypes: tuple[str, ...] = _FEATURE_DTYPES) -> None:
    """Refuse anything but a numpy array of an allowed dtype and shape whose values are finite."""
    if not isinstance(array, np.ndarray):
        raise WireError("bad-tensor", f"{field} is {_shown(array)}; give a numpy array")
    if array.dtype.str not in dtypes:
        raise WireError("bad-tensor", f"{field} has dtype {array.dtype.str}; use one of {', '.join(dtypes)}")
    check_shape(field, array.shape, array.dtype)
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        bad = int(array.size - np.isfinite(array).sum())
        raise WireError("not-finite", f"{field} has {bad} of {array.size} values NaN or infinite")


def check_shape(field: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of an array of this shape; refuses shapes over the caps before anybody allocates."""
    if len(shape) > MAX_RANK or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in shape):
        rule = f"at most {MAX_RANK} sides of 1 to {MAX_SIDE}"
        raise WireError("bad-tensor", f"{field} has shape {_shown(shape)}; use {rule}")
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_TENSOR_BYTES:
        raise WireError("too-large", f"{field} has {size} bytes, the limit is {MAX_TENSOR_BYTES}")
    return size


def pack_array(array: npt.NDArray[Any], codec: str) -> dict[str, Any]:
    """`{dtype, shape, codec, data}`. `zstd` falls back to `raw` where compression does not pay."""
    data = np.ascontiguousarray(array).tobytes()
    if codec == "zstd":
        packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=True).compress(data)
        if len(packed) < len(data):
            return {"dtype": array.dtype.str, "shape": list(array.shape), "codec": "zstd", "data": packed}
    elif codec != "raw":
        raise WireError("bad-tensor", f"codec {codec!r} is unknown; use raw or zstd")
    return {"dtype": array.dtype.str, "shape": list(array.shape), "codec": "raw", "data": data}


def unpack_array(
    field: str,
    fields: Mapping[str, Any],
    dtypes: tuple[str, ...] = _FEATURE_DTYPES,
    budget: int = MAX_TENSOR_BYTES,
) -> npt.NDArray[Any]:
    """The read-only array in a `{dtype, shape, codec, data}` map; `budget` caps its decompressed bytes."""
    dtype_name, codec, data = take(fields, "dtype"), take(fields, "codec"), take(fields, "data")
    if type(dtype_name) is not str or dtype_name not in dtypes:
        allowed = ", ".join(dtypes)
        raise WireError("bad-tensor", f"{field} has dtype {_shown(dtype_name)}; use one of {allowed}")
    if type(data) is not bytes:
        raise WireError("bad-tensor", f"{field} has data of type {type(data).__name__}; send binary data")
    dtype = np.dtype(dtype_name)
    shape = tuple(as_list(f"{field}'s shape", take(fields, "shape"), MAX_RANK))
    size = check_shape(field, shape, dtype)
    if size > budget:
        raise WireError("too-large", f"{field} takes the message's tensors over {MAX_TENSOR_BYTES} bytes")
    if codec == "zstd":
        data = _decompress(field, data, size)
    elif codec != "raw":
        raise WireError("bad-tensor", f"{field} has codec {_shown(codec)}; use raw or zstd")
    if len(data) != size:
        raise WireError("bad-tensor", f"{field} has {len(data)} bytes of data, its shape needs {size}")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _decompress(field: str, data: bytes, size: int) -> bytes:
    try:
        header = zstandard.get_frame_parameters(data)
        # The frame must state exactly the size that the shape demands: nothing is allocated for any other
        # claim.
        if header.content_size != size:
            raise WireError(
                "bad-tensor", f"{field}'s zstd frame does not state the {size} bytes of its shape"
            )
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_TENSOR_BYTES)
        return decompressor.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise WireError("bad-tensor", f"{field}'s data is not one zstd frame ({error})") from None
