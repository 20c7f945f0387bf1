"""How a profile can be applied on this machine, and what is missing for the ways that cannot be gone."""

from __future__ import annotations

import os
import shutil
from typing import Final, Literal, get_args

from viewsync.errors import InternalError, UserError
from viewsync.lab.link.namespaces import Namespace, command

# netem: Linux's own, between network namespaces; tun: packets through our own program, between namespaces;
# proxy: TCP through our own program, in no namespace.
Way = Literal["netem", "tun", "proxy"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)


def choose(wanted: Way | None) -> Way:
    """`wanted`, or the first of `WAYS` that this machine has. Raises UserError: it has not the wanted one."""
    if wanted is None:
        return next(way for way in WAYS if not why_not(way))
    problem = why_not(wanted)
    if problem:
        usable = ", ".join(way for way in WAYS if not why_not(way))
        raise UserError(f"--via {wanted}: {problem}; or choose another way (here: {usable})")
    return wanted


def why_not(way: Way) -> str:
    """What keeps this machine from going this way and what to do about it; "" where nothing does.

    Tried out in a namespace that is gone afterwards.
    """
    if way == "proxy":
        return ""
    for program in ("ip", "tc") if way == "netem" else ("ip",):
        if shutil.which(program) is None:
            return f"there is no program {program}; run: apt-get install iproute2"
    try:
        namespace = Namespace()
    except PermissionError:
        return "making network namespaces needs CAP_SYS_ADMIN and CAP_NET_ADMIN; run it as root"
    except (OSError, InternalError) as error:
        return f"network namespaces do not work here ({error}); run it as root on a kernel that has them"
    try:
        if way == "tun":
            os.close(namespace.tun("try", "10.77.0.1", "10.77.0.2"))
        else:
            rule = ("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
            namespace.run(lambda: command(*rule))
    except FileNotFoundError:
        return "there is no /dev/net/tun; run: modprobe tun (in a container: --device /dev/net/tun)"
    except (OSError, InternalError) as error:
        if way == "tun":
            return f"/dev/net/tun cannot be used ({error}); run it as root, with CAP_NET_ADMIN"
        return f"this kernel has no netem ({error}); run: modprobe sch_netem"
    finally:
        namespace.close()
    return ""
