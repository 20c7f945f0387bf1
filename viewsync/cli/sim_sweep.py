"""`viewsync sim sweep`: error against latency, over profiles, methods and policies."""

import time
from collections.abc import Collection
from pathlib import Path

import click

from viewsync.cli.crowds import crowd_range
from viewsync.cli.progress import progress
from viewsync.cli.stop import stopping

_CROWDS = "100500:100506"


def _words(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """A click callback: words with commas."""
    return tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))


def _required(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> Collection[tuple[str, str]] | None:
    if value is None:
        return None
    from viewsync.lab.gate import parse_required

    try:
        return parse_required(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option(
    "--profiles",
    default="",
    callback=_words,
    help="Network profiles with commas: names, or paths of .yaml files [all that come with viewsync].",
)
@click.option(
    "--policies",
    default="default,far",
    show_default=True,
    callback=_words,
    help="Policies of the hub with commas: names (default, far, freshest), or paths of .yaml files.",
)
@click.option(
    "--bundle",
    "bundles",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Bundle; may be repeated [bundles/plaza].",
)
@click.option(
    "--methods",
    default="",
    callback=_words,
    help="Graphs of the bundles with commas, the synchronised one first [the default, none, reference-only].",
)
@click.option(
    "--crowds",
    metavar="A:B",
    callback=crowd_range,
    default=_CROWDS,
    show_default=True,
    help="Which crowds: seeds A to B - 1.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 600),
    default=40.0,
    show_default=True,
    help="Of each profile and crowd at least; longer where the profile does something later.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the report."
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/lab"),
    show_default=True,
    help="Folder where frames and features are kept.",
)
@click.option("--curve/--no-curve", default=True, help="Measure error against offset, 0 to 10 s, too [yes].")
@click.option(
    "--flow",
    type=click.Choice(["trained", "zero"]),
    default="trained",
    show_default=True,
    help="zero: the graphs that have a flow, and all that they match, believe that nobody moved.",
)
@click.option(
    "--gate",
    "required",
    metavar="CLAIMS",
    callback=_required,
    help="End with exit code 1 unless these hold: density, places, count, or one of them with :none or"
    " :reference-only; with commas.",
)
@click.option(
    "--live",
    is_flag=True,
    help="Run the first crowd of every cell live too, in real time, and compare.",
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
def sweep(
    profiles: tuple[str, ...],
    policies: tuple[str, ...],
    bundles: tuple[Path, ...],
    methods: tuple[str, ...],
    crowds: range,
    seconds: float,
    out: Path,
    cache: Path,
    curve: bool,
    flow: str,
    required: Collection[tuple[str, str]] | None,
    live: bool,
    workers: int,
) -> None:
    """Replay profiles in virtual time through the hub's own parts, and report error against latency.

    Frames and features are made once and kept; the same command gives the same answers.csv on any number of
    processes. Ctrl-C ends it with a report of what is whole.
    """
    from viewsync.errors import InternalError
    from viewsync.lab import profile, report
    from viewsync.lab.gate import judge
    from viewsync.lab.sweep import Settings, check, only, run

    settings = Settings(
        profiles=profiles or tuple(profile.names()),
        policies=policies,
        bundles=bundles or (Path("bundles/plaza"),),
        crowds=crowds,
        seconds=seconds,
        cache=cache,
        methods=methods,
        curve=curve,
        still=flow == "zero",
        workers=workers,
    )
    bundles_by_name = check(settings)
    if live and (len(bundles_by_name) > 1 or settings.still):
        raise click.UsageError("--live takes one bundle, as it is: leave --flow away")
    stop = stopping()
    out.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    total = len(settings.profiles) * len(crowds) + (len(crowds) if curve else 0)
    with progress("crowds", total) as advance:
        found = run(settings, stop, advance)
    if not found.runs:
        raise click.Abort
    verdicts = {
        name: judge(only(found.runs, bundle=name), ways[0], required or ())
        for name, ways in found.methods.items()
    }
    how = {
        "profiles": list(settings.profiles),
        "policies": list(policies),
        "crowds": f"{crowds.start}:{crowds.stop}",
        "seconds": seconds,
        "flow": flow,
        "whole": not stop.is_set(),
        "took_s": round(time.monotonic() - began_s),
    }
    checks = []
    if live and not stop.is_set():
        from viewsync.lab.agreement import agreement
        from viewsync.lab.chance import redrawn
        from viewsync.lab.live import run as run_live
        from viewsync.lab.record import write_answers

        lived = run_live(settings, settings.bundles[0], out, stop)
        write_answers(out / "answers-live.csv", lived, found.views)
        checks = agreement(lived, found.runs, redrawn(settings, stop.is_set))
    page = report.write(out, found, settings, verdicts, how, checks)
    for name, verdict in verdicts.items():
        for line in verdict.lines(gated=required is not None):
            click.echo(f"{name}: {line}")
    for one in checks:
        click.echo(str(one))
    click.echo(f"{page}: {how['took_s']} s", err=True)
    if stop.is_set():
        raise click.Abort
    late = [one for one, (error_s, bound_s) in found.clocks.items() if error_s > bound_s]
    if late:
        raise InternalError(f"clock errors beyond what was stated: {', '.join(late)}")
    failed = required is not None and not all(verdict.passed for verdict in verdicts.values())
    if failed or not all(one.holds for one in checks):
        click.get_current_context().exit(1)
