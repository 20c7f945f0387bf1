"""Frames from an address: which kind of source it is, and how it is opened."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from edge.backoff import Backoff
from edge.camera import CameraSource
from edge.config import SourceSection
from edge.counts import EdgeCounts
from edge.dating import FrameDating
from edge.demuxing import Opening
from edge.frames import Frame
from edge.paced import PacedSource, play_folder, play_video
from viewsync.capture_clock import CaptureClock
from viewsync.errors import ConfigError, SourceError
from viewsync.redact import redact
from viewsync.units import SECOND_NS

_FIRST_WAIT_S: Final = 0.5
# One turn of waiting for a camera that pushes: so soon does the port close after `stop`.
_LISTEN_S: Final = 2


class Source(Protocol):
    """Frames of one view, in a thread of its own."""

    def start(self) -> None: ...

    def frames(self) -> Iterator[Frame]:
        """The newest frame each time one is asked for; ends on `close`, or with a recording."""

    def close(self) -> None:
        """Stop within moments, whatever the camera does. Closing twice is fine."""

    def state(self) -> tuple[bool, dict[str, Any]]:
        """Whether frames come, and facts for /healthz."""


def open_source(
    settings: SourceSection,
    view: str,
    rate_hz: float,
    wanted_size: tuple[int, int] | None,
    counts: EdgeCounts,
    now: Callable[[], int],
) -> Source:
    """The source that `settings.url` asks for, not started yet.

    wanted_size: (width, height) that frames will be remapped to. now: the agent's clock, UTC ns. Raises
    ConfigError for an address of no known kind, SourceError for a file that is not there.
    """
    scheme, separator, _ = settings.url.partition("://")
    if separator and scheme in ("rtsp", "rtsps"):
        _check_host(settings.url)
        if settings.listen and scheme != "rtsp":
            raise ConfigError(
                "source.listen: a pushed stream is taken at an rtsp:// address only; change source.url"
            )
        return _camera(settings, _rtsp(settings), view, rate_hz, wanted_size, counts, now)
    if settings.listen:
        raise ConfigError(
            "source.listen needs an address to listen at; give rtsp://0.0.0.0:8554/name as source.url"
        )
    if separator:
        raise ConfigError(
            f"source.url: {redact(settings.url)} is of no known kind; "
            "give rtsp://…, a video file, a folder of images, or /dev/video…"
        )
    path = Path(settings.url)
    if path.is_dir():
        play = partial(play_folder, path, settings.image_rate_hz, wanted_size)
    elif path.is_file():
        play = partial(play_video, path, wanted_size)
    elif str(path).startswith("/dev/") or (path.exists() and stat.S_ISCHR(path.stat().st_mode)):
        return _camera(settings, _device(settings), view, rate_hz, wanted_size, counts, now)
    else:
        raise SourceError(
            f"source.url: there is no {path}; give rtsp://…, a video file, a folder of images, or /dev/video…"
        )
    return PacedSource(view, path, play, settings.loop, rate_hz, counts, now)


def _check_host(url: str) -> None:
    try:
        parts = urlsplit(url)
        well = bool(parts.hostname) and parts.port != 0
    except ValueError:
        well = False
    if not well:
        raise ConfigError(
            f"source.url: {redact(url)} has no host, or no port from 1 to 65535; give "
            "rtsp://host:554/path; before the host may stand user:password@, with %40 for @, %2F for / and "
            "%3A for : in the password"
        )


def _camera(
    settings: SourceSection,
    opening: Opening,
    view: str,
    rate_hz: float,
    wanted_size: tuple[int, int] | None,
    counts: EdgeCounts,
    now: Callable[[], int],
) -> CameraSource:
    capture_clock = CaptureClock(
        allowance_ns=round(settings.arrival_allowance_ms * 1e6),
        implausible_ns=round(settings.implausible_s * SECOND_NS),
    )
    return CameraSource(
        view=view,
        opening=opening,
        listens=settings.listen,
        rate_hz=rate_hz,
        wanted_size=wanted_size,
        dating=FrameDating(capture_clock, use_camera_clock=settings.clock == "auto"),
        backoff=Backoff(min(_FIRST_WAIT_S, settings.reconnect_max_s), settings.reconnect_max_s),
        counts=counts,
        now=now,
    )


def _rtsp(settings: SourceSection) -> Opening:
    options = {
        "allowed_media_types": "video",
        # The description of the session says what is needed. Reading on to find out more would take a slow
        # stream's first seconds, and its first frames would seem to arrive later than they did.
        "probesize": "32",
    }
    if settings.transport != "auto":
        options["rtsp_transport"] = settings.transport
    if settings.listen:
        # Without listen_timeout FFmpeg 8 fails ("Numerical result out of range").
        options |= {
            "rtsp_flags": "listen",
            "initial_timeout": str(_LISTEN_S),
            "listen_timeout": str(1000 * _LISTEN_S),
        }
    return Opening(
        url=settings.url,
        options=options,
        format="rtsp",
        open_timeout_s=None if settings.listen else settings.timeout_s,
        read_timeout_s=settings.timeout_s,
        rtp=True,
        whole_packets=settings.parser == "full",
    )


def _device(settings: SourceSection) -> Opening:
    asked = {
        "video_size": settings.device_size,
        "input_format": settings.device_format,
        "framerate": None if settings.device_rate_hz is None else f"{settings.device_rate_hz:g}",
    }
    return Opening(
        url=settings.url,
        options={name: value for name, value in asked.items() if value is not None},
        format="v4l2",
        open_timeout_s=settings.timeout_s,
        read_timeout_s=settings.timeout_s,
        rtp=False,
        whole_packets=True,
    )
