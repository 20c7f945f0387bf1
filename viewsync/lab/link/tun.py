"""`python -m viewsync.lab.link.tun PROFILE VIEWS VIEW EPOCH_NS AGENT HUB STARTED`.

One view's user-space link. VIEWS: the bundle's, with commas; AGENT, HUB: descriptors of the TUN devices at
both ends; STARTED: of an eventfd that is told when it works. Runs until killed.
"""

import os
import sys

from viewsync.lab.link.pump import Route, pump, zero_ns
from viewsync.lab.profile import load_profile
from viewsync.lab.timeline import links


def main() -> None:
    profile, views, view, epoch_ns, agent, hub, started = sys.argv[1:]
    up, down = links(load_profile(profile), views.split(","))[view]
    os.eventfd_write(int(started), 1)
    pump([Route(int(agent), int(hub), up), Route(int(hub), int(agent), down)], zero_ns(int(epoch_ns)))


if __name__ == "__main__":
    main()
