"""`python -m viewsync.lab.link.netem PROFILE VIEWS VIEW WAY EPOCH_NS DEVICE STARTED`.

Linux's netem on one device. WAY: up or down, whichever leaves through DEVICE; STARTED: descriptor of an
eventfd that is told when it works. Sets the rule, changes it where an outage begins and ends,
and takes it away when told to stop. Needs CAP_NET_ADMIN in the device's namespace.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from viewsync.lab.link.namespaces import command
from viewsync.lab.profile import Direction, load_profile
from viewsync.units import SECOND_NS

# netem keeps packets in order only where it has a rate: faster than any machine is as good as none.
_NO_LIMIT_KBIT_S = 10_000_000
# netem counts a frame's Ethernet header, the profile does not.
_ETHERNET_BYTES = 14


def rule(direction: Direction, out: bool) -> list[str]:
    """netem's words for this direction; out: during an outage."""
    words = ["netem", "limit", str(direction.queue_packets), "delay", f"{direction.delay_ms:.6f}ms"]
    if direction.jitter_ms:
        words.append(f"{direction.jitter_ms:.6f}ms")
        if direction.jitter_distribution != "uniform":
            words += ["distribution", direction.jitter_distribution]
    if out:
        words += ["loss", "100%"]
    elif direction.loss_burst_packets is not None and direction.loss:
        chances = (direction.to_bad, direction.to_good, direction.loss_in_burst, 0.0)
        words += ["loss", "gemodel", *(f"{100 * chance:.6f}%" for chance in chances)]
    elif direction.loss:
        words += ["loss", "random", f"{100 * direction.loss:.6f}%"]
    if direction.reorder:
        words += ["reorder", f"{100 * direction.reorder:.6f}%"]
    words += ["rate", f"{direction.rate_kbit_s or _NO_LIMIT_KBIT_S:.0f}kbit", str(-_ETHERNET_BYTES)]
    return words


def changes(direction: Direction) -> Iterator[tuple[float, bool]]:
    """(second, whether everything is lost from then on), in order, where that changes."""
    edges = {outage.at_s for outage in direction.outages}
    edges |= {outage.at_s + outage.for_s for outage in direction.outages if outage.for_s is not None}
    out = direction.is_out(0.0)
    for at_s in sorted(edges):
        if direction.is_out(at_s) != out:
            out = not out
            yield at_s, out


def main() -> None:
    profile, views, view, way, epoch_ns, device, started = sys.argv[1:]
    section = load_profile(profile).of_views(views.split(","))[view]
    direction: Direction = getattr(section, way)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    at_s = (time.time_ns() - int(epoch_ns)) / SECOND_NS
    command(
        "tc", "qdisc", "replace", "dev", device, "root", *rule(direction, direction.is_out(max(0.0, at_s)))
    )
    try:
        os.eventfd_write(int(started), 1)
        for edge_s, out in changes(direction):
            wait_s = (int(epoch_ns) - time.time_ns()) / SECOND_NS + edge_s
            if wait_s > 0 and stop.wait(wait_s):
                return
            command("tc", "qdisc", "change", "dev", device, "root", *rule(direction, out))
        stop.wait()
    finally:
        command("tc", "qdisc", "del", "dev", device, "root")


if __name__ == "__main__":
    main()
