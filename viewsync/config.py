"""One YAML file per program, made into one frozen pydantic model.

Later wins: the model's defaults, the file, environment variables `VIEWSYNC_SECTION__KEY`, and last
`--set section.key=value`. `${VAR}` and `${VAR:-default}` expand inside the file's strings (`$${` stands for a
literal `${`). Whatever is wrong ends in a `ConfigError` of one line that names the file (or variable, or
flag), the key, and the nearest valid name.
"""

import logging
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from viewsync.config_errors import describe, kind_of, nearest, takes_only_numbers
from viewsync.errors import ConfigError

_log = logging.getLogger(__name__)

PREFIX = "VIEWSYNC_"
# Where real scenes find their data: never a setting, though `train` has a key `data`.
RESERVED = "VIEWSYNC_DATA"
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")
_Key = tuple[str, ...]


class Section(pydantic.BaseModel):
    """Base of every configuration model: frozen, and a key it does not know is an error."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, values: Any) -> Any:
        # YAML makes true of yes and on, and pydantic makes 1 of true.
        if isinstance(values, Mapping):
            for name, value in values.items():
                field = cls.model_fields.get(str(name))
                if isinstance(value, bool) and field is not None and takes_only_numbers(field.annotation):
                    raise ValueError(f"{name} is {str(value).lower()}; give a number")
        return values


@dataclass(frozen=True, slots=True)
class Flag:
    """A command's flag that sets a key; value None: not given. name: such as --bundle;
    what follows a comma is an example, for where it is missing."""

    name: str
    key: str
    value: str | None


Model = TypeVar("Model", bound=pydantic.BaseModel)


def load_config(
    model: type[Model],
    path: Path | None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    flags: Sequence[Flag] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Model:
    """The configuration as `model`, from an optional file, the environment and `key.path=value` overrides.

    defaults: values in place of the model's own, which everything else wins over.
    flags: a command's own, which win over file and environment and lose to overrides.
    environ: usually `os.environ`; None means no environment. A key may step into a list by index
    (`cameras.0.url`). Raises ConfigError.
    """
    environ = {} if environ is None else environ
    values = {**(defaults or {}), **({} if path is None else read_yaml(path, environ))}
    origins: dict[_Key, str] = {}
    for name, text in sorted(environ.items()):
        key = _key_of_variable(model, name)
        if key is not None:
            origins[_assign(values, key, _scalar(text), f"environment variable {name}")] = (
                f"environment variable {name}"
            )
    for flag in flags:
        if flag.value is not None:
            key = tuple(flag.key.split("."))
            where = flag.name.partition(",")[0]
            origins[_assign(values, key, _scalar(flag.value), where)] = where
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted.strip():
            raise ConfigError(f"--set {override}: expected key.path=value, such as --set hub.port=5555")
        where = f"--set {dotted.strip()}"
        origins[_assign(values, tuple(dotted.strip().split(".")), _scalar(text), where)] = where
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        hints = {tuple(flag.key.split(".")): flag.name for flag in flags}
        raise ConfigError(describe(model, error, origins, path, hints)) from None


def read_yaml(path: Path, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The mapping in a YAML file, duplicate keys refused, `${VAR:-default}` expanded. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot read it: {reason}; give the path of a YAML file") from None
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader underneath)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{place}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines at the top level, found {kind_of(values)}")
    expanded = _expand(values, {} if environ is None else environ, str(path), ())
    return typing.cast(dict[str, Any], expanded)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's last-one-wins for a repeated key would hide a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} appears twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _expand(value: Any, environ: Mapping[str, str], where: str, key: _Key) -> Any:
    if isinstance(value, dict):
        return {name: _expand(item, environ, where, (*key, str(name))) for name, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, environ, where, (*key, str(index))) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, default = match[1], match[2]
        if name is None:
            raise ConfigError(
                f"{where}: {'.'.join(key)}: write ${{NAME}} or ${{NAME:-default}}, or $${{ for a literal ${{"
            )
        # As in a shell, ":-" also stands in for an empty variable.
        if environ.get(name) or (default is None and name in environ):
            return environ[name]
        if default is None:
            raise ConfigError(
                f"{where}: {'.'.join(key)}: environment variable {name} is not set; "
                f"set it, or write ${{{name}:-default}}"
            )
        return typing.cast(str, default)

    return _VARIABLE.sub(replace, value)


def _scalar(text: str) -> Any:
    """Overrides stay strings (pydantic turns them into numbers), except for what only YAML can say."""
    stripped = text.strip()
    if stripped in ("null", "~") or stripped[:1] in ("[", "{"):
        try:
            return yaml.safe_load(stripped)
        except yaml.YAMLError:
            return text
    return text


def _key_of_variable(model: type[pydantic.BaseModel], name: str) -> _Key | None:
    if not name.startswith(PREFIX) or name == RESERVED:
        return None
    key = tuple(name.removeprefix(PREFIX).lower().split("__"))
    if len(key) > 1 or key[0] in model.model_fields:
        return key
    # Other variables share the prefix (VIEWSYNC_DATA; those an orchestrator makes up): only a near
    # miss counts.
    near = nearest(key[0], list(model.model_fields), cutoff=0.8)
    if near:
        _log.warning(
            "environment variable %s is not a setting and is ignored; did you mean %s%s?",
            name,
            PREFIX,
            near.upper(),
        )
    return None


def _assign(values: dict[str, Any], key: _Key, value: Any, where: str) -> _Key:
    """Put `value` at `key`, making mappings on the way; returns the key as the file spells it."""
    container: Any = values
    actual: list[str] = []
    for depth, part in enumerate(key):
        last = depth == len(key) - 1
        if isinstance(container, list):
            if not part.isdigit() or int(part) >= len(container):
                raise ConfigError(
                    f"{where}: {'.'.join(key[:depth])} is a list of {len(container)}: {part!r} is no index; "
                    "override the whole list with [..] instead"
                )
            place: Any = int(part)
        else:
            place = next((name for name in container if str(name).lower() == part.lower()), part)
        actual.append(str(place))
        if last:
            container[place] = value
            break
        inner = container[place] if isinstance(container, list) else container.get(place)
        if not isinstance(inner, (dict, list)):
            inner = {}
            container[place] = inner
        container = inner
    return tuple(actual)
