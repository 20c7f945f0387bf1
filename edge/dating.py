"""Which capture time a frame gets, and in whose clock. Pure."""

from __future__ import annotations

from viewsync.capture_clock import CaptureClock
from viewsync.wire import Clock, OffsetEstimate


class FrameDating:
    """Dates the frames of one camera, in the order in which they are shown.

    The camera's time (`rtcp`) needs a sender report, and an arrival that does not contradict it; otherwise
    the arrival dates the frame. refused: camera times that arrival contradicted.
    """

    def __init__(self, capture_clock: CaptureClock, use_camera_clock: bool) -> None:
        self._capture_clock = capture_clock
        self._use_camera_clock = use_camera_clock
        self._last_arrival_ns = 0

    def date(self, capture_ns: int | None, arrival_ns: int) -> tuple[int, Clock, OffsetEstimate | None]:
        """(capture time, its clock, agent − camera) of a frame.

        capture_ns: by the camera's sender reports, if any. arrival_ns: agent's clock.
        """
        if capture_ns is None or not self._use_camera_clock:
            return arrival_ns, "arrival", None
        # B-frames arrive after the later frame they refer to, and are shown before it.
        in_order_ns = max(arrival_ns, self._last_arrival_ns)
        self._last_arrival_ns = in_order_ns
        if not self._capture_clock.observe(capture_ns, in_order_ns):
            return arrival_ns, "arrival", None
        return capture_ns, "rtcp", self._capture_clock.estimate(in_order_ns)

    @property
    def refused(self) -> int:
        return self._capture_clock.implausible

    @property
    def steps(self) -> int:
        return self._capture_clock.steps

    def restart(self) -> None:
        """The camera was opened anew: it may tell another time."""
        self._capture_clock.reset()
