"""How large agents and hub are: real processes of a demo, with cameras over RTSP."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from bench.frames import PEOPLE, SEED
from bench.rows import Promise, Row
from viewsync.bundle import Bundle
from viewsync.demo.run import Demo, Settings
from viewsync.prediction import Prediction

# Answers of the demo before memory is read: every agent and graph has run many times by then.
_SETTLED_ANSWERS = 10


class _Scales:
    """Watches a demo; once it has settled, weighs its processes and stops it."""

    def __init__(self, seconds: float) -> None:
        self.stop = threading.Event()
        self.now_mb: dict[str, float] = {}
        self.peak_mb: dict[str, float] = {}
        self._seconds = seconds
        self._answers = 0
        self._end_s = float("inf")

    def update(self, demo: Demo) -> None:
        if time.monotonic() < self._end_s:
            return
        for name, pid in demo.programs.pids.items():
            self.now_mb[name], self.peak_mb[name] = _memory_mb(pid)
        self.stop.set()

    def answered(self, demo: Demo, prediction: Prediction, truth: int | None) -> None:
        self._answers += 1
        if self._answers == _SETTLED_ANSWERS:
            self._end_s = time.monotonic() + self._seconds


def memory_rows(bundle: Bundle, seconds: float) -> list[Row]:
    """The largest agent, and a hub that runs all graphs, of a demo (cameras over RTSP) that has answered for
    `seconds` after it settled: resident at the end, and at most.
    """
    scales = _Scales(seconds)
    Demo(Settings(bundle=bundle.path, seed=SEED, people=PEOPLE)).run(scales.stop, scales)
    agents = [name for name in scales.now_mb if name.startswith("agent-")]
    return [
        _memory_row("edge.memory", "edge: resident memory of an agent, at most", 300.0, agents, scales),
        _memory_row("hub.memory", "hub: resident memory, all graphs, at most", 500.0, ["hub"], scales),
    ]


def _memory_row(name: str, what: str, limit: float, of: list[str], scales: _Scales) -> Row:
    return Row(
        name=name,
        what=what,
        unit="MB",
        figure=max(scales.peak_mb[each] for each in of),
        promise=Promise(limit),
        samples=len(of),
        facts={"at_the_end_mb": max(scales.now_mb[each] for each in of)},
    )


def _memory_mb(pid: int) -> tuple[float, float]:
    """Resident set of a process now and at most, MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    lines = dict(line.split(":", 1) for line in status.splitlines())
    now_mb, peak_mb = (int(lines[key].split()[0]) * 1024 / 1e6 for key in ("VmRSS", "VmHWM"))
    return now_mb, peak_mb
