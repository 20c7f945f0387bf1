"""What commands that need simulated crowds share: which ones (`A:B`), and making those that are missing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from viewsync.cli.progress import progress
from viewsync.cli.stop import stopping

if TYPE_CHECKING:
    from viewsync.sim.dataset import Filming


def crowd_range(ctx: click.Context, param: click.Parameter, value: str) -> range:
    """A click callback: `A:B` as the seeds from A up to, not including, B."""
    first, colon, last = value.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise click.BadParameter(f"{value!r} is not like 0:300 (0 to 299)")
    return range(int(first), int(last))


def make_missing(
    scene: str,
    folder: Path,
    crowds: range,
    workers: int = 2,
    filming: Filming | None = None,
) -> None:
    """Make those of `crowds` that `folder` lacks, with a progress bar; Ctrl-C keeps what is whole. Of the
    scene `rigs`, the rigs of these numbers. filming: None: as the crowds that are there.
    """
    from viewsync.sim.dataset import claim, film_alike, lacking, make_set
    from viewsync.sim.rigs import RIGS
    from viewsync.sim.scenes import load

    if scene == RIGS:
        make_missing_rigs(folder, crowds, 1, workers=workers)
        return
    if not lacking(folder, crowds):
        claim(folder, load(scene).scene)
        if filming is not None:
            film_alike(folder, filming)
        return
    with making(folder, crowds) as (done, stop):
        make_set(scene, folder, crowds, filming, workers, done, stop)


def make_missing_rigs(
    folder: Path,
    rigs: range,
    crowds: int = 2,
    frames: int = 6,
    interval_s: float = 1.0,
    workers: int = 2,
) -> None:
    """`make_missing` of `crowds` crowds for each of these rigs."""
    from viewsync.sim.rigs import crowds_of, lacking_crowds, make_rigs

    def left(folder: Path, every: Sequence[int]) -> list[int]:
        return lacking_crowds(folder, rigs, crowds)

    if not left(folder, ()):
        return
    every = [seed for number in rigs for seed in crowds_of(number, crowds)]
    with making(folder, every, left) as (done, stop):
        make_rigs(folder, rigs, crowds, frames, interval_s, workers, done, stop)


@contextmanager
def making(
    folder: Path, crowds: Sequence[int], missing: Callable[[Path, Sequence[int]], list[int]] | None = None
) -> Iterator[tuple[Callable[[int], None], Event]]:
    """A progress bar over `crowds`, those in `folder` done already: what to call after each further one, and
    the event that Ctrl-C sets. Aborts at the end, saying how to go on, where it was set. missing: those of
    them that the folder lacks; else as `viewsync.sim.dataset.lacking`.
    """
    from viewsync.sim import dataset

    lacking = missing or dataset.lacking
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
