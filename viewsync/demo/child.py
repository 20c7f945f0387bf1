"""`python -m viewsync.demo.child PARENT_PID …` is `viewsync …` that ends when its parent does.

The demo starts its programs through this, so that even a demo that was killed leaves no process behind.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """From now on this process is told to end when its parent, process `parent`, does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before it could be watched
        sys.exit(1)


def main() -> None:
    end_with_parent(int(sys.argv[1]))
    sys.argv[:2] = []
    sys.argv.insert(0, "viewsync")
    runpy.run_module("viewsync", run_name="__main__")


if __name__ == "__main__":
    main()
