"""Time of a site that runs on and on, cut into eras of equal length, counted from 1970.

The beginning of an era is a profile's time 0, over and over, and each era has another crowd. So whatever is
started, or started again, at any moment agrees with the rest without being told when they were, and a
simulated camera never has to work out more than one era of walking.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Event
from typing import Final

from viewsync.units import SECOND_NS

ERA_S: Final = 900.0
_ERA_NS: Final = round(ERA_S * SECOND_NS)


@dataclass(frozen=True, slots=True)
class Era:
    """[start_ns, end_ns), UTC."""

    number: int

    @property
    def start_ns(self) -> int:
        return self.number * _ERA_NS

    @property
    def end_ns(self) -> int:
        return self.start_ns + _ERA_NS


def era_at(now_ns: int) -> Era:
    """The era of a moment, UTC ns."""
    return Era(now_ns // _ERA_NS)


class Until(Event):
    """Set when `stop` is, or once the wall clock shows `end_ns`."""

    def __init__(self, stop: Event, end_ns: int) -> None:
        super().__init__()
        self._stop, self._end_ns = stop, end_ns

    def is_set(self) -> bool:
        return self._stop.is_set() or time.time_ns() >= self._end_ns

    def wait(self, timeout: float | None = None) -> bool:
        left_s = max(0.0, (self._end_ns - time.time_ns()) / SECOND_NS)
        self._stop.wait(left_s if timeout is None else min(timeout, left_s))
        return self.is_set()
