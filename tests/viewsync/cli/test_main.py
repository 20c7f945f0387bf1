"""The command line's promises: lazy, one line per mistake, an exit code that says whose, clean stdout."""

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import zmq
from click.testing import CliRunner, Result

import viewsync
from calib.errors import CalibError
from viewsync.cli import COMMANDS, main
from viewsync.errors import ConfigError, InternalError, WireError
from viewsync.keys import Allowed, KeyFolder


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def listed() -> list[str]:
    return [name for name, entry in COMMANDS.items() if importlib.util.find_spec(entry.module)]


def commands_with_paths() -> Iterator[tuple[str, ...]]:
    context = click.Context(main)
    for name in listed():
        command = main.get_command(context, name)
        yield (name,)
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                yield (name, inner)


@pytest.mark.parametrize("path", list(commands_with_paths()), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: viewsync {' '.join(path)}")
    assert "--log-level" in result.stdout or len(path) > 1


def test_every_module_beside_the_command_line_is_a_command() -> None:
    folder = Path(viewsync.__file__).parent / "cli"
    found = {
        path.stem if path.parent == folder else path.parent.name
        for path in (*folder.glob("*.py"), *folder.glob("*/__init__.py"))
        if "\ndef command(" in path.read_text(encoding="utf-8")
    }
    # `sim_pets2009.py` is what `viewsync sim pets2009` runs: a part of the command before the underscore.
    found -= {name for name in found if name.partition("_")[0] in found - {name}}
    assert found == set(listed())


def test_help_lists_what_works_and_imports_none_of_it() -> None:
    script = (
        "import sys; from viewsync.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('viewsync.cli.') and not m.endswith('.stop')]"
        " + [m for m in ('zmq', 'cv2', 'torch', 'onnxruntime', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *help_lines, imported = result.stdout.splitlines()
    assert imported == "[]"
    for name in listed():
        assert any(line.strip().startswith(name) for line in help_lines)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("nonsense",), "No such command 'nonsense'; see `viewsync --help`"),
        (("--nonsense",), "No such option '--nonsense'; see `viewsync --help`"),
        (("keys", "make", "--hubb"), "see `viewsync keys make --help`"),
        (("--log-level", "loud", "keys"), "'loud' is not one of"),
        (("keys", "make"), "nothing to make; give --hub"),
        (("keys", "make", "--agent", "north"), "give --scene NAME"),
        (
            ("keys", "list", "--dir", "/no/such/folder"),
            "/no/such/folder/allow.yaml: No such file or directory",
        ),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(args: tuple[str, ...], says: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert says in result.stderr
    assert result.stderr.startswith("viewsync: ")
    assert result.stderr.count("\n") == 1


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Run `viewsync fail`, a command that raises `error`."""

    def run_failing(error: BaseException) -> Result:
        @click.command()
        def fail() -> None:
            raise error

        monkeypatch.setattr(type(main), "get_command", lambda *_: fail)
        return run("fail")

    return run_failing


def in_use() -> BaseException:
    with zmq.Context() as context, context.socket(zmq.PUB) as first, context.socket(zmq.PUB) as second:
        port = first.bind_to_random_port("tcp://127.0.0.1")
        try:
            second.bind(f"tcp://127.0.0.1:{port}")
        except zmq.ZMQError as error:
            return error
    raise AssertionError("bound twice")


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError("hub.yaml: unknown key"), 2, "viewsync: hub.yaml: unknown key"),
        (CalibError("scene.yaml: no cameras"), 2, "viewsync: scene.yaml: no cameras"),
        (WireError("too-large", "9 MiB"), 2, "viewsync: too-large: 9 MiB"),
        (ConfigError("two\nlines"), 2, "viewsync: two lines"),
        (ConfigError("cannot open rtsp://u:hunter2@cam/"), 2, "viewsync: cannot open rtsp://***@cam/"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.png"), 2, "out.png: the disk is full"),
        (OSError(errno.EADDRINUSE, "Address already in use"), 2, "another port"),
        (PermissionError(errno.EACCES, "Permission denied", "/secret"), 2, "/secret: permission denied"),
        (in_use(), 2, "another port"),
        (ModuleNotFoundError("No module named 'av'", name="av"), 2, "needs the package 'av'"),
        (InternalError("the slots do not match"), 1, "viewsync: the slots do not match"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_the_exit_code_says_whose_fault_it_was(failing, error: BaseException, code: int, says: str) -> None:
    result = failing(error)
    assert result.exit_code == code
    assert says in result.stderr
    assert result.stderr.strip().count("\n") == 0
    assert result.stdout == ""


def test_a_bug_of_ours_shows_a_traceback_without_passwords(failing) -> None:
    result = failing(ZeroDivisionError("while at rtsp://u:hunter2@cam/"))
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "report it" in result.stderr
    assert "hunter2" not in result.stderr


def test_a_reader_that_goes_away_is_nobodys_mistake(tmp_path: Path) -> None:
    KeyFolder(tmp_path).make_client(Allowed("wall", "subscriber"))
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "viewsync", "keys", "list", "--dir", str(tmp_path)]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_log_level_may_follow_the_command(tmp_path: Path) -> None:
    for args in (["--log-level", "debug", "keys", "list"], ["keys", "--log-level", "debug", "list"]):
        assert run(*args, "--dir", str(tmp_path)).exit_code == 2


def test_keys_are_made_from_the_command_line(tmp_path: Path) -> None:
    make = ("keys", "make", "--dir", str(tmp_path / "k"), "--hub", "--agent", "north", "--scene", "plaza")
    assert run(*make, "--views", "north,east", "--subscriber", "wall").exit_code == 0
    again = run(*make)
    assert again.exit_code == 0
    assert again.stdout.count("kept") == 2
    entries = [
        json.loads(line)
        for line in run("keys", "list", "--dir", str(tmp_path / "k"), "--json").stdout.splitlines()
    ]
    assert [(entry["role"], entry["name"]) for entry in entries] == [
        ("agent", "north"),
        ("subscriber", "wall"),
    ]
    # The second command named no views, and its word is the last.
    assert entries[0]["views"] == ["north"]


STOPS = """
import sys
from viewsync.cli import stopping
stop = stopping()
assert stopping() is stop
print("ready", flush=True)
{then}
print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_sets_the_event_that_loops_wait_on(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPS.format(then="stop.wait()")],
        stdout=subprocess.PIPE,
        text=True,
        # As from a terminal, even where these tests were themselves started by nohup.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.communicate(timeout=120)[0] == "stopped\n"
        assert process.returncode == 0


def test_what_nohup_started_goes_on_without_its_terminal() -> None:
    with subprocess.Popen(
        ["nohup", sys.executable, "-c", STOPS.format(then="print(stop.wait(1.0), flush=True); stop.wait()")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "False\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=120)[0] == "stopped\n"


def test_a_second_signal_ends_what_does_not_stop() -> None:
    deaf = "stop.wait(); print('first', flush=True); import threading; threading.Event().wait()"
    with subprocess.Popen(
        [sys.executable, "-c", STOPS.format(then=deaf)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "first\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert "KeyboardInterrupt" in errors
