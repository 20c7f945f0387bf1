"""`viewsync train`: a model from simulated crowds."""

import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import click

from viewsync.cli.stop import stopping


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="YAML file; see docs/train.md."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the run: last/, best/, log.csv, tensorboard/, curve.png.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any key of the configuration.")
def command(config: Path | None, out: Path, overrides: tuple[str, ...]) -> None:
    """Train a model, or go on with the run in --out.

    Ctrl-C finishes the step in hand and saves it; the same command then goes on as if nothing had happened.
    Under torchrun it runs in as many processes as that starts, one for each GPU.

    \b
    viewsync train --config configs/plaza.yaml --out runs/plaza
    torchrun --nproc-per-node 2 -m viewsync train --config configs/plaza.yaml --out runs/plaza
    """
    from viewsync.cli.progress import progress
    from viewsync.config import load_config
    from viewsync.errors import ViewsyncError
    from viewsync.training.checkpoint import has_checkpoint, load_state
    from viewsync.training.config import TrainConfig
    from viewsync.training.curve import draw_curve
    from viewsync.training.memory import hold_memory
    from viewsync.training.processes import StoppedElsewhere, leads, speaks
    from viewsync.training.train import Progress, train

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    stop = stopping()
    checked = ""
    try:
        settings = load_config(TrainConfig, config, overrides, os.environ)
        hold_memory()
        start = int(load_state(out / "last")["step"]) if has_checkpoint(out / "last") else 0
        bar = progress(f"train {out.name}", settings.steps, start) if leads() else nullcontext(_quiet)
        with bar as advance:

            def look(done: int, total: int) -> None:
                advance(start, f"the encoder stays as it is; looking at frames: {done} of {total}")

            def show(step: Progress) -> None:
                nonlocal checked
                if step.validation is not None:
                    names = ("visible",) if settings.no_answers else settings.methods
                    maes = (f"{m} {step.validation[f'{m}.mae']:.2f}" for m in names)
                    checked = f"validation MAE {', '.join(maes)}"
                    draw_curve(out)
                loss = sum(v for k, v in step.losses.items() if k.endswith((".density", ".count")))
                advance(step.step, f"loss {loss:.3f} {checked}" if loss else f"stage one {checked}")

            best = train(settings, out, show, stop, look)
    except ViewsyncError as error:
        # What is wrong is wrong for all processes of a machine: one of them says so.
        if isinstance(error, StoppedElsewhere) or not speaks():
            sys.exit(2)
        raise
    if not leads():
        sys.exit(130 if stop.is_set() else 0)
    if stop.is_set():
        saved = "no step was done yet"
        if has_checkpoint(out / "last"):
            draw_curve(out)
            saved = f"saved in {out / 'last'}"
        click.echo(f"stopped; go on with the same command; {saved}", err=True)
        raise click.Abort
    click.echo(best)


def _quiet(done: int, note: str = "") -> None:
    pass
