"""`python -m viewsync.lab.link.tun PROFILE VIEWS VIEW EPOCH_NS AGENT HUB`: one view's user-space link.

VIEWS: the bundle's, with commas; AGENT, HUB: descriptors of the TUN devices at both ends. Runs until killed.
"""

import sys

from viewsync.lab.link.pump import Route, pump, zero_ns
from viewsync.lab.profile import load_profile
from viewsync.lab.timeline import links


def main() -> None:
    profile, views, view, epoch_ns, agent, hub = sys.argv[1:]
    up, down = links(load_profile(profile), views.split(","))[view]
    pump([Route(int(agent), int(hub), up), Route(int(hub), int(agent), down)], zero_ns(int(epoch_ns)))


if __name__ == "__main__":
    main()
