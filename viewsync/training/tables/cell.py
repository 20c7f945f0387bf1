"""One cell of a table: trained, measured on the set's test pieces, kept; or as far as it is.

All cells of a set and a latency answer the same frames of the reference view, so that they are paired; the
other views' frames are off as the latency says, or of the same instant where the bound `synchronised` is
measured.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from viewsync.config import load_config
from viewsync.errors import ConfigError, UserError
from viewsync.sim.dataset import load_truth
from viewsync.sim.real_sets import RealSet, named
from viewsync.training.checkpoint import FREE, check_same_run, check_same_settings, has_checkpoint, load_state
from viewsync.training.config import TrainConfig, without_places
from viewsync.training.evaluate import answer, score, tune
from viewsync.training.metrics import Scores
from viewsync.training.runners import TorchRunner
from viewsync.training.snapshots import Sampling, Snapshot, SnapshotSet
from viewsync.training.tables.grid import BASE_S, TABLES, Cell, Row, cells
from viewsync.training.tables.record import Record
from viewsync.training.train import Progress, train

# Within so many seconds the same people are about: intervals are over stretches of this length.
STRETCH_S = 5.0
TUNING = 60
# Validations of a run.
CHECKS = 12
# A run has converged where its best validation error of the last third of the steps is not better than that
# of the time before by more than this share.
FLAT = 0.05
# A curve that never began to fall is flat, too: every instant taught must have been looked at so often.
LEAST_PASSES = 10.0
_LAST = 1 / 3
# What makes a cell that cell, whatever else it is trained with.
_OF_THE_CELL = ("scene", "data", "reference", "train_seeds", "validation_seeds", "kappa_s", "tau_s", "seed")
_ONE_PROCESS = ("devices", "nodes")
# What a number does not depend on, but where and how often it is looked for.
_NO_MATTER = ("scene", "data", "threads", "accelerator", "start_from", "validate_every")


@dataclass(frozen=True, slots=True)
class Effort:
    """What a run is given: steps of the optimiser, snapshots in each, test frames, CPU threads; start_from: a
    checkpoint that every row starts from which starts from no other row; overrides: `key=value` of the
    training, for every row.
    """

    steps: int = 2000
    batch: int = 4
    frames: int = 400
    threads: int = 2
    start_from: Path | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of a cell and seed: scores on the test frames (None: not measured), steps trained,
    whether the learning curve has flattened, and what it was trained with, in words.
    """

    scores: Scores | None
    steps: int
    converged: bool
    trained_with: str = ""


def settings(cell: Cell, seed: int, data: Path, runs: Path, effort: Effort) -> TrainConfig:
    """The training of a cell. data: the set's folder. Raises ConfigError for an override that is wrong, or
    of what makes the row what it is.
    """
    real = named(cell.data_set)
    teaching, checking = real.pieces("train"), real.pieces("validation")
    start = effort.start_from
    if cell.row.start:
        start = runs / Cell(cell.table, cell.data_set, cell.latency, BASE_S).folder / f"seed-{seed}" / "best"
    values: dict[str, Any] = {
        "scene": str(data / "scene.yaml"),
        "data": data,
        "reference": None if real.hard else real.views[0],
        "train_seeds": (teaching.start, teaching.stop),
        "validation_seeds": (checking.start, checking.stop),
        "kappa_s": real.kappa_s,
        "tau_s": dict(real.tau_s) if cell.latency == "constant" else None,
        "steps": effort.steps,
        "batch": effort.batch,
        "threads": effort.threads,
        "first_stage": 0.15 if start is None else 0.0,
        "learning_rate": 1.5e-3,
        "validate_every": max(1, effort.steps // CHECKS),
        "validation_snapshots": 45,
        "start_from": start,
        "seed": seed,
    }
    own = {**values, **cell.row.settings}
    fixed = (*cell.row.settings, *_OF_THE_CELL, *(("start_from",) if cell.row.start else ()))
    for override in effort.overrides:
        key = override.partition("=")[0].strip()
        if key in _ONE_PROCESS:
            raise ConfigError(f"--set {override}: cells are filled by one process; leave {key} out")
        if key in fixed:
            raise ConfigError(
                f"--set {override}: {cell.row.name} ({cell.row.loss}) says this itself; choose other --cells"
            )
    return load_config(TrainConfig, None, effort.overrides, defaults=own)


def fill(
    cell: Cell,
    seed: int,
    data: Path,
    runs: Path,
    effort: Effort,
    report: Callable[[str, int, int], None],
    stop: Event,
) -> None:
    """Train the cell as far as it is not, and measure it; what is there is kept.

    report(what, done, total); once `stop` is set, it is saved where it is. Raises UserError for a set that is
    missing, or a start that is, and for a cell that was trained with other settings.
    """
    folder = runs / cell.folder / f"seed-{seed}"
    config = settings(cell, seed, data, runs, effort)
    elsewhere = "another folder of --runs"
    if (kept := _record(cell, folder)) is not None:
        # Where set and start lay when it was trained says nothing of what they were.
        free = (*FREE, "scene", *(("start_from",) if cell.row.start else ()))
        check_same_settings(folder, kept.config, config, elsewhere, free)
        return
    if has_checkpoint(folder / "last"):
        check_same_run(folder / "last", config, elsewhere)
    if cell.row.start and not has_checkpoint(config.start_from or folder):
        raise UserError(
            f"{cell.row.name} starts from {cell.row.start}, which is not trained yet ({config.start_from}); "
            "fill that cell first"
        )
    if not (data / "scene.yaml").exists():
        raise UserError(f"{data}: the set is not there; make it with: viewsync data make {cell.data_set}")

    def step(progress: Progress) -> None:
        report("train", progress.step, config.steps)

    train(config, folder, step, stop, lambda done, total: report("look at frames", done, total))
    if stop.is_set():
        return
    real = named(cell.data_set)
    scores = measure(cell, folder / "best", data, effort, report)
    log = curve(folder / "log.csv", cell.row)
    passes = round(config.steps * config.batch / _instants(real, data), 2)
    Record(
        cell.folder, config.steps, passes, without_places(config.model_dump(mode="json")), tuple(log), scores
    ).save(folder)


def _instants(real: RealSet, data: Path) -> int:
    """How many instants are taught."""
    return sum(load_truth(data / f"{piece:06d}.npz").times_s.shape[1] for piece in real.pieces("train"))


def measure(
    cell: Cell, checkpoint: Path, data: Path, effort: Effort, report: Callable[[str, int, int], None]
) -> Scores:
    """Scores of a checkpoint on the cell's test frames."""
    real = named(cell.data_set)
    runner = TorchRunner(checkpoint, effort.threads)
    graph, grid = runner.graphs[0], runner.scene.ground
    tuning = list(draws(real, cell, runner, data, "validation", TUNING))
    tuned = answer(runner, tuned_shots(tuning), len(tuning), lambda done, of: report("tune", done, of))
    shots = list(draws(real, cell, runner, data, "test", effort.frames))
    answers = answer(runner, iter(shots), len(shots), lambda done, of: report("measure", done, of))
    return score(answers, graph, grid, tune(tuned, grid)[graph])


def tuned_shots(shots: list[tuple[Snapshot, int]]) -> Iterator[tuple[Snapshot, int]]:
    """The same snapshots, all of one group."""
    return ((shot, 0) for shot, _ in shots)


def draws(
    real: RealSet, cell: Cell, runner: TorchRunner, data: Path, use: str, count: int
) -> Iterator[tuple[Snapshot, int]]:
    """At most `count` snapshots of the cell spread evenly over the pieces for `use`, and the stretch that
    each is from. The reference's frames depend on set and latency alone.
    """
    tau_s = tuple(real.tau_s.get(view, 0.0) for view in real.views) if cell.latency == "constant" else None
    pieces = list(real.pieces(use))
    unknown = float(runner.config.get("offsets") == "unknown")
    back = () if runner.before_s is None else (runner.before_s,)
    sampling = Sampling(real.kappa_s, tau_s=tau_s, together_s=0.01, unknown=unknown, before_s=back)
    shots = SnapshotSet(runner.scene, data, pieces, sampling)
    rows = range(len(real.views)) if real.hard else (0,)
    places = [
        (number, row, int(frame))
        for number in range(len(pieces))
        for row in rows
        for frame in shots.possible(number, row)
    ]
    for index in range(min(count, len(places))):
        number, row, frame = places[index * len(places) // min(count, len(places))]
        times = shots.truth[number].times_s
        start = times[row, frame]
        rng = np.random.default_rng([7, pieces[number], row, frame])
        picks = [(row, frame)]
        for v in (v for v in range(len(times)) if v != row):
            aim = start
            if not cell.row.synchronised:
                aim += rng.uniform(-real.kappa_s, real.kappa_s) if tau_s is None else tau_s[v] - tau_s[row]
            picks.append((v, int(np.argmin(np.abs(times[v] - aim)))))
        yield shots.at(number, picks), number * 10_000 + int(start // STRETCH_S)


def everything(runs: Path) -> dict[str, list[Result]]:
    """What there is below `runs`: for the folder of every cell that was begun, a result for each seed."""
    out: dict[str, list[Result]] = {}
    for table in TABLES:
        for cell in cells(table):
            there = [found for seed in range(99) if (found := known(cell, runs, seed)) is not None]
            if there:
                out[cell.folder] = there
    return out


def known(cell: Cell, runs: Path, seed: int) -> Result | None:
    """What there is of a cell and seed; None: it was never begun. Raises UserError for a damaged file."""
    folder = runs / cell.folder / f"seed-{seed}"
    if (kept := _record(cell, folder)) is not None:
        converged = kept.passes >= LEAST_PASSES and flattened(kept.curve, kept.steps)
        return Result(kept.scores, kept.steps, converged, _in_words(cell, runs, kept.config))
    if not has_checkpoint(folder / "last"):
        return None
    state = load_state(folder / "last")
    return Result(None, int(state["step"]), False, _in_words(cell, runs, state["config"]))


def _record(cell: Cell, folder: Path) -> Record | None:
    kept = Record.load(folder)
    if kept is not None and kept.cell != cell.folder:
        raise UserError(f"{folder}: here is the record of {kept.cell}; move it to where that belongs")
    return kept


def _in_words(cell: Cell, runs: Path, config: Mapping[str, Any]) -> str:
    """What a cell was given: effort, start, and every setting that is not as usual."""
    start = Path(config["start_from"]) if config.get("start_from") else None
    effort = Effort(config["steps"], config["batch"], start_from=None if cell.row.start else start)
    usual = settings(cell, config["seed"], Path(config["data"]), runs, effort).model_dump(mode="json")
    words = f"{config['steps']} steps of batch {config['batch']}"
    if start is not None:
        words += f" from {'/'.join(start.parts[-2:])}"
    other = [key for key in usual if key in config and config[key] != usual[key] and key not in _NO_MATTER]
    return ", ".join([words, *(f"{key} {config[key]}" for key in other)])


def curve(path: Path, row: Row) -> list[tuple[int, float]]:
    """(step, density error on the validation pieces), from a run's log."""
    column = f"validation.{row.settings['methods'][0]}.density_mse"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [(int(r["step"]), float(r[column])) for r in csv.DictReader(file) if r.get(column)]


def flattened(found: Sequence[tuple[int, float]], steps: int) -> bool:
    """Whether the error hardly fell any more in the last third of the steps."""
    late = [error for step, error in found if step > steps * (1 - _LAST)]
    early = [error for step, error in found if step <= steps * (1 - _LAST)]
    return bool(late and early) and min(late) > (1 - FLAT) * min(early)
