"""Virtual time: what happens next, and at which nanosecond. No clock is read, and nobody sleeps."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Events:
    """Things to do at instants, in order of time; those of one instant in the order in which they were asked
    for. State: the time of the one under way, and the heap of those to come.
    """

    __slots__ = ("_heap", "_order", "now_ns")

    def __init__(self, start_ns: int = 0) -> None:
        self.now_ns = start_ns
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, time_ns: int, do: Callable[[], None]) -> None:
        """Do something at `time_ns`, or now where that is past."""
        heapq.heappush(self._heap, (max(time_ns, self.now_ns), next(self._order), do))

    def run_until(self, end_ns: int) -> None:
        """Do all that is due before `end_ns`."""
        while self._heap and self._heap[0][0] < end_ns:
            self.now_ns, _, do = heapq.heappop(self._heap)
            do()
        self.now_ns = max(self.now_ns, end_ns)
