"""YAML files that come with viewsync and go by their name, beside files of one's own."""

from __future__ import annotations

import difflib
from pathlib import Path

from viewsync.errors import ConfigError


def names(folder: Path) -> list[str]:
    """Names of the YAML files of a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def named_file(kind: str, folder: Path, name_or_path: str) -> Path:
    """Where the file called `name_or_path` is: in `folder` by its name, or anywhere by its path.

    kind: what it is for people, such as profile. Raises ConfigError for an unknown name.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    known = names(folder)
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "give one of them, or the path of a .yaml file"
        raise ConfigError(f"{kind} {name_or_path!r}: there is no such {kind} ({', '.join(known)}); {hint}")
    return folder / f"{name_or_path}.yaml"
