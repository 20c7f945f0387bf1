"""`viewsync evaluate --mohicans`: flow between real pictures of a crowd, taken out of step on purpose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from viewsync.cli.progress import progress


def measure_mohicans(
    checkpoints: Sequence[Path], json_path: Path | None, picture: Path | None, threads: int
) -> None:
    """Measure every checkpoint on the real pairs in the folder that VIEWSYNC_DATA names; print a Markdown
    table, write everything as JSON, and draw the flow of one pair.
    """
    import cv2
    import torch

    from viewsync.sim.pets2009 import data_folder
    from viewsync.training import mohicans
    from viewsync.training.checkpoint import load_model, load_state
    from viewsync.training.warp_picture import drawn

    crowd = mohicans.load_crowd(data_folder() / mohicans.FOLDER)
    torch.set_num_threads(threads)
    models = [(folder, load_model(folder)) for folder in checkpoints]
    for _, model in models:
        mohicans.methods_of(model)  # refused before anything is measured
    rows: list[mohicans.Row] = []
    with progress("evaluate mohicans", len(models)) as advance:
        for done, (_, model) in enumerate(models, start=1):
            known = {row.way for row in rows}
            rows += [row for row in mohicans.measure(model, crowd) if row.way not in known]
            advance(done)
    found = mohicans.summary(rows)
    if json_path is not None:
        document = {
            "command": "viewsync evaluate --mohicans",
            "checkpoints": {
                str(folder): {"steps": load_state(folder)["step"], "methods": list(model.config.methods)}
                for folder, model in models
            },
            "summary": found,
            "pairs": [asdict(row) for row in rows],
        }
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(document, indent=1) + "\n")
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(picture), drawn([model for _, model in models], crowd))
    click.echo(mohicans.table(found))
