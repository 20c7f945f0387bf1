"""What a camera's own clock shows, and when the camera takes its pictures. Pure: no clock is read here.

True time is the simulator's: seconds since its epoch, the same for every camera. Camera time is what this
camera's clock shows at that instant, on the same scale: it may be offset, run fast or slow, and be set
forward or back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from viewsync.units import SECOND_NS


@dataclass(frozen=True, slots=True)
class CameraClock:
    """camera = true + offset_s + drift_ppm·1e-6·true + every step already taken.

    steps: ((true_time_s, step_s), …) in order of time; a positive step sets the clock forward. Raises
    ValueError for values that are not finite, a drift that stops or reverses time, or steps out of order.
    """

    offset_s: float = 0.0
    drift_ppm: float = 0.0
    steps: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        numbers = [self.offset_s, self.drift_ppm, *(x for step in self.steps for x in step)]
        if not all(math.isfinite(x) for x in numbers):
            raise ValueError(f"a camera clock needs finite numbers, got {numbers}")
        if abs(self.drift_ppm) >= 1e6:
            raise ValueError(f"drift_ppm must lie between -1e6 and 1e6, got {self.drift_ppm}")
        times = [when for when, _ in self.steps]
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise ValueError(f"steps must be in order of their times, got {times}")

    def deviation_s(self, true_s: float) -> float:
        """Camera time minus true time at `true_s`; a step counts from its own instant on."""
        stepped = sum(step for when, step in self.steps if when <= true_s)
        return self.offset_s + self.drift_ppm * 1e-6 * true_s + stepped

    def camera_s(self, true_s: float) -> float:
        """What the camera's clock shows at true time `true_s`."""
        return true_s + self.deviation_s(true_s)

    def true_s(self, camera_s: float, near_s: float = math.inf) -> float:
        """When the camera's clock showed `camera_s`.

        A clock that was set back shows some times twice: of those instants the nearest to `near_s` (true
        time) is returned, by default the last. A time that a forward step skipped gives the instant of that
        step.
        """
        bounds = [-math.inf, *(when for when, _ in self.steps), math.inf]
        stepped = 0.0
        found: list[float] = []
        skipped: list[float] = []
        for index, (start, end) in enumerate(pairwise(bounds)):
            if index:
                stepped += self.steps[index - 1][1]
            candidate = (camera_s - self.offset_s - stepped) / (1.0 + self.drift_ppm * 1e-6)
            if start <= candidate < end:
                found.append(candidate)
            elif candidate < start:
                skipped.append(start)
        if not found:
            return skipped[0]
        return max(found) if math.isinf(near_s) else min(found, key=lambda t: abs(t - near_s))

    def camera_ns(self, true_ns: int, epoch_ns: int) -> int:
        """`camera_s` for UTC nanoseconds, where true time 0 is `epoch_ns`; exact to 1 µs over years."""
        return true_ns + round(self.deviation_s((true_ns - epoch_ns) / SECOND_NS) * SECOND_NS)

    def true_ns(self, camera_ns: int, epoch_ns: int, near_ns: int | None = None) -> int:
        """`true_s` for UTC nanoseconds, where true time 0 is `epoch_ns`."""
        near_s = math.inf if near_ns is None else (near_ns - epoch_ns) / SECOND_NS
        guess_s = self.true_s((camera_ns - epoch_ns) / SECOND_NS, near_s)
        return camera_ns - round(self.deviation_s(guess_s) * SECOND_NS)


@dataclass(frozen=True, slots=True)
class FrameSchedule:
    """True capture instants: phase_s + k / fps for k = 0, 1, …, of which a share `drop_rate` never happens.

    Which ones depends on `seed` and k alone, so any part of the schedule can be asked for. Raises ValueError
    for a rate, phase or share out of range.
    """

    fps: float
    phase_s: float = 0.0
    drop_rate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be positive, got {self.fps}")
        if not (math.isfinite(self.phase_s) and self.phase_s >= 0):
            raise ValueError(f"phase_s must not be negative, got {self.phase_s}")
        if not 0 <= self.drop_rate < 1:
            raise ValueError(f"drop_rate must lie in [0, 1), got {self.drop_rate}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

    def instant_s(self, number: int) -> float:
        """True time of frame `number`."""
        return self.phase_s + number / self.fps

    def dropped(self, number: int) -> bool:
        """Whether the camera loses frame `number`."""
        return self.drop_rate > 0 and bool(
            np.random.default_rng([self.seed, 0x64726F70, number]).random() < self.drop_rate
        )

    def following(self, true_s: float) -> tuple[int, float]:
        """Number and instant of the first frame taken strictly after `true_s`."""
        number = max(0, math.floor((true_s - self.phase_s) * self.fps) - 1)
        while self.instant_s(number) <= true_s or self.dropped(number):
            number += 1
        return number, self.instant_s(number)

    def between(self, start_s: float, end_s: float) -> Iterator[float]:
        """Instants in the half-open interval (start_s, end_s]."""
        instant = self.following(start_s)[1]
        while instant <= end_s:
            yield instant
            instant = self.following(instant)[1]
