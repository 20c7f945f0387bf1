"""`viewsync sim link | up`: links as profiles have them, measured, and a whole site behind them."""

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viewsync.cli.stop import stopping
from viewsync.lab.link.ways import WAYS, Way

if TYPE_CHECKING:
    from viewsync.prediction import Prediction

_VIA = "How: netem (Linux's own), tun (packets by way of our program), proxy (TCP, no root) [what is there]."


def _views(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """A click callback: names with commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


@click.command()
@click.option("--profile", help="Network profile: a name, or the path of a .yaml file [list them].")
@click.option("--view", help="Measure this view's link only.")
@click.option(
    "--views",
    default="north,east,south",
    show_default=True,
    callback=_views,
    help="The site's views in the bundle's order, with commas.",
)
@click.option("--via", type=click.Choice(WAYS), help=_VIA)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 600),
    default=12.0,
    show_default=True,
    help="How long to measure each direction.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def link(
    profile: str | None,
    view: str | None,
    views: tuple[str, ...],
    via: Way | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure real links against a profile: delays, losses and rate achieved, and whether they are as told.

    Exit code 1 where a figure is further off than chance and the link's own 1 ms explain. Without --profile,
    list the profiles that come with viewsync.
    """
    from viewsync.errors import ConfigError, InternalError
    from viewsync.lab.link.probing import measure
    from viewsync.lab.link.ways import choose
    from viewsync.lab.profile import load_profile, names

    if profile is None:
        for name in names():
            click.echo(f"{name:18}{load_profile(name).about}")
        return
    sections = load_profile(profile).of_views(views)
    if view is not None and view not in sections:
        raise ConfigError(f"--view {view}: there is no such view; --views has {', '.join(views)}")
    way = choose(via)
    click.echo(f"{profile}: by way of {way}", err=True)
    found = measure(profile, views, [view] if view else views, way, seconds, stopping())
    rows = [
        {"view": one, "direction": side, **figure.as_dict()}
        for one, sides in found.items()
        for side, figures in sides.items()
        for figure in figures
    ]
    if as_json:
        click.echo(json.dumps({"profile": profile, "via": way, "figures": rows}))
    else:
        _print(rows)
    off = [f"{row['view']} {row['direction']} {row['name']}" for row in rows if not row["holds"]]
    if off:
        raise InternalError(f"{profile} by way of {way}: not as the profile says: {', '.join(off)}")


def _print(rows: list[dict[str, Any]]) -> None:
    form = "{:10}{:6}{:28}{:>12}{:>12}{:>11}  {:8}{}"
    click.echo(form.format("view", "way", "figure", "measured", "expected", "± at most", "unit", "holds"))
    for row in rows:
        numbers = (f"{row[name]:.2f}" for name in ("measured", "expected", "tolerance"))
        holds = "yes" if row["holds"] else "NO"
        click.echo(form.format(row["view"], row["direction"], row["name"], *numbers, row["unit"], holds))


@click.command()
@click.option("--profile", required=True, help="Network profile: a name, or the path of a .yaml file.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    help="Stop so long after the profile's time 0 [never].",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Leave answers beside the truth, a summary and the programs' logs in this folder.",
)
@click.option("--via", type=click.Choice(WAYS), help=_VIA)
@click.option("--policy", default="default", show_default=True, help="The hub's policy: a name, or a path.")
@click.option("--seed", type=click.IntRange(0), help="Which crowd [a random one that no training saw].")
@click.option("--people", type=click.IntRange(1, 500), help="How many people walk about [by the seed].")
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="Bundle to run [the one that comes with viewsync]."
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON at the end, and nothing else.")
def up(
    profile: str,
    seconds: float | None,
    report: Path | None,
    via: Way | None,
    policy: str,
    seed: int | None,
    people: int | None,
    bundle: Path | None,
    as_json: bool,
) -> None:
    """Run a whole site on this machine behind a profile's links: cameras, agents, hub; counts and the truth.

    In network namespaces where that is permitted, else through relays on the loopback interface. Nothing is
    left behind, however it ends.
    """
    from viewsync.demo.run import DEMO_BUNDLE
    from viewsync.demo.table import line
    from viewsync.lab.policy import load_policy
    from viewsync.lab.site import Settings, Site
    from viewsync.sim.dataset import DEMO_SEEDS, crowd_size

    stop = stopping()
    if seed is None:
        seed = DEMO_SEEDS[secrets.randbelow(len(DEMO_SEEDS))]
    settings = Settings(
        bundle=bundle or DEMO_BUNDLE,
        profile=profile,
        policy=load_policy(policy),
        seed=seed,
        people=people or crowd_size(seed),
        seconds=seconds,
        way=via,
        report=report,
    )
    site = Site(settings)
    click.echo(f"{profile}: {site.profile.about} Links by way of {site.way}.", err=True)

    def show(site: Site, prediction: "Prediction", truth: int | None) -> None:
        if not as_json:
            click.echo(line(site.at_s, prediction, truth))

    site.run(stop, show)
    click.echo(json.dumps(site.summary()) if as_json else site.score.verdict())
