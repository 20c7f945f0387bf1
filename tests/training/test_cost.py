"""What a training costs is counted right, and CLS-epi's weight is in memory once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from viewsync.nets.camera_level import PairFlow
from viewsync.training.config import TrainConfig
from viewsync.training.cost import Cost, Spent, measure, peak_of


def test_the_peak_is_of_what_is_held_at_a_time() -> None:
    def run() -> None:
        first = torch.zeros(1000, 1000)
        second = first + 1
        del first
        assert (second * 2).shape == (1000, 1000)

    assert peak_of(run) == pytest.approx(8e6, rel=1e-3)


@pytest.mark.parametrize(("learning", "most"), [(False, 2.0), (True, 3.0)])
def test_the_weight_of_cls_epi_is_there_once(learning: bool, most: float) -> None:
    """Beside the correlation, and never a second time; to learn it takes their product, too."""
    size = (24, 18)
    reference, other = (torch.rand(1, 4, *size, requires_grad=learning) for _ in range(2))
    pair = PairFlow("epi", 4, size, (1,), 16.0)

    def run() -> None:
        (match,) = pair.match(reference, other, torch.rand(1, 3, 3), 1)
        if learning:
            match.sum().backward()  # type: ignore[no-untyped-call]

    with torch.set_grad_enabled(learning):
        held = peak_of(run) / (4 * (size[0] * size[1]) ** 2)
    assert held == pytest.approx(most, abs=0.1)


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


@pytest.mark.parametrize("matching", ["cor", "epi"])
def test_cls_cor_never_makes_its_correlation(matching: str) -> None:
    """At the paper's scales, on the device that computes nothing. CLS-epi, which weighs it, has to."""
    size, pairs = (72, 96), 3
    places = size[0] * size[1]
    with torch.device("meta"):
        pair = PairFlow(matching, 16, size, (4, 2, 1), 16.0)
        features, fundamental = torch.rand(pairs, 16, *size), torch.rand(pairs, 3, 3)
        with Largest() as largest:
            pair(features, features, fundamental)
    if matching == "epi":
        assert largest.numbers == pairs * places**2
    else:
        assert largest.numbers == places * 128 * 25  # the filters of the first layer


def test_a_run_is_its_steps_and_its_validations() -> None:
    cost = Cost(Spent(2.0, 1.0), Spent(0.5, 0.25), Spent(0.1, 0.05), frames=12, peak_bytes=0, parameters=1)
    assert cost.frames_per_s == 6.0
    spent = cost.run(steps=100, checks=3, snapshots=60)
    assert spent.wall_s == pytest.approx(200 + 3 * (30 + 4)) and spent.processor_s == spent.wall_s / 2


def test_a_step_is_measured_with_what_it_holds(small_scene: Path, small_crowds: Path) -> None:
    settings: dict[str, Any] = {
        "scene": str(small_scene),
        "data": small_crowds,
        "methods": ("none",),
        "train_seeds": (0, 2),
        "validation_seeds": (4, 5),
        "batch": 1,
        "threads": 1,
        "accelerator": "cpu",
    }
    config = TrainConfig(**settings)
    cost = measure(config)
    assert cost.frames == 3 and min(s.wall_s for s in (cost.step, cost.check, cost.settle)) > 0
    # Weights and Adam's two moments, at least.
    assert cost.peak_bytes > 3 * 4 * cost.parameters
    twice = measure(config.model_copy(update={"batch": 2}))
    assert cost.peak_bytes * 1.2 < twice.peak_bytes < cost.peak_bytes * 2.5
    frozen = measure(config.model_copy(update={"encoder": "frozen"}), memory=False)
    assert frozen.settle == Spent(0.0, 0.0) and frozen.peak_bytes == 0
