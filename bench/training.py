"""What one training step costs with each method: frames per second and memory, of the same settings."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.methods import METHODS
from bench.rows import Row
from bench.timing import Case, take_turns, torch_threads
from calib.scene import Scene, save_scene
from viewsync.sim.dataset import Filming, make_set
from viewsync.sim.scenes import plaza

if TYPE_CHECKING:
    from viewsync.training.cost import Cost

TRAINED = ("none", "reference-only", *METHODS)
BATCH, THREADS = 4, 2
# The finer of the two grids that CLS-epi is trained on here, of features of 96×72.
ROWS, COLUMNS = 36, 48
FILTERING = "train.minimal_filtering"
FILTERING_TITLE = "training: first layer of CLS-epi, one view, minimal filtering, one thread"


def training_rows(scene: Scene, frames: int, rounds: int, cuda: bool) -> list[Row]:
    """A row for each method: frames that a step learns from in a second, by two threads and, with `cuda`, on
    the GPU, beside the same on the CPU; facts: memory of the step's tensors, and what it is made of. Then
    `filtering_row`.

    Raises UserError for `cuda` where torch finds no GPU.
    """
    titles = {m: f"training: {m}, frames of a step, {THREADS} threads" for m in TRAINED}
    if importlib.util.find_spec("torch") is None:
        why = "torch not installed; run: pip install -c constraints.txt -e '.[train]'"
        skipped = [Row(name=f"train.{m}", what=titles[m], unit="/s", skipped=why) for m in TRAINED]
        return [*skipped, Row(name=FILTERING, what=FILTERING_TITLE, unit="ms", skipped=why)]

    from viewsync.training.config import TrainConfig
    from viewsync.training.cost import measure
    from viewsync.training.memory import hold_memory
    from viewsync.training.processes import Processes

    if cuda:
        Processes("cuda")
    hold_memory()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = "plaza"
        if scene.name != plaza().scene.name:
            save_scene(scene, Path(folder) / "scene.yaml")
            place = str(Path(folder) / "scene.yaml")
        make_set(place, Path(folder) / "crowds", range(1), Filming(5), workers=1)
        for method in TRAINED:
            settings: dict[str, Any] = {
                "scene": place,
                "data": Path(folder) / "crowds",
                "methods": (method,),
                "train_seeds": (0, 1),
                "validation_seeds": (1, 2),
                "first_stage": 0.0,
                "batch": min(BATCH, max(1, frames // 3)),
                "threads": THREADS,
                "accelerator": "cpu",
            }
            config = TrainConfig(**settings)
            cpu = measure(config, rounds, validation=False)
            rows.append(_row(method, titles[method], cpu, rounds))
            if cuda:
                there = config.model_copy(update={"accelerator": "cuda"})
                gpu = measure(there, max(10, rounds), validation=False)
                title = f"training: {method}, frames of a step, GPU"
                rows.append(_row(f"{method}_cuda", title, gpu, max(10, rounds), cpu))
    return [*rows, filtering_row(rounds)]


def filtering_row(rounds: int) -> Row:
    """What the first layer of CLS-epi's larger flow network takes to learn from one view by minimal
    filtering, beside torch's own convolution; facts: how far their answers are apart.
    """
    import torch
    from torch.nn import functional as F

    from viewsync.nets.camera_level import correlate
    from viewsync.nets.convolution import convolve
    from viewsync.nets.flow import FlowNet

    torch.manual_seed(0)
    match = correlate(torch.rand(1, 16, ROWS, COLUMNS), torch.rand(1, 16, ROWS, COLUMNS))
    weight: torch.Tensor = FlowNet(ROWS * COLUMNS)[0].weight  # type: ignore[assignment]
    ways: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "plain": partial(F.conv2d, padding="same"),
        "filtered": convolve,
    }
    answers: dict[str, torch.Tensor] = {}

    def learn(name: str, number: int) -> None:
        weight.grad = None
        answers[name] = ways[name](match, weight)
        answers[name].square().mean().backward()

    with torch_threads(1):
        spent = take_turns({name: Case(partial(learn, name)) for name in ways}, rounds, warm_up=1)
    difference = (answers["filtered"] - answers["plain"]).detach().abs().max()
    filtered = spent["filtered"]
    return Row(
        name=FILTERING,
        what=FILTERING_TITLE,
        unit="ms",
        figure=filtered.median_ms,
        processor=float(np.median(filtered.processor_ms)),
        samples=rounds,
        beside="torch's own convolution",
        ratio=filtered.ratio_to(spent["plain"]),
        facts={**filtered.facts(), "largest_difference": float(difference)},
    )


def _row(name: str, what: str, cost: Cost, rounds: int, beside: Cost | None = None) -> Row:
    return Row(
        name=f"train.{name}",
        what=what,
        unit="/s",
        figure=cost.frames_per_s,
        processor=cost.frames / cost.step.processor_s if beside is None else None,
        samples=rounds,
        beside="" if beside is None else f"{THREADS} threads of the CPU",
        ratio=None if beside is None else cost.frames_per_s / beside.frames_per_s,
        facts={
            "step_ms": cost.step.wall_s * 1e3,
            "frames": cost.frames,
            "peak_mb": cost.peak_bytes / 1e6,
            "parameters": cost.parameters,
        },
    )
