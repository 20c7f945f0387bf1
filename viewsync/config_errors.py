"""What is wrong with a configuration, for the person who wrote it: pydantic's problems in plain words."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from viewsync.redact import redact

_Key = tuple[str, ...]
_IN_PLAIN_WORDS = {
    "tuple_type": "give a list, such as [one, two]",
    "list_type": "give a list, such as [one, two]",
    "string_type": "give a text; yes, no, on, off and numbers need quotes around them",
    "bool_parsing": "give true or false",
    "int_parsing": "give a whole number",
    "float_parsing": "give a number",
}


def describe(
    model: type[pydantic.BaseModel],
    error: pydantic.ValidationError,
    origins: Mapping[_Key, str],
    path: Path | None,
    flags: Mapping[_Key, str],
) -> str:
    """All problems on one line; unknown keys first, because they often cause the missing ones.

    origins: where keys that are not from the file came from; flags: the flag that sets a key, by key.
    """
    problems = sorted(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
    lines = []
    for problem in problems[:4]:
        loc = tuple(str(part) for part in problem["loc"])
        origin = next((text for key, text in origins.items() if loc[: len(key)] == key), None)
        where, dotted = origin or (str(path) if path else "configuration"), ".".join(loc)
        # A flag or variable is its own place; only of one that holds several keys must the key be told.
        names_it = origin is not None and origins.get(loc) == origin
        match problem["type"]:
            case "extra_forbidden":
                valid = _valid_names(model, problem["loc"][:-1])
                near = nearest(loc[-1], valid)
                hint = f"did you mean {near!r}?" if near else f"valid here: {', '.join(valid)}"
                lines.append(f"{where}: unknown key {dotted!r}; {hint}")
            case "missing":
                flag = next((flag for key, flag in flags.items() if key[: len(loc)] == loc), None)
                lines.append(f"{where}: {dotted!r} is missing; {f'give {flag}' if flag else 'add it'}")
            case "model_type":
                below = f"keys below it ({', '.join(_valid_names(model, problem['loc']))})"
                lines.append(f"{where}: {dotted!r} has {below}, got {_shown(problem['input'])}")
            case kind:
                said = _IN_PLAIN_WORDS.get(kind)
                message = said or re.sub("^(Value error|Assertion failed), ", "", problem["msg"])
                told = kind in ("value_error", "assertion_error")
                got = "" if told else f" (got {_shown(problem['input'])})"
                lines.append(f"{where}: {dotted + ': ' if dotted and not names_it else ''}{message}{got}")
    if len(problems) > 4:
        lines.append(f"and {len(problems) - 4} more")
    return redact("; ".join(" ".join(line.split()) for line in lines))


def _valid_names(annotation: Any, loc: Sequence[int | str]) -> list[str]:
    """Field names of the model at `loc`, walking through optional, union, mapping and list types."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        if not loc:
            return sorted(field.alias or name for name, field in annotation.model_fields.items())
        for name, field in annotation.model_fields.items():
            if loc[0] in (name, field.alias):
                return _valid_names(field.annotation, loc[1:])
        # A union's error names the member it tried: step over that part.
        return _valid_names(annotation, loc[1:]) if loc[0] == annotation.__name__ else []
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _valid_names(arguments[0], loc)
    if origin in (typing.Union, types.UnionType):
        found: list[str] = []
        for member in arguments:
            found += _valid_names(member, loc) or (_valid_names(member, loc[1:]) if loc else [])
        return sorted(set(found))
    if not arguments or not loc:
        return []
    return _valid_names(arguments[1] if _is_mapping(origin) else arguments[0], loc[1:])


def takes_only_numbers(annotation: Any) -> bool:
    """Whether a field of this type takes a number and neither true nor false."""
    members = typing.get_args(annotation) if not isinstance(annotation, type) else (annotation,)
    if typing.get_origin(annotation) is typing.Annotated:
        return takes_only_numbers(members[0])
    return (int in members or float in members) and bool not in members


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def nearest(name: str, valid: Sequence[str], cutoff: float = 0.5) -> str | None:
    return next(iter(difflib.get_close_matches(name, valid, n=1, cutoff=cutoff)), None)


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return kind_of(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def kind_of(value: Any) -> str:
    return {"dict": "a mapping", "list": "a list", "str": "a text"}.get(type(value).__name__, repr(value))
