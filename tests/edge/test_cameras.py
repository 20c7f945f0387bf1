"""Sources against real RTSP servers and a real camera's clip, checked against independent readers."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from viewsync.units import SECOND_NS

Watch = Callable[..., Any]
Value = Callable[..., float]
Eventually = Callable[[Callable[[], bool]], None]


def _clip_images(clip: Path, size: tuple[int, int]) -> np.ndarray:
    """Every eighth pixel of the clip's frames (N, H / 8, W / 8, 3) by the ffmpeg program: another decoder
    build, no network.
    """
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    images = []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as ffmpeg:
        assert ffmpeg.stdout is not None
        while len(raw := ffmpeg.stdout.read(size[0] * size[1] * 3)) == size[0] * size[1] * 3:
            images.append(
                np.frombuffer(raw, np.uint8).reshape(size[1], size[0], 3)[::8, ::8].astype(np.int16)
            )
    return np.stack(images)


def test_a_real_clip_frame_by_frame_against_independent_readers(
    clip: Path, rtsp: ModuleType, serve: Callable[..., Any], watch: Watch, value: Value
) -> None:
    server = serve(rtsp.serve_file(clip))
    watched = watch(server.url)
    watched.wait_for(lambda frames: len(frames) >= 3)
    probed = rtsp.probe(server.url, 3.0)
    times_ns = np.array(rtsp.capture_times_ns(server.url, 60))
    frames = watched.wait_for(lambda frames: frames[-1].capture_ns > times_ns.max())

    # Size and rate as ffprobe sees them.
    assert {frame.stream_size for frame in frames} == {(probed[0]["width"], probed[0]["height"])}
    probed_s = np.diff([float(frame["pts_time"]) for frame in probed if "pts_time" in frame])
    interval_s = float(np.median(probed_s))
    # Compare where the independent reader was there as well, less the pictures at its ends, where it lacks
    # B-frames or what they refer to. Before that the server still moves its clock, with each new client.
    first_ns, last_ns = np.sort(times_ns)[[8, -8]]
    latest = [frame for frame in frames if frame.clock == "rtcp" and frame.capture_ns < first_ns][-1:]
    since = latest[0].seq + 1 if latest else 0
    shared = [frame for frame in frames[since:] if frame.capture_ns <= last_ns]
    assert {frame.clock for frame in shared} == {"rtcp"}
    steps_s = np.diff([frame.capture_ns for frame in shared]) / SECOND_NS
    steps = np.round(steps_s / interval_s)
    assert np.abs(steps_s - steps * interval_s).max() < 0.01  # a new sender report may move them so far
    # Every frame once. Where this machine was too slow for one, the next took its place and was counted.
    assert len(shared) >= 5 and steps.sum() >= 30 and steps.min() >= 1
    assert (steps - 1).sum() <= value("frames_dropped_total", reason="newer")
    assert value("frames_dropped_total", reason="rate") == 0

    # Capture times as GStreamer's own RTCP gives them, frame for frame.
    away_ns = [np.abs(times_ns - frame.capture_ns).min() for frame in shared]
    assert max(away_ns) < 2_000_000  # another NTP rounding, not another frame (100 ms)

    # The pictures are the clip's, in order, none twice.
    images = _clip_images(clip, (768, 432))
    seen = [frame.image[::8, ::8].astype(np.int16) for frame in shared]
    start = int(np.abs(images - seen[0]).mean(axis=(1, 2, 3)).argmin())
    places = start + np.concatenate([[0], np.cumsum(steps)]).astype(int)
    for place, image in zip(places, seen, strict=True):
        # Another build's YUV to RGB conversion rounds by a level or two; the next frame differs by more.
        assert np.abs(images[place] - image).mean() < 2.0
    assert value("frames_dropped_total", reason="damaged") == 0


def test_the_chosen_rate_is_kept(
    clip: Path, rtsp: ModuleType, serve: Callable[..., Any], watch: Watch
) -> None:
    watched = watch(serve(rtsp.serve_file(clip)).url, rate_hz=2.0)
    frames = watched.wait_for(lambda frames: sum(frame.clock == "rtcp" for frame in frames) >= 8)
    dated = [frame for frame in frames if frame.clock == "rtcp"]
    steps_s = np.diff([frame.capture_ns for frame in dated]) / SECOND_NS
    # The stream has a frame every 0.1 s to choose from.
    assert abs(np.median(steps_s) - 0.5) < 0.11
    assert np.sort(steps_s)[1] > 0.35  # but for one at most: the server may set its clock


def test_frames_of_a_slow_camera_are_not_an_interval_old(
    rtsp: ModuleType, serve: Callable[..., Any], watch: Watch
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
def test_other_codecs(codec: str, rtsp: ModuleType, serve: Callable[..., Any], watch: Watch) -> None:
    frames = watch(serve(rtsp.serve_pattern("5/1", codec)).url).wait_for(lambda frames: len(frames) >= 5)
    assert frames[-1].stream_size == (384, 288)
    # The test picture: a white ball on black.
    assert frames[-1].image.max() > 200 and np.median(frames[-1].image) < 40


def test_a_large_stream_is_made_smaller_while_it_is_converted(
    clip: Path, rtsp: ModuleType, serve: Callable[..., Any], watch: Watch
) -> None:
    watched = watch(serve(rtsp.serve_file(clip)).url, wanted_size=(192, 108))
    (frame, *_) = watched.wait_for(lambda frames: bool(frames))
    assert frame.stream_size == (768, 432)
    assert frame.image.shape == (108, 192, 3)
