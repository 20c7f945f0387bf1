"""What an address of libzmq says by itself."""

import ipaddress


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
