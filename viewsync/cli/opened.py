"""Who is asked, and on which crowds, as the flags of `viewsync evaluate` name them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viewsync.cli.crowds import make_missing

if TYPE_CHECKING:
    from calib.scene import Scene
    from viewsync.training.runners import Asked, Runner


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of whom, on which crowds: flags of the command.

    kappa_s, tau_s, before_s: --kappa, or what --frame-rate stands for, --tau and --before, seconds.
    """

    bundle: Path | None
    checkpoints: tuple[Path, ...]
    data: Path | None
    scene: str | None
    crowds: range
    tuning: range
    tuning_data: Path | None
    frames: int
    kappa_s: float | None
    tau_s: dict[str, float] | None
    offsets: str | None
    before_s: float | None
    frame_rate: float | None
    same_instant: bool
    workers: int
    threads: int


@dataclass(frozen=True, slots=True)
class Answering:
    """A runner, and how it is asked. name: what reports call it; folder: of its checkpoint; None: bundle."""

    name: str
    runner: Runner
    asked: Asked
    folder: Path | None


@dataclass(frozen=True, slots=True)
class Opened:
    """`Wanted` with its bundle and checkpoints read, the bundle first.

    scene: as --scene takes it; place: its cameras and ground; reference: the one that all must have, None:
    any view; default: the graph that others are compared with; files: hashes of what is measured.
    """

    answering: tuple[Answering, ...]
    scene: str
    place: Scene
    data: Path
    kappa_s: float
    reference: str | None
    default: str
    files: dict[str, object]


def open_wanted(wanted: Wanted, rigs: bool = True) -> Opened:
    """Read bundle and checkpoints; rigs: whether random ones will do. Of crowds only these are made here, for
    their cameras are in them. Raises UserError.
    """
    from viewsync.bundle import Bundle
    from viewsync.errors import UserError
    from viewsync.sim.rigs import RIGS
    from viewsync.sim.scenes import load
    from viewsync.training.checkpoint import load_state
    from viewsync.training.evaluate import BundleRunner
    from viewsync.training.memory import hold_memory
    from viewsync.training.runners import TorchRunner, as_trained
    from viewsync.training.source import place_of

    hold_memory()
    names = _shortened(wanted.checkpoints)
    if len(set(names.values())) < len(wanted.checkpoints):
        raise UserError(f"of {', '.join(map(str, wanted.checkpoints))} one is given twice; give each once")
    bundle = None if wanted.bundle is None else Bundle.load(wanted.bundle)
    config: Mapping[str, Any]
    if bundle is None:
        config = load_state(wanted.checkpoints[0])["config"]
        scene = wanted.scene or config["scene"]
    else:
        config = bundle.manifest.training.get("config", {})
        scene = wanted.scene or config.get("scene") or bundle.scene.name
    if scene == RIGS and (bundle is not None or wanted.tau_s is not None):
        raise click.UsageError("rigs differ in their cameras: they take no --bundle and no --tau")
    if scene == RIGS and not rigs:
        raise click.UsageError("error against offset is of the cameras of one scene, not of rigs")
    data = wanted.data or Path("runs/data") / f"{RIGS if scene == RIGS else load(scene).scene.name}-test"
    asked_of = (wanted.crowds, *((wanted.tuning,) if wanted.tuning_data is None else ()))
    if scene == RIGS:
        for numbers in asked_of:
            make_missing(scene, data, numbers, wanted.workers)
    place = place_of(scene, data, list(itertools.chain(*asked_of)))
    checkpoints = [TorchRunner(folder, wanted.threads, place) for folder in wanted.checkpoints]
    hashes = {names[folder]: runner.weights_sha256 for folder, runner in zip(names, checkpoints, strict=True)}
    files: dict[str, object] = {"checkpoints": hashes}
    runners: list[Runner] = [*checkpoints]
    folders: list[Path | None] = [*wanted.checkpoints]
    if bundle is not None:
        runners.insert(0, BundleRunner(bundle, threads=wanted.threads))
        folders.insert(0, None)
        every = bundle.manifest.hashes.files.items()
        files["files"] = {name: digest for name, digest in every if name.endswith(".onnx")}
    unknown = [view for view in wanted.tau_s or () if view not in place.cameras]
    if unknown:
        raise click.UsageError(f"--tau {unknown[0]}: the scene has {', '.join(place.cameras)}")
    fixed = {runner.reference for runner in runners if runner.reference is not None}
    if len(fixed) > 1:
        raise UserError(f"references {', '.join(sorted(fixed))} are fixed; measure them one at a time")
    if wanted.before_s is not None and all(runner.before_s is None for runner in runners):
        raise UserError("--before is for column-2, and nothing measured here looks at a frame before")
    before_s = wanted.before_s or (1.0 / wanted.frame_rate if wanted.frame_rate else None)
    kappa_s = wanted.kappa_s
    if kappa_s is None:
        kappa_s = float(config["kappa_s"]) if bundle is None else bundle.manifest.offset.trained_s
    return Opened(
        answering=tuple(
            Answering(
                name="bundle" if folder is None else names[folder],
                runner=runner,
                asked=as_trained(runner, wanted.offsets, before_s),
                folder=folder,
            )
            for folder, runner in zip(folders, runners, strict=True)
        ),
        scene=scene,
        place=place,
        data=data,
        kappa_s=kappa_s,
        reference=next(iter(fixed), None),
        default=runners[0].graphs[0] if bundle is None else bundle.manifest.default,
        files=files,
    )


def open_tuners(wanted: Wanted, opened: Opened, folder: Path) -> dict[str, Runner]:
    """By name, the checkpoints for the crowds of --tuning-data, which may be of other cameras."""
    from viewsync.sim.rigs import RIGS
    from viewsync.training.runners import TorchRunner
    from viewsync.training.source import place_of

    own = folder / "scene.yaml"
    there = place_of(str(own) if own.exists() else RIGS, folder, wanted.tuning)
    return {
        one.name: TorchRunner(one.folder, wanted.threads, there)
        for one in opened.answering
        if one.folder is not None
    }


def make_crowds(wanted: Wanted, opened: Opened) -> None:
    """Make those of the crowds to measure on that are missing; rigs are there by now."""
    from viewsync.sim.rigs import RIGS

    if opened.scene != RIGS:
        make_missing(opened.scene, opened.data, wanted.crowds, wanted.workers)


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
