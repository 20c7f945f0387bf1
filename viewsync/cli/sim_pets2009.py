"""`viewsync sim pets2009`: real cameras and real people's tracks, from the folder VIEWSYNC_DATA names."""

from pathlib import Path

import click

from viewsync.cli.crowds import crowd_range, making
from viewsync.cli.progress import progress


@click.group(name="pets2009")
def command() -> None:
    """PETS2009: real cameras and people's tracks, from the folder that VIEWSYNC_DATA names."""


@command.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The scene.yaml to write.")
def scene(out: Path) -> None:
    """Write the scene of cameras 1, 2 and 3, for training and export."""
    from calib.scene import save_scene
    from viewsync.sim import pets2009

    save_scene(pets2009.scene(pets2009.data_folder()), out)


@command.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the crowds.")
@click.option(
    "--crowds",
    "seeds",
    metavar="A:B",
    callback=crowd_range,
    default="0:160",
    show_default=True,
    help="Which crowds; the same number is the same crowd.",
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
def crowds(out: Path, seeds: range, workers: int) -> None:
    """Make simulated crowds before these cameras, to train and validate on; those that are there are kept."""
    from viewsync.sim.pets2009 import data_folder, make_training_set

    data = data_folder()
    out.mkdir(parents=True, exist_ok=True)
    with making(out, seeds) as (done, stop):
        make_training_set(data, out, seeds, workers=workers, done=done, stop=stop)


@command.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the sequences.")
@click.option(
    "--castings",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="How often each is played, in other clothes and light.",
)
@click.option("--only", metavar="SEQUENCE", help="Not both S2L1 and S1L1-1 but this one.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Only the first so many of each.")
def sequences(out: Path, castings: int, only: str | None, seconds: float | None) -> None:
    """Play the test sequences S2L1 and S1L1-1 in real time before these cameras, over RTSP, and keep the
    frames that arrive, for `viewsync evaluate --sequences`; those that are there are kept.
    """
    from viewsync.demo.recording import record
    from viewsync.sim.dataset import TEST_SEEDS
    from viewsync.sim.pets2009 import TEST_SEQUENCES

    names = TEST_SEQUENCES if only is None else (only,)
    # Light and ground that no training crowd had.
    wanted = [(sequence, seed) for sequence in names for seed in TEST_SEEDS[:castings]]
    with progress("sequences", len(wanted)) as advance:
        for number, (sequence, seed) in enumerate(wanted):
            if not (out / sequence / f"{seed:06d}.npz").exists():
                record(out, sequence, seed, seconds)
            advance(number + 1, sequence)
