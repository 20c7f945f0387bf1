"""`viewsync data`: the data sets that the paper's tables are about."""

from pathlib import Path

import click

from viewsync.cli.crowds import making

_SIM = ("pets2009-sim", "citystreet-sim", "wildtrack-sim")
_NAMES = click.Choice([name for easy in _SIM for name in (easy, f"{easy}-hard")])
_AUTHORS = click.Choice(["pets2009", "citystreet"])


@click.group()
def command() -> None:
    """Data sets of real cameras: with rendered people on real paths, or as their authors distribute them."""


@command.command()
@click.argument("name", type=_NAMES)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the set [runs/data/NAME].",
)
@click.option("--only", type=click.Choice(["train", "validation", "test"]), help="Only what is for this use.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@click.option("--instants", type=click.IntRange(1), help="Only the first so many instants of each piece.")
def make(name: str, out: Path | None, only: str | None, workers: int, instants: int | None) -> None:
    """Render a set: real cameras and paths, from the folder that VIEWSYNC_DATA names, and simulated people.

    What is there already is kept, so an interrupted command goes on where it stopped.
    """
    from viewsync.sim import real_sets
    from viewsync.sim.pets2009 import data_folder

    data, real = data_folder(), real_sets.named(name)
    out = out or Path("runs/data") / name
    wanted = [piece for use in real_sets.USES if only in (None, use) for piece in real.pieces(use)]
    if not wanted:
        raise click.UsageError(f"{name} has nothing for {only}; it is for measuring only")
    with making(out, wanted) as (done, stop):
        real_sets.make(real, data, out, wanted, workers, done, stop, instants)
    click.echo(f"{out}: {len(wanted)} pieces", err=True)


@command.command()
@click.argument("name", type=_AUTHORS)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file.")
def scene(name: str, out: Path) -> None:
    """Write the scene that a set is read with as its authors distribute it: its cameras, from the folder that
    VIEWSYNC_DATA names, over the ground of its density maps.
    """
    from dataclasses import replace

    from calib.scene import save_scene
    from viewsync.sim import real_sets
    from viewsync.sim.pets2009 import data_folder
    from viewsync.training.authors import AUTHORS

    cameras = real_sets.scene(real_sets.named(f"{name}-sim"), data_folder())
    out.parent.mkdir(parents=True, exist_ok=True)
    save_scene(replace(cameras, name=name, ground=AUTHORS[name].ground), out)


@command.command()
@click.argument("name", type=_AUTHORS)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def check(name: str, folder: Path) -> None:
    """Say which files of a set as its authors distribute it are missing or damaged in FOLDER, the one that
    has PETS_2009 or Street, and where to get them.
    """
    from viewsync.errors import UserError
    from viewsync.training.authors import AUTHORS, WHERE, problems

    found = problems(AUTHORS[name], folder)
    for line in found:
        click.echo(line)
    if found:
        raise UserError(f"{name}: {len(found)} things are wrong in {folder}; {WHERE}")
    files = sum(len(r.views) + 1 for r in AUTHORS[name].recordings)
    click.echo(f"{folder}: {name} is whole, {files} files")
