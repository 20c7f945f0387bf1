"""Relating three clocks that nobody set: camera, agent and hub. Pure: times come in as arguments.

* `ClockExchange` (at the agent, per hub): hub − agent from four timestamps, as in NTP.
* `capture_clock.CaptureClock` (at the agent, per camera): agent − camera from capture and arrival times of
  frames.
* `capture_in_hub` (at the hub): composes the two.

Every estimate is an offset with an uncertainty, and the promise is that the truth lies within it. It rests
on what is written at each class; nothing is averaged, because an interval that must hold cannot come from a
mean.

What runs the clocks apart is bounded by `drift_ppm`: 500 ppm is ten times a bad quartz and the fastest that
NTP slews.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from viewsync.errors import WireError
from viewsync.units import SECOND_NS
from viewsync.wire import FeatureMessage, OffsetEstimate

DRIFT_PPM: Final = 500
WINDOW_NS: Final = 60 * SECOND_NS

# A capture time further off, or less certain, than this comes from a clock that was never set (1970), not
# from a slow link.
IMPLAUSIBLE_NS: Final = 3600 * SECOND_NS

# How long before the stamped moment the picture may have been taken, where the camera's own time is not
# known: exposure, encoding, the camera's send queue and the network. Cameras on a LAN take 50-300 ms; a
# worse one needs a larger value in the agent's configuration. A decoded frame has waited for the next one
# as well (one interval at 2 fps or more).
ARRIVAL_ALLOWANCE_NS: Final = SECOND_NS // 2
DECODE_ALLOWANCE_NS: Final = SECOND_NS


def capture_in_hub(message: FeatureMessage) -> tuple[int, int]:
    """(capture time in the hub's clock, its uncertainty), ns.

    `rtcp`: capture + (agent − camera) + (hub − agent). `arrival`, `decode`: the stamp is the agent's and
    later than the capture by what the camera and its network take, so a constant allowance is added to the
    uncertainty; the time itself is not shifted by a guess. `file`: the agent's own clock. Raises WireError
    (`clock-unknown`) where an offset is missing: a time is never invented.
    """
    if message.hub_offset is None:
        raise WireError(
            "clock-unknown",
            f"view {message.view} does not know its offset to the hub yet; send a clock probe first",
        )
    capture_ns = message.capture_ns + message.hub_offset.offset_ns
    uncertainty_ns = message.hub_offset.uncertainty_ns
    if message.clock == "rtcp":
        if message.camera_offset is None:
            raise WireError(
                "clock-unknown",
                f"view {message.view} sent a camera time but no camera_offset; send it, or clock: arrival",
            )
        capture_ns += message.camera_offset.offset_ns
        uncertainty_ns += message.camera_offset.uncertainty_ns
    elif message.clock == "arrival":
        uncertainty_ns += ARRIVAL_ALLOWANCE_NS
    elif message.clock == "decode":
        uncertainty_ns += DECODE_ALLOWANCE_NS
    return capture_ns, uncertainty_ns


class SteadyClock:
    """A UTC clock that never steps: the wall clock once, then what the monotonic clock has added.

    An agent stamps with this one, so that setting the machine's clock shows up nowhere; what its UTC is
    worth is for the exchange with the hub to say.
    """

    __slots__ = ("_base_ns", "_monotonic_ns")

    def __init__(self, wall_ns: Callable[[], int], monotonic_ns: Callable[[], int]) -> None:
        """Give `time.time_ns` and `time.monotonic_ns`, or a test's own."""
        self._monotonic_ns = monotonic_ns
        self._base_ns = wall_ns() - monotonic_ns()

    def __call__(self) -> int:
        """Now, UTC ns."""
        return self._base_ns + self._monotonic_ns()


@dataclass(frozen=True, slots=True)
class _Exchange:
    """Bounds on hub − agent: at least `low_ns` when it returned, at most `high_ns` when it was sent
    (agent's times).
    """

    sent_ns: int
    returned_ns: int
    low_ns: int
    high_ns: int


class ClockExchange:
    """Hub − agent from exchanges (t1 sent, t2 received, t3 replied, t4 returned); t1, t4 agent's, t2, t3
    hub's.

    One exchange confines the offset to [t3 − t4, t2 − t1], because neither way takes negative time: the
    middle ± half the round trip, however lopsided the two ways are. Each bound widens with its age by the
    drift allowance, and all of the window hold together; of those exchanges the tightest few are kept. One
    that contradicts them says that a clock was stepped, and the older ones go. A step smaller than the
    uncertainty can hide until they age out of the window.

    State: `_kept`, oldest first.
    """

    __slots__ = ("_drift_ppm", "_keep", "_kept", "_window_ns", "refused", "steps")

    def __init__(self, window_ns: int = WINDOW_NS, drift_ppm: int = DRIFT_PPM, keep: int = 16) -> None:
        self._window_ns = window_ns
        self._drift_ppm = drift_ppm
        self._keep = keep
        self._kept: list[_Exchange] = []
        self.steps = 0
        self.refused = 0

    def add(self, sent_ns: int, received_ns: int, replied_ns: int, returned_ns: int) -> bool:
        """Take one exchange; False (and counted) where its times contradict themselves.

        `sent_ns` must be one that this agent sent and has not matched yet: the caller checks that.
        """
        newest = _Exchange(sent_ns, returned_ns, replied_ns - returned_ns, received_ns - sent_ns)
        # The hub's drift during the exchange may shorten the round trip that is left by so much.
        drift_ns = self._slack(returned_ns - sent_ns)
        if replied_ns < received_ns or returned_ns < sent_ns or newest.low_ns > newest.high_ns + drift_ns:
            self.refused += 1
            return False
        if self._kept and (returned_ns < self._kept[-1].returned_ns or self._contradicts(newest)):
            self.steps += 1
            self._kept.clear()
        self._kept = [kept for kept in self._kept if returned_ns - kept.returned_ns <= self._window_ns]
        self._kept.append(newest)
        if len(self._kept) > self._keep:
            # The widest tells least. The newest stays whatever its width: it would show a step.
            self._kept.remove(max(self._kept[:-1], key=lambda kept: self._width(kept, returned_ns)))
        return True

    def estimate(self, now_ns: int) -> OffsetEstimate | None:
        """Hub − agent now; None before the first exchange. Without new exchanges the uncertainty only
        grows.
        """
        if not self._kept:
            return None
        low, high = self._interval(now_ns)
        return OffsetEstimate((low + high) // 2, (high - low + 1) // 2)

    def reset(self) -> None:
        """Forget everything: another hub answers now."""
        self._kept.clear()

    def _slack(self, span_ns: int) -> int:
        return abs(span_ns) * self._drift_ppm // 1_000_000 + 1

    def _low(self, kept: _Exchange, now_ns: int) -> int:
        return kept.low_ns - self._slack(now_ns - kept.returned_ns)

    def _high(self, kept: _Exchange, now_ns: int) -> int:
        return kept.high_ns + self._slack(now_ns - kept.sent_ns)

    def _width(self, kept: _Exchange, now_ns: int) -> int:
        return self._high(kept, now_ns) - self._low(kept, now_ns)

    def _interval(self, now_ns: int) -> tuple[int, int]:
        low = max(self._low(kept, now_ns) for kept in self._kept)
        high = min(self._high(kept, now_ns) for kept in self._kept)
        return low, high

    def _contradicts(self, newest: _Exchange) -> bool:
        now_ns = newest.returned_ns
        low, high = self._interval(now_ns)
        return self._low(newest, now_ns) > high or self._high(newest, now_ns) < low
