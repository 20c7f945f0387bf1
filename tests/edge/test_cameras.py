"""Sources against real RTSP servers and a real camera's clip."""

import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge.config import SourceSection
from edge.counts import EdgeCounts
from edge.frames import Frame
from edge.source import Source, open_source
from viewsync.clock import SECOND_NS, SteadyClock
from viewsync.errors import ConfigError, SourceError

PATIENCE_S = 40.0
CLIP = "ingest-clips/one-by-one-person-detection.mp4"
now = SteadyClock(time.time_ns, time.monotonic_ns)


class Watched:
    """A source whose frames are collected by a thread, as the agent would."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.frames: list[Frame] = []
        self.error: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        source.start()
        self._thread.start()

    def wait_for(
        self, condition: Callable[[list[Frame]], bool], patience_s: float = PATIENCE_S
    ) -> list[Frame]:
        with self._changed:
            self._changed.wait_for(lambda: condition(self.frames) or self.error, patience_s)
            assert self.error is None, self.error
            assert condition(self.frames), (len(self.frames), self.source.state())
            return list(self.frames)

    def stop(self) -> float:
        """Stop, and how long it took, seconds."""
        start_s = time.monotonic()
        self.source.close()
        self._thread.join(PATIENCE_S)
        return time.monotonic() - start_s

    def _collect(self) -> None:
        try:
            for frame in self.source.frames():
                with self._changed:
                    self.frames.append(frame)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 (the tests look at it)
            with self._changed:
                self.error = error
                self._changed.notify_all()


@pytest.fixture
def watch(counts: EdgeCounts) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(
        url: str, rate_hz: float = 30.0, wanted_size: tuple[int, int] | None = None, **settings: Any
    ) -> Watched:
        section = SourceSection(url=url, **settings)
        watched = Watched(open_source(section, "north", rate_hz, wanted_size, counts, now))
        made.append(watched)
        return watched

    yield make
    for watched in made:
        assert watched.stop() < 2.0


@pytest.fixture
def serve(rtsp: ModuleType) -> Iterator[Callable[..., Any]]:
    made = []

    def make(launch: str, account: tuple[str, str] | None = None) -> Any:
        try:
            server = rtsp.ClipServer(launch, account)
        except SourceError as missing:
            pytest.skip(f"no real RTSP server to test against: {missing}")
        made.append(server)
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def clip() -> Path:
    if "VIEWSYNC_DATA" not in os.environ:
        pytest.skip("VIEWSYNC_DATA is not set: there is no real camera's clip")
    return Path(os.environ["VIEWSYNC_DATA"]) / CLIP


def _value(counts: EdgeCounts, name: str, **labels: str) -> float:
    return counts.registry.get_sample_value(f"viewsync_edge_{name}", labels) or 0.0


# --- a real camera's clip, served by a real server ------------------------------------------------------


def _clip_images(clip: Path, count: int, size: tuple[int, int]) -> np.ndarray:
    """The clip's first frames (count, H, W, 3) by the ffmpeg program: another decoder build, no network."""
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-frames:v", str(count), "-f", "rawvideo"]
    raw = subprocess.run([*command, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], 3)


def test_a_real_clip_frame_by_frame_against_independent_readers(
    clip: Path, rtsp: ModuleType, serve: Callable[..., Any], watch: Callable[..., Watched], counts: EdgeCounts
) -> None:
    server = serve(rtsp.serve_file(clip))
    watched = watch(server.url)
    watched.wait_for(lambda frames: len(frames) >= 3)
    probed = rtsp.probe(server.url, 3.0)
    times_ns = np.array(rtsp.capture_times_ns(server.url, 40))
    frames = watched.wait_for(lambda frames: frames[-1].capture_ns > times_ns.max())

    # Size and rate as ffprobe sees them.
    assert {frame.stream_size for frame in frames} == {(probed[0]["width"], probed[0]["height"])}
    probed_s = np.diff([float(frame["pts_time"]) for frame in probed if "pts_time" in frame])
    interval_s = float(np.median(probed_s))
    # Around the first report pictures come out in another order than they were dated in: B-frames.
    undated = [index for index, frame in enumerate(frames) if frame.clock != "rtcp"]
    dated = frames[undated[-1] + 1 :] if undated else frames
    steps_s = np.diff([frame.capture_ns for frame in dated]) / SECOND_NS
    steps = np.round(steps_s / interval_s)
    # Sender reports may move the times by the server's jitter.
    assert np.abs(steps_s - steps * interval_s).max() < 0.01
    # Every frame once. Where this machine was too slow for one, the next took its place and was counted.
    assert steps.min() == 1
    assert (steps - 1).sum() <= _value(counts, "frames_dropped_total", reason="newer")
    assert _value(counts, "frames_dropped_total", reason="rate") == 0

    # Capture times as GStreamer's own RTCP gives them, frame for frame.
    first_ns, last_ns = np.sort(times_ns)[
        [8, -8]
    ]  # at its ends it, too, lacks B-frames or what they refer to
    shared = [frame for frame in dated if first_ns <= frame.capture_ns <= last_ns]
    assert len(shared) >= 20
    away_ns = [np.abs(times_ns - frame.capture_ns).min() for frame in shared]
    assert max(away_ns) < 2_000_000  # another NTP rounding, not another frame (100 ms)

    # The pictures are the clip's, in order, none twice.
    images = _clip_images(clip, 400, (768, 432))
    small = images[:, ::8, ::8].astype(np.int16)
    first = dated[0].image[::8, ::8].astype(np.int16)
    start = int(np.abs(small - first).mean(axis=(1, 2, 3)).argmin())
    places = start + np.concatenate([[0], np.cumsum(steps)]).astype(int)
    for place, frame in zip(places[:60], dated[:60], strict=True):
        # Another build's YUV to RGB conversion rounds by a level or two; the next frame differs by more.
        assert np.abs(images[place].astype(np.int16) - frame.image).mean() < 2.0
    assert _value(counts, "frames_dropped_total", reason="damaged") == 0


def test_the_chosen_rate_is_kept(
    clip: Path, rtsp: ModuleType, serve: Callable[..., Any], watch: Callable[..., Watched]
) -> None:
    watched = watch(serve(rtsp.serve_file(clip)).url, rate_hz=2.0)
    frames = watched.wait_for(lambda frames: sum(frame.clock == "rtcp" for frame in frames) >= 8)
    dated = [frame for frame in frames if frame.clock == "rtcp"]
    steps_s = np.diff([frame.capture_ns for frame in dated]) / SECOND_NS
    # The stream has a frame every 0.1 s to choose from.
    assert np.all(steps_s > 0.35) and abs(steps_s.mean() - 0.5) < 0.1


def test_frames_of_a_slow_camera_are_not_an_interval_old(
    rtsp: ModuleType, serve: Callable[..., Any], watch: Callable[..., Watched]
) -> None:
    server = serve(rtsp.serve_pattern("1/2"))
    early = watch(server.url).wait_for(lambda frames: len(frames) >= 5)[2:]
    late = watch(server.url, parser="full").wait_for(lambda frames: len(frames) >= 4)[2:]
    early_s = [(frame.decoded_ns - frame.arrival_ns) / SECOND_NS for frame in early]
    late_s = [(frame.decoded_ns - frame.arrival_ns) / SECOND_NS for frame in late]
    # FFmpeg's parser waits for the next picture, two seconds; we must be well under one.
    assert min(late_s) > 1.5
    assert max(early_s) < 1.0


@pytest.mark.parametrize("codec", ["h265", "mjpeg"])
def test_other_codecs(
    codec: str, rtsp: ModuleType, serve: Callable[..., Any], watch: Callable[..., Watched]
) -> None:
    frames = watch(serve(rtsp.serve_pattern("5/1", codec)).url).wait_for(lambda frames: len(frames) >= 5)
    assert frames[-1].stream_size == (384, 288)
    # The test picture: a white ball on black.
    assert frames[-1].image.max() > 200 and np.median(frames[-1].image) < 40


def test_a_large_stream_is_made_smaller_while_it_is_converted(
    clip: Path, rtsp: ModuleType, serve: Callable[..., Any], watch: Callable[..., Watched]
) -> None:
    watched = watch(serve(rtsp.serve_file(clip)).url, wanted_size=(192, 108))
    (frame, *_) = watched.wait_for(lambda frames: bool(frames))
    assert frame.stream_size == (768, 432)
    assert frame.image.shape == (108, 192, 3)


# --- cameras that fail ----------------------------------------------------------------------------------


def test_a_killed_camera_comes_back(
    rtsp: ModuleType,
    serve: Callable[..., Any],
    watch: Callable[..., Watched],
    counts: EdgeCounts,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    server = serve(rtsp.serve_pattern("5/1"))
    watched = watch(server.url, reconnect_max_s=1.0)
    watched.wait_for(lambda frames: len(frames) >= 3)
    assert watched.source.state()[0]
    server.kill()
    _eventually(lambda: "nobody listens there" in caplog.text)
    assert not watched.source.state()[0]
    assert "the stream ended" in caplog.text or "closed the connection" in caplog.text
    had = len(watched.frames)
    server.start()
    frames = watched.wait_for(lambda frames: len(frames) >= had + 3)
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    assert _value(counts, "source_reconnects_total") >= 2
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
    watch: Callable[..., Watched],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serve(rtsp.serve_pattern("5/1"), ("viewer", "s3cret"))
    watched = watch(f"rtsp://{credentials}127.0.0.1:{server.port}{path}", reconnect_max_s=0.5)
    _eventually(lambda: said in caplog.text)
    _eventually(lambda: said in str(watched.source.state()))
    assert f"127.0.0.1:{server.port}{path}" in caplog.text
    for secret in ("wr0ng", "s3cret"):
        assert secret not in caplog.text and secret not in str(watched.source.state())
    assert caplog.text.count(said) == 1


def test_the_right_password_opens(
    rtsp: ModuleType,
    serve: Callable[..., Any],
    watch: Callable[..., Watched],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    server = serve(rtsp.serve_pattern("5/1"), ("viewer", "s3cret"))
    watch(f"rtsp://viewer:s3cret@127.0.0.1:{server.port}/clip").wait_for(lambda frames: len(frames) >= 2)
    assert "***@127.0.0.1" in caplog.text and "s3cret" not in caplog.text


def test_a_camera_that_accepts_and_says_nothing_is_given_up_and_does_not_delay_stop(
    watch: Callable[..., Watched], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"rtsp://127.0.0.1:{mute.getsockname()[1]}/north"
        patient = watch(url, timeout_s=60.0)
        watch(url, timeout_s=0.5, reconnect_max_s=0.5)
        _eventually(lambda: "does not answer in time" in caplog.text)
        assert patient.stop() < 2.0


def test_a_camera_that_freezes_in_the_middle_is_given_up(
    rtsp: ModuleType,
    peers: ModuleType,
    serve: Callable[..., Any],
    watch: Callable[..., Watched],
    counts: EdgeCounts,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serve(rtsp.serve_pattern("5/1"))
    link = peers.SlowLink(server.port, 10e6)
    try:
        watched = watch(f"rtsp://127.0.0.1:{link.port}/clip", timeout_s=1.0, reconnect_max_s=0.5)
        watched.wait_for(lambda frames: len(frames) >= 3)
        link.stall()
        _eventually(lambda: _value(counts, "source_reconnects_total") >= 1)
        assert not watched.source.state()[0]
    finally:
        link.close()


def test_a_stream_that_stutters_inside_pictures_loses_nothing(
    clip: Path,
    rtsp: ModuleType,
    peers: ModuleType,
    serve: Callable[..., Any],
    watch: Callable[..., Watched],
    counts: EdgeCounts,
) -> None:
    # 20 kB/s: less than a key picture a second, in pieces of 512 bytes, a third of an RTP payload.
    server = serve(rtsp.serve_file(clip))
    link = peers.SlowLink(server.port, 40_000.0)
    try:
        watched = watch(f"rtsp://127.0.0.1:{link.port}/clip")
        frames = watched.wait_for(lambda frames: sum(frame.clock == "rtcp" for frame in frames) >= 40)
        steps_s = np.diff([frame.capture_ns for frame in frames if frame.clock == "rtcp"]) / SECOND_NS
        assert np.all(steps_s > 0)
        assert _value(counts, "frames_dropped_total", reason="damaged") <= _value(
            counts, "decoded_again_total"
        )
    finally:
        link.close()


# --- pushed streams -------------------------------------------------------------------------------------


def test_a_camera_that_pushes_is_taken_again_and_again(
    rtsp: ModuleType, watch: Callable[..., Watched], counts: EdgeCounts, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"rtsp://127.0.0.1:{rtsp.free_port()}/north"
    watched = watch(url, listen=True)
    assert not watched.source.state()[0]
    time.sleep(2.5)  # longer than one turn of listening
    assert _value(counts, "source_reconnects_total") == 0
    for turn in (1, 2):
        had = len(watched.frames)
        pusher = rtsp.Pusher(url, rate_hz=5.0)
        try:
            frames = watched.wait_for(lambda frames, had=had: len(frames) >= had + 6)
        finally:
            pusher.close()
        _eventually(lambda turn=turn: _value(counts, "source_reconnects_total") == turn)
        # Pushed by FFmpeg: sender reports from the first frame on, and the pusher's clock is ours.
        pushed = frames[had:]
        assert {frame.clock for frame in pushed} == {"rtcp"}
        for frame in pushed:
            assert frame.camera_offset is not None
            assert abs(frame.camera_offset.offset_ns) <= frame.camera_offset.uncertainty_ns


def test_a_port_in_use_is_said(
    rtsp: ModuleType, watch: Callable[..., Watched], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        watch(f"rtsp://127.0.0.1:{taken.getsockname()[1]}/north", listen=True)
        _eventually(lambda: "port is in use" in caplog.text)


# --- recordings -----------------------------------------------------------------------------------------


def test_a_file_plays_in_real_time_by_the_agents_clock(
    clip: Path, watch: Callable[..., Watched], counts: EdgeCounts
) -> None:
    start_ns = now()
    watched = watch(str(clip), rate_hz=5.0)
    frames = watched.wait_for(lambda frames: len(frames) >= 8)
    assert {frame.clock for frame in frames} == {"file"}
    steps_s = np.diff([frame.capture_ns for frame in frames]) / SECOND_NS
    np.testing.assert_allclose(steps_s, 0.2, atol=1e-6)
    # Not before it is due; how late is the machine's affair.
    assert all(frame.decoded_ns >= frame.capture_ns >= start_ns for frame in frames)


def test_a_folder_of_images_ends_or_loops(tmp_path: Path, watch: Callable[..., Watched]) -> None:
    import cv2

    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((48, 64, 3), (0, 0, 80 * index), np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    once = watch(str(tmp_path), image_rate_hz=20.0)
    frames = once.wait_for(lambda frames: len(frames) == 3)
    # Red is first: OpenCV writes BGR, frames are RGB.
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 80, 160]
    _eventually(lambda: not once.source.state()[0])
    looping = watch(str(tmp_path), image_rate_hz=20.0, loop=True)
    looping.wait_for(lambda frames: len(frames) >= 7)


def test_recordings_that_cannot_be_read_are_the_users_mistake(
    tmp_path: Path, watch: Callable[..., Watched], counts: EdgeCounts
) -> None:
    with pytest.raises(SourceError, match="there is no"):
        watch(str(tmp_path / "missing.mp4"))
    with pytest.raises(ConfigError, match="no known kind"):
        watch("gopher://camera")
    with pytest.raises(ConfigError, match="listen"):
        watch(str(tmp_path), listen=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "noise.mp4").write_bytes(b"no video at all")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.png").write_bytes(b"no image")
    for name, said in [
        ("empty", "has no frames"),
        ("noise.mp4", "no video"),
        ("broken", "not a readable image"),
    ]:
        watched = watch(str(tmp_path / name))
        _eventually(lambda watched=watched: watched.error is not None)
        assert isinstance(watched.error, SourceError) and said in str(watched.error)


def test_a_device_that_is_not_there_is_waited_for(
    watch: Callable[..., Watched], caplog: pytest.LogCaptureFixture
) -> None:
    watch("/dev/video97")
    _eventually(lambda: "/dev/video97: it is not there" in caplog.text)


def _eventually(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
