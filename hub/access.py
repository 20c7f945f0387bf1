"""Who may connect: the answer to libzmq's question at every CURVE handshake (ZAP, ZeroMQ RFC 27).

libzmq asks over an in-process REQ socket which public key may enter which domain; agents' keys may enter
the domain of the features socket, subscribers' keys that of the predictions socket. What we answer as user
id, the key itself, comes back as `User-Id` of every frame of that connection.

The allow-list is read again when its file has changed, so an agent is added without a restart. A list that
cannot be read then is reported and the one before stays in force.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import zmq
from zmq.utils import z85

from hub.outputs import SUBSCRIBER_DOMAIN
from hub.receiver import AGENT_DOMAIN
from viewsync.errors import KeysError
from viewsync.keys import Allowed, load_allow_list

_log = logging.getLogger(__name__)

_ENDPOINT = "inproc://zeromq.zap.01"
_ROLES = {AGENT_DOMAIN: "agent", SUBSCRIBER_DOMAIN: "subscriber"}


class AllowList:
    """The allow-list file, as it is now. Raises KeysError where it cannot be read at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._stamp_now()
        self._allowed = load_allow_list(path)

    def __call__(self) -> Mapping[str, Allowed]:
        """Public key (Z85 text) -> what it may do."""
        stamp = self._stamp_now()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._allowed = load_allow_list(self._path)
                _log.info("%s: read again, %d keys", self._path, len(self._allowed))
            except KeysError as error:
                _log.error("%s; the allow-list read before stays in force", error)
        return self._allowed

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


class Authenticator:
    """Owns the socket that libzmq asks; `denied` is told the domain of every handshake turned away."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", allow: AllowList, denied: Callable[[str], None]
    ) -> None:
        self._allow = allow
        self._denied = denied
        self._logged: set[str] = set()
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_ENDPOINT)

    def answer(self) -> None:
        """Answer every question that waits, without waiting for one."""
        while True:
            try:
                request = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.socket.send_multipart(self._judge(request))

    def close(self) -> None:
        self.socket.close(linger=0)

    def _judge(self, request: list[bytes]) -> list[bytes]:
        version, request_id, domain, address, _identity, mechanism, *credentials = request
        key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and credentials else ""
        entry = self._allow().get(key)
        if entry is not None and entry.role == _ROLES.get(domain):
            return [version, request_id, b"200", b"OK", key.encode(), b""]
        where = domain.decode(errors="replace")
        self._denied(where)
        if where not in self._logged:
            self._logged.add(where)
            _log.warning(
                "%s: turned away a key that the allow-list has not for %s (%s); later ones only count",
                address.decode(errors="replace"),
                where,
                key or mechanism.decode(errors="replace"),
            )
        return [version, request_id, b"400", b"not on the allow-list", b"", b""]
