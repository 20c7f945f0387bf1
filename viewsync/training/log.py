"""`log.csv` of a training run: losses every ten steps, validation results when there are any."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

_EVERY = 10


class TrainingLog:
    """Appends to the log; columns are fixed by the methods, and by whether they have a loss of the flow.

    Resuming at step `start` drops what an earlier, killed run wrote of later steps.
    """

    def __init__(self, path: Path, methods: Sequence[str], start: int, flow: bool = False) -> None:
        self._path = path
        kinds = ("density", "count", "flow") if flow else ("density", "count")
        self._losses = [f"{m}.{k}" for m in methods for k in kinds]
        self._losses += ["visible", "marks", "sparsity", "partner", "matched"]
        self._checks = [f"{m}.{k}" for m in (*methods, "visible") for k in ("mae", "density_mse")]
        rows: list[list[str]] = []
        if start and path.exists():
            with path.open(newline="") as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= start]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            header = ["step", *self._losses, *(f"validation.{name}" for name in self._checks)]
            csv.writer(file).writerows([header, *rows])

    def write(self, step: int, losses: dict[str, float], validation: dict[str, float] | None) -> None:
        """Add the row of a step, if it is one to be logged."""
        if step % _EVERY and validation is None:
            return
        values = [losses.get(name) for name in self._losses]
        values += [(validation or {}).get(name) for name in self._checks]
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerow([step, *("" if v is None else f"{v:.5g}" for v in values)])
