"""Programs are started again when they die, and none outlives the demo."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from viewsync.demo.processes import Program, Supervisor, free_ports
from viewsync.errors import InternalError, UserError

# A real program of ours that runs until it is told to stop.
LISTENER = Program("listener", ("subscribe", "tcp://127.0.0.1:9", "--json"))


def until(condition: Callable[[], bool], seconds: float = 100.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_a_killed_program_is_started_again(tmp_path: Path) -> None:
    with Supervisor([LISTENER], tmp_path) as programs:
        programs.start(time.monotonic())
        first = programs.pids["listener"]
        os.kill(first, signal.SIGKILL)
        events: list[str] = []

        def back() -> bool:
            events.extend(programs.poll(time.monotonic()))
            return programs.restarts["listener"] == 1

        until(back)
        assert programs.pids["listener"] != first
        assert events == ["listener died (SIGKILL)", "listener started again"]
        second = psutil.Process(programs.pids["listener"])
    assert not second.is_running()


def test_a_program_that_cannot_start_is_told_in_its_own_words(tmp_path: Path) -> None:
    with Supervisor([Program("hub", ("hub", "--bundle", str(tmp_path / "none")))], tmp_path) as programs:
        programs.start(time.monotonic())
        with pytest.raises(UserError, match=r"hub did not start: .*none"):
            until(lambda: bool(programs.poll(time.monotonic())))


def test_a_program_that_ignores_being_asked_is_ended_all_the_same(tmp_path: Path) -> None:
    with Supervisor([LISTENER], tmp_path) as programs:
        programs.start(time.monotonic())
        process = psutil.Process(programs.pids["listener"])
        process.suspend()
        programs.close()
        assert not process.is_running()


KILLED = """
import sys, time
from pathlib import Path
from viewsync.demo.processes import Program, Supervisor
programs = Supervisor([Program("listener", ("subscribe", "tcp://127.0.0.1:9"))], Path(sys.argv[1]))
programs.start(time.monotonic())
print(programs.pids["listener"], flush=True)
time.sleep(60)
"""


def test_a_killed_demo_takes_its_programs_along(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        child = psutil.Process(int(demo.stdout.readline()))
        # Until it is a viewsync that watches its parent.
        until(lambda: (tmp_path / "listener.log").exists() and child.num_threads() > 1)
        demo.kill()
        assert not psutil.wait_procs([child], timeout=20.0)[1]


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_a_program_that_ends_again_and_again_is_not_tried_for_ever(tmp_path: Path) -> None:
    # Killed first, so that what follows are restarts and no refusal to start at all.
    program = Program("hub", ("hub", "--bundle", str(tmp_path / "none")))
    with Supervisor([program], tmp_path) as programs:
        programs.start(time.monotonic())
        os.kill(programs.pids["hub"], signal.SIGKILL)
        with pytest.raises(InternalError, match=r"again and again: .*none"):
            until(lambda: programs.poll(time.monotonic()) is None)
