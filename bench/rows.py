"""What a benchmark says: rows of a figure, what was promised, and what it was measured beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GROUPS = (
    *("edge", "hub", "path", "memory", "bytes", "torch", "method", "train", "sim", "link", "page", "refine"),
)


@dataclass(frozen=True, slots=True)
class Promise:
    """At most `limit`, or at least, in the row's unit."""

    limit: float
    at_least: bool = False

    def kept(self, figure: float) -> bool:
        return figure >= self.limit if self.at_least else figure <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one run.

    name: what machines call it; figure: median of `samples` (of `method.` and `train.METHOD` the fastest), in
    `unit` and by the clock on the wall;
    processor: the same by the processor time that this process used, all threads together, where that can be
    told. beside: what it was measured in turn with, and ratio: median of figure / that one's. facts: whatever
    else was seen. skipped: why there is no figure.
    """

    name: str
    what: str
    unit: str
    figure: float | None = None
    promise: Promise | None = None
    samples: int = 0
    processor: float | None = None
    beside: str = ""
    ratio: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""

    def __post_init__(self) -> None:
        if (self.figure is None) != bool(self.skipped):
            raise ValueError(f"{self.name}: give either a figure or why there is none")
        if (self.ratio is None) != (not self.beside):
            raise ValueError(f"{self.name}: a ratio and what it is to belong together")

    @property
    def holds(self) -> bool | None:
        """Whether the promise is kept, by the wall clock; None where nothing was promised or measured."""
        return None if self.promise is None or self.figure is None else self.promise.kept(self.figure)

    @property
    def holds_by_processor(self) -> bool | None:
        """Whether it is kept by processor time, which other programs' load hardly changes."""
        if self.promise is None or self.processor is None:
            return None
        return self.promise.kept(self.processor)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "what": self.what,
            "figure": _rounded(self.figure),
            "unit": self.unit,
            "promise": None if self.promise is None else str(self.promise),
            "holds": self.holds,
            "processor": _rounded(self.processor),
            "holds_by_processor": self.holds_by_processor,
            "beside": self.beside or None,
            "ratio": _rounded(self.ratio),
            "samples": self.samples,
            "facts": {name: _rounded(value) for name, value in self.facts.items()},
            "skipped": self.skipped or None,
        }


def _rounded(value: Any) -> Any:
    """Four digits: more would claim what a shared machine cannot say."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
