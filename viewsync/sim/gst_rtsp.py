"""Serves H.264 access units from standard input over RTSP with GStreamer's rtsp-server.

Run by the system's Python, which has GStreamer's bindings, and so a plain script: it imports nothing of ours.
`--check` only tells whether everything is there. Otherwise standard input holds one line of JSON ("host",
"port", "path", "user", "password", "clock_ahead_ns"), then records: `<IqB` length, capture time (camera
clock, UTC ns), key frame or not, and `length` bytes. "ready" on standard output means that clients may come;
end of input ends the server. Exit code 3: the port is in use; 4: GStreamer lacks something.

The camera's clock is the pipeline's: the host's real-time clock plus `clock_ahead_ns`, counted from 1900 as
NTP is, with base time 0. So running time is the camera's NTP time, a buffer's time is its capture time, and
sender reports (`ntp-time-source=running-time`, `rtcp-sync-send-time=false`) carry the camera's own clock, be
it in 1970. Drift and steps after the start come in through the buffers' times.
"""

import json
import struct
import sys
import threading
from typing import Any, BinaryIO

NTP_MINUS_UNIX_NS = 2_208_988_800_000_000_000
ELEMENTS = ("appsrc", "h264parse", "rtph264pay", "rtpbin")
LAUNCH = (
    "( appsrc name=source is-live=true format=time do-timestamp=false block=false max-buffers=60 "
    "leaky-type=downstream caps=video/x-h264,stream-format=byte-stream,alignment=au "
    "! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)
RECORD = struct.Struct("<IqB")


def load() -> Any:
    """The modules Gst, GstRtspServer, GLib; raises ImportError or ValueError if anything is missing."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    missing = [name for name in ELEMENTS if Gst.ElementFactory.find(name) is None]
    if missing:
        raise ImportError("no GStreamer element " + ", ".join(missing))
    return Gst, GstRtspServer, GLib


class Server:
    """One stream at one path, shared by its clients. `feed` runs in its own thread."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.gst, self.rtsp, self.glib = load()
        self.loop = self.glib.MainLoop()
        self.ahead_ns = NTP_MINUS_UNIX_NS + int(settings["clock_ahead_ns"])
        self.source: Any = None
        self.started = False
        factory = self.rtsp.RTSPMediaFactory()
        factory.set_launch(LAUNCH)
        factory.set_shared(True)
        factory.connect("media-configure", self.configure)
        server = self.rtsp.RTSPServer()
        server.set_address(settings["host"])
        server.set_service(str(settings["port"]))
        if settings.get("user"):
            self.protect(server, factory, settings["user"], settings["password"])
        server.get_mount_points().add_factory(settings["path"], factory)
        self.server = server

    def protect(self, server: Any, factory: Any, user: str, password: str) -> None:
        """Basic and digest authentication; a client without it is answered 401."""
        auth = self.rtsp.RTSPAuth()
        auth.set_supported_methods(self.rtsp_methods())
        token = self.rtsp.RTSPToken()
        token.set_string(self.rtsp.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
        auth.add_basic(self.rtsp.RTSPAuth.make_basic(user, password), token)
        auth.add_digest(user, password, token)
        server.set_auth(auth)
        permissions = self.rtsp.RTSPPermissions()
        for right in (
            self.rtsp.RTSP_PERM_MEDIA_FACTORY_ACCESS,
            self.rtsp.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT,
        ):
            permissions.add_permission_for_role("viewer", right, True)
        factory.set_permissions(permissions)

    def rtsp_methods(self) -> Any:
        import gi

        gi.require_version("GstRtsp", "1.0")
        from gi.repository import GstRtsp

        return GstRtsp.RTSPAuthMethod.DIGEST

    def configure(self, factory: Any, media: Any) -> None:
        """A first client came: give the new pipeline the camera's clock before anything flows."""
        element = media.get_element()
        pipeline = element.get_parent()
        self.clock = self.gst.SystemClock(clock_type=self.gst.ClockType.REALTIME)
        self.clock.set_calibration(0, self.ahead_ns, 1, 1)
        media.set_clock(self.clock)
        pipeline.set_start_time(self.gst.CLOCK_TIME_NONE)
        pipeline.set_base_time(0)
        pipeline.connect("element-added", self.added)
        media.connect("prepared", self.prepared)
        media.connect("unprepared", self.unprepared)
        self.media, self.started = media, False
        self.source = element.get_by_name("source")

    def added(self, pipeline: Any, element: Any) -> None:
        factory = element.get_factory()
        if factory is not None and factory.get_name() == "rtpbin":
            element.set_property("ntp-time-source", "running-time")
            element.set_property("rtcp-sync-send-time", False)

    def prepared(self, media: Any) -> None:
        """Reports often and early: a low-rate stream must not run for seconds without one."""
        for index in range(media.n_streams()):
            media.get_stream(index).get_rtpsession().set_property("rtcp-min-interval", 10**9)

    def unprepared(self, media: Any) -> None:
        if media is self.media:
            self.source = None

    def feed(self, stream: BinaryIO) -> None:
        """Push records into the pipeline until the input ends; they are dropped while nobody watches."""
        while len(header := stream.read(RECORD.size)) == RECORD.size:
            length, camera_ns, key_frame = RECORD.unpack(header)
            data = stream.read(length)
            source = self.source
            if len(data) < length:
                break
            if source is None or not (self.started or key_frame):
                continue
            self.started = True
            buffer = self.gst.Buffer.new_wrapped(data)
            buffer.pts = max(0, camera_ns + NTP_MINUS_UNIX_NS)
            self.keep_up(buffer.pts)
            source.emit("push-buffer", buffer)
        self.glib.idle_add(self.loop.quit)

    def keep_up(self, capture_ns: int) -> None:
        """Move the clock forward to `capture_ns` if that lies ahead: sinks would hold the frame back.

        A clock set back needs nothing: GStreamer's clocks never go back, and a frame from the past leaves at
        once, its time known against the report as before.
        """
        ahead_ns = capture_ns - self.clock.get_time()
        if ahead_ns > 0:
            self.ahead_ns += ahead_ns
            self.clock.set_calibration(0, self.ahead_ns, 1, 1)

    def run(self) -> int:
        if self.server.attach(None) == 0:
            return 3
        print("ready", flush=True)
        threading.Thread(target=self.feed, args=(sys.stdin.buffer,), daemon=True).start()
        self.loop.run()
        return 0


def main() -> int:
    try:
        if sys.argv[1:] == ["--check"]:
            load()
            return 0
        return Server(json.loads(sys.stdin.buffer.readline())).run()
    except (ImportError, ValueError) as error:
        print(error, file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main())
