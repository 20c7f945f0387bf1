"""What filling cells of a table would cost on this machine: hours, from one step of every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from viewsync.training.cost import Cost, Spent, measure
from viewsync.training.tables.cell import CHECKS, TUNING, Effort, settings
from viewsync.training.tables.grid import Cell, Row


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table on a set: what is measured of it, what one of its runs takes, with the measuring at
    its end, and how many runs there are: latencies and seeds.
    """

    data_set: str
    row: Row
    cost: Cost
    run: Spent
    runs: int


def lines(
    cells: Sequence[Cell],
    seeds: int,
    data: Path,
    runs: Path,
    effort: Effort,
    report: Callable[[str, int, int], None],
) -> tuple[list[Line], list[str]]:
    """A line for every row and set of `cells`, and the sets that are not there to measure on. Latency changes
    nothing but which frames are drawn, so one of a row's is measured.

    report(what, done, total). Raises UserError for a set that is damaged.
    """
    asked: dict[tuple[str, str], list[Cell]] = {}
    for one in cells:
        asked.setdefault((one.data_set, one.row.slug), []).append(one)
    found, absent = [], []
    for number, ((data_set, _), same) in enumerate(asked.items()):
        cell = same[0]
        report(f"{data_set} {cell.row.name} ({cell.row.loss})", number, len(asked))
        if not (data / data_set / "scene.yaml").exists():
            absent.append(data_set)
            continue
        config = settings(cell, 0, data / data_set, runs, effort)
        first = config.train_seeds[0]
        # Whatever it starts from: weights do not change what a step costs. One crowd is enough.
        config = config.model_copy(update={"train_seeds": (first, first + 1), "start_from": None})
        cost = measure(config)
        trained, answers = cost.run(config.steps, CHECKS, config.validation_snapshots), effort.frames + TUNING
        spent = Spent(
            trained.wall_s + answers * cost.check.wall_s,
            trained.processor_s + answers * cost.check.processor_s,
        )
        found.append(Line(data_set, cell.row, cost, spent, seeds * len(same)))
    return found, sorted(set(absent))


def markdown(found: Sequence[Line], absent: Sequence[str], effort: Effort) -> str:
    """The lines as a table, and their sum."""
    out = [
        "| set | method | trained with | s/step | frames/s | memory, MB | h/run | runs | h | processor h |",
        "| --- | --- | --- " + "| ---: " * 7 + "|",
    ]
    for line in found:
        figures = (
            f"{line.cost.step.wall_s:.3g}",
            f"{line.cost.frames_per_s:.3g}",
            f"{line.cost.peak_bytes / 1e6:.0f}",
            f"{line.run.wall_s / 3600:.2f}",
            f"{line.runs}",
            f"{line.runs * line.run.wall_s / 3600:.1f}",
            f"{line.runs * line.run.processor_s / 3600:.1f}",
        )
        out.append(f"| {line.data_set} | {line.row.name} | {line.row.loss} | {' | '.join(figures)} |")
    wall, processor = (
        sum(line.runs * spent / 3600 for line, spent in zip(found, every, strict=True))
        for every in ([n.run.wall_s for n in found], [n.run.processor_s for n in found])
    )
    runs = sum(line.runs for line in found)
    out += [
        "",
        f"{runs} runs of {effort.steps} steps: {wall:.1f} hours here; {processor:.1f} of processor time.",
    ]
    out += [f"Not counted: {name} is not there; make it with: viewsync data make {name}" for name in absent]
    return "\n".join(out)
