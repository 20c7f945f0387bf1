"""Time that a program took, less the time for which the machine let it wait for a core.

A promise such as "stops within two seconds" is about the program. On a machine with more to do than cores its
threads stand in the run queue; Linux counts for how long (`/proc/PID/task/TID/schedstat`, second number).
"""

import os
import subprocess
import time
from pathlib import Path


class Stopwatch:
    """Runs from now on, for this process or the process `pid`."""

    def __init__(self, pid: int | None = None) -> None:
        self._tasks = Path(f"/proc/{os.getpid() if pid is None else pid}/task")
        self._before = self._waited_s()
        self._starved_s = 0.0
        self._start_s = time.monotonic()

    def seconds(self) -> float:
        """So far. Threads that have ended are not heard of any more."""
        before = self._before
        starved_s = sum(waited_s - before.get(tid, 0.0) for tid, waited_s in self._waited_s().items())
        self._starved_s = max(self._starved_s, starved_s)
        return time.monotonic() - self._start_s - self._starved_s

    def until_end(self, process: "subprocess.Popen[str]", patience_s: float) -> float:
        """Wait for the process to end, and say how long it took."""
        deadline_s = time.monotonic() + patience_s
        while process.poll() is None:
            assert time.monotonic() < deadline_s, "the process does not end"
            self.seconds()
            time.sleep(0.02)
        return self.seconds()

    def _waited_s(self) -> dict[str, float]:
        waited = {}
        for task in self._tasks.iterdir() if self._tasks.exists() else ():
            try:
                waited[task.name] = int((task / "schedstat").read_text().split()[1]) * 1e-9
            except (OSError, IndexError):
                pass  # it ended just now
        return waited
