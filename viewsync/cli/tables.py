"""`viewsync evaluate --table`: the paper's tables, filled cell by cell."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from viewsync.cli.progress import phases, progress
from viewsync.cli.stop import stopping

if TYPE_CHECKING:
    from viewsync.training.tables.cell import Effort
    from viewsync.training.tables.grid import Cell


def fill_table(
    table: int | str,
    chosen: Sequence[str],
    data: Path,
    runs: Path,
    seeds: int,
    steps: int,
    frames: int,
    threads: int,
    start_from: Path | None,
    overrides: tuple[str, ...],
    show: bool,
    cost: bool,
) -> None:
    """Fill the cells that are not there yet, or only `show` what there is; then print the table as Markdown
    and write it, with its picture, to `runs`. Ctrl-C saves; the same command goes on. With `cost`, only say
    what filling them would cost.
    """
    from viewsync.training.memory import hold_memory
    from viewsync.training.tables import cell, grid, page

    wanted = grid.cells(table, chosen)
    if not wanted:
        raise click.UsageError(
            f"--cells {' '.join(chosen)}: table {table} has no such cell; give words of set, latency, "
            "method and loss, such as 'pets2009-sim random CLS-epi'"
        )
    stop = stopping()
    effort = cell.Effort(
        steps=steps, frames=frames, threads=threads, start_from=start_from, overrides=overrides
    )
    if cost:
        click.echo(_costs(wanted, seeds, data, runs, effort, stop))
        return
    if not show:
        hold_memory()
        for one in wanted:
            for seed in range(seeds):
                name = f"{one.data_set} {one.latency} {one.row.name} ({one.row.loss}) seed {seed}"
                with phases(name) as advance:

                    def report(what: str, done: int, total: int) -> None:
                        if what != "train" and stop.is_set():
                            raise click.Abort
                        advance(what, done, total)

                    cell.fill(one, seed, data / one.data_set, runs, effort, report, stop)
                if stop.is_set():
                    click.echo("stopped; go on with the same command", err=True)
                    raise click.Abort
    results = cell.everything(runs)
    sets = [s for s in grid.SETS if any(one.data_set == s for one in wanted)]
    text = page.markdown(table, results, sets)
    runs.mkdir(parents=True, exist_ok=True)
    (runs / f"table-{table}.md").write_text(text + "\n", encoding="utf-8")
    (runs / f"table-{table}.png").write_bytes(page.picture(table, results, sets))
    click.echo(text)
    for one in wanted:
        for found in results.get(one.folder, ()):
            if not found.converged:
                click.echo(
                    f"{one.data_set} {one.latency} {one.row.name} ({one.row.loss}): {found.steps} steps, "
                    "not converged",
                    err=True,
                )


def _costs(
    wanted: Sequence[Cell], seeds: int, data: Path, runs: Path, effort: Effort, stop: threading.Event
) -> str:
    from viewsync.training.memory import hold_memory
    from viewsync.training.tables import hours

    hold_memory()
    with progress("one step of each row", len(wanted)) as advance:

        def report(what: str, done: int, total: int) -> None:
            if stop.is_set():
                raise click.Abort
            advance(done * len(wanted) // total, what)

        return hours.markdown(*hours.lines(wanted, seeds, data, runs, effort, report), effort)
