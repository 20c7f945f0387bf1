"""One view's link as a program between agent and hub, on a machine or in a container of its own.

Agents connect here, and what they say goes on to the hub. Where Linux has netem and we may use it, netem
shapes both ways, each on the device through which it leaves, and the relay adds nothing; else the relay
itself holds data back (`proxy.py`). The profile's time 0 is the beginning of an era.
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import time
from contextlib import ExitStack
from threading import Event

from viewsync.errors import InternalError, UserError
from viewsync.lab.era import Until, era_at
from viewsync.lab.link.namespaces import command
from viewsync.lab.link.netem import rule
from viewsync.lab.link.proxy import Proxy
from viewsync.lab.profile import Direction, Profile, ViewSection
from viewsync.lab.timeline import Link, links
from viewsync.units import SECOND_NS

_log = logging.getLogger(__name__)

# A target that has no address yet is looked up this often.
_RETRY_S = 1.0


def run(
    profile: Profile,
    views: tuple[str, ...],
    view: str,
    listen: tuple[str, int],
    target: tuple[str, int],
    stop: Event,
) -> None:
    """Be the link of `view` until `stop` is set.

    Raises ConfigError: the profile does not fit the views; UserError: `listen` cannot be listened at.
    """
    section = profile.of_views(views)[view]
    devices = netem_devices(target, stop)
    if devices is not None:
        _log.info("%s: netem on %s (up) and %s (down) does as profile %s says", view, *devices, profile.name)
        with ExitStack() as stack:
            plain = ViewSection()
            relay = Proxy(listen, target, plain, (Link(plain.up, [0]), Link(plain.down, [0])), 0)
            stack.callback(relay.close)
            rules = [_Rule(*pair) for pair in zip(devices, (section.up, section.down), strict=True)]
            for one in rules:
                stack.callback(one.remove)
            relay.run(lambda: stop.is_set() or any(one.follow() for one in rules))
        return
    if stop.is_set():
        return
    _log.info("%s: no netem here; our own relay does as profile %s says", view, profile.name)
    # Without outages there is no reason to break connections when an era ends.
    timed = bool(section.up.outages or section.down.outages)
    while not stop.is_set():
        era = era_at(time.time_ns())
        over = Until(stop, era.end_ns) if timed else stop
        zero_ns = time.monotonic_ns() - (time.time_ns() - era.start_ns)
        Proxy(listen, target, section, links(profile, views)[view], zero_ns).run(over.is_set)


def netem_devices(target: tuple[str, int], stop: Event) -> tuple[str, str] | None:
    """(device towards the target, device towards the agent) if netem can be had on both, else None.

    Waits for the target to have an address.
    """
    devices = _devices(target, stop)
    if devices is None:
        return None
    try:
        for device in devices:
            command("tc", "qdisc", "replace", "dev", device, "root", "netem", "delay", "0ms")
            command("tc", "qdisc", "del", "dev", device, "root")
    except (FileNotFoundError, InternalError) as error:
        _log.info("netem: %s", error)
        return None
    return devices


def _devices(target: tuple[str, int], stop: Event) -> tuple[str, str] | None:
    while not stop.is_set():
        try:
            address = socket.getaddrinfo(*target, family=socket.AF_INET, type=socket.SOCK_STREAM)[0][4][0]
        except socket.gaierror:
            stop.wait(_RETRY_S)
            continue
        try:
            up = str(_ip("route", "get", str(address))[0]["dev"])
            others = [str(one["ifname"]) for one in _ip("link") if "LOOPBACK" not in str(one["flags"])]
        except (OSError, subprocess.CalledProcessError, LookupError) as error:
            _log.info("netem: cannot tell the devices: %s", error)
            return None
        down = next((device for device in others if device != up), None)
        if down is None or up not in others:
            _log.info("netem: agent and hub are reached through one device (%s)", up)
            return None
        return up, down
    return None


def _ip(*words: str) -> list[dict[str, object]]:
    done = subprocess.run(["ip", "-j", *words], capture_output=True, text=True, check=True)
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


class _Rule:
    """netem on one device. State: what it was last told."""

    def __init__(self, device: str, direction: Direction) -> None:
        self._device, self._direction = device, direction
        self._out: bool | None = None
        self.follow()

    def follow(self) -> bool:
        """Change the rule where an outage has begun or ended; always False."""
        at_s = (time.time_ns() - era_at(time.time_ns()).start_ns) / SECOND_NS
        out = self._direction.is_out(at_s)
        if out != self._out:
            self._out = out
            command("tc", "qdisc", "replace", "dev", self._device, "root", *rule(self._direction, out))
        return False

    def remove(self) -> None:
        command("tc", "qdisc", "del", "dev", self._device, "root")


def address(text: str, name: str) -> tuple[str, int]:
    """HOST:PORT. Raises UserError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise UserError(f"{name} {text}: is no HOST:PORT; give one such as 0.0.0.0:5555")
    return host.strip("[]"), int(port)
