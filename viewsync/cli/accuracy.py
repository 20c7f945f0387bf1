"""`viewsync evaluate` of bundles and checkpoints on simulated crowds: the same snapshots for all of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from viewsync.cli.by_offset import checkpoints_by_offset
from viewsync.cli.crowds import make_missing
from viewsync.cli.opened import Answering, Opened, Wanted, make_crowds, open_tuners, open_wanted
from viewsync.cli.picture import draw_snapshot
from viewsync.cli.progress import progress
from viewsync.cli.stop import stopping

if TYPE_CHECKING:
    from viewsync.training.evaluate import Evaluation
    from viewsync.training.runners import Runner


def measure_crowds(wanted: Wanted, json_path: Path | None, as_markdown: bool) -> None:
    """Print what every graph of the bundle and the checkpoints errs by, and write it as JSON. Raises
    UserError, before any crowd is made.
    """
    from viewsync.errors import UserError
    from viewsync.sim.rigs import RIGS
    from viewsync.training import report

    opened = open_wanted(wanted)
    tuners = {} if wanted.tuning_data is None else open_tuners(wanted, opened, wanted.tuning_data)
    first, *others = opened.answering
    for one in others:
        if one.runner.scene.cameras.keys() != first.runner.scene.cameras.keys():
            raise UserError(f"{one.folder} is of other cameras than the first; measure them one at a time")
        if one.runner.scene.ground != first.runner.scene.ground:
            raise UserError(f"{one.folder} has ground cells of another size than the first; measure it alone")
    if opened.scene != RIGS and wanted.tuning_data is None:
        make_missing(opened.scene, opened.data, wanted.tuning, wanted.workers)
    make_crowds(wanted, opened)
    stop = stopping()  # not sooner: who makes crowds has an event of its own, and the last one counts
    evaluation = _evaluate(wanted, opened, first, first.runner.scene.name, tuners, stop)
    for one in others:
        found = _evaluate(wanted, opened, one, one.name, tuners, stop)
        evaluation = evaluation.joined(found, {g: f"{g} ({one.name})" for g in one.runner.graphs})
    document = report.document(evaluation, opened.default, _protocol(wanted, opened), opened.files)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(document, indent=1) + "\n")
    click.echo((report.markdown if as_markdown else report.text)(document))


def draw_crowds(wanted: Wanted, picture: Path) -> None:
    """Draw what every graph says of the first of the crowds. Raises UserError."""
    from viewsync.training.snapshots import Sampling
    from viewsync.training.source import open_shots

    opened = open_wanted(wanted)
    make_crowds(wanted, opened)
    first, *others = opened.answering
    views = list(opened.place.cameras)
    sampling = Sampling(
        opened.kappa_s,
        tau_s=None if wanted.tau_s is None else tuple(wanted.tau_s.get(view, 0.0) for view in views),
        reference=None if opened.reference is None else views.index(opened.reference),
        before_s=tuple(_before(opened).values())[:1],
    )
    shots = open_shots(first.runner.scene, opened.data, wanted.crowds, sampling)
    draw_snapshot({"": first.runner, **{one.name: one.runner for one in others}}, shots, picture)


def crowds_by_offset(wanted: Wanted, json_path: Path | None) -> None:
    """Error against offset of every checkpoint, as JSON, table and picture. Raises UserError."""
    from viewsync.training.runners import TorchRunner

    opened = open_wanted(wanted, rigs=False)
    make_crowds(wanted, opened)
    named = []
    for one in opened.answering:
        assert isinstance(one.runner, TorchRunner), "by offset only checkpoints are asked"
        named.append((one.name, one.runner, one.asked))
    checkpoints_by_offset(
        named,
        opened.data,
        wanted.crowds,
        opened.kappa_s,
        opened.reference,
        wanted.frames,
        json_path or Path("runs/by-offset.json"),
    )


def _evaluate(
    wanted: Wanted, opened: Opened, one: Answering, what: str, tuners: Mapping[str, Runner], stop: Event
) -> Evaluation:
    """Errors of one, as it is asked; what: shown by the progress bar."""
    from viewsync.training.evaluate import evaluate, tuning_frames

    numbers = itertools.count(1)
    with progress(f"evaluate {what}", wanted.frames + tuning_frames(wanted.frames)) as advance:

        def one_more(done: int, of: int) -> None:
            if stop.is_set():
                raise click.Abort
            advance(next(numbers))

        return evaluate(
            one.runner,
            opened.data,
            wanted.crowds,
            wanted.tuning,
            wanted.frames,
            opened.kappa_s,
            one_more,
            opened.reference,
            wanted.tau_s,
            None if wanted.tuning_data is None else (tuners[one.name], wanted.tuning_data),
            one.asked.known,
            one.asked.before_s,
        )


def _before(opened: Opened) -> dict[str, float]:
    """How far back the frames before lie, seconds, of who looks at them."""
    return {one.name: one.asked.before_s for one in opened.answering if one.asked.before_s is not None}


def _protocol(wanted: Wanted, opened: Opened) -> dict[str, object]:
    """What was asked, for who reads the JSON."""
    protocol: dict[str, object] = {
        "command": "viewsync evaluate",
        "scene": opened.place.name,
        "crowd_seeds": [wanted.crowds.start, wanted.crowds.stop],
        "tuning_seeds": [wanted.tuning.start, wanted.tuning.stop],
        "kappa_s": opened.kappa_s,
        "reference": opened.reference or "random",
    }
    if wanted.tau_s is not None:
        protocol["tau_s"] = wanted.tau_s
    ground = opened.answering[0].runner.scene.ground
    if ground != opened.place.ground:
        protocol["cell_m"] = ground.cell_m
    if not all(one.asked.known for one in opened.answering):
        told = {one.name: "known" if one.asked.known else "unknown" for one in opened.answering}
        protocol["offsets"] = _one_or_each(told)
    if back := _before(opened):
        protocol["before_s"] = _one_or_each(back)
    if wanted.frame_rate is not None:
        protocol["frame_rate"], protocol["same_instant"] = wanted.frame_rate, wanted.same_instant
    return protocol


def _one_or_each(values: Mapping[str, object]) -> object:
    """What all of them share; else each by its name."""
    return next(iter(values.values())) if len(set(values.values())) == 1 else dict(values)
