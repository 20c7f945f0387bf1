"""`viewsync demo`: simulated cameras, agents and a hub as separate processes; counts beside the truth."""

import json
import logging
import secrets
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

if TYPE_CHECKING:
    from viewsync.demo.run import Demo
    from viewsync.prediction import Prediction


class _Quiet:
    """Nothing on standard output until the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, demo: "Demo") -> None:
        pass

    def answered(self, demo: "Demo", prediction: "Prediction", truth: int | None) -> None:
        pass


class _Lines(_Quiet):
    """One line per answer, where there is no terminal to draw on."""

    def answered(self, demo: "Demo", prediction: "Prediction", truth: int | None) -> None:
        from viewsync.demo.table import line

        click.echo(line(demo.seconds, prediction, truth))


class _Screen(_Quiet):
    """A table that stays in its place."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(auto_refresh=False)
        # The table has the same news, and a log between its redrawings would tear it.
        self._level = logging.getLogger("viewsync.demo").level

    def __enter__(self) -> Self:
        logging.getLogger("viewsync.demo").setLevel(logging.ERROR)
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)
        logging.getLogger("viewsync.demo").setLevel(self._level)

    def update(self, demo: "Demo") -> None:
        from viewsync.demo.table import Heading, screen

        settings = demo.settings
        heading = Heading(demo.bundle.scene.name, settings.people, settings.seed)
        table = screen(heading, demo.seconds, demo.score, demo.plans, demo.restarts, demo.note)
        self._live.update(table, refresh=True)


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    help="Stop this long after the first answer [never].",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON at the end, and nothing else.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OUT.PNG",
    help="At the end, draw the last answer: frames with the flow, density and truth.",
)
@click.option("--server", is_flag=True, help="Cameras behind a real RTSP server (needs GStreamer).")
@click.option(
    "--logs",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the programs' settings and logs in this folder [they are thrown away].",
)
@click.option("--seed", type=click.IntRange(0), help="Which crowd [a random one that no training saw].")
@click.option("--people", type=click.IntRange(1, 500), help="How many people walk about [by the seed].")
@click.option(
    "--tracks",
    metavar="SEQUENCE",
    help="PETS2009's real people, such as S2L1, instead of a crowd; needs a bundle for its cameras.",
)
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="Bundle to run [the one that comes with viewsync]."
)
def command(
    seconds: float | None,
    as_json: bool,
    picture: Path | None,
    server: bool,
    logs: Path | None,
    seed: int | None,
    people: int | None,
    tracks: str | None,
    bundle: Path | None,
) -> None:
    """Watch one count come out of simulated cameras that are seconds apart, next to the truth.

    Starts three cameras of unequal low rates, an agent for each, and a hub, as separate processes that talk
    over RTSP and ZeroMQ; whichever dies is started again. Ctrl-C stops them all.
    """
    import sys

    from viewsync.cli.stop import stopping
    from viewsync.demo import picture as drawing
    from viewsync.demo.run import DEMO_BUNDLE, Demo, Settings
    from viewsync.sim.dataset import DEMO_SEEDS, crowd_size

    stop = stopping()
    if picture is not None:
        drawing.check(picture)  # sooner than after the run
    if seed is None:
        seed = DEMO_SEEDS[secrets.randbelow(len(DEMO_SEEDS))]
    settings = Settings(
        bundle=bundle or DEMO_BUNDLE,
        seed=seed,
        people=people or crowd_size(seed),
        seconds=seconds,
        server=server,
        logs=logs,
        tracks=tracks,
    )
    demo = Demo(settings)
    show = _Quiet() if as_json else _Screen() if sys.stdout.isatty() else _Lines()
    with show:
        demo.run(stop, show)
    if as_json:
        click.echo(json.dumps(demo.summary()))
    else:
        click.echo(demo.score.verdict())
        click.echo("This was one crowd for a short while; the measurement is `viewsync evaluate`.")
    if picture is not None:
        demo.draw(picture)
