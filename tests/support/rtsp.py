"""Real RTSP for tests: a gst-rtsp-server to read from, and a camera that pushes."""

import json
import select
import socket
import subprocess
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from viewsync.sim.rtsp_server import system_python

_HERE = Path(__file__).parent
# A machine that has not read GStreamer from its disk yet, or is busy, may take long.
_PATIENCE_S = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class ClipServer:
    """gst-rtsp-server at rtsp://127.0.0.1:port/clip. `kill` is kill -9; `start` brings it back."""

    def __init__(self, launch: str, account: tuple[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/clip"
        self._command = [
            system_python(),
            str(_HERE / "gst_clip_server.py"),
            str(self.port),
            launch,
            *(account or ()),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE_S)
        assert ready and self._process.stdout.readline() == b"ready\n", "the RTSP server did not start"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


def serve_file(path: Path) -> str:
    """A pipeline that plays an .mp4 of H.264 once, as it is."""
    return f"( filesrc location={path} ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )"


def serve_pattern(rate: str, codec: str = "h264") -> str:
    """A pipeline that films a test picture live; rate: frames per second, such as 1/2."""
    encoded = {
        "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96",
        "h265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! h265parse "
        "! rtph265pay name=pay0 pt=96 config-interval=1",
        "mjpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
    }[codec]
    picture = f"video/x-raw,format=I420,width=384,height=288,framerate={rate}"
    return f"( videotestsrc is-live=true pattern=ball ! {picture} ! {encoded} )"


def capture_times_ns(url: str, count: int) -> list[int]:
    """Capture times, UTC ns, of `count` pictures by the independent reader."""
    command = [system_python(), str(_HERE / "gst_capture_times.py"), url, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * _PATIENCE_S, check=True)
    return [int(line) for line in done.stdout.split()]


def probe(url: str, seconds: float) -> list[dict[str, object]]:
    """Frames by ffprobe over TCP for that long: pts_time, pict_type and so on."""
    command = ["ffprobe", "-v", "error", "-rtsp_transport", "tcp", "-select_streams", "v", "-show_frames"]
    command += ["-show_entries", "frame=pts,pts_time,width,height,key_frame", "-of", "json=compact=1"]
    command += ["-read_intervals", f"%+{seconds:g}", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + _PATIENCE_S, check=True)
    frames: list[dict[str, object]] = json.loads(done.stdout)["frames"]
    return frames


class Pusher:
    """A camera that pushes H.264 to a listening agent, `rate_hz` a second, until closed."""

    def __init__(self, url: str, rate_hz: float, width: int = 384, height: int = 288) -> None:
        self._url, self._rate_hz, self._size = url, rate_hz, (width, height)
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._push()
            except (av.error.FFmpegError, OSError):
                self._stop.wait(0.1)  # not listening yet, or gone

    def _push(self) -> None:
        tick = Fraction(1, 90_000)
        with av.open(
            self._url, "w", format="rtsp", options={"rtsp_transport": "tcp"}, timeout=5
        ) as container:
            stream = container.add_stream(
                "libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"}
            )
            stream.width, stream.height, stream.pix_fmt = *self._size, "yuv420p"
            stream.codec_context.time_base = tick
            stream.codec_context.gop_size = 5
            start_s = time.monotonic()
            for index in range(1_000_000):
                if self._stop.wait(max(0.0, start_s + index / self._rate_hz - time.monotonic())):
                    return
                picture = np.full((self._size[1], self._size[0], 3), 40 + 10 * (index % 20), np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = round(index / self._rate_hz / tick), tick
                container.mux(stream.encode(frame))
                self.sent += 1
