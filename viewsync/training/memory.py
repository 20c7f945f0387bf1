"""Keep freed memory: training frees and asks for the same hundreds of megabytes at every step."""

from __future__ import annotations

import ctypes
import sys

# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_PAD_BYTES = 256 * 1024 * 1024


def hold_memory() -> bool:
    """Tell glibc to hand nothing back to the system and to take more at a time; False without glibc.

    Else the system clears every page again at every step: about half of a training step's time on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # -1 is the largest threshold: never trim.
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _PAD_BYTES))
    accepted = [mallopt(name, value) == 1 for name, value in settings]
    return all(accepted)
