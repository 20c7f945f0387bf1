"""`viewsync evaluate`: errors on crowds nobody has seen."""

from pathlib import Path

import click

from viewsync.cli.accuracy import crowds_by_offset, draw_crowds, measure_crowds
from viewsync.cli.authors import layout_of, measure_authors
from viewsync.cli.by_offset import table_by_offset
from viewsync.cli.crowds import crowd_range
from viewsync.cli.matches import measure_matches
from viewsync.cli.mohicans import measure_mohicans
from viewsync.cli.opened import Wanted
from viewsync.cli.reach import measure_reach
from viewsync.cli.sequences import measure_sequences
from viewsync.cli.tables import fill_table


def _constant_offsets(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, float] | None:
    found = {}
    for value in values:
        view, _, seconds = value.partition("=")
        try:
            found[view] = float(seconds)
        except ValueError:
            raise click.BadParameter(f"{value!r} is not like north=3 (north is 3 s late)") from None
    return found or None


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="Bundle folder or .zip.")
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(path_type=Path, file_okay=False),
    multiple=True,
    help="A checkpoint, run in torch: beside a bundle, for example a baseline. May be repeated.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of crowds; missing ones are made there [runs/data/SCENE-test]. With --table: of the sets.",
)
@click.option("--scene", help="For which scene to answer, `rigs` for random ones [that of the training].")
@click.option(
    "--crowds",
    metavar="A:B",
    callback=crowd_range,
    default="100000:100030",
    show_default=True,
    help="Crowds to measure on.",
)
@click.option(
    "--tuning",
    metavar="A:B",
    callback=crowd_range,
    default="100030:100036",
    show_default=True,
    help="Crowds that choose the threshold for locating people.",
)
@click.option(
    "--tuning-data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the --tuning crowds, which may be of another scene or of rigs [--data].",
)
@click.option(
    "--frames", type=click.IntRange(1), default=1000, show_default=True, help="Snapshots to answer."
)
@click.option(
    "--kappa",
    "kappa_s",
    type=click.FloatRange(0),
    help="Offsets are up to so many seconds; 0: synchronised frames [as trained].",
)
@click.option(
    "--tau",
    "tau_s",
    metavar="VIEW=SECONDS",
    callback=_constant_offsets,
    multiple=True,
    help="Constant offsets instead; may be repeated, 0 for views not named.",
)
@click.option(
    "--offsets",
    type=click.Choice(["known", "unknown"]),
    help="Whether the model is told them [known, unless trained with offsets: unknown].",
)
@click.option(
    "--before",
    "before_s",
    type=click.FloatRange(0, min_open=True),
    help="For column-2: each view's frame before lies so many seconds back [as trained].",
)
@click.option(
    "--frame-rate",
    type=click.FloatRange(0, min_open=True),
    metavar="FPS",
    help="As agents of so many frames per second: offsets up to, and the frame before, 1/FPS seconds.",
)
@click.option(
    "--same-instant",
    is_flag=True,
    help="With --frame-rate: agents sample together, so that offsets are at most half a camera frame.",
)
@click.option(
    "--draw",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Measure nothing: draw the first of --crowds here, every method's density, residual and flow.",
)
@click.option(
    "--sequences",
    type=click.Path(path_type=Path, file_okay=False),
    help="Instead of crowds, the sequences of real people recorded here; each view is the reference in turn.",
)
@click.option(
    "--table",
    type=click.Choice(["2", "3", "column"]),
    help="Instead, a table of the paper, or of column's parts, cell by cell (docs/results.md).",
)
@click.option(
    "--cells",
    multiple=True,
    metavar="WORDS",
    help="With --table: only cells of this set, latency, method or loss; may be repeated.",
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default="runs/tables",
    show_default=True,
    help="With --table: folder of its cells; what is there is kept.",
)
@click.option(
    "--steps", type=click.IntRange(1), default=2000, show_default=True, help="With --table: training steps."
)
@click.option("--seeds", type=click.IntRange(1, 99), default=1, show_default=True, help="With --table: runs.")
@click.option(
    "--start-from",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --table: a checkpoint whose weights every method of a column starts from.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="With --table: any key of the cells' training; may be repeated.",
)
@click.option(
    "--by-offset",
    is_flag=True,
    help="Error against offset, from 0 to 2κ: of the --table's trained cells, or of every --checkpoint.",
)
@click.option("--show", is_flag=True, help="With --table: train nothing, print what there is.")
@click.option("--cost", is_flag=True, help="With --table: train nothing, say what it would cost here.")
@click.option(
    "--mohicans", is_flag=True, help="Instead, flow of checkpoints between real pictures of a crowd."
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --mohicans: draw the flow of one pair here.",
)
@click.option(
    "--reach", is_flag=True, help="Instead, how many people cls-plane of a checkpoint could find at all."
)
@click.option(
    "--matches", is_flag=True, help="Instead, how many people's partners a bundle or checkpoint finds."
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="To make crowds with.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="To answer with.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write it here.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print a Markdown table with everything.")
def command(
    bundle: Path | None,
    checkpoints: tuple[Path, ...],
    data: Path | None,
    scene: str | None,
    crowds: range,
    tuning: range,
    tuning_data: Path | None,
    frames: int,
    kappa_s: float | None,
    tau_s: dict[str, float] | None,
    offsets: str | None,
    before_s: float | None,
    frame_rate: float | None,
    same_instant: bool,
    draw: Path | None,
    sequences: Path | None,
    table: str | None,
    cells: tuple[str, ...],
    runs: Path,
    steps: int,
    seeds: int,
    start_from: Path | None,
    overrides: tuple[str, ...],
    by_offset: bool,
    show: bool,
    cost: bool,
    mohicans: bool,
    picture: Path | None,
    reach: bool,
    matches: bool,
    workers: int,
    threads: int,
    json_path: Path | None,
    as_markdown: bool,
) -> None:
    """Measure count MAE and NAE, density MSE and localisation of every graph on the same unseen snapshots.

    \b
    viewsync evaluate --bundle bundles/plaza --frames 1000 --json runs/accuracy.json
    viewsync evaluate --checkpoint runs/plaza-none/best
    """
    if frame_rate is not None:
        if kappa_s is not None or tau_s is not None or before_s is not None:
            raise click.UsageError("--frame-rate says what --kappa, --tau and --before say; give it alone")
        kappa_s = 0.0 if same_instant else 1.0 / frame_rate
    elif same_instant:
        raise click.UsageError("--same-instant goes with --frame-rate")
    if table is not None:
        if bundle is not None or checkpoints or sequences is not None:
            raise click.UsageError("--table trains and measures its own cells; give no bundle or checkpoint")
        folder = data or Path("runs/data")
        number = int(table) if table.isdigit() else table
        if by_offset:
            table_by_offset(number, cells, folder, runs, frames, threads, show)
            return
        effort = (seeds, steps, frames, threads, start_from, overrides)
        fill_table(number, cells, folder, runs, *effort, show, cost)
        return
    if mohicans or reach:
        if not checkpoints or bundle is not None or (reach and len(checkpoints) > 1):
            raise click.UsageError("--mohicans needs checkpoints, --reach one; neither takes a bundle")
        if mohicans:
            measure_mohicans(checkpoints, json_path, picture, threads)
        else:
            measure_reach(checkpoints[0], scene, data, crowds, frames, kappa_s)
        return
    if matches:
        if len(checkpoints) + (bundle is not None) != 1:
            raise click.UsageError("--matches is of one --checkpoint or of one --bundle")
        if json_path is not None or as_markdown or tau_s is not None or by_offset or draw is not None:
            raise click.UsageError("--matches prints its own table, by offsets up to --kappa")
        one = next(iter(checkpoints), None)
        asked = (kappa_s, offsets, before_s, workers, threads)
        measure_matches(one, bundle, scene, data, crowds, frames, *asked)
        return
    if by_offset and (bundle is not None or not checkpoints or tau_s is not None):
        raise click.UsageError(
            "--by-offset is of a --table or of every --checkpoint, without --bundle and --tau"
        )
    if bundle is None and not checkpoints:
        raise click.UsageError("give a --bundle or a --checkpoint to measure")
    if sequences is not None:
        if bundle is None or data is None or checkpoints:
            raise click.UsageError("--sequences needs a --bundle, and --data with the --tuning crowds")
        measure_sequences(bundle, sequences, data, tuning, frames, kappa_s, threads, json_path)
        return
    if bundle is None and layout_of(checkpoints) != "crowds":
        if by_offset:
            raise click.UsageError("--by-offset is of crowds, not of the authors' files")
        measure_authors(checkpoints[0], data, frames, kappa_s, tau_s, offsets, threads, json_path)
        return
    if set(crowds) & set(tuning) and tuning_data in (None, data):
        raise click.UsageError("--tuning and --crowds share crowds; thresholds chosen on them would flatter")

    if tuning_data is not None and bundle is not None:
        raise click.UsageError("--tuning-data may be of another scene, for which a bundle cannot answer")
    if draw is not None and by_offset:
        raise click.UsageError("--draw measures nothing; give it without --by-offset")
    wanted = Wanted(
        bundle=bundle,
        checkpoints=checkpoints,
        data=data,
        scene=scene,
        crowds=crowds,
        tuning=tuning,
        tuning_data=tuning_data,
        frames=frames,
        kappa_s=kappa_s,
        tau_s=tau_s,
        offsets=offsets,
        before_s=before_s,
        frame_rate=frame_rate,
        same_instant=same_instant,
        workers=workers,
        threads=threads,
    )
    if draw is not None:
        draw_crowds(wanted, draw)
    elif by_offset:
        crowds_by_offset(wanted, json_path)
    else:
        measure_crowds(wanted, json_path, as_markdown)
