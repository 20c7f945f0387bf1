"""`viewsync edge` as a process: its mistakes are one line, it says how it is, and it stops on a signal."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE_S = 120.0


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "viewsync", "edge", *arguments]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "source.ulr=x"], "did you mean 'url'"),
        (
            ["FILM", "--view", "south", "--bundle", "BUNDLE", "--rate", "50"],
            "--rate: Input should be less than or equal to 30",
        ),
        (["FILM", "--view", "south", "--bundle", "BUNDLE", "--rate", "0.1"], "--rate: "),
        (["FILM", "--view", "sooth", "--bundle", "BUNDLE"], "no view 'sooth'"),
        (["FILM", "--view", "south", "--bundle", "BUNDLE", "--hub", "tcp://10.0.0.1:5555"], "no keys"),
        (["ftp://a:secret@b/c", "--view", "south", "--bundle", "BUNDLE"], "no known kind"),
    ],
)
def test_mistakes_are_one_line_and_code_two(
    arguments: list[str], said: str, film: Path, tiny_bundle: Path
) -> None:
    places = {"FILM": str(film), "BUNDLE": str(tiny_bundle)}
    done = subprocess.run(
        _command(*(places.get(argument, argument) for argument in arguments)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert said in last and "secret" not in done.stderr and "Traceback" not in done.stderr


def test_the_command_runs_says_how_it_is_and_stops_on_a_signal(
    film: Path, tiny_bundle: Path, answering: Any, tmp_path: Path, stopwatch: Callable[..., Any]
) -> None:
    config = tmp_path / "edge.yaml"
    config.write_text(
        f"bundle: {tiny_bundle}\nview: south\nsite: yard\nrate_hz: 5\n"
        "source: {url: '${FILM}', loop: true, image_rate_hz: 5}\n"
        f"hub: {{endpoint: '{answering.endpoint}'}}\nhealth: {{port: 0}}\n"
    )
    process = subprocess.Popen(
        _command("--config", str(config), "--set", "rate_hz=10"),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FILM": str(film)},
    )
    try:
        assert process.stderr is not None
        port = next(
            int(found[1]) for line in process.stderr if (found := re.search(r"http://127.0.0.1:(\d+)", line))
        )
        answering.wait_for(lambda received: len(received) >= 3)
        assert psutil.Process(process.pid).memory_info().rss < 300e6  # the promise
        health = _get(port, "/healthz")
        assert health[0] == 200 and json.loads(health[1])["view"] == "south"
        assert b"viewsync_edge_messages_acked_total" in _get(port, "/metrics")[1]
        watch = stopwatch(process.pid)
        process.send_signal(signal.SIGTERM)
        # Two seconds from the signal to the return of `run`; the interpreter itself takes a moment more.
        assert watch.until_end(process, PATIENCE_S) < 4.0
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
