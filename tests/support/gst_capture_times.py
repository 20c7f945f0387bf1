"""An independent reader of capture times: GStreamer's own RTCP. The system's Python runs this script.

    gst_capture_times.py URL COUNT

Prints one line for each of COUNT pictures: its capture time by the newest sender report, UTC ns.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

NTP_MINUS_UNIX_NS = 2_208_988_800_000_000_000
Gst.init(None)
url, count = sys.argv[1], int(sys.argv[2])
pipeline = Gst.parse_launch(
    f"rtspsrc location={url} protocols=tcp latency=2000 add-reference-timestamp-meta=true "
    "! rtph264depay ! video/x-h264,alignment=au,stream-format=byte-stream ! fakesink name=sink sync=false"
)
ntp = Gst.Caps.from_string("timestamp/x-ntp")


left = [count]


def note(pad, probe):
    meta = probe.get_buffer().get_reference_timestamp_meta(ntp)
    if meta is not None:
        print(meta.timestamp - NTP_MINUS_UNIX_NS, flush=True)
        left[0] -= 1
        if left[0] == 0:
            loop.quit()
    return Gst.PadProbeReturn.OK


pipeline.get_by_name("sink").get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, note)
loop = GLib.MainLoop()
pipeline.set_state(Gst.State.PLAYING)
loop.run()
