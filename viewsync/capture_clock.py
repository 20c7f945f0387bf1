"""What a camera's clock is worth to the agent that watches it: one of the three clocks of `clock`. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from viewsync.clock import ARRIVAL_ALLOWANCE_NS, DRIFT_PPM, IMPLAUSIBLE_NS, WINDOW_NS
from viewsync.units import SECOND_NS
from viewsync.wire import OffsetEstimate

# So long after its first frame, or after a step, a camera's frames say little yet.
YOUNG_NS: Final = 5 * SECOND_NS


class _LowestRecent:
    """Sliding-window minimum: what a newer and lower value hides is dropped at once, so each look is O(1)."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: deque[tuple[int, int]] = deque()  # (time, value), both ascending

    def add(self, time_ns: int, value: int) -> None:
        while self._entries and self._entries[-1][1] >= value:
            self._entries.pop()
        self._entries.append((time_ns, value))

    def forget_before(self, time_ns: int) -> None:
        while self._entries and self._entries[0][0] < time_ns:
            self._entries.popleft()

    def clear(self) -> None:
        self._entries.clear()

    def lowest(self) -> int:
        return self._entries[0][1]

    def __len__(self) -> int:
        return len(self._entries)


class CaptureClock:
    """Agent − camera from frames' capture times (camera's clock) and arrival times (agent's clock).

    arrival − capture = offset + delay, and a delay is never negative: the offset lies on or under the lower
    envelope over a sliding window, and above the envelope less the smallest delay in it. That smallest delay
    cannot be measured from one side. The promise rests on one stated allowance: **in every window (since the
    start or the last step) some frame arrived within `allowance_ns` of its capture**. It must cover exposure,
    encoding, the fastest passage of the network, and a frame interval more where the source hands out frames
    one late. The first frames are the slowest, while camera and agent are busy with starting, and there are
    none yet to compare them with: for `YOUNG_NS` after the first one as much again is allowed.

    Camera stepped forward: frames seem to come sooner than the envelope allows, and it starts anew at once.
    Camera stepped back: capture times run backwards, and it starts anew at once. If the step is smaller
    than a frame interval, frames only seem late, as in congestion; until they have been late for
    `settle_ns` without a break, which settles it, the uncertainty covers both.

    State: when the first frame came, and the lowest arrival − capture of the window, once widened up and
    once down by what drift may do (a difference from time t, moved by drift at the allowed rate to now, keeps
    its rank among all others).
    """

    __slots__ = (
        "_allowance_ns",
        "_drift_ppm",
        "_first_ns",
        "_high",
        "_implausible_ns",
        "_last",
        "_late_since",
        "_low",
        "_settle_ns",
        "_window_ns",
        "implausible",
        "steps",
    )

    def __init__(
        self,
        window_ns: int = WINDOW_NS,
        allowance_ns: int = ARRIVAL_ALLOWANCE_NS,
        drift_ppm: int = DRIFT_PPM,
        implausible_ns: int = IMPLAUSIBLE_NS,
        settle_ns: int = 20 * SECOND_NS,
    ) -> None:
        self._window_ns = window_ns
        self._allowance_ns = allowance_ns
        self._drift_ppm = drift_ppm
        self._implausible_ns = implausible_ns
        self._settle_ns = settle_ns
        self._high = _LowestRecent()
        self._low = _LowestRecent()
        self._last: tuple[int, int] | None = None  # capture and arrival of the newest frame
        self._first_ns = 0  # arrival of the first frame since the start or the last step
        self._late_since: int | None = None  # arrival of the first of an unbroken run of late frames
        self.steps = 0
        self.implausible = 0

    def observe(self, capture_ns: int, arrival_ns: int) -> bool:
        """Take one frame's times, in order of arrival. False (and counted): hours off or 1970, use the
        arrival time.

        A camera that is wrong by less than `implausible_ns` is measured, not refused.
        """
        difference_ns = arrival_ns - capture_ns
        if abs(difference_ns) > self._implausible_ns:
            self.implausible += 1
            return False
        if self._last is not None:
            self._notice_steps(capture_ns, arrival_ns)
        self._high.add(arrival_ns, 1_000_000 * difference_ns - self._drift_ppm * arrival_ns)
        self._low.add(arrival_ns, 1_000_000 * difference_ns + self._drift_ppm * arrival_ns)
        self._forget_before(arrival_ns - self._window_ns)
        if self._last is None:
            self._first_ns = arrival_ns
        self._last = (capture_ns, arrival_ns)
        return True

    def estimate(self, now_ns: int) -> OffsetEstimate | None:
        """Agent − camera at `now_ns` (agent's clock), from the frames so far; None before the first."""
        if self._last is None:
            return None
        capture_ns, arrival_ns = self._last
        now_ns = max(now_ns, arrival_ns)
        highest, lowest = self._envelope(now_ns)
        allowed_ns = self._allowance_ns * (2 if arrival_ns - self._first_ns < YOUNG_NS else 1)
        uncertainty_ns = highest - lowest + allowed_ns
        # The newest frame may be late, or the camera may have stepped back by as much: cover both.
        excess_ns = arrival_ns - capture_ns - highest
        return OffsetEstimate(highest, max(uncertainty_ns, excess_ns))

    def reset(self) -> None:
        """Forget everything: the camera was opened anew and may tell another time."""
        self._high.clear()
        self._low.clear()
        self._last = None
        self._late_since = None

    def _envelope(self, now_ns: int) -> tuple[int, int]:
        """What the lowest difference may have become by now: at most, at least."""
        drift = self._drift_ppm * now_ns
        return -((-self._high.lowest() - drift) // 1_000_000), (self._low.lowest() - drift) // 1_000_000

    def _notice_steps(self, capture_ns: int, arrival_ns: int) -> None:
        assert self._last is not None
        highest, lowest = self._envelope(arrival_ns)
        difference_ns = arrival_ns - capture_ns
        ran_back = capture_ns < self._last[0] or arrival_ns < self._last[1]
        if ran_back or difference_ns < lowest - self._allowance_ns:
            self.steps += 1
            self.reset()
        elif difference_ns <= highest + self._allowance_ns:
            self._late_since = None
        elif self._late_since is None:
            self._late_since = arrival_ns
        elif arrival_ns - self._late_since >= self._settle_ns:
            # Late for so long without a break: the camera was set back, what came before is void.
            self.steps += 1
            self._forget_before(self._late_since)
            self._late_since = None

    def _forget_before(self, time_ns: int) -> None:
        self._high.forget_before(time_ns)
        self._low.forget_before(time_ns)
