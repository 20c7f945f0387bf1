"""`viewsync evaluate` of bundles and checkpoints on simulated crowds: the same snapshots for all of them."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from viewsync.cli.by_offset import checkpoints_by_offset
from viewsync.cli.crowds import make_missing
from viewsync.cli.picture import draw_snapshot
from viewsync.cli.progress import progress
from viewsync.cli.stop import stopping


def measure_crowds(
    *,
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
    by_offset: bool,
    workers: int,
    threads: int,
    json_path: Path | None,
    as_markdown: bool,
) -> None:
    """Print what every graph of the bundle and the checkpoints errs by, and write it as JSON; the arguments
    are the command's flags. With `draw` a picture is made instead, with `by_offset` curves. Raises UserError.
    """
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
    short = _shortened(checkpoints)
    if len(set(short.values())) < len(checkpoints):
        raise UserError(f"of {', '.join(map(str, checkpoints))} one is given twice; give each once")
    alone = [(folder, TorchRunner(folder, threads, place)) for folder in checkpoints]
    measured: dict[str, object] = {"checkpoints": {short[f]: r.weights_sha256 for f, r in alone}}
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
        tuners = {short[folder]: TorchRunner(folder, threads, there) for folder in checkpoints}
    elif scene != RIGS and not by_offset and draw is None:
        make_missing(scene, data, tuning, workers)
    if scene != RIGS:
        make_missing(scene, data, crowds, workers)
    answering: dict[str, Runner] = {} if loaded is None else {"bundle": first}
    answering |= {short[folder]: runner for folder, runner in alone}
    if before_s is not None and all(runner.before_s is None for runner in answering.values()):
        raise UserError("--before is for column-2, and nothing measured here looks at a frame before")
    before_s = before_s or (1.0 / frame_rate if frame_rate else None)
    asked_as = {name: as_trained(runner, offsets, before_s) for name, runner in answering.items()}
    back = {name: how.before_s for name, how in asked_as.items() if how.before_s is not None}
    if draw is not None:
        draw_snapshot(
            {"": first, **{short[f]: r for f, r in others}},
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
        named = [(short[f], r, asked_as[short[f]]) for f, r in alone]
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
        for suffix in ("own encoder", short[folder]):
            if not any(f"{graph} ({suffix})" in evaluation.scores for graph in runner.graphs):
                break
        found = measure(short[folder], runner, short[folder])
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


def _shortened(folders: Sequence[Path]) -> dict[Path, str]:
    """Run and checkpoint, such as plaza-none/best, wherever they lie; with as many folders above as it takes
    to tell one from the other.
    """
    parts = {folder: folder.absolute().parts for folder in folders}
    deepest = max((len(p) for p in parts.values()), default=0)
    for length in range(2, deepest + 1):
        names = {folder: "/".join(p[-length:]) for folder, p in parts.items()}
        if len(set(names.values())) == len(folders):
            break
    return names if folders else {}
