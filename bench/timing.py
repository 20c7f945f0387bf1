"""Wall and processor time of functions that take turns, so that whatever else the machine does hits all."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed, and what must happen before each time and is not; both get the number of the round."""

    run: Callable[[int], object]
    prepare: Callable[[int], object] | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """Times of one case, one per round, ms. processor: of the whole process, all threads."""

    wall_ms: Floats
    processor_ms: Floats

    @property
    def median_ms(self) -> float:
        return float(np.median(self.wall_ms))

    def ratio_to(self, other: Spent) -> float:
        """Median over rounds of this time divided by the other's, by processor time: both had the same
        neighbours, and who was made to wait does not count.
        """
        return float(np.median(self.processor_ms / other.processor_ms))

    def facts(self) -> dict[str, float]:
        """For a row."""
        return {
            "fastest_ms": float(self.wall_ms.min()),
            "p90_ms": float(np.percentile(self.wall_ms, 90)),
            "fastest_processor_ms": float(self.processor_ms.min()),
        }


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Torch computes in so many threads, and afterwards in as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def take_turns(cases: Mapping[Key, Case], rounds: int, warm_up: int = 2) -> dict[Key, Spent]:
    """Run every case once a round, `rounds` times after `warm_up` rounds that do not count."""
    wall = {name: np.empty(rounds) for name in cases}
    processor = {name: np.empty(rounds) for name in cases}
    for number in range(-warm_up, rounds):
        for name, case in cases.items():
            if case.prepare is not None:
                case.prepare(number)
            spent_ns = time.process_time_ns()
            started_ns = time.perf_counter_ns()
            case.run(number)
            elapsed_ns = time.perf_counter_ns() - started_ns
            spent_ns = time.process_time_ns() - spent_ns
            if number >= 0:
                wall[name][number], processor[name][number] = elapsed_ns / 1e6, spent_ns / 1e6
    return {name: Spent(wall[name], processor[name]) for name in cases}
