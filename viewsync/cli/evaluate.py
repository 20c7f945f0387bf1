"""`viewsync evaluate`: errors on crowds nobody has seen."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import click

from viewsync.cli.authors import layout_of, measure_authors
from viewsync.cli.by_offset import checkpoints_by_offset, table_by_offset
from viewsync.cli.crowds import crowd_range, make_missing
from viewsync.cli.mohicans import measure_mohicans
from viewsync.cli.picture import draw_snapshot
from viewsync.cli.progress import progress
from viewsync.cli.reach import measure_reach
from viewsync.cli.sequences import measure_sequences
from viewsync.cli.stop import stopping
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
    help="A checkpoint, run in torch: beside a bundle, a baseline with its own encoder. May be repeated.",
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

    from viewsync.bundle import Bundle
    from viewsync.errors import UserError
    from viewsync.sim.rigs import RIGS
    from viewsync.sim.scenes import load
    from viewsync.training import report
    from viewsync.training.checkpoint import load_state
    from viewsync.training.evaluate import BundleRunner, Evaluation, evaluate, tuning_frames
    from viewsync.training.memory import hold_memory
    from viewsync.training.runners import Runner, TorchRunner, as_trained
    from viewsync.training.snapshots import Sampling
    from viewsync.training.source import open_shots, place_of

    stop = stopping()
    hold_memory()
    states = [load_state(folder) for folder in checkpoints]
    loaded = None if bundle is None else Bundle.load(bundle)
    trained = states[0]["config"] if loaded is None else loaded.manifest.training.get("config", {})
    scene = scene or trained.get("scene") or ("" if loaded is None else loaded.scene.name)
    if scene == RIGS and (loaded is not None or tau_s is not None):
        raise click.UsageError("rigs differ in their cameras: they take no --bundle and no --tau")
    if scene == RIGS and by_offset:
        raise click.UsageError("--by-offset is of the cameras of one scene, not of rigs")
    data = data or Path("runs/data") / f"{RIGS if scene == RIGS else load(scene).scene.name}-test"
    if scene == RIGS:
        for wanted in (crowds, *([tuning] if tuning_data is None else [])):
            make_missing(scene, data, wanted, workers)
    asked_of = [*crowds, *(tuning if tuning_data is None else ())]
    place = place_of(scene, data, asked_of)
    shorts = [_short(folder) for folder in checkpoints]
    if len(set(shorts)) < len(shorts):
        raise UserError(f"of {', '.join(shorts)} two have one name; rename a run's folder, or give each once")
    alone = [(folder, TorchRunner(folder, threads, place)) for folder in checkpoints]
    measured: dict[str, object] = {"checkpoints": {_short(f): r.weights_sha256 for f, r in alone}}
    if loaded is not None:
        first: BundleRunner | TorchRunner = BundleRunner(loaded, threads=threads)
        default = loaded.manifest.default
        kappa_s = loaded.manifest.offset.trained_s if kappa_s is None else kappa_s
        measured["files"] = {
            name: digest for name, digest in loaded.manifest.hashes.files.items() if name.endswith(".onnx")
        }
        others = alone
    else:
        first, others = alone[0][1], alone[1:]
        default = first.graphs[0]
        kappa_s = float(trained["kappa_s"]) if kappa_s is None else kappa_s
    unknown = [view for view in tau_s or () if view not in place.cameras]
    if unknown:
        raise click.UsageError(f"--tau {unknown[0]}: the scene has {', '.join(place.cameras)}")
    asked = {r.reference for r in (first, *(r for _, r in others)) if r.reference is not None}
    if len(asked) > 1:
        raise UserError(f"references {', '.join(sorted(asked))} are fixed; measure them one at a time")
    reference = next(iter(asked), None)
    tuners: dict[str, Runner] = {}
    if tuning_data is not None:
        if loaded is not None:
            raise click.UsageError("--tuning-data may be of another scene, for which a bundle cannot answer")
        own = tuning_data / "scene.yaml"
        there = place_of(str(own) if own.exists() else RIGS, tuning_data, tuning)
        tuners = {_short(folder): TorchRunner(folder, threads, there) for folder in checkpoints}
    elif scene != RIGS and not by_offset and draw is None:
        make_missing(scene, data, tuning, workers)
    if scene != RIGS:
        make_missing(scene, data, crowds, workers)
    answering: dict[str, Runner] = {} if loaded is None else {"bundle": first}
    answering |= {_short(folder): runner for folder, runner in alone}
    if before_s is not None and all(runner.before_s is None for runner in answering.values()):
        raise UserError("--before is for column-2, and nothing measured here looks at a frame before")
    before_s = before_s or (1.0 / frame_rate if frame_rate else None)
    asked_as = {name: as_trained(runner, offsets, before_s) for name, runner in answering.items()}
    back = {name: how.before_s for name, how in asked_as.items() if how.before_s is not None}
    if draw is not None:
        draw_snapshot(
            {"": first, **{_short(f): r for f, r in others}},
            open_shots(
                first.scene,
                data,
                crowds,
                Sampling(
                    kappa_s,
                    tau_s=None if tau_s is None else tuple(tau_s.get(v, 0.0) for v in place.cameras),
                    reference=None if reference is None else list(place.cameras).index(reference),
                    before_s=tuple(back.values())[:1],
                ),
            ),
            draw,
        )
        return
    if by_offset:
        path = json_path or Path("runs/by-offset.json")
        named = [(_short(f), r, asked_as[_short(f)]) for f, r in alone]
        checkpoints_by_offset(named, data, crowds, kappa_s, reference, frames, path)
        return

    def measure(what: str, runner: Runner, name: str) -> Evaluation:
        asked_so = asked_as[name]
        elsewhere = None if tuning_data is None else (tuners[name], tuning_data)
        total = frames + tuning_frames(frames)
        numbers = itertools.count(1)
        with progress(f"evaluate {what}", total) as advance:

            def one_more(done: int, of: int) -> None:
                if stop.is_set():
                    raise click.Abort
                advance(next(numbers))

            return evaluate(
                runner,
                data,
                crowds,
                tuning,
                frames,
                kappa_s,
                one_more,
                reference,
                tau_s,
                elsewhere,
                asked_so.known,
                asked_so.before_s,
            )

    evaluation = measure(first.scene.name, first, next(iter(answering)))
    for folder, runner in others:
        if runner.scene.cameras.keys() != first.scene.cameras.keys():
            raise UserError(f"{folder} is of other cameras than the first; measure them one at a time")
        if runner.scene.ground != first.scene.ground:
            raise UserError(f"{folder} has ground cells of another size than the first; measure it alone")
        for suffix in ("own encoder", _short(folder)):
            if not any(f"{graph} ({suffix})" in evaluation.scores for graph in runner.graphs):
                break
        found = measure(_short(folder), runner, _short(folder))
        evaluation = evaluation.joined(found, {g: f"{g} ({suffix})" for g in runner.graphs})
    protocol = {
        "command": "viewsync evaluate",
        "scene": place.name,
        "crowd_seeds": [crowds.start, crowds.stop],
        "tuning_seeds": [tuning.start, tuning.stop],
        "kappa_s": kappa_s,
        "reference": reference or "random",
    }
    if tau_s is not None:
        protocol["tau_s"] = tau_s
    if first.scene.ground != place.ground:
        protocol["cell_m"] = first.scene.ground.cell_m
    if not all(how.known for how in asked_as.values()):
        told = {name: "known" if how.known else "unknown" for name, how in asked_as.items()}
        protocol["offsets"] = _one_or_each(told)
    if back:
        protocol["before_s"] = _one_or_each(back)
    if frame_rate is not None:
        protocol["frame_rate"], protocol["same_instant"] = frame_rate, same_instant
    document = report.document(evaluation, default, protocol, measured)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(document, indent=1) + "\n")
    click.echo((report.markdown if as_markdown else report.text)(document))


def _one_or_each(values: Mapping[str, object]) -> object:
    """What all of them share; else each by its name."""
    return next(iter(values.values())) if len(set(values.values())) == 1 else dict(values)


def _short(folder: Path) -> str:
    """Run and checkpoint, such as plaza-none/best, wherever they lie."""
    return "/".join(folder.absolute().parts[-2:])
