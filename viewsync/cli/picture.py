"""`viewsync evaluate --draw`: one snapshot, as every method answers it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from viewsync.training.runners import Runner
    from viewsync.training.source import Shots


def draw_snapshot(runners: Mapping[str, Runner], shots: Shots, path: Path) -> None:
    """Draw the first snapshot of the first crowd to `path`, a PNG or JPEG; answers are told apart by the
    names of their runners, where more than one gives the same.
    """
    from viewsync.training.picture import answers_of, draw

    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "jpg", "jpeg"):
        raise click.UsageError(f"--draw {path}: name it .png or .jpg")
    shot = shots.draw(2, 0, crowd=0, plain=True)
    answers = {}
    for name, runner in runners.items():
        for graph, outputs in answers_of(runner, shot).items():
            answers[f"{graph} ({name})" if graph in answers else graph] = outputs
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = next(iter(runners.values())).scene
    path.write_bytes(draw(scene, shot, answers, kind))
    click.echo(f"{path}")
