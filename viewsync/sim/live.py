"""A simulated camera: takes a picture at every instant of its schedule and hands it, live, to a stream.

Each picture shows the scene at the true instant of its schedule and is stamped with what the camera's own
clock showed then. The stamp travels as RTP presentation time against the sender reports, as from a real
camera: FFmpeg's muxer maps presentation time 0 to `start_time_realtime`, and its reports say which RTP time
the host's wall clock has on that scale, the first report before the first packet. So shifting a frame's
presentation time shifts the capture time that a reader works out, exactly (± 11 µs, the tick of the 90 kHz
clock). Decoding times are a mere counter, far below, so a clock that is set back jumps back inside the
session, as on a camera that does not restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from threading import Event
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import av
from av.container import OutputContainer

from viewsync.errors import ConfigError
from viewsync.redact import redact
from viewsync.sim.camera_clock import CameraClock, FrameSchedule
from viewsync.sim.codec import Encoder, Image, configure
from viewsync.units import SECOND_NS

_log = logging.getLogger(__name__)

Render = Callable[[float], Image]

RTP_TICK = Fraction(1, 90_000)
# RTP time has 32 bits: what a reader works out lies within ± 2^31 ticks, 6.6 hours, of the report's NTP time.
MAX_DEVIATION_S = 6 * 3600
_ORIGIN_BEFORE_S = MAX_DEVIATION_S + 3600

_FIRST_RETRY_S, _LAST_RETRY_S = 0.25, 2.0


# What a stream raises when the other side is gone: some of FFmpeg's errors are no OSError.
GONE = (OSError, av.FFmpegError)


class Stream(Protocol):
    """Where frames go. `connect` and `send` raise one of GONE when the other side is gone."""

    @property
    def address(self) -> str:
        """For messages, without credentials."""

    @property
    def connected(self) -> bool: ...

    def connect(self, camera_ns: int, now_ns: int) -> None:
        """Open; `camera_ns` is what the camera's clock shows at `now_ns`, both UTC nanoseconds."""

    def send(self, image: Image, camera_ns: int) -> None:
        """Encode and send (H, W, 3) uint8 RGB, captured when the camera's clock showed `camera_ns`."""

    def close(self) -> None:
        """End the stream; never raises."""


def check_address(url: str) -> SplitResult:
    """The parts of an address rtsp://[user:password@]host:port/path; raises ConfigError for any other."""
    parts = urlsplit(url)
    try:
        if parts.scheme == "rtsp" and parts.hostname and parts.port and len(parts.path) > 1:
            return parts
    except ValueError:  # a port that is no number
        pass
    raise ConfigError(f"{redact(url)}: is no rtsp://host:port/path; correct the address")


class RtspPush:
    """H.264 pushed over RTSP (interleaved TCP) to a reader that listens, with sender reports.

    Raises ConfigError for an address that is no rtsp://host:port/path.
    """

    def __init__(self, url: str, width: int, height: int, fps: float) -> None:
        check_address(url)
        self._url, self._size, self._fps = url, (width, height), fps
        self._container: OutputContainer | None = None

    @property
    def address(self) -> str:
        return redact(self._url)

    @property
    def connected(self) -> bool:
        return self._container is not None

    def connect(self, camera_ns: int, now_ns: int) -> None:
        self._check(camera_ns, now_ns)
        origin_us = (camera_ns // SECOND_NS - _ORIGIN_BEFORE_S) * 1_000_000
        container = av.open(
            self._url,
            "w",
            format="rtsp",
            options={"rtsp_transport": "tcp"},
            container_options={"start_time_realtime": str(origin_us)},
        )
        video = container.add_stream("libx264", rate=Fraction(self._fps).limit_denominator(1000))
        configure(video.codec_context, *self._size, self._fps)
        container.start_encoding()  # the RTSP handshake
        self._video, self._encoder = video, Encoder(video.codec_context)
        self._container, self._origin_ns, self._sent = container, origin_us * 1000, 0

    def send(self, image: Image, camera_ns: int) -> None:
        container = self._container
        if container is None:
            raise ConnectionError(f"{self.address}: not connected")
        self._check(camera_ns, time.time_ns())
        packet = self._encoder.encode(image)
        packet.stream, packet.time_base = self._video, RTP_TICK
        packet.pts = round((camera_ns - self._origin_ns) * 1e-9 / RTP_TICK)
        packet.dts = self._sent
        self._sent += 1
        container.mux(packet)

    def _check(self, camera_ns: int, now_ns: int) -> None:
        if abs(camera_ns - now_ns) > MAX_DEVIATION_S * SECOND_NS:
            raise ConfigError(
                f"{self.address}: the camera's clock is more than {MAX_DEVIATION_S // 3600} h off, which a "
                f"pushed stream cannot express; use --server"
            )

    def close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            try:
                container.close()
            except GONE as error:
                _log.debug("%s: closing: %s", self.address, error)


class SimulatedCamera:
    """One camera: `run(stop)` takes and sends frames, and reconnects when the reader is gone.

    view: a name for the log; render: true time in seconds since `epoch_ns` (UTC) → image (H, W, 3) uint8 RGB.
    blocking: entered around calls into the stream that may block in native code, where neither `stop` nor a
    Python signal handler can reach.
    """

    def __init__(
        self,
        view: str,
        render: Render,
        clock: CameraClock,
        schedule: FrameSchedule,
        epoch_ns: int,
        stream: Stream,
        blocking: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._view, self._render, self._stream, self._blocking = view, render, stream, blocking
        self._clock, self._schedule, self._epoch_ns = clock, schedule, epoch_ns
        self._retry_s = _FIRST_RETRY_S
        self._next_try_s = 0.0
        self._complained = False
        self._connected_s = 0.0

    def run(self, stop: Event) -> None:
        """Raises ConfigError where the stream cannot carry this camera's clock."""
        # The first picture takes longest, for the crowd has to walk up to now.
        self._render(max(0.0, self._now_s()))
        done_s = self._now_s()
        try:
            while not stop.is_set():
                instant_s = self._schedule.following(done_s)[1]
                # Drawn before its instant: a camera needs no time to see, however busy this machine is.
                image = self._render(instant_s) if self._stream.connected else None
                if not self._wait_until(instant_s, stop):
                    return
                # Whoever connects gets what is taken from then on, and nothing from before the handshake.
                if self._stream.connected and instant_s >= self._connected_s:
                    self._take(instant_s, self._render(instant_s) if image is None else image)
                # A picture that could not be taken in time is lost; one interval of lateness is forgiven.
                done_s = max(instant_s, self._now_s() - 1.0 / self._schedule.fps)
        finally:
            with self._blocking():
                self._stream.close()

    def _now_s(self) -> float:
        return (time.time_ns() - self._epoch_ns) * 1e-9

    def _wait_until(self, instant_s: float, stop: Event) -> bool:
        """Wait for the instant, connecting meanwhile if need be; False when told to stop."""
        while not stop.is_set():
            now_s = self._now_s()
            if now_s >= instant_s:
                return True
            if self._stream.connected:
                stop.wait(instant_s - now_s)
            elif now_s >= self._next_try_s:
                self._connect()
            else:
                stop.wait(min(instant_s, self._next_try_s) - now_s)
        return False

    def _connect(self) -> None:
        try:
            with self._blocking():
                now_ns = time.time_ns()
                self._stream.connect(self._clock.camera_ns(now_ns, self._epoch_ns), now_ns)
        except GONE as error:
            self._lost(error)
        else:
            self._connected_s = self._now_s()
            _log.info("%s: streaming to %s", self._view, self._stream.address)

    def _take(self, instant_s: float, image: Image) -> None:
        true_ns = self._epoch_ns + round(instant_s * 1e9)
        try:
            with self._blocking():
                self._stream.send(image, self._clock.camera_ns(true_ns, self._epoch_ns))
        except GONE as error:
            self._lost(error)
        else:
            self._retry_s, self._complained = _FIRST_RETRY_S, False

    def _lost(self, error: Exception) -> None:
        with self._blocking():
            self._stream.close()
        level = logging.DEBUG if self._complained else logging.WARNING
        why = redact(str(error))
        _log.log(level, "%s: no reader at %s (%s); trying again", self._view, self._stream.address, why)
        self._complained = True
        self._next_try_s = self._now_s() + self._retry_s
        self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)
