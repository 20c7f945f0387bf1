"""Everything an agent can be told: one YAML file, `VIEWSYNC_SECTION__KEY`, or `--set section.key=value`.

docs/edge.md explains each key; a test holds the two together. Constructors elsewhere take plain values,
never these models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from viewsync.config import Section
from viewsync.sections import Endpoint, HealthSection, Name


class SourceSection(Section):
    """Where frames come from."""

    # rtsp://user:password@host/path, a video file, a folder of images, or /dev/video0.
    url: Annotated[str, StringConstraints(min_length=1)]
    # Wait at `url` (rtsp://0.0.0.0:8554/north) for a camera that pushes its stream.
    listen: bool = False
    # How RTP travels. auto: UDP, and TCP where that fails.
    transport: Literal["tcp", "udp", "auto"] = "tcp"
    # auto: a picture is decoded as soon as it is whole. full: FFmpeg's own parser, which waits for the next
    # picture to begin; for cameras whose stream the first cannot follow.
    parser: Literal["auto", "full"] = "auto"
    # auto: the camera's sender reports date the frames, where arrival does not contradict them. arrival:
    # never.
    clock: Literal["auto", "arrival"] = "auto"
    # Longest time that the fastest frame in a minute may take from exposure to arrival, milliseconds.
    arrival_allowance_ms: float = Field(default=500.0, gt=0, le=60_000)
    # A camera's clock further off than this is not believed, seconds.
    implausible_s: float = Field(default=3600.0, gt=0, le=1e9)
    # Give a camera up, and connect anew, when it has been silent for so long, seconds.
    timeout_s: float = Field(default=10.0, ge=0.5, le=600)
    # Longest wait between two tries to reach the camera, seconds.
    reconnect_max_s: float = Field(default=10.0, ge=0.1, le=3600)
    # Recordings: start again at the end.
    loop: bool = False
    # Folder of images: images per second.
    image_rate_hz: float = Field(default=10.0, gt=0, le=1000)
    # /dev/video…: size to ask the device for, such as 1280x720; none: its own choice.
    device_size: Annotated[str, StringConstraints(pattern=r"^\d+x\d+$")] | None = None
    # /dev/video…: pixel format to ask for, such as mjpeg; none: its own choice.
    device_format: Name | None = None
    # /dev/video…: frames per second to ask for; none: its own choice.
    device_rate_hz: float | None = Field(default=None, gt=0, le=1000)


class HubSection(Section):
    """Where features go."""

    # The hub's `bind`, as seen from here.
    endpoint: Endpoint = "tcp://127.0.0.1:5555"
    # Messages under way unacknowledged. More than 1 only for high rates over long links: each makes the
    # newest wait longer.
    window: int = Field(default=1, ge=1, le=64)
    # Connect anew when the hub has not answered for so long, seconds.
    answer_timeout_s: float = Field(default=10.0, ge=0.5, le=600)
    # Longest wait between two tries to reach the hub, seconds.
    reconnect_max_s: float = Field(default=5.0, ge=0.1, le=3600)


class SecuritySection(Section):
    """CURVE: who we are and who the hub is. `viewsync keys make` writes both files."""

    # auto: on where `keys` is given, and required off loopback; on: always; off: never, even off loopback.
    curve: Literal["auto", "on", "off"] = "auto"
    # This agent's secret key file.
    keys: Path | None = None
    # The hub's public key file.
    hub_key: Path | None = None


class EncoderSection(Section):
    """How features are computed."""

    # ONNX Runtime provider.
    provider: Literal["cpu", "cuda"] = "cpu"
    # Threads of the encoder.
    threads: int = Field(default=1, ge=1, le=256)


class EdgeConfig(Section):
    """`viewsync edge --config edge.yaml`."""

    # Folder or .zip that `viewsync export` wrote.
    bundle: Path
    # Which of the bundle's views this camera is.
    view: Name
    # Name of the installation; the hub has the same.
    site: Name = "default"
    # Frames per second to extract at most; above the stream's rate: every frame once.
    rate_hz: float = Field(default=2.0, ge=0.2, le=30)
    source: SourceSection
    hub: HubSection = HubSection()
    security: SecuritySection = SecuritySection()
    encoder: EncoderSection = EncoderSection()
    health: HealthSection = HealthSection()
