"""`viewsync train`: two stages in one run, resumable, best checkpoint kept.

Stage one teaches the encoder whom each view sees and the matcher who is whose partner, directly on the
simulator's truth; stage two adds every method's fusion and decoder and trains all of it together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viewsync.errors import UserError
from viewsync.nets.model import CountingModel
from viewsync.sim.dataset import Filming, filming_of
from viewsync.training.checkpoint import (
    check_fresh,
    check_same_run,
    has_checkpoint,
    load_into,
    load_state,
    save_checkpoint,
)
from viewsync.training.config import TrainConfig
from viewsync.training.geometry import scene_grids
from viewsync.training.inputs import device_of, pictures
from viewsync.training.log import TrainingLog
from viewsync.training.objective import TOLD, Share, batch_losses
from viewsync.training.optimiser import clip, learnt_by, optimiser_of, set_rate
from viewsync.training.processes import Processes
from viewsync.training.snapshots import Snapshot
from viewsync.training.source import Shots, open_sources, place_of
from viewsync.training.start import start_from
from viewsync.training.validation import settle_statistics, validate


@dataclass(frozen=True, slots=True)
class Progress:
    """What a training step reports: steps done, losses by name, and validation results if there are any."""

    step: int
    losses: dict[str, float]
    validation: dict[str, float] | None


def _unseen(done: int, total: int) -> None:
    pass


def train(
    config: TrainConfig,
    out: Path,
    report: Callable[[Progress], None],
    stop: Event,
    looked: Callable[[int, int], None] = _unseen,
) -> Path:
    """Train into folder `out` (`last/`, `best/`, `log.csv`), resuming from `out/last` where it exists.

    Once `stop` is set, the step in hand is finished and saved in `last`, or, before the first one, nothing;
    the same call then goes on with the numbers that an uninterrupted run would have had. Returns `out/best`.
    Raises UserError on a loss that is not a number, naming the batch (the last good checkpoint stays), for a
    checkpoint of another configuration, and for data that are missing. A frozen encoder first looks at every
    frame once: looked(done, total) instants. Of several processes the first one reports and writes; all
    return, or raise, together.
    """
    processes = Processes(config.accelerator, config.devices, config.nodes, config.precision)
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    taught, checked = range(*config.train_seeds), range(*config.validation_seeds)
    scene = place_of(config.scene, config.data, [*taught, *checked])
    snapshots, held_out = open_sources(config, scene)
    if scene.ground.rows % 2 or scene.ground.columns % 2:
        raise UserError(
            f"{config.scene}: the ground has {scene.ground.rows} rows and {scene.ground.columns} columns; "
            "models need an even number of both, because they match on cells twice as large"
        )
    first = next(iter(scene.cameras.values()))
    grids = torch.from_numpy(scene_grids(scene, first.width, first.height)).to(processes.device)
    model = CountingModel(config.model(scene))
    if config.encoder == "frozen":
        model.encoder.requires_grad_(False)
    processes.place(model)
    optimiser = optimiser_of(model, config.learning_rate, config.weight_decay, config.flow_rate)
    if config.reach_s > snapshots.span_s:
        raise UserError(
            f"{config.data}: the crowds last {snapshots.span_s:.1f} s, less than kappa_s {config.kappa_s:g}; "
            "choose a smaller kappa_s, or crowds with more frames"
        )
    start, best = 0, math.inf
    before, filmed = _runs_before(config), filming_of(config.data)
    mine = processes.share(config.batch)
    share = Share(mine.start, processes.weigh)
    if has_checkpoint(out / "last"):
        check_same_run(out / "last", config)
        state = load_into(out / "last", model, optimiser)
        start, best = int(state["step"]), math.inf if state["best"] is None else float(state["best"])
    else:
        check_fresh(out)
        if config.start_from is not None:
            start_from(model, config.start_from, config.encoder == "frozen")
    if not processes.all_alike(start):
        raise UserError(
            f"{out}: the processes find different checkpoints there; choose a folder that all machines share"
        )
    if config.encoder == "frozen" and start < config.steps:

        def stopped() -> bool:
            if processes.any(stop.is_set()):
                stop.set()  # told in one process, it holds for all
            return stop.is_set()

        if not look_once(model, (snapshots, held_out), looked, stopped):
            return out / "best"
    log = None
    if processes.first:
        log = TrainingLog(
            out / "log.csv", config.methods, start, config.flow_loss != "none", config.column_parts
        )
    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(_draw_batch, snapshots, config, start, mine)
        for step in range(start, config.steps):
            batch = waiting.result()
            waiting = ahead.submit(_draw_batch, snapshots, config, step + 1, mine)
            set_rate(optimiser, _rate(config, step))
            model.train()
            model.encoder.train(config.encoder == "trained")
            losses = batch_losses(model, batch, grids, scene, config, step, share)
            every = processes.gather(torch.stack([*losses.values()]))
            if not torch.isfinite(every).all():
                raise processes.stopped(_not_a_number(every, [*losses], config, step, out / "last"))
            optimiser.zero_grad(set_to_none=True)
            torch.stack([v for k, v in losses.items() if k not in TOLD]).sum().backward()
            processes.average_gradients(learnt_by(optimiser))
            if not torch.isfinite(clip(optimiser)).all():
                raise processes.stopped(_no_gradient(config, step, out / "last"))
            optimiser.step()
            numbers = dict(zip(losses, every.mean(dim=0).tolist(), strict=True))
            done, validation = step + 1, None
            due = done % config.validate_every == 0 or done == config.steps
            better = False
            if due and (config.no_answers or done > config.first_stage * config.steps):
                if config.encoder == "trained":
                    batches = min(40, config.validation_snapshots)
                    settle_statistics(model, snapshots, config, processes, batches)
                validation = validate(model, held_out, grids, scene, config, processes)
                better = validation["score"] < best
                best = min(best, validation["score"])
            # Asked once: a signal that comes after saving is for the next step.
            last = processes.any(stop.is_set())
            failure: UserError | OSError | None = None
            if log is not None:
                # First the log: of what it says beyond the checkpoint, the next run drops the rest.
                log.write(done, numbers, validation)
                state = _state(config, before, filmed, done, best, validation)
                try:
                    if better:
                        save_checkpoint(out / "best", model, None, state)
                    if due or last:
                        save_checkpoint(out / "last", model, optimiser, state)
                except (UserError, OSError) as error:
                    failure = error
            if (due or last) and processes.any(failure is not None):
                raise failure or processes.stopped(f"{out}: the first process could not write its checkpoint")
            if log is not None:
                report(Progress(done, numbers, validation))
            if last:
                stop.set()  # told in one process, it holds for all
                break
    if log is not None:
        log.close()
    processes.wait()
    return out / "best"


class _StopLooking(Exception):
    pass


# How many instants are looked at before processes ask each other whether to stop.
_ASK_EVERY = 16


def look_once(
    model: CountingModel,
    sources: Sequence[Shots],
    looked: Callable[[int, int], None],
    stopped: Callable[[], bool],
) -> bool:
    """Have every frame of all `sources` encoded; False where `stopped`, which all processes ask together,
    said so before all were.
    """
    done, total = 0, sum(shots.instants for shots in sources)

    def encode(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        nonlocal done
        if done % _ASK_EVERY == 0 and stopped():
            raise _StopLooking
        done += 1
        looked(done, total)
        return levels_of(model, images)

    try:
        for shots in sources:
            shots.encode_once(encode)
    except _StopLooking:
        return False
    return True


def levels_of(model: CountingModel, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Features (N, C, h, w) of pinhole images (N, H, W, 3), as levels on the wire."""
    model.eval()
    with torch.inference_mode():
        features = model.encode(pictures([images], device_of(model)))[0] * (model.config.levels - 1)
    levels: NDArray[np.uint8] = features.round().to(torch.uint8).cpu().numpy()
    return levels


def _draw_batch(snapshots: Shots, config: TrainConfig, step: int, share: range) -> list[Snapshot]:
    return [snapshots.draw(config.seed, step * config.batch + k) for k in share]


def _rate(config: TrainConfig, step: int) -> float:
    """Half a cosine to a hundredth, with a warm-up at the start and again where the heads come in.

    At the full rate a fresh head can push its rectifiers below zero for good.
    """
    since = step - math.ceil(config.first_stage * config.steps)
    warm = min(1.0, ((since if since >= 0 else step) + 1) / 100)
    return config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / config.steps)))


def _not_a_number(every: Tensor, names: Sequence[str], config: TrainConfig, step: int, kept: Path) -> str:
    """`every` (P, L): the losses `names` of each process."""
    bad = ~torch.isfinite(every)
    process = int(bad.any(dim=1).nonzero()[0])
    which = ", ".join(name for name, is_bad in zip(names, bad[process].tolist(), strict=True) if is_bad)
    each = config.batch // len(every)
    return _stopped(which, config, step, range(process * each, (process + 1) * each), kept)


def _no_gradient(config: TrainConfig, step: int, kept: Path) -> str:
    return _stopped("the gradient", config, step, range(config.batch), kept)


def _stopped(what: str, config: TrainConfig, step: int, share: range, kept: Path) -> str:
    first = step * config.batch
    saved = f"{kept} is as last saved" if has_checkpoint(kept) else "nothing was saved yet"
    return (
        f"step {step + 1}: {what} is not a number, on snapshots {first + share.start} to "
        f"{first + share.stop - 1} of seed {config.seed}; lower learning_rate and train into another --out; "
        f"{saved}"
    )


def _runs_before(config: TrainConfig) -> list[dict[str, Any]]:
    """The runs that this one's weights come from, oldest first: `{run, step, config, filmed}` each."""
    if config.start_from is None:
        return []
    state = load_state(config.start_from)
    name = config.start_from.parent.name
    run = {key: state[key] for key in ("step", "config", "filmed") if key in state}
    return [*state.get("before", []), {"run": name, **run}]


def _state(
    config: TrainConfig,
    before: list[dict[str, Any]],
    filmed: Filming | None,
    step: int,
    best: float,
    validation: dict[str, float] | None,
) -> dict[str, object]:
    return {
        "before": before,
        "filmed": None if filmed is None else filmed.flags,
        "step": step,
        "best": None if math.isinf(best) else best,
        "validation": validation,
        "config": config.model_dump(mode="json"),
    }
