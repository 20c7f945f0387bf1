"""`viewsync evaluate --sequences`: recorded sequences of real people, every view the reference in turn."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import click

from viewsync.cli.progress import progress
from viewsync.cli.stop import stopping


def measure_sequences(
    bundle: Path,
    folder: Path,
    data: Path,
    tuning: Sequence[int],
    frames: int,
    kappa_s: float | None,
    threads: int,
    json_path: Path | None,
) -> None:
    """Print a Markdown table of the bundle's errors on the sequences in `folder`; JSON to `json_path`.

    data, tuning: simulated crowds before the same cameras, which choose the thresholds for locating people.
    """
    from viewsync.bundle import Bundle
    from viewsync.training.evaluate import BundleRunner
    from viewsync.training.pets2009 import evaluate_sequences, snapshots, summary, table
    from viewsync.training.snapshots import Sampling, SnapshotSet

    loaded = Bundle.load(bundle)
    runner = BundleRunner(loaded, threads=threads)
    kappa_s = kappa_s or loaded.manifest.offset.trained_s
    stop = stopping()
    numbers = itertools.count(1)
    back = () if runner.before_s is None else (runner.before_s,)
    tuned = SnapshotSet(loaded.scene, data, tuning, Sampling(kappa_s, before_s=back))
    with progress("evaluate sequences", snapshots(folder, frames)) as advance:

        def one_more(done: int, of: int) -> None:
            if stop.is_set():
                raise click.Abort
            advance(next(numbers))

        found = evaluate_sequences(runner, folder, tuned, frames, kappa_s, one_more)
    document = summary(found, kappa_s, dict(loaded.manifest.hashes.files))
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(document, indent=1) + "\n")
    click.echo(table(document))
