"""What an address of libzmq says by itself."""

import ipaddress
import re

_TCP = re.compile(r"tcp://.+:(\*|\d{1,5})")


def is_loopback(endpoint: str) -> bool:
    """Whether only this machine can reach `endpoint` (ipc, 127.0.0.0/8, ::1, localhost, lo)."""
    transport, _, address = endpoint.partition("://")
    if transport in ("ipc", "inproc"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host in ("localhost", "lo"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def port_of(endpoint: str) -> int | None:
    """The port of a tcp endpoint; 0: any free one (`*`); None: it names none, or one above 65535, for which
    libzmq would take another.
    """
    found = _TCP.fullmatch(endpoint)
    port = 0 if found is None or found[1] == "*" else int(found[1])
    return None if found is None or port > 65_535 else port
