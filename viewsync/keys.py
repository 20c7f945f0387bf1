"""CURVE keys and the hub's allow-list.

    keys/
      hub.key               secret; stays with the hub
      hub.pub               for every agent and subscriber: how they know the hub
      allow.yaml            who may speak and listen; stays with the hub
      agent-<name>.key      secret; goes to that agent only
      subscriber-<name>.key secret; goes to that subscriber only

Every file is small YAML. Secrets are created with mode 0600 and never overwritten unless that is asked for.
"""

import contextlib
import fcntl
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
import zmq
from zmq.utils import z85

from viewsync.errors import KeysError

_log = logging.getLogger(__name__)

Role = Literal["agent", "subscriber"]
ALLOW = "allow.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ALLOW_HEAD = """\
# Who may speak to the hub and listen to it, by CURVE public key. `viewsync keys make` adds to this list;
# deleting an entry takes the right away. A running hub notices changes by itself.
"""


@dataclass(frozen=True, slots=True, repr=False)
class KeyPair:
    """A CURVE key pair, 40 characters of Z85 each. Raises KeysError where it is damaged or no pair."""

    public: bytes
    secret: bytes

    def __post_init__(self) -> None:
        for name, key in (("public", self.public), ("secret", self.secret)):
            _check_key(key, f"the {name} key")
        if zmq.curve_public(self.secret) != self.public:
            raise KeysError("the public key does not belong to the secret key; make the pair again")

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r}, secret=...)"


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What an agent or subscriber needs: its own pair, and the hub's public key (40 characters of Z85)."""

    own: KeyPair
    hub: bytes

    def __post_init__(self) -> None:
        _check_key(self.hub, "the hub's public key")

    def secure(self, socket: "zmq.Socket[bytes]") -> None:
        """Make `socket` speak CURVE as a client; call it before connecting."""
        socket.curve_secretkey = self.own.secret
        socket.curve_publickey = self.own.public
        socket.curve_serverkey = self.hub


@dataclass(frozen=True, slots=True)
class Allowed:
    """What one public key may do. An agent sends `views` of `scene` at `site`; a subscriber listens."""

    name: str
    role: Role
    site: str = ""
    scene: str = ""
    views: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if self.role == "agent":
            check_name(self.site, "site")
            check_name(self.scene, "scene")
            for view in self.views:
                check_name(view, "view")
            if not self.views:
                raise KeysError(f"agent {self.name} has no views; name at least one")
        elif self.role != "subscriber":
            raise KeysError(f"{self.name} has the role {self.role!r}; use agent or subscriber")
        elif self.site or self.scene or self.views:
            raise KeysError(f"subscriber {self.name} has a site, a scene or views; only agents have those")


def check_name(name: object, what: str) -> str:
    """`name` if it can be a file's name and a word on the wire. Raises KeysError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise KeysError(
            f"{what} {name!r} is not a valid name; "
            "use up to 64 letters, digits, '.', '_' or '-', a letter or digit first"
        )
    return name


def load_keypair(path: Path) -> KeyPair:
    """The key pair in `path`. Raises KeysError: missing or damaged."""
    values = _read(path)
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
        # Not refused: container engines mount secrets with modes of their own.
        _log.warning("%s: others can read or change this secret; run: chmod 600 %s", path, path)
    try:
        return KeyPair(_field(values, "public"), _field(values, "secret"))
    except KeysError as error:
        raise KeysError(f"{path}: {error}") from None


def load_public_key(path: Path) -> bytes:
    """The public key in a .pub or .key file, 40 characters of Z85. Raises KeysError."""
    try:
        return _check_key(_field(_read(path), "public"), "the public key")
    except KeysError as error:
        raise KeysError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None


def load_client_keys(own: Path, hub: Path) -> ClientKeys:
    """An agent's or subscriber's keys from its .key file and the hub's .pub file. Raises KeysError."""
    return ClientKeys(load_keypair(own), load_public_key(hub))


def load_allow_list(path: Path) -> Mapping[str, Allowed]:
    """Public key (Z85 text, as a frame's `User-Id` gives it) -> what it may do. Raises KeysError."""
    values = _read(path)
    try:
        if unknown := set(values) - {"schema", "allow"}:
            raise KeysError(f"unknown key {min(unknown)!r}; valid here: allow, schema")
        if values.get("schema") != 1:
            raise KeysError(
                f"schema is {values.get('schema')!r}, this version reads 1; make the list with this version"
            )
        entries = values.get("allow") or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise KeysError("'allow' must be a list of entries with public, name and role")
        allowed: dict[str, Allowed] = {}
        for entry in entries:
            key = _check_key(_field(entry, "public"), f"the public key of {entry.get('name')!r}").decode()
            if key in allowed:
                raise KeysError(f"the key of {allowed[key].name} is there twice; remove one")
            allowed[key] = _allowed(entry)
        check_allow_list(allowed)
    except KeysError as error:
        raise KeysError(f"{path}: {error}") from None
    return allowed


def check_allow_list(allowed: Mapping[str, Allowed]) -> None:
    """Raises KeysError where two agents may send the same view, or two keys share a role and name."""
    owners: dict[tuple[str, str, str], str] = {}
    names: set[tuple[str, str]] = set()
    for entry in allowed.values():
        if (entry.role, entry.name) in names:
            raise KeysError(f"{entry.role} {entry.name} is there twice; remove one")
        names.add((entry.role, entry.name))
        for view in entry.views:
            other = owners.setdefault((entry.site, entry.scene, view), entry.name)
            if other != entry.name:
                raise KeysError(
                    f"view {view} of {entry.site}/{entry.scene} belongs to agent {other} and "
                    f"to agent {entry.name}; a view has one agent"
                )


class KeyFolder:
    """Makes keys in one folder; everything already there stays, unless `force` replaces that one secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def make_hub(self, force: bool = False) -> bool:
        """hub.key, hub.pub and an allow-list to fill. Returns whether the secret is new."""
        with self._alone():
            pair, new = self._pair("hub", force)
            _write(self.folder / "hub.pub", {"name": "hub", "public": pair.public.decode()}, 0o644)
            if not (self.folder / ALLOW).exists():
                self._write_allow_list({})
        return new

    def make_client(self, allowed: Allowed, force: bool = False) -> bool:
        """One client's secret and its entry in the allow-list. Returns whether the secret is new."""
        with self._alone():
            path = self.folder / ALLOW
            entries = dict(load_allow_list(path)) if path.exists() else {}
            kept = {k: e for k, e in entries.items() if (e.role, e.name) != (allowed.role, allowed.name)}
            # Checked before any secret is made, with a key that cannot be another's.
            check_allow_list({**kept, "": allowed})
            pair, new = self._pair(f"{allowed.role}-{allowed.name}", force)
            updated = {**kept, pair.public.decode(): allowed}
            if updated != entries:
                self._write_allow_list(updated)
        return new

    def _pair(self, name: str, force: bool) -> tuple[KeyPair, bool]:
        path = self.folder / f"{name}.key"
        if path.exists() and not force:
            return load_keypair(path), False
        pair = KeyPair(*zmq.curve_keypair())
        values = {"name": name, "public": pair.public.decode(), "secret": pair.secret.decode()}
        _write(path, values, 0o600, "# Secret: whoever reads this file can speak as its owner.\n")
        return pair, True

    def _write_allow_list(self, allowed: Mapping[str, Allowed]) -> None:
        entries: list[dict[str, Any]] = []
        for key, entry in sorted(allowed.items(), key=lambda item: (item[1].role, item[1].name)):
            values: dict[str, Any] = {"public": key, "name": entry.name, "role": entry.role}
            if entry.role == "agent":
                values |= {"site": entry.site, "scene": entry.scene, "views": list(entry.views)}
            entries.append(values)
        _write(self.folder / ALLOW, {"schema": 1, "allow": entries}, 0o644, _ALLOW_HEAD)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Two commands at once must not lose each other's entry."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _allowed(entry: Mapping[str, Any]) -> Allowed:
    if unknown := set(entry) - {"public", "name", "role", "site", "scene", "views"}:
        raise KeysError(
            f"{entry.get('name')!r} has the unknown key {min(unknown)!r}; "
            "valid: name, public, role, scene, site, views"
        )
    views = entry.get("views", [])
    if not isinstance(views, list):
        raise KeysError(f"views of {entry.get('name')!r} must be a list, such as [north]")
    return Allowed(
        entry.get("name", ""),
        entry.get("role", ""),
        entry.get("site", ""),
        entry.get("scene", ""),
        tuple(views),
    )


def _read(path: Path) -> dict[str, Any]:
    make = "make it with `viewsync keys make`, or correct the path"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}; {make}") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise KeysError(f"{path}: this is not a file that viewsync wrote; {make}") from None
    if not isinstance(values, dict):
        raise KeysError(f"{path}: this is not a file that viewsync wrote; {make}")
    return values


def _field(values: Mapping[str, Any], name: str) -> bytes:
    value = values.get(name)
    if not isinstance(value, str):
        raise KeysError(f"there is no {name} key in it; make it again with `viewsync keys make`")
    return value.encode("utf-8")


def _check_key(key: bytes, what: str) -> bytes:
    try:
        whole = len(key) == 40 and len(z85.decode(key)) == 32
    except (ValueError, KeyError, OverflowError, UnicodeError):
        whole = False
    if not whole:
        raise KeysError(f"{what} is damaged: it must be 40 characters of Z85; make it again")
    return key


def _write(path: Path, values: Mapping[str, Any], mode: int, head: str = "") -> None:
    """Whole or not at all, and never readable by others for a moment."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(head + yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
