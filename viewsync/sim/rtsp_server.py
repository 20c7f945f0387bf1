"""A simulated camera behind a real RTSP server that clients pull from: GStreamer's.

It runs in the system's Python, which has the bindings. The frames are encoded here, with the same settings as
pushed ones, and piped to `gst_rtsp.py`.
"""

from __future__ import annotations

import json
import select
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

from viewsync.errors import SourceError
from viewsync.redact import redact
from viewsync.sim import gst_rtsp
from viewsync.sim.codec import Encoder, Image
from viewsync.sim.live import check_address

_SCRIPT = Path(gst_rtsp.__file__)
_START_S = 10.0
_END_S = 1.0

INSTALL = (
    "apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base "
    "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-rtsp"
)


def system_python() -> str:
    """The Python that has GStreamer's bindings. Raises SourceError naming what to install."""
    for candidate in ("/usr/bin/python3", shutil.which("python3")):
        if candidate and Path(candidate).exists():
            check = subprocess.run(
                [candidate, str(_SCRIPT), "--check"], capture_output=True, timeout=30, check=False
            )
            if check.returncode == 0:
                return candidate
    raise SourceError(f"the RTSP server needs GStreamer for the system's Python; run: {INSTALL}")


class RtspServed:
    """A stream served at rtsp://[user:password@]host:port/path. `connect` starts the server process.

    Raises ConfigError for an address without port or path.
    """

    def __init__(self, url: str, width: int, height: int, fps: float) -> None:
        parts = check_address(url)
        self._settings = {
            "host": parts.hostname,
            "port": parts.port,
            "path": parts.path,
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
        }
        self._url, self._size, self._fps = url, (width, height), fps
        self._python = system_python()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return redact(self._url)

    @property
    def connected(self) -> bool:
        return self._server is not None

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._server.pid if self._server else None

    def connect(self, camera_ns: int, now_ns: int) -> None:
        """Raises SourceError where the address is in use, OSError where the server does not start."""
        server = subprocess.Popen([self._python, str(_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.stdin is not None and server.stdout is not None
        self._server = server
        settings = self._settings | {"clock_ahead_ns": camera_ns - now_ns}
        server.stdin.write(json.dumps(settings).encode() + b"\n")
        server.stdin.flush()
        ready, _, _ = select.select([server.stdout], [], [], _START_S)
        if not ready or server.stdout.readline() != b"ready\n":
            self.close()
            if server.returncode == 3:
                raise SourceError(f"{self.address}: the port is in use; stop that program or choose another")
            raise ConnectionError(f"the RTSP server did not start (exit code {server.returncode})")
        self._encoder = Encoder.create(*self._size, self._fps)

    def send(self, image: Image, camera_ns: int) -> None:
        if self._server is None or self._server.stdin is None:
            raise ConnectionError(f"{self.address}: the server is not running")
        packet = self._encoder.encode(image)
        unit = bytes(packet)
        header = gst_rtsp.RECORD.pack(len(unit), camera_ns, packet.is_keyframe)
        self._server.stdin.write(header + unit)
        self._server.stdin.flush()

    def close(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        assert server.stdin is not None and server.stdout is not None
        try:
            server.stdin.close()
        except OSError:
            pass
        try:
            server.wait(_END_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()
