"""Network namespaces without names: each lives as long as a process or descriptor in it, so that none is left
behind, however the program ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from viewsync.errors import InternalError

_CLONE_NEWNET: Final = 0x40000000
_TUN: Final = Path("/dev/net/tun")
# TUNSETIFF with a layer-3 device and no header before each packet.
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x0001 | 0x1000

Result = TypeVar("Result")


class Namespace:
    """A network of its own with nothing in it but loopback. `run` does something inside.

    descriptor: of the namespace, for `demo.child` to enter. Raises OSError where the system does not
    permit it (`ways.why_not` says so beforehand).
    """

    def __init__(self) -> None:
        # A namespace belongs to a thread: the only one of this pool has it, the program's others do not.
        self._inside = ThreadPoolExecutor(1, thread_name_prefix="namespace")
        try:
            self.descriptor = self._inside.submit(_unshare).result()
        except OSError:
            self._inside.shutdown()
            raise
        self.run(_prepare)

    def run(self, do: Callable[[], Result]) -> Result:
        """What `do()` returns; sockets it makes, and programs it runs, are inside."""
        return self._inside.submit(do).result()

    def tun(self, name: str, own: str, peer: str) -> int:
        """Make a TUN device between two addresses; the descriptor that its packets are read from."""
        return self.run(lambda: _tun(name, own, peer))

    def close(self) -> None:
        """Let go of it; what runs inside still has it. Closing twice is fine."""
        self._inside.shutdown()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def veth(one: Namespace, name: str, own: str, other: Namespace, other_name: str, peer: str) -> None:
    """A cable between two namespaces, its ends with these names and addresses.

    Segmentation is left to TCP: what is delayed and lost is packets, never 64 KB at a time. Each end knows
    the hardware address of the other: nobody asks for it over a link that delays and loses questions.
    """
    there = f"/proc/{os.getpid()}/fd/{other.descriptor}"
    peer_end = ("peer", "name", other_name, "netns", there)
    one.run(lambda: command("ip", "link", "add", name, "type", "veth", *peer_end))
    for end, device, here, far in ((one, name, own, peer), (other, other_name, peer, own)):
        known = ("lladdr", _hardware(far), "dev", device, "nud", "permanent")
        end.run(partial(_up, device, here, far, "address", _hardware(here), "gso_max_segs", "1"))
        end.run(partial(command, "ip", "neighbour", "replace", far, *known))


def _hardware(address: str) -> str:
    """A hardware address of our own making, for an IPv4 address."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def command(*words: str) -> None:
    """Run a program of the system. Raises InternalError with its own words."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise InternalError(f"{' '.join(words)}: {' '.join(done.stderr.split())}")


def _prepare() -> None:
    command("ip", "link", "set", "lo", "up")
    # IPv6 speaks by itself: its packets would have a share in what chance gives to ours.
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1", encoding="ascii")


def _unshare() -> int:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _tun(name: str, own: str, peer: str) -> int:
    descriptor = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
        _up(name, own, peer)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _up(name: str, own: str, peer: str, *more: str) -> None:
    command("ip", "address", "add", own, "peer", peer, "dev", name)
    command("ip", "link", "set", "dev", name, *more, "up")
