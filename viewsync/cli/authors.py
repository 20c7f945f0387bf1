"""`viewsync evaluate` of checkpoints that learned from a set as its authors distribute it."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from viewsync.cli.progress import progress
from viewsync.cli.stop import stopping


def measure_authors(
    folder: Path,
    data: Path | None,
    frames: int,
    kappa_s: float | None,
    tau_s: Mapping[str, float] | None,
    offsets: str | None,
    threads: int,
    json_path: Path | None,
) -> None:
    """Print errors of the checkpoint in `folder` on the set's test sequences, below `data` [as trained];
    JSON to `json_path`.
    """
    from viewsync.training.authors_scores import authors_document, authors_text, evaluate_authors
    from viewsync.training.authors_shots import LAYOUTS, AuthorsShots
    from viewsync.training.config import TrainConfig
    from viewsync.training.runners import TorchRunner

    runner = TorchRunner(folder, threads)
    trained = TrainConfig(**runner.config)
    views = tuple(runner.scene.cameras)
    if unknown := [view for view in tau_s or () if view not in views]:
        raise click.UsageError(f"--tau {unknown[0]}: the scene has {', '.join(views)}")
    change: dict[str, object] = {"fusion": "concat"}  # the paper's: the first view unless another was fixed
    if tau_s is not None or kappa_s is not None:
        change |= {"tau_s": tau_s, "kappa_s": trained.kappa_s if kappa_s is None else kappa_s}
    offsets = offsets or ("unknown" if trained.offsets == "unknown" else "known")
    asked = trained.model_copy(update={**change, "offsets": offsets})
    sampling = asked.sampling(views, labels=False)
    shots = AuthorsShots(LAYOUTS[trained.layout], data or trained.data, "test", runner.scene, sampling)
    stop = stopping()
    numbers = itertools.count(1)
    with progress(f"evaluate {trained.layout}", min(frames, len(shots))) as advance:

        def one_more(done: int, of: int) -> None:
            if stop.is_set():
                raise click.Abort
            advance(next(numbers))

        found = evaluate_authors(runner, shots, frames, one_more)
    protocol: dict[str, object] = {
        "command": "viewsync evaluate",
        "set": trained.layout,
        "kappa_s": asked.kappa_s,
    }
    if asked.tau_s is not None:
        protocol["tau_s"] = asked.tau_s
    if offsets == "unknown":
        protocol["offsets"] = offsets
    document = authors_document(found, runner.graphs[0], protocol, {"checkpoint": runner.weights_sha256})
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(document, indent=1) + "\n")
    click.echo(authors_text(document))


def layout_of(checkpoints: Sequence[Path]) -> str:
    """What the checkpoints learned from. Raises UserError where that differs."""
    from viewsync.errors import UserError
    from viewsync.training.checkpoint import load_state

    found = {str(load_state(folder)["config"].get("layout", "crowds")) for folder in checkpoints}
    if len(found) > 1 or (found - {"crowds"} and len(checkpoints) > 1):
        raise UserError(f"checkpoints of {', '.join(sorted(found))} are measured one at a time")
    return found.pop() if found else "crowds"
