"""`python -m viewsync.lab.link.relay PROFILE VIEWS VIEW EPOCH_NS PORT HUB_PORT`.

One view's link as a TCP relay on the loopback interface. VIEWS: the bundle's, with commas. Runs until killed.
"""

import sys

from viewsync.lab.link.proxy import Proxy
from viewsync.lab.link.pump import zero_ns
from viewsync.lab.profile import load_profile
from viewsync.lab.timeline import links

_LOOPBACK = "127.0.0.1"


def main() -> None:
    name, among, view, epoch_ns, port, hub_port = sys.argv[1:]
    profile, views = load_profile(name), among.split(",")
    section, pair = profile.of_views(views)[view], links(profile, views)[view]
    there, hub = (_LOOPBACK, int(port)), (_LOOPBACK, int(hub_port))
    Proxy(there, hub, section, pair, zero_ns(int(epoch_ns))).run(lambda: False)


if __name__ == "__main__":
    main()
