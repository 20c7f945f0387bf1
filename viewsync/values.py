"""What a value on the wire may be, and the error that says what it is not. Pure.

Records check their fields with these when they are made, so a message that was decoded and one that is to be
encoded obey the same rules. Every violation is a `WireError` whose `reason` is one of REASONS: a slug fit for
a counter's label.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from viewsync.errors import WireError

WIRE_VERSION: Final = 1
MAX_ITEMS: Final = 256  # in any one list or map
MAX_TEXT: Final = 1024  # characters in any free text
MAX_COUNTER: Final = 2**63 - 1  # session, seq
MAX_TIME_NS: Final = 2**62 - 1  # year 2116; leaves room to add two offsets within int64

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


def shown(value: object) -> str:
    """`value` as an error quotes it: at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_int(field: str, value: object, low: int, high: int) -> None:
    """Refuse anything but an int (a bool is none) within [low, high]."""
    if type(value) is not int or not low <= value <= high:
        raise WireError("bad-value", f"{field} is {shown(value)}; send an integer from {low} to {high}")


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
        raise WireError("bad-value", f"{field} is {shown(value)}; send a number")
    if not math.isfinite(value):  # type: ignore[arg-type]
        raise WireError("not-finite", f"{field} is {shown(value)}; send a finite number")
    if not low <= value <= high:  # type: ignore[operator]
        raise WireError("bad-value", f"{field} is {shown(value)}; send a number from {low} to {high}")


def check_bool(field: str, value: object) -> None:
    if type(value) is not bool:
        raise WireError("bad-value", f"{field} is {shown(value)}; send true or false")


def check_name(field: str, value: object) -> None:
    """A name that is safe in logs, labels and file names: letters, digits, '.', '_', '-'; at most 64 of
    them.
    """
    if type(value) is not str or not _NAME.fullmatch(value):
        rule = "1-64 letters, digits, '.', '_' or '-', a letter or digit first"
        raise WireError("bad-value", f"{field} is {shown(value)}; use {rule}")


def check_hash(field: str, value: object) -> None:
    """A SHA-256 in lower-case hex."""
    if type(value) is not str or not _HASH.fullmatch(value):
        raise WireError("bad-value", f"{field} is {shown(value)}; send a SHA-256 (64 lower-case hex digits)")


def check_text(field: str, value: object) -> None:
    """Free text for people: at most MAX_TEXT printable characters (so that it cannot forge log lines)."""
    if type(value) is not str or len(value) > MAX_TEXT or not value.isprintable():
        raise WireError(
            "bad-value", f"{field} is {shown(value)}; send {MAX_TEXT} printable characters at most"
        )


def check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if type(value) is not str or value not in choices:
        raise WireError("bad-value", f"{field} is {shown(value)}; send one of {', '.join(choices)}")


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
        raise WireError("bad-value", f"{field} is {shown(value)}; send a map")
    return value


def as_list(field: str, value: object, longest: int = MAX_ITEMS) -> list[Any]:
    if type(value) is not list or len(value) > longest:
        raise WireError("bad-value", f"{field} is {shown(value)}; send a list of at most {longest}")
    return value
