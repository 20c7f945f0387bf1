"""`viewsync train`: two stages in one run, resumable, best checkpoint kept.

Stage one teaches the encoder whom each view sees and the matcher who is whose partner, directly on the
simulator's truth; stage two adds every method's fusion and decoder and trains all of it together.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from calib.ground import GroundGrid
from calib.scene import Scene
from viewsync.errors import UserError
from viewsync.nets.encoder import STRIDE
from viewsync.nets.model import METHODS, CountingModel, ModelConfig
from viewsync.sim.scenes import load
from viewsync.training.checkpoint import load_into, save_checkpoint
from viewsync.training.losses import (
    count_loss,
    density_loss,
    mark_loss,
    mark_maps,
    partner_loss,
    partner_rows,
)
from viewsync.training.snapshots import Sampling, Snapshot, SnapshotSet, density_map, scene_grids


class TrainConfig(BaseModel):
    """One training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scene: str = Field("plaza", description="`plaza` or the path of a scene.yaml")
    data: Path = Field(description="folder of crowds made by `viewsync sim dataset`")
    methods: tuple[str, ...] = Field(METHODS, description="heads trained over one encoder")
    train_seeds: tuple[int, int] = Field((0, 400), description="crowds trained on: first, one past the last")
    validation_seeds: tuple[int, int] = Field(
        (400, 420), description="crowds that choose the best checkpoint"
    )
    steps: int = Field(3000, gt=0)
    first_stage: float = Field(0.25, ge=0, lt=1, description="share of the steps given to stage one")
    batch: int = Field(4, gt=0, description="snapshots per step")
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    sparsity: float = Field(
        0.02, ge=0, description="weight of the mean feature value: fewer bytes on the wire"
    )
    kappa_s: float = Field(3.0, gt=0, description="offsets are drawn from ±κ seconds")
    validate_every: int = Field(250, gt=0, description="steps between validations and checkpoints")
    validation_snapshots: int = Field(60, gt=0)
    start_from: Path | None = Field(None, description="checkpoint whose weights to start from")
    threads: int = Field(2, gt=0)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """What a training step reports: step, losses by name, and validation results when there were any."""

    step: int
    losses: dict[str, float]
    validation: dict[str, float] | None


def train(config: TrainConfig, out: Path, report: Callable[[Progress], None], stop: Event) -> Path:
    """Train into folder `out` (`last/`, `best/`, `log.csv`), resuming from `out/last` where it exists;
    returns `best`.

    Raises UserError on a NaN loss, naming the step; the last good checkpoint stays.
    """
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    scene = load(config.scene).scene
    first = next(iter(scene.cameras.values()))
    grids = torch.from_numpy(scene_grids(scene, first.width, first.height))
    model = CountingModel(
        ModelConfig(methods=config.methods, heights=len(scene.heights_m), cell_m=scene.ground.cell_m)
    )
    optimiser = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    if config.start_from is not None:
        _start_from(model, config.start_from)
    snapshots = SnapshotSet(scene, config.data, range(*config.train_seeds), Sampling(config.kappa_s))
    held_out = SnapshotSet(scene, config.data, range(*config.validation_seeds), Sampling(config.kappa_s))
    start, best = 0, math.inf
    if (out / "last" / "state.json").exists():
        state = load_into(out / "last", model, optimiser)
        start, best = int(state["step"]), float(state["best"])
    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(_draw_batch, snapshots, config, start)
        for step in range(start, config.steps):
            batch = waiting.result()
            waiting = ahead.submit(_draw_batch, snapshots, config, step + 1)
            for group in optimiser.param_groups:
                group["lr"] = _rate(config, step)
            model.train()
            losses = _losses(model, batch, grids, scene, config, step)
            total = torch.stack([v for k, v in losses.items() if k != "matched"]).sum()
            if not torch.isfinite(total):
                raise UserError(
                    f"step {step}: the loss is not a number; lower learning_rate; {out / 'last'} is kept"
                )
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            numbers = {k: float(v.detach()) for k, v in losses.items()}
            validation = None
            done = step + 1
            if done % config.validate_every == 0 or done == config.steps or stop.is_set():
                validation = validate(model, held_out, grids, scene.ground, config)
                score = validation["score"]
                save_checkpoint(
                    out / "last", model, optimiser, _state(config, done, min(best, score), validation)
                )
                if score < best and done > config.first_stage * config.steps:
                    best = score
                    save_checkpoint(out / "best", model, None, _state(config, done, best, validation))
            _log(out / "log.csv", done, numbers, validation, config)
            report(Progress(done, numbers, validation))
            if stop.is_set():
                break
    return out / "best"


def validate(
    model: CountingModel, held_out: SnapshotSet, grids: Tensor, grid: GroundGrid, config: TrainConfig
) -> dict[str, float]:
    """Count MAE and density MSE of every method on fixed snapshots; `score` is the mean of the latter."""
    model.eval()
    errors: dict[str, list[float]] = {}
    with torch.inference_mode():
        for index in range(config.validation_snapshots):
            shot = held_out.draw(9_999_999, index, plain=index % 3 > 0)
            images, geometry, present, offset = _tensors([shot], grids)
            answer = model(images, geometry, present, offset)
            target = density_map(shot.xy[0], grid)
            for method, density in answer.density.items():
                d = density[0].numpy()
                errors.setdefault(f"{method}.mae", []).append(abs(float(d.sum() - target.sum())))
                errors.setdefault(f"{method}.density_mse", []).append(float(((d - target) ** 2).sum()))
    means = {k: float(np.mean(v)) for k, v in errors.items()}
    means["score"] = float(np.mean([v for k, v in means.items() if k.endswith("density_mse")]))
    return means


def _losses(
    model: CountingModel,
    batch: list[Snapshot],
    grids: Tensor,
    scene: Scene,
    config: TrainConfig,
    step: int,
) -> dict[str, Tensor]:
    ground = scene.ground
    images, geometry, present, offset = _tensors(batch, grids)
    second_stage = step >= config.first_stage * config.steps
    if second_stage:
        answer = model(images, geometry, present, offset)
    else:
        answer = model.describe(images, geometry, present, offset)
    losses: dict[str, Tensor] = {}
    target = torch.from_numpy(np.stack([density_map(s.xy[0], ground) for s in batch]))
    for method, density in answer.density.items():
        losses[f"{method}.density"] = density_loss(density, target)
        losses[f"{method}.count"] = 0.05 * count_loss(density, target)
    seen = torch.from_numpy(
        np.stack([[density_map(s.xy[v][s.seen[v]], ground) for v in range(len(s.view))] for s in batch])
    )
    there = present.bool()
    cameras = [camera.undistorted() for camera in scene.cameras.values()]
    shape = (answer.marks.shape[-2], answer.marks.shape[-1])
    marks = torch.from_numpy(np.stack([mark_maps(s, cameras, shape, STRIDE) for s in batch]))
    losses["marks"] = 0.1 * mark_loss(answer.marks[there], marks[there])
    losses["visible"] = 0.5 * density_loss(answer.visible[there], seen[there])
    if second_stage:
        losses["sparsity"] = config.sparsity * answer.features.mean()
    if answer.described is not None and model.column is not None:
        coarse = ground.coarser(2)
        rows = partner_rows(batch, coarse, np.random.default_rng([config.seed, step, 1]))
        known = (offset.abs() < 500.0).float()
        true = torch.from_numpy(np.stack([s.true_offset_s for s in batch]))
        loss, share = partner_loss(
            model.column, answer.described, rows, true, known, (coarse.rows, coarse.columns), coarse.cell_m
        )
        losses["partner"], losses["matched"] = 0.2 * loss, share
    return losses


def _tensors(batch: list[Snapshot], grids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """images (B, V, 3, H, W) in 0..1, grids (B, V, Z, Hg, Wg, 2), present (B, V), offsets as told (B, V)."""
    images = torch.from_numpy(np.stack([s.images for s in batch])).permute(0, 1, 4, 2, 3).float() / 255.0
    geometry = torch.stack([grids[torch.from_numpy(s.view)] for s in batch])
    present = torch.from_numpy(np.stack([s.present for s in batch]))
    return images, geometry, present, torch.from_numpy(np.stack([s.offset_s for s in batch]))


def _draw_batch(snapshots: SnapshotSet, config: TrainConfig, step: int) -> list[Snapshot]:
    return [snapshots.draw(config.seed, step * config.batch + k) for k in range(config.batch)]


def _rate(config: TrainConfig, step: int) -> float:
    """Warm-up, then half a cosine to a hundredth."""
    warm = min(1.0, (step + 1) / 100)
    return config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / config.steps)))


def _start_from(model: CountingModel, folder: Path) -> None:
    from viewsync.training.checkpoint import load_model

    known = load_model(folder).state_dict()
    own = model.state_dict()
    model.load_state_dict({**own, **{k: v for k, v in known.items() if k in own and own[k].shape == v.shape}})


def _state(config: TrainConfig, step: int, best: float, validation: dict[str, float]) -> dict[str, object]:
    return {"step": step, "best": best, "validation": validation, "config": config.model_dump(mode="json")}


def _log(
    path: Path, step: int, losses: dict[str, float], validation: dict[str, float] | None, config: TrainConfig
) -> None:
    """One row per ten steps and per validation; columns are fixed by the configuration."""
    if step % 10 and validation is None:
        return
    names = [f"{m}.{k}" for m in config.methods for k in ("density", "count")] + [
        "visible",
        "marks",
        "sparsity",
        "partner",
        "matched",
    ]
    checks = [f"validation.{m}.{k}" for m in config.methods for k in ("mae", "density_mse")]
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", *names, *checks])
        found = {f"validation.{k}": v for k, v in (validation or {}).items()}
        writer.writerow([step, *(f"{losses[n]:.5g}" if n in losses else "" for n in names),
                         *(f"{found[n]:.5g}" if n in found else "" for n in checks)])  # fmt: skip
