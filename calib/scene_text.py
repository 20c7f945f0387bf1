"""The text of `scene.yaml`: reading it strictly, writing it readably.

PyYAML alone would keep the last of two equal keys, read 1e-5 as text, and write matrices one number a line.
"""

import difflib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from calib.errors import CalibError

# A rig of a thousand cameras is about 1 MB; more is not a scene file.
_LARGEST_FILE_BYTES = 16 * 1024 * 1024

_HEADER = """\
# viewsync scene: calibrated cameras over one ground plane.
# World: metres, right-handed, z up, ground z = 0. Camera: OpenCV axes (x right, y down, z forward).
# Pixel centres at integer coordinates: (0, 0) is the centre of the top-left pixel.
"""

# By place in the file; "*" stands for a name that the user chose. The published schema says the same.
COMMENTS = {
    ("schema",): "version of this file's layout",
    ("cameras",): "one entry per view, by view id",
    ("cameras", "*", "width_px"): "image size that the intrinsics hold for",
    ("cameras", "*", "intrinsics_px"): "K: [[fx, skew, cx], [0, fy, cy], [0, 0, 1]]",
    ("cameras", "*", "distortion"): "Brown-Conrady k1, k2, p1, p2, k3 (OpenCV order)",
    ("cameras", "*", "rotation"): "R in x_camera = R x_world + t",
    ("cameras", "*", "translation_m"): "t in x_camera = R x_world + t, metres",
    ("ground",): "cells on the ground that answers are given on",
    ("ground", "origin_m"): "corner of smallest x and y: [x, y], metres",
    ("ground", "cell_m"): "side of a cell, metres",
    ("ground", "columns"): "cells along x",
    ("ground", "rows"): "cells along y",
    ("heights_m",): "heights above the ground at which views are sampled, metres, ascending",
    ("zones",): "named ground polygons",
    ("zones", "*", "polygon_m"): "corners [x, y] in order, metres",
    ("region",): "region of interest: the ground on which people matter",
    ("region", "polygon_m"): "corners [x, y] in order, metres",
    ("occluders",): "by view id: what hides whoever is behind it, for good",
    ("occluders", "*", "*", "polygon_px"): "corners [x, y] in order, pixels of that view's image",
}


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, and aliases, which let a small file stand for a huge one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.get_event()  # type: ignore[no-untyped-call]
            raise CalibError(
                f"line {event.start_mark.line + 1}: uses a YAML alias (*name): write the value out"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            text = getattr(key, "value", None)
            if isinstance(text, str):
                if text in seen:
                    line = key.start_mark.line + 1
                    raise CalibError(f"line {line}: key {text!r} is given twice: keep one of them")
                seen.add(text)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The document in `path`. CalibError if it cannot be read or is not YAML."""
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise CalibError(
                f"{path}: over {_LARGEST_FILE_BYTES // 2**20} MB, more than any such file has: check the path"
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CalibError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
    except UnicodeDecodeError as error:
        raise CalibError(f"{path}: is not UTF-8 text: check the path") from error
    try:
        # A subclass of SafeLoader: plain data only, which the rule cannot see.
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506
    except CalibError as error:
        raise CalibError(f"{path}: {error}") from None
    except RecursionError as error:
        raise CalibError(f"{path}: is nested too deeply for a scene file: check the path") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise CalibError(f"{path}{where}: is not YAML ({problem}): correct that line") from error


class Fields:
    """The keys of one mapping of a file, taken one by one; what is left at the end is an unknown key."""

    def __init__(self, file: str, where: str, value: Any) -> None:
        self._file = file
        self._where = where
        if not isinstance(value, dict):
            place = f"{file}: {where}" if where else file
            raise CalibError(f"{place}: must be a mapping of keys to values, found {_kind(value)}")
        self._left: dict[Any, Any] = dict(value)
        self._known: list[str] = []

    def _key(self, key: object) -> str:
        return f"{self._where}.{key}" if self._where else str(key)

    def error(self, key: object, problem: str) -> CalibError:
        """The error to raise about `key`, naming file and key."""
        return CalibError(f"{self._file}: {self._key(key)} {problem}")

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Puts file and key in front of errors of the records made within."""
        try:
            yield
        except CalibError as error:
            if str(error).startswith(self._file):
                raise
            place = f"{self._file}: {self._where}" if self._where else self._file
            raise CalibError(f"{place}: {error}") from None

    def take(self, key: str) -> Any:
        """The value of a key that must be there."""
        self._known.append(key)
        if key not in self._left:
            # A misspelt key is both missing and unknown: name the one that is there.
            near = difflib.get_close_matches(key, [str(other) for other in self._left], 1)
            hint = f"rename {near[0]!r}, which is not a key of a scene file" if near else "add it"
            raise self.error(key, f"is missing: {hint}")
        return self._left.pop(key)

    def numbers(self, key: str, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
        """Finite numbers of the given shape (None: any length from 1)."""
        value = self.take(key)
        wanted = "×".join("n" if size is None else str(size) for size in shape) or "one"
        try:
            array = np.array(_as_numbers(value), dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise self.error(
                key, f"is not numbers ({_kind(value)}): give {wanted} finite number(s)"
            ) from None
        fits = array.ndim == len(shape) and all(
            have == want or (want is None and have > 0) for have, want in zip(array.shape, shape, strict=True)
        )
        if not fits:
            raise self.error(key, f"has shape {array.shape}: give {wanted} number(s)")
        if not np.isfinite(array).all():
            raise self.error(key, "holds NaN or infinity: give finite numbers")
        return array

    def whole(self, key: str) -> int:
        """A whole number."""
        value = self.take(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"is {value!r}: give a whole number")
        return value

    def child(self, key: str) -> "Fields":
        """The mapping under a key that must be there."""
        return Fields(self._file, self._key(key), self.take(key))

    def optional_child(self, key: str) -> "Fields | None":
        """The mapping under a key, or None where the key is absent or empty."""
        if self._left.get(key) is None:
            self._known.append(key)
            self._left.pop(key, None)
            return None
        return self.child(key)

    def children(self, key: str, optional: bool = False) -> Iterator[tuple[Any, "Fields"]]:
        """Each (name, mapping) under a key that holds named mappings."""
        group = self.optional_child(key) if optional else self.child(key)
        if group is not None:
            yield from group.each()

    def each(self) -> Iterator[tuple[Any, "Fields"]]:
        """Each (name, mapping) of a mapping of names that the user chose; none is left after that."""
        for name, value in self._left.items():
            yield name, Fields(self._file, self._key(name), value)
        self._left = {}

    def finish(self) -> None:
        """CalibError if a key is left that nobody took."""
        for key in self._left:
            near = difflib.get_close_matches(str(key), self._known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(self._known)}"
            raise self.error(key, f"is not a known key: remove it or correct it ({hint})")


def _kind(value: Any) -> str:
    names = {type(None): "nothing", dict: "a mapping", list: "a list", str: "text", bool: "a yes/no"}
    return names.get(type(value), repr(value))


def _as_numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_numbers(item) for item in value]
    if isinstance(value, bool) or value is None:
        raise TypeError(value)
    # YAML 1.1 reads 1e-5 (no point) as text.
    return float(value) if isinstance(value, str) else value


def scene_text(document: dict[str, Any]) -> str:
    """The commented YAML of a scene document: mappings indented, each row of numbers on one line, floats
    exact.
    """
    return _HEADER + "\n".join(_lines(document, (), 0)) + "\n"


def _lines(mapping: dict[str, Any], place: tuple[str, ...], indent: int) -> Iterator[str]:
    pad = "  " * indent
    for key, value in mapping.items():
        here = (*place, key)
        comment = next((f"  # {text}" for pattern, text in COMMENTS.items() if _fits(pattern, here)), "")
        if indent == 0 and isinstance(value, dict):
            yield ""
        if isinstance(value, dict) and value:
            yield f"{pad}{_scalar(key)}:{comment}"
            yield from _lines(value, here, indent + 1)
        elif isinstance(value, list) and value and isinstance(value[0], list):
            yield f"{pad}{_scalar(key)}:{comment}"
            for row in value:
                yield f"{pad}  - {_inline(row)}"
        else:
            yield f"{pad}{_scalar(key)}: {_inline(value)}{comment}"


def _fits(pattern: tuple[str, ...], place: tuple[str, ...]) -> bool:
    return len(pattern) == len(place) and all(
        part in ("*", here) for part, here in zip(pattern, place, strict=True)
    )


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CalibError("a scene cannot hold NaN or infinity: give finite numbers")
        text = repr(value)
        mantissa, exponent, power = text.partition("e")
        return f"{mantissa}.0e{power}" if exponent and "." not in mantissa else text
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", value) and yaml.safe_load(value) == value
        return value if plain else json.dumps(value)
    return str(value)


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text` whole or not at all. CalibError if it cannot be written."""
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a scene file is shared like any other the user writes.
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise CalibError(
            f"{path}: cannot be written ({error.strerror or error}): check folder, rights and space"
        ) from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
