"""Bytes in and out of msgpack maps, with their caps: what wire.py and prediction.py have in common.

A peer's bytes are hostile until shown otherwise. So: the whole message is capped before it is parsed,
containers are counted while they are parsed (a message of empty lists would otherwise cost 60 times its
size in memory), a tensor's size is computed from its shape before its data is decompressed, and nothing
here can run code (no pickle, no extension types).

Every violation is a `WireError` (`values.REASONS`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgpack
import numpy as np
import numpy.typing as npt
import zstandard

from viewsync.errors import WireError
from viewsync.values import MAX_ITEMS, MAX_TEXT, WIRE_VERSION, as_list, shown, take

MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
MAX_TENSOR_BYTES: Final = 16 * 1024 * 1024  # all tensors of one message together, decompressed
MAX_CONTAINERS: Final = 1024  # lists and maps in one message
MAX_RANK: Final = 6
MAX_SIDE: Final = 65_536  # any one dimension of a tensor
ZSTD_LEVEL: Final = 1  # measured: the right default for quantised features

_FEATURE_DTYPES: Final = ("|u1", "<f2", "<f4")


class _TooManyContainersError(ValueError):
    pass


class _DuplicateKeyError(ValueError):
    pass


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
            f"the message has wire version {shown(version)}, this side speaks {WIRE_VERSION}; "
            "install the same viewsync version on both sides",
        )
    kind = take(fields, "kind")
    if type(kind) is not str:
        raise WireError("unknown-kind", f"the message's kind is {shown(kind)}; send a string")
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
        raise WireError("bad-tensor", f"{field} is {shown(array)}; give a numpy array")
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
        raise WireError("bad-tensor", f"{field} has shape {shown(shape)}; use {rule}")
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
        raise WireError("bad-tensor", f"{field} has dtype {shown(dtype_name)}; use one of {allowed}")
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
        raise WireError("bad-tensor", f"{field} has codec {shown(codec)}; use raw or zstd")
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
