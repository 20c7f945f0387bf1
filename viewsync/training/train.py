"""`viewsync train`: two stages in one run, resumable, best checkpoint kept.

Stage one teaches the encoder whom each view sees and the matcher who is whose partner, directly on the
simulator's truth; stage two adds every method's fusion and decoder and trains all of it together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calib.scene import Scene
from viewsync.errors import UserError
from viewsync.nets.model import CountingModel
from viewsync.sim.scenes import load
from viewsync.training.checkpoint import (
    check_same_run,
    has_checkpoint,
    load_into,
    load_model,
    load_state,
    save_checkpoint,
)
from viewsync.training.config import TrainConfig
from viewsync.training.log import TrainingLog
from viewsync.training.objective import (
    TOLD,
    batch_losses,
    encode,
    fundamentals,
    pictures,
    single_frames,
    tensors,
    true_people,
)
from viewsync.training.snapshots import Snapshot, SnapshotSet, density_map, scene_grids

# The stream of snapshots that every run is validated on.
VALIDATION_STREAM = 9_999_999


@dataclass(frozen=True, slots=True)
class Progress:
    """What a training step reports: steps done, losses by name, and validation results if there are any."""

    step: int
    losses: dict[str, float]
    validation: dict[str, float] | None


def train(config: TrainConfig, out: Path, report: Callable[[Progress], None], stop: Event) -> Path:
    """Train into folder `out` (`last/`, `best/`, `log.csv`), resuming from `out/last` where it exists.

    Once `stop` is set, the step in hand is finished and saved in `last`; the same call then goes on with the
    numbers that an uninterrupted run would have had. Returns `out/best`. Raises UserError on a loss that is
    not a number, naming the batch (the last good checkpoint stays), for a checkpoint of another
    configuration, and for data that are missing.
    """
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    scene = load(config.scene).scene
    if scene.ground.rows % 2 or scene.ground.columns % 2:
        raise UserError(
            f"{config.scene}: the ground has {scene.ground.rows} rows and {scene.ground.columns} columns; "
            "models need an even number of both, because they match on cells twice as large"
        )
    first = next(iter(scene.cameras.values()))
    grids = torch.from_numpy(scene_grids(scene, first.width, first.height))
    model = CountingModel(config.model(scene))
    if config.encoder == "frozen":
        model.encoder.requires_grad_(False)
    learnt = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(learnt, config.learning_rate, weight_decay=config.weight_decay)
    views = tuple(scene.cameras)
    snapshots = SnapshotSet(scene, config.data, range(*config.train_seeds), config.sampling(views))
    unlabelled = config.sampling(views, labels=False)
    held_out = SnapshotSet(scene, config.data, range(*config.validation_seeds), unlabelled)
    if config.reach_s > snapshots.span_s:
        raise UserError(
            f"{config.data}: the crowds last {snapshots.span_s:.1f} s, less than kappa_s {config.kappa_s:g}; "
            "choose a smaller kappa_s, or crowds with more frames"
        )
    start, best = 0, math.inf
    before = _runs_before(config)
    if has_checkpoint(out / "last"):
        check_same_run(out / "last", config.model_dump(mode="json"))
        state = load_into(out / "last", model, optimiser)
        start, best = int(state["step"]), math.inf if state["best"] is None else float(state["best"])
    elif config.start_from is not None:
        _start_from(model, config.start_from)
    if config.encoder == "frozen":
        for drawn in (snapshots, held_out):
            drawn.encode_once(lambda images: levels_of(model, images))
    log = TrainingLog(out / "log.csv", config.methods, start, config.flow_loss != "none")
    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(_draw_batch, snapshots, config, start)
        for step in range(start, config.steps):
            batch = waiting.result()
            waiting = ahead.submit(_draw_batch, snapshots, config, step + 1)
            for group in optimiser.param_groups:
                group["lr"] = _rate(config, step)
            model.train()
            model.encoder.train(config.encoder == "trained")
            losses = batch_losses(model, batch, grids, scene, config, step)
            total = torch.stack([v for k, v in losses.items() if k not in TOLD]).sum()
            if not torch.isfinite(total):
                raise UserError(_not_a_number(losses, config, step, out / "last"))
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            numbers = {k: float(v.detach()) for k, v in losses.items()}
            done, validation = step + 1, None
            due = done % config.validate_every == 0 or done == config.steps
            if due and (config.no_answers or done > config.first_stage * config.steps):
                if config.encoder == "trained":
                    settle_statistics(model, snapshots, config, min(40, config.validation_snapshots))
                validation = validate(model, held_out, grids, scene, config)
                if validation["score"] < best:
                    best = validation["score"]
                    state = _state(config, before, done, best, validation)
                    save_checkpoint(out / "best", model, None, state)
            # Asked once: a signal that comes after saving is for the next step.
            last = stop.is_set()
            if due or last:
                state = _state(config, before, done, best, validation)
                save_checkpoint(out / "last", model, optimiser, state)
            log.write(done, numbers, validation)
            report(Progress(done, numbers, validation))
            if last:
                break
    return out / "best"


def settle_statistics(
    model: CountingModel, snapshots: SnapshotSet, config: TrainConfig, batches: int = 40
) -> None:
    """Set the encoder's normalisation statistics to their mean over `batches` of training frames.

    The running averages lag behind weights that still move, which shifts every count by several people.
    Training itself never reads them, so nothing else changes.
    """
    layers = [m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean
    model.train()
    with torch.no_grad():
        for index in range(batches):
            shots = [snapshots.draw(VALIDATION_STREAM, index * config.batch + k) for k in range(config.batch)]
            model.encode(pictures([shot.images for shot in shots]))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def validate(
    model: CountingModel, held_out: SnapshotSet, grids: Tensor, scene: Scene, config: TrainConfig
) -> dict[str, float]:
    """Count MAE and density MSE of every method on fixed snapshots; `score` is the mean of the latter.

    A run without answers is judged by the same figures of whom each view sees, as method `visible`.
    """
    model.eval()
    errors: dict[str, list[float]] = {}
    with torch.inference_mode():
        for index in range(config.validation_snapshots):
            shot = held_out.draw(VALIDATION_STREAM, index, plain=index % 3 > 0)
            if config.reference_alone:
                shot = single_frames(shot)[0]
            methods = () if config.no_answers else config.methods
            geometry, present, offset = tensors([shot], grids)
            lines = fundamentals(model, [shot], scene)
            truth = true_people(model, [shot], scene)
            features = encode(model, [shot])
            answer = model.fuse(features, geometry, present, offset, methods, lines, people=truth)
            pairs = [(m, d[0], density_map(shot.xy[0], scene.ground)) for m, d in answer.density.items()]
            if config.no_answers:
                slots = np.flatnonzero(shot.present > 0)
                seen = [density_map(shot.xy[v][shot.seen[v]], scene.ground) for v in slots]
                pairs = [("visible", answer.visible[0, v], s) for v, s in zip(slots, seen, strict=True)]
            for name, density, target in pairs:
                d = density.numpy()
                errors.setdefault(f"{name}.mae", []).append(abs(float(d.sum() - target.sum())))
                errors.setdefault(f"{name}.density_mse", []).append(float(((d - target) ** 2).sum()))
    means = {k: float(np.mean(v)) for k, v in errors.items()}
    means["score"] = float(np.mean([v for k, v in means.items() if k.endswith("density_mse")]))
    return means


def levels_of(model: CountingModel, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Features (N, C, h, w) of pinhole images (N, H, W, 3), as levels on the wire."""
    model.eval()
    with torch.inference_mode():
        features = model.encode(pictures([images]))[0] * (model.config.levels - 1)
    levels: NDArray[np.uint8] = features.round().to(torch.uint8).numpy()
    return levels


def _draw_batch(snapshots: SnapshotSet, config: TrainConfig, step: int) -> list[Snapshot]:
    return [snapshots.draw(config.seed, step * config.batch + k) for k in range(config.batch)]


def _rate(config: TrainConfig, step: int) -> float:
    """Half a cosine to a hundredth, with a warm-up at the start and again where the heads come in.

    At the full rate a fresh head can push its rectifiers below zero for good.
    """
    since = step - math.ceil(config.first_stage * config.steps)
    warm = min(1.0, ((since if since >= 0 else step) + 1) / 100)
    return config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / config.steps)))


def _start_from(model: CountingModel, folder: Path) -> None:
    """Every weight that `folder` has in the same shape; the rest keep their random start."""
    known, own = load_model(folder).state_dict(), model.state_dict()
    model.load_state_dict({**own, **{k: v for k, v in known.items() if k in own and own[k].shape == v.shape}})


def _not_a_number(losses: dict[str, Tensor], config: TrainConfig, step: int, kept: Path) -> str:
    which = ", ".join(k for k, v in losses.items() if not torch.isfinite(v))
    first = step * config.batch
    return (
        f"step {step + 1}: {which} is not a number, on snapshots {first} to {first + config.batch - 1} of "
        f"seed {config.seed}; lower learning_rate and train into another --out; {kept} is as last saved"
    )


def _runs_before(config: TrainConfig) -> list[dict[str, Any]]:
    """The runs that this one's weights come from, oldest first: `{run, step, config}` each."""
    if config.start_from is None:
        return []
    state = load_state(config.start_from)
    name = config.start_from.parent.name
    return [*state.get("before", []), {"run": name, "step": state["step"], "config": state["config"]}]


def _state(
    config: TrainConfig,
    before: list[dict[str, Any]],
    step: int,
    best: float,
    validation: dict[str, float] | None,
) -> dict[str, object]:
    return {
        "before": before,
        "step": step,
        "best": None if math.isinf(best) else best,
        "validation": validation,
        "config": config.model_dump(mode="json"),
    }
