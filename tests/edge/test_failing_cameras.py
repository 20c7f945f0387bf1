"""Cameras that die, refuse, freeze, stutter or push: said, counted, and taken again."""

import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from viewsync.clock import SteadyClock
from viewsync.units import SECOND_NS

Watch = Callable[..., Any]
Value = Callable[..., float]
Eventually = Callable[[Callable[[], bool]], None]
now = SteadyClock(time.time_ns, time.monotonic_ns)


def test_a_killed_camera_comes_back(
    rtsp: ModuleType,
    serve: Callable[..., Any],
    watch: Watch,
    eventually: Eventually,
    value: Value,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    server = serve(rtsp.serve_pattern("5/1"))
    watched = watch(server.url, reconnect_max_s=1.0)
    watched.wait_for(lambda frames: len(frames) >= 3)
    assert watched.source.state()[0]
    server.kill()
    eventually(lambda: "nobody listens there" in caplog.text)
    assert not watched.source.state()[0]
    assert "the stream ended" in caplog.text or "closed the connection" in caplog.text
    had = len(watched.frames)
    server.start()
    frames = watched.wait_for(lambda frames: len(frames) >= had + 3)
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    assert value("source_reconnects_total") >= 2
    assert caplog.text.count("nobody listens there") == 1
    assert caplog.text.count("frames come from") == 2


@pytest.mark.parametrize(
    ("credentials", "path", "said"),
    [("", "/clip", "401"), ("viewer:wr0ng@", "/clip", "401"), ("viewer:s3cret@", "/nothing", "404")],
)
def test_a_camera_that_refuses_is_named_with_what_to_do_and_without_its_password(
    credentials: str,
    path: str,
    said: str,
    rtsp: ModuleType,
    serve: Callable[..., Any],
    watch: Watch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serve(rtsp.serve_pattern("5/1"), ("viewer", "s3cret"))
    watched = watch(f"rtsp://{credentials}127.0.0.1:{server.port}{path}", reconnect_max_s=0.5)
    eventually(lambda: said in caplog.text)
    eventually(lambda: said in str(watched.source.state()))
    assert f"127.0.0.1:{server.port}{path}" in caplog.text
    for secret in ("wr0ng", "s3cret"):
        assert secret not in caplog.text and secret not in str(watched.source.state())
    assert len(re.findall(rf"\b{said}\b", caplog.text)) == 1  # whatever digits the port has


def test_the_right_password_opens(
    rtsp: ModuleType,
    serve: Callable[..., Any],
    watch: Watch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    server = serve(rtsp.serve_pattern("5/1"), ("viewer", "s3cret"))
    watch(f"rtsp://viewer:s3cret@127.0.0.1:{server.port}/clip").wait_for(lambda frames: len(frames) >= 2)
    assert "***@127.0.0.1" in caplog.text and "s3cret" not in caplog.text


def test_a_camera_that_accepts_and_says_nothing_is_given_up_and_does_not_delay_stop(
    watch: Watch, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"rtsp://127.0.0.1:{mute.getsockname()[1]}/north"
        patient = watch(url, timeout_s=60.0)
        watch(url, timeout_s=0.5, reconnect_max_s=0.5)
        eventually(lambda: "does not answer in time" in caplog.text)
        assert patient.stop() < 2.0


def test_a_camera_that_freezes_in_the_middle_is_given_up(
    rtsp: ModuleType,
    peers: ModuleType,
    serve: Callable[..., Any],
    watch: Watch,
    eventually: Eventually,
    value: Value,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serve(rtsp.serve_pattern("5/1"))
    link = peers.SlowLink(server.port, 10e6)
    try:
        watched = watch(f"rtsp://127.0.0.1:{link.port}/clip", timeout_s=1.0, reconnect_max_s=0.5)
        watched.wait_for(lambda frames: len(frames) >= 3)
        link.stall()
        eventually(lambda: value("source_reconnects_total") >= 1)
        assert not watched.source.state()[0]
    finally:
        link.close()


def test_a_stream_that_stutters_inside_pictures_loses_nothing(
    clip: Path,
    rtsp: ModuleType,
    peers: ModuleType,
    serve: Callable[..., Any],
    watch: Watch,
    value: Value,
) -> None:
    # 20 kB/s: less than a key picture a second, in pieces of 512 bytes, a third of an RTP payload.
    server = serve(rtsp.serve_file(clip))
    link = peers.SlowLink(server.port, 40_000.0)
    try:
        watched = watch(f"rtsp://127.0.0.1:{link.port}/clip")
        frames = watched.wait_for(lambda frames: sum(frame.clock == "rtcp" for frame in frames) >= 40)
        steps_s = np.diff([frame.capture_ns for frame in frames if frame.clock == "rtcp"]) / SECOND_NS
        assert np.all(steps_s > 0)
        assert value("frames_dropped_total", reason="damaged") <= value("decoded_again_total")
    finally:
        link.close()


def test_a_camera_that_pushes_is_taken_again_and_again(
    rtsp: ModuleType, watch: Watch, eventually: Eventually, value: Value, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"rtsp://127.0.0.1:{rtsp.free_port()}/north"
    watched = watch(url, listen=True)
    assert not watched.source.state()[0]
    time.sleep(2.5)  # longer than one turn of listening
    assert value("source_reconnects_total") == 0
    for turn in (1, 2):
        had = len(watched.frames)
        pusher = rtsp.Pusher(url, rate_hz=5.0)
        try:
            frames = watched.wait_for(lambda frames, had=had: len(frames) >= had + 6)
        finally:
            pusher.close()
        eventually(lambda turn=turn: value("source_reconnects_total") == turn)
        eventually(lambda: "the camera stopped pushing" in caplog.text)
        # Pushed by FFmpeg: sender reports from the first frame on, and the pusher's clock is ours.
        pushed = frames[had:]
        assert {frame.clock for frame in pushed} == {"rtcp"}
        for frame in pushed:
            assert frame.camera_offset is not None
            assert abs(frame.camera_offset.offset_ns) <= frame.camera_offset.uncertainty_ns


def test_a_port_in_use_is_said(
    rtsp: ModuleType, watch: Watch, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        watch(f"rtsp://127.0.0.1:{taken.getsockname()[1]}/north", listen=True)
        eventually(lambda: "port is in use" in caplog.text)


@pytest.mark.parametrize("thread", ["camera", "source"])
def test_an_error_that_nobody_foresaw_ends_the_attempt_only(
    thread: str,
    rtsp: ModuleType,
    serve: Callable[..., Any],
    watch: Watch,
    eventually: Eventually,
    value: Value,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = True

    def clock() -> int:
        if broken and threading.current_thread().name == thread:
            raise KeyError("a surprise with rtsp://viewer:s3cret@camera in it")
        return int(now())

    server = serve(rtsp.serve_pattern("5/1"))
    watched = watch(server.url, clock=clock, reconnect_max_s=0.5)
    eventually(lambda: value("source_reconnects_total") >= 2)
    assert "nobody foresaw (KeyError" in watched.source.state()[1]["problem"]
    said = [record for record in caplog.records if "nobody foresaw" in record.message]
    assert len(said) == 1 and said[0].exc_info is not None
    assert "s3cret" not in said[0].message
    broken = False
    watched.wait_for(lambda frames: len(frames) >= 3)
    assert watched.source.state()[0]
