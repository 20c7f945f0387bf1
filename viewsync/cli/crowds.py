"""What commands that need simulated crowds share: which ones (`A:B`), and making those that are missing."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import click

from viewsync.cli.progress import progress
from viewsync.cli.stop import stopping


def crowd_range(ctx: click.Context, param: click.Parameter, value: str) -> range:
    """A click callback: `A:B` as the seeds from A up to, not including, B."""
    first, colon, last = value.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise click.BadParameter(f"{value!r} is not like 0:300 (crowds 0 to 299)")
    return range(int(first), int(last))


def make_missing(
    scene: str,
    folder: Path,
    crowds: range,
    workers: int = 2,
    frames: int = 12,
    interval_s: float = 1.0,
    together: bool = False,
) -> None:
    """Make those of `crowds` that `folder` lacks, with a progress bar; Ctrl-C keeps what is whole."""
    from viewsync.sim.dataset import claim, lacking, make_set
    from viewsync.sim.scenes import load

    if not lacking(folder, crowds):
        claim(folder, load(scene).scene)
        return
    with making(folder, crowds) as (done, stop):
        make_set(scene, folder, crowds, frames, interval_s, workers, done, stop, together)


@contextmanager
def making(folder: Path, crowds: Sequence[int]) -> Iterator[tuple[Callable[[int], None], Event]]:
    """A progress bar over `crowds`, those in `folder` done already: what to call after each further one, and
    the event that Ctrl-C sets. Aborts at the end, saying how to go on, where it was set.
    """
    from viewsync.sim.dataset import lacking

    there = len(crowds) - len(lacking(folder, crowds))
    made = itertools.count(there + 1)
    stop = stopping()
    with progress("crowds", len(crowds), there) as advance:
        yield lambda seed: advance(next(made), f"#{seed}"), stop
    if stop.is_set():
        left = len(lacking(folder, crowds))
        click.echo(
            f"{folder}: {left} of {len(crowds)} crowds are left; go on with the same command", err=True
        )
        raise click.Abort
