"""`log.csv` of a training run: losses every ten steps, validation results when there are any; TensorBoard's
event files hold the same.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

from viewsync.errors import UserError
from viewsync.nets.config import PLANE_LEVEL

_EVERY = 10


class TrainingLog:
    """Appends to the log; columns are fixed by the methods, the parts of `column`, and by whether flow has a
    loss.

    Resuming at step `start` drops what an earlier, killed run wrote of later steps. Raises UserError for a
    log that is damaged before that.
    """

    def __init__(
        self, path: Path, methods: Sequence[str], start: int, flow: bool = False, parts: Collection[str] = ()
    ) -> None:
        self._path = path
        kinds = ("density", "count", "flow") if flow else ("density", "count")
        self._losses = [f"{m}.{k}" for m in methods for k in kinds]
        self._losses += [f"{m}.{k}" for m in methods if m in PLANE_LEVEL for k in ("partner", "matched")]
        self._losses += ["visible", "marks", "sparsity", "partner", "matched"]
        if "column-2" in methods:
            self._losses += ["walk", "walk.matched", "carried", "carried.matched"]
        if "subcell" in parts:
            self._losses.append("subcell")
        self._checks = [f"{m}.{k}" for m in (*methods, "visible") for k in ("mae", "density_mse")]
        header = ["step", *self._losses, *(f"validation.{name}" for name in self._checks)]
        rows = _kept(path, header, start) if start and path.exists() else []
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        # Purged, TensorBoard forgets the steps that a killed run logged and did not save, be it all of them.
        self._board = SummaryWriter(str(path.parent / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, losses: dict[str, float], validation: dict[str, float] | None) -> None:
        """Add the row of a step, if it is one to be logged."""
        if step % _EVERY and validation is None:
            return
        checks = validation or {}
        values = [*(losses.get(n) for n in self._losses), *(checks.get(n) for n in self._checks)]
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerow([step, *("" if v is None else f"{v:.5g}" for v in values)])
        told = {f"loss/{name}": losses.get(name) for name in self._losses}
        told |= {f"validation/{name}": checks.get(name) for name in self._checks}
        for name, value in told.items():
            if value is not None:
                self._board.add_scalar(name, value, step)
        if validation is not None:
            self._board.flush()

    def close(self) -> None:
        """Everything is on disk."""
        self._board.close()


def _kept(path: Path, header: Sequence[str], start: int) -> list[list[str]]:
    """Rows of steps up to `start`, in the order of `header`."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            found = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); move it away to go on without it") from error
    names = found[0] if found else []
    if len(found) > 1 and len(found[-1]) != len(names):
        found.pop()  # cut where the machine stopped
    kept: list[list[str]] = []
    for number, row in enumerate(found[1:], start=2):
        if len(row) != len(names) or not row[0].isdigit():
            raise UserError(
                f"{path}: line {number} is damaged; remove it, or move the file away to go on without it"
            )
        if int(row[0]) <= start:
            values = dict(zip(names, row, strict=True))
            kept.append([values.get(name, "") for name in header])
    reached = int(kept[-1][0]) if kept else 0
    if reached < start - start % _EVERY:
        raise UserError(
            f"{path}: it ends at step {reached}, the checkpoint is of step {start}; "
            "move the file away to go on without it"
        )
    return kept
