"""What a training costs on this machine: time and memory of a step, of settling and of validation, measured
on one crowd with weights drawn by chance, which decide neither.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from viewsync.nets.model import CountingModel
from viewsync.sim.scenes import load
from viewsync.training.config import TrainConfig
from viewsync.training.geometry import scene_grids
from viewsync.training.objective import TOLD, batch_losses
from viewsync.training.optimiser import clip, optimiser_of
from viewsync.training.processes import Processes
from viewsync.training.snapshots import SnapshotSet
from viewsync.training.train import levels_of
from viewsync.training.validation import settle_statistics, validate


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds by the clock on the wall and of this process's processors."""

    wall_s: float
    processor_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one step with its batch of `frames`; of a snapshot of validation, and of a batch of settling (0 for
    a frozen encoder). peak_bytes: the most that tensors held in a step, weights and moments included.
    """

    step: Spent
    check: Spent
    settle: Spent
    frames: int
    peak_bytes: int
    parameters: int

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.step.wall_s

    def run(self, steps: int, checks: int, snapshots: int) -> Spent:
        """Of a run of `steps` with `checks` validations on `snapshots` each."""
        settling = min(40, snapshots)
        each = (
            steps * step + checks * (snapshots * check + settling * settle)
            for step, check, settle in (
                (self.step.wall_s, self.check.wall_s, self.settle.wall_s),
                (self.step.processor_s, self.check.processor_s, self.settle.processor_s),
            )
        )
        return Spent(*each)


def measure(config: TrainConfig, rounds: int = 1, memory: bool = True, validation: bool = True) -> Cost:
    """The cost of a run; each figure is the fastest of `rounds` after one that does not count. Snapshots are
    drawn beforehand, as in training, where another thread draws them. Without `memory` or `validation`, their
    figures are 0.

    Raises UserError where the first crowd or the device is missing.
    """
    processes = Processes(config.accelerator, config.devices, config.nodes, config.precision)
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    scene = load(config.scene).scene
    camera = next(iter(scene.cameras.values()))
    grids = torch.from_numpy(scene_grids(scene, camera.width, camera.height)).to(processes.device)
    model = CountingModel(config.model(scene))
    model.encoder.requires_grad_(config.encoder == "trained")
    processes.place(model)
    optimiser = optimiser_of(model, config.learning_rate, config.weight_decay, config.flow_rate)
    views, first = tuple(scene.cameras), config.train_seeds[0]
    shots = SnapshotSet(scene, config.data, [first], config.sampling(views))
    if config.encoder == "frozen":
        shots.encode_once(lambda images: levels_of(model, images))
    batch = [shots.draw(config.seed, index) for index in range(config.batch)]
    checked = config.model_copy(update={"validation_snapshots": 1})

    def step() -> None:
        model.train()
        model.encoder.train(config.encoder == "trained")
        optimiser.zero_grad(set_to_none=True)
        losses = batch_losses(model, batch, grids, scene, config, config.steps - 1)
        torch.stack([v for k, v in losses.items() if k not in TOLD]).sum().backward()
        clip(optimiser)
        optimiser.step()

    def settle() -> None:
        settle_statistics(model, shots, config, processes, 1)

    def check() -> None:
        validate(model, shots, grids, scene, checked, processes)

    spent, nothing = _fastest(step, rounds, processes.device), Spent(0.0, 0.0)
    trained = config.encoder == "trained"
    return Cost(
        step=spent,
        check=_fastest(check, rounds, processes.device) if validation else nothing,
        settle=_fastest(settle, rounds, processes.device) if validation and trained else nothing,
        frames=config.batch * len(views),
        peak_bytes=_peak(step, model, optimiser, processes.device) if memory else 0,
        parameters=sum(weight.numel() for weight in model.parameters()),
    )


def _fastest(run: Callable[[], None], rounds: int, device: torch.device) -> Spent:
    times = []
    for number in range(-1, rounds):
        began, began_processor = time.perf_counter(), time.process_time()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 0:
            times.append((time.perf_counter() - began, time.process_time() - began_processor))
    return Spent(min(wall for wall, _ in times), min(processor for _, processor in times))


def _peak(
    step: Callable[[], None], model: CountingModel, optimiser: torch.optim.Optimizer, device: torch.device
) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return int(torch.cuda.max_memory_allocated(device))
    optimiser.zero_grad(set_to_none=True)
    kept: list[torch.Tensor] = [*model.state_dict().values()]
    kept += [value for state in optimiser.state.values() for value in state.values()]
    held = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    return held + peak_of(step)


def peak_of(run: Callable[[], object]) -> int:
    """The most bytes of the CPU's memory that tensors made in `run` held at a time."""
    seen = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with _hushed():
        seen.start()
    try:
        run()
    finally:
        with _hushed():
            seen.stop()
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    changes = [
        (event.start_ns(), event.nbytes())  # type: ignore[attr-defined]
        for event in seen.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    most = held = 0
    for _, change in sorted(changes):
        held += change
        most = max(most, held)
    return most


@contextmanager
def _hushed() -> Iterator[None]:
    """Without what torch's profiler writes to stderr whenever it starts and stops."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
