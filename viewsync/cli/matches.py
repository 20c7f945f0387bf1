"""`viewsync evaluate --matches`: whether people are found again in the other views' frames."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import click

from viewsync.cli.crowds import make_missing


def measure_matches(
    checkpoint: Path | None,
    bundle: Path | None,
    scene: str | None,
    data: Path | None,
    crowds: range,
    frames: int,
    kappa_s: float | None,
    offsets: str | None,
    before_s: float | None,
    workers: int,
    threads: int,
) -> None:
    """Print, by offset, the share of people shown by the reference and by another view whom each graph's flow
    leads to. Raises UserError where nothing publishes a flow on the ground.
    """
    from viewsync.bundle import Bundle
    from viewsync.errors import UserError
    from viewsync.sim.rigs import RIGS
    from viewsync.sim.scenes import load
    from viewsync.training.checkpoint import load_state
    from viewsync.training.evaluate import BundleRunner
    from viewsync.training.matches import NEAR_M, seek
    from viewsync.training.runners import Runner, TorchRunner, as_trained
    from viewsync.training.snapshots import Sampling, SnapshotSet

    runner: Runner
    if bundle is not None:
        runner = BundleRunner(Bundle.load(bundle), threads=threads)
        scene = str(runner.config.get("scene", runner.scene.name))
    else:
        assert checkpoint is not None
        scene = scene or str(load_state(checkpoint)["config"]["scene"])
        if scene == RIGS:
            raise click.UsageError("--matches is of the cameras of one scene: say which with --scene")
        runner = TorchRunner(checkpoint, threads, load(scene).scene)
    place = runner.scene
    kappa_s = float(runner.config.get("kappa_s", 3.0)) if kappa_s is None else kappa_s
    fixed = None if runner.reference is None else list(place.cameras).index(runner.reference)
    sampling = as_trained(runner, offsets, before_s).of(Sampling(kappa_s, reference=fixed))
    data = data or Path("runs/data") / f"{place.name}-test"
    make_missing(scene, data, crowds, workers)
    shots = SnapshotSet(place, data, crowds, sampling)
    drawn = (shots.draw(3, n, crowd=n * len(crowds) // frames, plain=True) for n in range(frames))
    found = seek(runner, drawn)
    if not found:
        raise UserError(
            f"{checkpoint or bundle}: answers {', '.join(runner.graphs)}; where on the ground people went "
            "is told by column or column-2, by a checkpoint with one of them at a time"
        )
    edges = [kappa_s * k / 4 for k in range(5)] if kappa_s else []
    for graph, sought in found.items():
        click.echo(f"{graph} on {place.name}: found means within {NEAR_M:g} m")
        click.echo("  offset, s    partners  found  zero flow  match of partners  of others")
        for least, most in [*pairwise(edges), (0.0, kappa_s)]:
            # Frames may be off by a rounding more than κ.
            part = sought.between(least, most if most < kappa_s else kappa_s + 1e-3)
            click.echo(
                f"  {least:4.2f} to {most:4.2f} {part.partners:8d} {part.found():7.3f} {part.still():9.3f} "
                f"{part.matched(True):14.3f} {part.matched(False):15.3f}"
            )
