"""`python -m viewsync.demo.child PARENT_PID NAMESPACE MODULE …` runs a module that ends when its parent does.

The demo starts its programs through this, so that even a demo that was killed leaves no process behind.
NAMESPACE: descriptor of the network namespace to run in, -1: the parent's.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000


def end_with_parent(parent: int) -> None:
    """From now on this process is told to end when its parent, process `parent`, does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before it could be watched
        sys.exit(1)


def enter_namespace(descriptor: int) -> None:
    """Go, for good, into the network namespace that `descriptor` stands for. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.close(descriptor)


def main() -> None:
    parent, namespace, module, *arguments = sys.argv[1:]
    end_with_parent(int(parent))
    if int(namespace) >= 0:
        enter_namespace(int(namespace))
    sys.argv[:] = [module, *arguments]
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main()
