"""How good a model in training is, on snapshots that are always the same; several processes share them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from calib.scene import Scene
from viewsync.nets.model import CountingModel
from viewsync.training.config import TrainConfig
from viewsync.training.inputs import (
    before_of,
    distances,
    encode,
    fundamentals,
    plane_maps,
    single_frames,
    tensors,
    true_people,
)
from viewsync.training.losses import view_density
from viewsync.training.processes import Processes
from viewsync.training.source import Shots
from viewsync.training.truth import ground_truth, views_truth

# The stream of snapshots that every run is validated on.
VALIDATION_STREAM = 9_999_999


def settle_statistics(
    model: CountingModel,
    snapshots: Shots,
    config: TrainConfig,
    processes: Processes,
    batches: int = 40,
) -> None:
    """Set the encoder's normalisation statistics to their mean over `batches` of training frames.

    The running averages lag behind weights that still move, which shifts every count by several people.
    Training itself never reads them, so nothing else changes.
    """
    layers = [m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    if not layers:  # MVMS has none: nothing to be seen for
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean
    model.train()
    share = processes.share(config.batch)
    with torch.no_grad():
        for index in range(batches):
            shots = [snapshots.draw(VALIDATION_STREAM, index * config.batch + k) for k in share]
            encode(model, shots)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def validate(
    model: CountingModel,
    held_out: Shots,
    grids: Tensor,
    scene: Scene,
    config: TrainConfig,
    processes: Processes,
) -> dict[str, float]:
    """Count MAE and density MSE of every method on fixed snapshots; `score` is the mean of the latter.

    A run without answers is judged by the same figures of whom each view sees, as method `visible`.
    """
    model.eval()
    names = ("visible",) if config.no_answers else config.methods
    # For each snapshot and slot whether it counts, then the two errors of each name.
    table = np.zeros((config.validation_snapshots, len(scene.cameras), 1 + 2 * len(names)))
    with torch.inference_mode():
        for index in range(processes.rank, config.validation_snapshots, processes.count):
            shot = held_out.draw(VALIDATION_STREAM, index, plain=index % 3 > 0)
            if config.reference_alone:
                shot = single_frames(shot)[0]
            methods = () if config.no_answers else config.methods
            geometry, present, offset = tensors([shot], grids)
            lines, planes = fundamentals(model, [shot], scene), plane_maps(model, [shot], scene)
            truth, before = true_people(model, [shot], scene), before_of(model, [shot])
            features = encode(model, [shot])
            places = distances(model, [shot], scene)
            ground = geometry, present, offset
            answer = model.fuse(features, *ground, methods, lines, places, truth, before, planes)
            if config.no_answers:
                shown = answer.visible if shot.maps is None else view_density(answer.marks)
                seen = views_truth(shot, scene.ground)
                for slot in np.flatnonzero(shot.present > 0):
                    table[index, slot] = [1.0, *_errors(shown[0, slot], seen[slot])]
            else:
                target = ground_truth(shot, scene.ground)
                table[index, 0] = [1.0, *(e for m in methods for e in _errors(answer.density[m][0], target))]
    # A place is filled in by one process; the others' zeros change nothing.
    every = processes.gather(torch.from_numpy(table).to(grids.device)).sum(dim=0).cpu().numpy()
    means = every[every[..., 0] > 0][:, 1:].mean(axis=0).tolist()
    found = dict(zip((f"{n}.{k}" for n in names for k in ("mae", "density_mse")), means, strict=True))
    found["score"] = float(np.mean(means[1::2]))
    return found


def _errors(density: Tensor, target: np.typing.NDArray[np.float32]) -> tuple[float, float]:
    """Count error and squared error of a density map (Hg, Wg)."""
    d = density.cpu().numpy()
    return abs(float(d.sum() - target.sum())), float(((d - target) ** 2).sum())
