"""A calibration file as text, parsed as XML, JSON, TOML or YAML by whoever asks.

Nothing here knows a format. `NotThis` is how a format declines a file, with the reason; a file that a format
recognises but cannot use is a CalibError that names file and entry.
"""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibError
from calib.scene_text import read_yaml

# The calibration of 521 cameras of the Panoptic Studio is 1 MB, a COLMAP images.txt with its points can be
# some hundred: those lines are skipped, but have to be read.
_LARGEST_FILE_BYTES = 256 * 1024 * 1024


class NotThis(Exception):
    """These files are not of this format; the message says by what one sees it, in a few words."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file: where it is and what it holds. `parsed` keeps each parse, also a failed one."""

    path: Path
    text: str
    parsed: dict[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return str(self.path)

    def _cached(self, kind: str, parse: Any) -> Any:
        if kind not in self.parsed:
            try:
                self.parsed[kind] = parse()
            except NotThis as error:
                self.parsed[kind] = error
        if isinstance(self.parsed[kind], NotThis):
            raise self.parsed[kind]
        return self.parsed[kind]

    def xml(self) -> ElementTree.Element:
        """The root element. NotThis for what is no XML, half of it, or declares entities."""
        root: ElementTree.Element = self._cached("XML", self._xml)
        return root

    def _xml(self) -> ElementTree.Element:
        if not self.text.lstrip().startswith("<"):
            raise NotThis("not XML")
        if "<!ENTITY" in self.text or "<!DOCTYPE" in self.text:
            raise NotThis("XML that declares a document type or entities, which no calibration file needs")
        try:
            return ElementTree.fromstring(self.text.lstrip())
        except ElementTree.ParseError as error:
            raise NotThis(f"not whole XML ({error}): get the file again") from None

    def json(self) -> Any:
        """The document. NotThis for what is no JSON, half of it, or gives a key twice."""
        return self._cached("JSON", self._json)

    def _json(self) -> Any:
        if not self.text.lstrip().startswith(("{", "[")):
            raise NotThis("not JSON")
        try:
            return json.loads(self.text, object_pairs_hook=_once)
        except json.JSONDecodeError as error:
            raise NotThis(f"not whole JSON ({error.msg}, line {error.lineno}): get the file again") from None
        except RecursionError:
            raise NotThis("JSON nested too deeply") from None

    def toml(self) -> dict[str, Any]:
        """The document. NotThis for what is no TOML, or half of it; tomllib refuses keys given twice."""
        document: dict[str, Any] = self._cached("TOML", self._toml)
        return document

    def _toml(self) -> dict[str, Any]:
        if self.text.lstrip().startswith(("<", "{", "%YAML")):
            raise NotThis("not TOML")
        try:
            return tomllib.loads(self.text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise NotThis(f"not TOML ({' '.join(str(error).split())})") from None

    def yaml(self) -> Any:
        """The document. NotThis for what is no YAML, gives a key twice or uses aliases."""
        return self._cached("YAML", self._yaml)

    def _yaml(self) -> Any:
        if self.text.lstrip().startswith(("<", "{", "%YAML:1.0")):
            raise NotThis("not YAML")
        try:
            return read_yaml(self.path)
        except CalibError as error:
            raise NotThis(str(error).removeprefix(f"{self.path}").lstrip(":, ")) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise NotThis(f"JSON that gives the key {key!r} twice: keep one of them")
        document[key] = value
    return document


def open_source(path: Path) -> Source:
    """Read one file. CalibError if it cannot be read, is empty, or is no text."""
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise CalibError(
                f"{path}: over {_LARGEST_FILE_BYTES // 2**20} MB, no calibration: check the path"
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CalibError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
    except UnicodeDecodeError as error:
        raise CalibError(
            f"{path}: is not text, so no calibration that is read here (a COLMAP model in .bin? save it as "
            "text: colmap model_converter --output_type TXT)"
        ) from error
    if not text.strip():
        raise CalibError(f"{path}: is empty: get the file again")
    return Source(path, text)


def shared_place(sources: Sequence[Source]) -> str:
    """What to call these files in one word: the file, or the folder they share."""
    first = sources[0].path
    return str(first) if len(sources) == 1 else str(first.parent)


def numbers(place: str, value: Any, *shape: int) -> NDArray[np.float64]:
    """Finite numbers of this shape, however nested or flat they are given; `place` names file and entry.

    Raises CalibError that names the place, what is there, and what is wanted.
    """
    wanted = "×".join(map(str, shape))
    if value is None:
        raise CalibError(f"{place} is missing: it must be {wanted} numbers; get the whole file")
    try:
        array = np.array(value, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise CalibError(f"{place} is not {wanted} numbers: correct it, or get the whole file") from None
    if array.size != int(np.prod(shape)):
        raise CalibError(f"{place} has {array.size} numbers where {wanted} belong: correct it")
    if not np.isfinite(array).all():
        raise CalibError(f"{place} holds NaN or infinity: give finite numbers")
    return array.reshape(shape)


def image_size(place: str, value: Any) -> tuple[int, int]:
    """(width, height) in whole pixels. CalibError that names the place if it is none."""
    width, height = numbers(f"{place}: image size", value, 2)
    if not (1 <= width <= 32_767 and 1 <= height <= 32_767) or width % 1 or height % 1:
        raise CalibError(f"{place}: image size is {width:g}x{height:g}: it must be whole pixels, 1 to 32767")
    return int(width), int(height)


def entry(place: str, mapping: Any, *keys: str) -> Any:
    """The first of these keys that a mapping has. CalibError that names the place if it has none."""
    if not isinstance(mapping, dict):
        raise CalibError(f"{place} is no table of entries: get the whole file")
    for key in keys:
        if key in mapping:
            return mapping[key]
    raise CalibError(f"{place} has no {' or '.join(keys)}: get the whole file")
