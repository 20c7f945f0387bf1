"""`viewsync evaluate --by-offset`: error against offset, of a table's cells or of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from viewsync.cli.progress import progress
from viewsync.cli.stop import stopping

if TYPE_CHECKING:
    from viewsync.training.runners import Asked, TorchRunner
    from viewsync.training.snapshots import SnapshotSet
    from viewsync.training.tables.by_offset import Measured
    from viewsync.training.tables.by_offset_page import Methods
    from viewsync.training.tables.grid import Cell


def table_by_offset(
    table: int | str, chosen: Sequence[str], data: Path, runs: Path, frames: int, threads: int, show: bool
) -> None:
    """Measure the table's cells that are trained, unless only to `show`, set by set; print and write to
    `runs` what there is. Ctrl-C keeps what was measured; the same command goes on.
    """
    from viewsync.errors import UserError
    from viewsync.sim.real_sets import named
    from viewsync.sim.scenes import load
    from viewsync.training.memory import hold_memory
    from viewsync.training.runners import TorchRunner, as_trained
    from viewsync.training.snapshots import Sampling, SnapshotSet
    from viewsync.training.tables import by_offset as curves
    from viewsync.training.tables import cell, grid

    wanted = grid.cells(table, chosen)
    trained = [(one, seed) for one in wanted for seed in range(99) if _finished(one, runs, seed)]
    if not trained:
        raise click.UsageError(f"table {table} has no such cell in {runs} that is trained; fill it first")
    stop = stopping()
    hold_memory()
    for data_set in dict.fromkeys(one.data_set for one, _ in trained):
        real, folder = named(data_set), data / data_set
        if not (folder / "scene.yaml").exists():
            raise UserError(f"{folder}: the set is not there; make it with: viewsync data make {data_set}")
        grid_s = curves.offsets_s(real.kappa_s)
        path = runs / f"table-{table}-by-offset-{data_set}.json"
        pieces = real.pieces("test")
        of_data = curves.of_data(folder, pieces)
        protocol = {"set": data_set, **of_data, "frames": frames, "offsets_s": grid_s}
        measured = curves.Measured.load(path, protocol)
        methods: dict[str, list[str] | str] = {}
        for one, seed in trained:
            if one.data_set != data_set:
                continue
            row = one.row
            loss = f"{row.loss}: frames of one instant" if row.synchronised else row.loss
            name = f"{row.name} ({loss})" + (", constant" if one.latency == "constant" else "")
            key = f"{name}, seed {seed}"
            if not show:
                runner = TorchRunner(runs / one.folder / f"seed-{seed}" / "best", threads)
                asked = as_trained(runner)
                scene = load(str(folder / "scene.yaml")).scene
                sampling = asked.of(Sampling(real.kappa_s, together_s=0.01))
                shots = SnapshotSet(scene, folder, list(pieces), sampling)
                rows = range(len(real.views)) if real.hard else (0,)
                names, how = {runner.graphs[0]: key}, (asked, row.synchronised)
                _measure(runner, names, shots, rows, grid_s, frames, measured, how, path, stop)
            result = cell.known(one, runs, seed)
            if key in measured.curves:
                good = result is not None and result.converged
                keys = methods.setdefault(name, [])
                if not good:
                    methods[name] = "not converged"
                elif not isinstance(keys, str):
                    keys.append(key)
        _write(measured, methods, real.kappa_s, path)


def checkpoints_by_offset(
    runners: Sequence[tuple[str, TorchRunner, Asked]],
    data: Path,
    crowds: Sequence[int],
    kappa_s: float,
    reference: str | None,
    frames: int,
    path: Path,
) -> None:
    """Measure named checkpoints of one scene on the same frames of its crowds, each as asked; `path` and its
    like get it.
    """
    from viewsync.training.snapshots import Sampling, SnapshotSet
    from viewsync.training.tables import by_offset as curves

    scene = runners[0][1].scene
    views = tuple(scene.cameras)
    grid_s = curves.offsets_s(kappa_s)
    protocol = {
        "scene": scene.name,
        **curves.of_data(data, crowds),
        "crowds": [min(crowds), max(crowds) + 1],
        "frames": frames,
        "offsets_s": grid_s,
        "reference": reference or "each",
    }
    measured = curves.Measured.load(path, protocol)
    rows = range(len(views)) if reference is None else (views.index(reference),)
    stop = stopping()
    methods: dict[str, list[str] | str] = {}
    for short, runner, asked in runners:
        if runner.scene.ground != scene.ground:
            raise click.UsageError(f"{short} has another ground than {runners[0][0]}; measure it alone")
        names = {graph: f"{graph} ({short})" for graph in runner.graphs}
        shots = SnapshotSet(scene, data, crowds, asked.of(Sampling(kappa_s)))
        _measure(runner, names, shots, rows, grid_s, frames, measured, (asked, False), path, stop)
        methods |= {name: [name] for name in names.values()}
    _write(measured, methods, kappa_s, path)


def _finished(one: Cell, runs: Path, seed: int) -> bool:
    from viewsync.training.tables.record import NAME

    folder = runs / one.folder / f"seed-{seed}"
    return (folder / NAME).exists() and (folder / "best").exists()


def _measure(
    runner: TorchRunner,
    names: dict[str, str],
    shots: SnapshotSet,
    rows: Sequence[int],
    grid_s: Sequence[float],
    frames: int,
    measured: Measured,
    how: tuple[Asked, bool],
    path: Path,
    stop: Event,
) -> None:
    """how: as the runner is asked, and whether on frames of one instant."""
    from viewsync.training.tables import by_offset as curves

    chosen = curves.places(shots, rows, grid_s[-1], frames)
    total = len(chosen) * (1 if how[1] else len(grid_s))
    with progress(f"by offset {', '.join(names.values())}", total) as advance:

        def so_far(done: int, total: int) -> None:
            if stop.is_set():
                raise click.Abort
            advance(done)

        curves.measure(runner, names, shots, chosen, grid_s, measured, *how, so_far)
    measured.save(path)


def _write(measured: Measured, methods: Methods, kappa_s: float, path: Path) -> None:
    from viewsync.training.tables import by_offset_page as page

    text = page.markdown(measured, methods)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    path.with_suffix(".png").write_bytes(page.picture(measured, methods, kappa_s))
    click.echo(text)
