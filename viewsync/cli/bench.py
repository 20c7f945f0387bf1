"""`viewsync bench`: speed, memory and bytes, each beside what was promised and what it was compared with."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.rows import GROUPS

if TYPE_CHECKING:
    from viewsync.ort import Provider


@click.command()
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="Bundle to measure [the one that comes with viewsync]."
)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="cuda: measure the hub's answers and training on the GPU too, beside the CPU.",
)
@click.option(
    "--only", type=click.Choice(GROUPS), multiple=True, help="Measure this; may be given several times."
)
@click.option(
    "--frames", type=click.IntRange(3), default=102, show_default=True, help="Frames to render and extract."
)
@click.option(
    "--answers",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    help="Answers to time on their way to a subscriber.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="How long agents and hub run before their memory is read.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON at the end, and nothing else.")
def command(
    bundle: Path | None,
    provider: "Provider",
    only: tuple[str, ...],
    frames: int,
    answers: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure speed, memory and bytes, and say which promises hold.

    Takes some minutes. Promises are about the clock on the wall on an idle machine; the load is told, and the
    processor time that other programs hardly change.

    \b
    viewsync bench
    viewsync bench --only hub --provider cuda
    """
    import os

    from rich.console import Console

    from bench.report import table
    from bench.run import Settings, machine, measure
    from viewsync.demo.run import DEMO_BUNDLE

    chosen = bundle or DEMO_BUNDLE
    told: dict[str, Any] = machine(chosen)
    settings = Settings(chosen, provider, frames, answers, seconds, only or GROUPS)
    rows = measure(settings, lambda what: click.echo(f"measuring: {what}", err=True))
    told["load_after"] = round(os.getloadavg()[0], 2)
    if as_json:
        click.echo(json.dumps({"machine": told, "rows": [row.as_dict() for row in rows]}))
    else:
        # A file or a pipe gets the whole width: a table folded to 80 columns is no table.
        console = Console(width=None if Console().is_terminal else 180)
        console.print(table(rows, told))
