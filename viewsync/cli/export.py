"""`viewsync export`: a bundle that edge and hub can load, from a checkpoint and a scene."""

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from viewsync.cli.crowds import crowd_range, make_missing
from viewsync.cli.progress import progress
from viewsync.cli.stop import stopping


@click.command()
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of a checkpoint, such as checkpoints/plaza-subcell/best.",
)
@click.option("--scene", help="A built-in scene, or a scene.yaml [the one it was trained on].")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder or .zip to write.")
@click.option("--replace", is_flag=True, help="Replace what --out has, once the new bundle is whole.")
@click.option("--name", help="Name of the bundle [the scene's].")
@click.option("--default", "default", help="Graph that answers unless the hub is told otherwise [the first].")
@click.option(
    "--accuracy",
    "accuracy_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What `viewsync evaluate --json` wrote of this checkpoint's bundle, for the manifest.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of crowds held out; missing ones are made there [runs/data/SCENE-test].",
)
@click.option(
    "--crowds",
    metavar="A:B",
    callback=crowd_range,
    default="100000:100010",
    show_default=True,
    help="Crowds to compare with the torch model on.",
)
@click.option(
    "--snapshots", type=click.IntRange(1), default=200, show_default=True, help="Snapshots to compare on."
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="To make crowds with.")
def command(
    checkpoint: Path,
    scene: str | None,
    out: Path,
    replace: bool,
    name: str | None,
    default: str | None,
    accuracy_path: Path | None,
    data: Path | None,
    crowds: range,
    snapshots: int,
    workers: int,
) -> None:
    """Export a checkpoint and prove that the exported graphs say what the model says.

    \b
    viewsync export --checkpoint checkpoints/plaza-subcell/best --scene plaza --out runs/bundle
    viewsync export --checkpoint runs/mine/best --scene my/scene.yaml --out my-bundle
    """
    from export.bundle import bundle_parts
    from export.parity import as_manifest, measure, refuse_beyond_limit
    from export.record import check_measured, training_record
    from viewsync.errors import BundleError
    from viewsync.sim.rigs import RIGS
    from viewsync.sim.scenes import load
    from viewsync.training.checkpoint import load_model, load_state
    from viewsync.training.config import TrainConfig
    from viewsync.training.evaluate import BundleRunner
    from viewsync.training.memory import hold_memory
    from viewsync.training.snapshots import SnapshotSet

    if out.exists() and not replace:
        raise BundleError(f"{out} exists; choose a new place for the bundle, or say --replace")
    state = load_state(checkpoint)
    scene = scene or str(state["config"]["scene"])
    if scene == RIGS:
        raise click.UsageError(f"{checkpoint} was trained on random rigs: say for which cameras with --scene")
    place = load(scene).scene
    trained = TrainConfig.model_validate(state["config"])
    kappa_s = trained.reach_s
    accuracy = {} if accuracy_path is None else _read(accuracy_path)
    model = load_model(checkpoint)
    if default is not None and default not in model.config.methods:
        raise click.UsageError(f"--default {default}: the checkpoint has {', '.join(model.config.methods)}")
    data = data or Path("runs/data") / f"{place.name}-test"
    stop = stopping()
    hold_memory()
    parts = bundle_parts(model, place, name or place.name, kappa_s, default)
    make_missing(scene, data, crowds, workers)
    training = training_record(state, place)
    with tempfile.TemporaryDirectory(prefix="viewsync-export-") as scratch:
        draft = parts.write(Path(scratch) / "bundle", training, {})
        if accuracy_path is not None:
            check_measured(accuracy, draft.manifest.hashes.files, str(accuracy_path))
        shots = SnapshotSet(place, data, crowds, trained.sampling(tuple(place.cameras), labels=False))
        with progress("parity", snapshots) as advance:

            def so_far(done: int, total: int) -> None:
                if stop.is_set():
                    raise click.Abort
                advance(done)

            found = measure(model, BundleRunner(draft), shots, snapshots, so_far)
        for graph, parity in found.items():
            click.echo(f"parity {graph}: counts differ by {parity.count_p95_percent:.3f} % (p95)", err=True)
        refuse_beyond_limit(found)
        accuracy = {**accuracy, "parity": as_manifest(found, snapshots, crowds)}
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as beside:
            fresh = parts.write(Path(beside) / out.name, training, accuracy)
            _put(fresh.path, out, Path(beside) / "old")
    click.echo(f"{out} {fresh.hash}")


def _put(fresh: Path, out: Path, old: Path) -> None:
    """Move `fresh` to `out`; what was there goes to `old`, and comes back where that fails."""
    there = out.exists()
    if there:
        out.rename(old)
    try:
        fresh.rename(out)
    except OSError:
        if there:
            old.rename(out)
        raise


def _read(path: Path) -> dict[str, Any]:
    from viewsync.errors import UserError

    try:
        document = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not a file of `viewsync evaluate --json` ({error})") from error
    if not isinstance(document, dict) or not {"protocol", "graphs", "measured"} <= document.keys():
        raise UserError(f"{path}: not a file of `viewsync evaluate --json`; measure the bundle again")
    return document
