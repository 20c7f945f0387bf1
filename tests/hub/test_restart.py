"""The hub as a process: killed and started again while a real agent goes on, stopped by signals, refused a
port.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import zmq

from viewsync.client import Subscriber
from viewsync.prediction import Prediction
from viewsync.wire import Ack, FeatureMessage, encode

Frames = Callable[..., FeatureMessage]


@pytest.fixture
def start(tiny_bundle: Path, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """start(*arguments): a hub process on sockets in tmp_path, killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "viewsync", "hub", "--bundle", str(tiny_bundle), "--site", "yard"]
        command += ["--bind", f"ipc://{tmp_path}/features", "--outputs", f"ipc://{tmp_path}/predictions"]
        command += ["--set", "rate.silence_ms=200", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_kill_9_and_restart_under_a_live_agent(
    start: Callable[..., "subprocess.Popen[str]"], frame: Frames, tmp_path: Path, hub_tools: ModuleType
) -> None:
    context: zmq.Context = zmq.Context()
    hub = start()
    agent = hub_tools.Agent(context, f"ipc://{tmp_path}/features")
    with Subscriber(f"ipc://{tmp_path}/predictions") as subscriber:
        hub_tools.first_status(subscriber)
        assert isinstance(agent.ask(frame("north", 10, time.time_ns())), Ack)
        first = hub_tools.next_prediction(subscriber)
        hub.kill()
        hub.wait()
        start()
        # The same socket, session and numbering go on; what is sent into the gap may be lost.
        second, seq = None, 10
        while second is None:
            seq += 1
            agent.socket.send(encode(frame("north", seq, time.time_ns())))
            acknowledged = isinstance(agent.receive(0.3), Ack)
            message = subscriber.receive(0.3)
            second = message if acknowledged and isinstance(message, Prediction) else None
            assert seq < 100
        assert second.session != first.session and second.seq < 20, "a new run counts anew"
        assert second.views[0].session == first.views[0].session and second.views[0].seq > 10
    context.destroy(linger=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_with_code_0_within_two_seconds(
    number: int,
    start: Callable[..., "subprocess.Popen[str]"],
    tmp_path: Path,
    hub_tools: ModuleType,
    stopwatch: Callable[..., Any],
) -> None:
    hub = start()
    with Subscriber(f"ipc://{tmp_path}/predictions") as subscriber:
        hub_tools.first_status(subscriber)
    watch = stopwatch(hub.pid)
    hub.send_signal(number)
    assert watch.until_end(hub, patience_s=100) < 2.0
    assert hub.returncode == 0


def test_a_second_hub_on_the_same_port_ends_with_one_line_and_code_2(
    start: Callable[..., "subprocess.Popen[str]"], free_port: int
) -> None:
    taken = zmq.Context.instance().socket(zmq.PUB)
    taken.bind(f"tcp://127.0.0.1:{free_port}")
    second = start("--bind", f"tcp://127.0.0.1:{free_port}")
    _, errors = second.communicate(timeout=120)
    taken.close(linger=0)
    assert second.returncode == 2
    assert errors.splitlines() == [
        f"viewsync: bind: cannot bind tcp://127.0.0.1:{free_port}: the address is in use; "
        "stop the other program or choose another port"
    ]


def test_binding_beyond_loopback_without_keys_is_refused(
    start: Callable[..., "subprocess.Popen[str]"],
) -> None:
    hub = start("--bind", "tcp://0.0.0.0:5555")
    _, errors = hub.communicate(timeout=120)
    assert hub.returncode == 2 and len(errors.splitlines()) == 1
    assert "viewsync keys" in errors and "tcp://0.0.0.0:5555" in errors


def test_metrics_and_health(
    start: Callable[..., "subprocess.Popen[str]"],
    frame: Frames,
    tmp_path: Path,
    hub_tools: ModuleType,
    free_port: int,
) -> None:
    hub = start("--health-port", str(free_port))
    context: zmq.Context = zmq.Context()
    with Subscriber(f"ipc://{tmp_path}/predictions") as subscriber:
        hub_tools.first_status(subscriber)
        agent = hub_tools.Agent(context, f"ipc://{tmp_path}/features")
        for seq in range(3):
            assert isinstance(agent.ask(frame("north", seq, time.time_ns())), Ack)
        agent.ask(b"rubbish")
        hub_tools.next_prediction(subscriber)
        # A status later, the turn that counted the rubbish is over.
        while isinstance(subscriber.receive(20), Prediction):
            pass
        metrics = urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=60).read().decode()
        health = json.load(urlopen(f"http://127.0.0.1:{free_port}/healthz", timeout=60))
    context.destroy(linger=0)
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert float(values['viewsync_hub_messages_total{view="north"}']) == 3
    assert float(values['viewsync_hub_messages_total{view="south"}']) == 0
    assert float(values['viewsync_hub_refused_total{reason="not-msgpack"}']) == 1
    assert float(values['viewsync_hub_predictions_total{degraded="true"}']) >= 1
    assert float(values["viewsync_hub_step_seconds_count"]) >= 1
    assert 0 < float(values['viewsync_hub_view_age_seconds{view="north"}']) < 60
    assert values['viewsync_hub_view_age_seconds{view="west"}'] == "+Inf"
    assert float(values['viewsync_hub_clock_uncertainty_seconds{view="north"}']) == pytest.approx(1e-3)
    assert (
        health["status"] == "ok"
        and health["view_age_s"]["north"] > 0
        and health["view_age_s"]["west"] is None
    )
    with pytest.raises(HTTPError):
        urlopen(f"http://127.0.0.1:{free_port}/elsewhere", timeout=60)
    assert hub.poll() is None


def test_subscribe_prints_lines_for_people_and_for_programs(
    start: Callable[..., "subprocess.Popen[str]"], frame: Frames, tmp_path: Path, hub_tools: ModuleType
) -> None:
    start("--compare", "none", "--compare", "reference-only")
    listen = [sys.executable, "-m", "viewsync", "subscribe", f"ipc://{tmp_path}/predictions"]
    people = subprocess.Popen([*listen, "--count", "2"], stdout=subprocess.PIPE, text=True)
    programs = subprocess.Popen([*listen, "--count", "2", "--json"], stdout=subprocess.PIPE, text=True)
    context: zmq.Context = zmq.Context()
    agent = hub_tools.Agent(context, f"ipc://{tmp_path}/features")
    seq = 0
    while people.poll() is None or programs.poll() is None:
        assert isinstance(agent.ask(frame("north", seq, time.time_ns())), Ack)
        time.sleep(0.05)  # a camera's pace
        seq += 1
        assert seq < 2000
    context.destroy(linger=0)
    lines = [line for line in people.communicate()[0].splitlines() if "no answer" not in line]
    assert people.returncode == programs.returncode == 0 and len(lines) == 2
    assert all(" count " in line and "(column)" in line and "none " in line for line in lines)
    assert all("south: no frame" in line and "zones left " in line for line in lines)
    objects = [json.loads(line) for line in programs.communicate()[0].splitlines()]
    predictions = [item for item in objects if item["kind"] == "prediction"]
    assert len(predictions) == 2 and predictions[0]["seq"] < predictions[1]["seq"]
    assert set(predictions[0]["counts"]) == {"column", "none", "reference-only"}


def test_subscribe_without_a_hub_ends_in_time(tmp_path: Path) -> None:
    listen = [sys.executable, "-m", "viewsync", "subscribe", f"ipc://{tmp_path}/nobody", "--seconds", "0.5"]
    assert subprocess.run(listen, timeout=120, capture_output=True).returncode == 0
    counting = subprocess.run([*listen, "--count", "1"], timeout=120, capture_output=True, text=True)
    assert counting.returncode == 2 and "0 of 1 predictions within 0.5 s" in counting.stderr


def test_subscribe_says_that_no_hub_is_there(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/nobody"
    listen = [sys.executable, "-m", "viewsync", "subscribe", endpoint, "--seconds", "4"]
    waited = subprocess.run(listen, timeout=120, capture_output=True, text=True)
    assert (waited.returncode, waited.stdout) == (0, "")
    assert waited.stderr.count("no hub there; check the address, and that the hub runs") == 1


def test_subscribe_says_that_the_hub_went_away_and_is_back(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    hub = start()
    listen = [sys.executable, "-m", "viewsync", "subscribe", f"ipc://{tmp_path}/predictions"]
    subscriber = subprocess.Popen(listen, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert subscriber.stdout is not None and subscriber.stderr is not None
        assert "no answer" in subscriber.stdout.readline()
        hub.kill()
        said = subscriber.stderr.readline()
        if "no hub there" in said:  # a hub that was slow to begin
            said = subscriber.stderr.readline()
        assert "the hub went away; waiting for it" in said
        start()
        assert "the hub is back" in subscriber.stderr.readline()
    finally:
        subscriber.terminate()
        subscriber.communicate(timeout=60)
    assert subscriber.returncode == 0
