"""The demo's programs as processes of their own: started, watched, started again when they die, and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from viewsync.closing import Closing
from viewsync.errors import InternalError, UserError

_FIRST_RESTART_S, _LAST_RESTART_S = 0.5, 5.0
# A program that ran this long had started well. On a busy machine one may take half of it to say no.
_SETTLED_S = 30.0
_END_S = 2.0
_USERS_MISTAKE = 2
# So often in a row may a program end by itself, soon after its start.
_FALSE_STARTS = 4


@dataclass(frozen=True, slots=True)
class Program:
    """A `viewsync` command line (without `viewsync`) under a name for the table and its log.

    module: what is run instead of `viewsync`; namespace: descriptor of the network namespace to run in, -1:
    this one; descriptors: further ones that it inherits.
    """

    name: str
    arguments: tuple[str, ...]
    module: str = "viewsync"
    namespace: int = -1
    descriptors: tuple[int, ...] = ()


@dataclass(slots=True)
class _Running:
    program: Program
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    due_s: float = 0.0
    wait_s: float = _FIRST_RESTART_S
    restarts: int = 0
    false_starts: int = 0
    held: bool = False


class Supervisor(Closing):
    """Keeps programs running until closed. Times are seconds of a monotonic clock.

    Their standard error goes to one file each in the folder `logs`. Each is in a process group of its own, so
    that Ctrl-C reaches only the demo, which then ends them; a demo that is killed takes them along
    (`child.py`; so `start` and `poll` belong in the main thread, whose end they would take for the demo's).
    """

    def __init__(self, programs: Sequence[Program], logs: Path) -> None:
        self._all = [_Running(program, logs / f"{program.name}.log") for program in programs]

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each program has been started again."""
        return {running.program.name: running.restarts for running in self._all}

    @property
    def pids(self) -> Mapping[str, int]:
        """Process ids of the programs that run now."""
        return {
            running.program.name: running.process.pid for running in self._all if running.process is not None
        }

    def start(self, now_s: float) -> None:
        for running in self._all:
            self._start(running, now_s)

    def poll(self, now_s: float) -> list[str]:
        """Start again what died and is due; what happened, in words.

        Raises UserError with the program's own words where one refuses to start, InternalError where one
        fails again and again.
        """
        events = []
        for running in self._all:
            if running.process is not None:
                code = running.process.poll()
                if code is not None:
                    events.append(self._ended(running, code, now_s))
            elif now_s >= running.due_s and not running.held:
                running.restarts += 1
                self._start(running, now_s)
                events.append(f"{running.program.name} started again")
        return events

    def hold(self, name: str) -> None:
        """Kill a program, as a cut cable would, and let it lie until `release`."""
        for running in self._all:
            if running.program.name == name and not running.held:
                running.held = True
                if running.process is not None:
                    running.process.kill()

    def release(self, name: str) -> None:
        """Let a program that was held be started again, at the next `poll`."""
        for running in self._all:
            if running.program.name == name:
                running.held = False

    def close(self) -> None:
        """End them all: politely, and after two seconds not."""
        processes = [running.process for running in self._all if running.process is not None]
        for process in processes:
            process.terminate()
        end_s = time.monotonic() + _END_S
        for process in processes:
            try:
                process.wait(max(0.0, end_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        for process in processes:
            process.wait()
        for running in self._all:
            running.process = None

    def _start(self, running: _Running, now_s: float) -> None:
        program = running.program
        child = ("viewsync.demo.child", str(os.getpid()), str(program.namespace), program.module)
        inherited = (program.namespace, *program.descriptors)
        with running.log.open("ab") as log:
            running.process = subprocess.Popen(
                [sys.executable, "-m", *child, *program.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                pass_fds=[descriptor for descriptor in inherited if descriptor >= 0],
            )
        running.started_s = now_s

    def _ended(self, running: _Running, code: int, now_s: float) -> str:
        running.process = None
        lasted_s = now_s - running.started_s
        name = running.program.name
        if code == _USERS_MISTAKE and lasted_s < _SETTLED_S and not running.restarts:
            raise UserError(f"{name} did not start: {last_line(running.log)}")
        running.false_starts = running.false_starts + 1 if code > 0 and lasted_s < _SETTLED_S else 0
        if running.false_starts >= _FALSE_STARTS:
            raise InternalError(f"{name} ends again and again: {last_line(running.log)}")
        running.wait_s = (
            _FIRST_RESTART_S if lasted_s > _SETTLED_S else min(2 * running.wait_s, _LAST_RESTART_S)
        )
        running.due_s = now_s + running.wait_s
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}: {last_line(running.log)}"
        return f"{name} died ({why})"


def last_line(log: Path) -> str:
    """The last words of a log, without the program's own prefix."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    words = [line.strip() for line in lines if line.strip()]
    return words[-1].removeprefix("viewsync: ") if words else "it said nothing"


def free_ports(count: int) -> list[int]:
    """Ports on the loopback interface that nobody uses now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
