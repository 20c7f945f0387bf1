"""Where a training runs: one process or several, on CPUs or GPUs, over Lightning Fabric.

Every process draws its own share of each batch. What is normalised over a batch (the encoder's statistics,
losses that are means over people) is normalised over all shares, and gradients are averaged, so that a step
is that of one process with the whole batch, to rounding.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from viewsync.errors import UserError
from viewsync.nets.encoder import Encoder
from viewsync.nets.flow import FlowNet
from viewsync.nets.heads import DensityDecoder
from viewsync.nets.mvms import Extractor, PlaneDecoder
from viewsync.nets.projection import GroundEncoder

# What runs in bf16 where that is asked for: stacks of convolutions. Matching, geometry and losses never do.
_CONVOLUTIONS = (Encoder, GroundEncoder, FlowNet, DensityDecoder, Extractor, PlaneDecoder)

Precision = Literal["auto", "32", "bf16"]


class StoppedElsewhere(UserError):
    """Another process has said what is wrong; this one just ends."""


def speaks() -> bool:
    """Whether this process is its machine's first, which says what is wrong, by what its launcher has set."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def leads() -> bool:
    """Whether this process is the first of all, which shows progress."""
    return speaks() and os.environ.get("RANK", os.environ.get("NODE_RANK", "0")) == "0"


class Processes:
    """All processes of a run: `count` of them, this one is number `rank`, on `device`."""

    def __init__(
        self, accelerator: str = "cpu", devices: int = 1, nodes: int = 1, precision: Precision = "auto"
    ) -> None:
        """Start the run's processes; under torchrun, which has done so already, its numbers count.

        Raises UserError where there are no such devices.
        """
        local, world = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE")
        if torch.distributed.is_torchelastic_launched() and local and world:
            devices, nodes = int(local), int(world) // int(local)
        if accelerator == "auto":
            accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        if accelerator == "cuda" and torch.cuda.device_count() < devices:
            raise UserError(
                f"this run wants {devices} CUDA GPUs, but torch {torch.__version__} finds "
                f"{torch.cuda.device_count()} here; "
                "set accelerator to cpu, or fewer devices, or install torch for CUDA"
            )
        if precision == "auto":
            precision = "bf16" if accelerator == "cuda" else "32"
        self._low = precision == "bf16"
        # Fabric's own gathering is by a function that torch means to rename.
        warnings.filterwarnings("ignore", message=".*all_gather is deprecated", category=FutureWarning)
        self._fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if devices * nodes > 1 else "auto",
            precision="bf16-mixed" if self._low else "32-true",
        )
        self._fabric.launch()

    @property
    def count(self) -> int:
        return self._fabric.world_size

    @property
    def rank(self) -> int:
        return self._fabric.global_rank

    @property
    def first(self) -> bool:
        """Whether this one writes files and reports."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        return self._fabric.device

    def share(self, batch: int) -> range:
        """Which of a batch's snapshots are this process's. Raises UserError if it cannot be shared evenly."""
        if batch % self.count:
            raise UserError(
                f"batch {batch} cannot be shared by {self.count} processes; make it a multiple of that"
            )
        each = batch // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def place(self, model: nn.Module) -> None:
        """Move a model to this process's device and make it one with those of the others."""
        model.to(self.device)
        if self.count > 1:
            _share_statistics(model, self._fabric)
        if self._low:
            for block in model.modules():
                if isinstance(block, _CONVOLUTIONS):
                    _in_low_precision(block, self._fabric)

    def weigh(self, number: Tensor) -> Tensor | float:
        """What a mean over `number` things here counts in the mean over those of all processes, so that the
        mean over processes is the mean over all things.
        """
        if self.count == 1:
            return 1.0
        here = number.detach().to(self.device, torch.float32)
        return here / self._every(here).mean().clamp_min(1e-6)

    def average_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """Every gradient becomes its mean over the processes, all in one message: the models are small."""
        if self.count == 1:
            return
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        mean = self._fabric.all_reduce(flat, reduce_op="mean")
        assert isinstance(mean, Tensor)
        for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def gather(self, numbers: Tensor) -> Tensor:
        """`numbers` (…) of every process, (count, …)."""
        return self._every(numbers.detach())

    def any(self, here: bool) -> bool:
        """Whether it is so in one of the processes."""
        return here if self.count == 1 else bool(self._every(self._flag(here)).any())

    def all_alike(self, number: int) -> bool:
        """Whether all processes have this same number."""
        return self.count == 1 or bool((self._every(self._flag(number)) == number).all())

    def stopped(self, why: str) -> UserError:
        """What every process raises where all of them know why: the first one says it."""
        return UserError(why) if self.first else StoppedElsewhere(why)

    def wait(self) -> None:
        """For all the others."""
        self._fabric.barrier()

    def _flag(self, value: int) -> Tensor:
        return torch.tensor([value], dtype=torch.int64, device=self.device)

    def _every(self, numbers: Tensor) -> Tensor:
        if self.count == 1:
            return numbers.unsqueeze(0)
        every = self._fabric.all_gather(numbers)
        assert isinstance(every, Tensor)
        return every


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes; torch's own SyncBatchNorm knows no CPU."""

    fabric: Fabric

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        variance, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        here = torch.stack([torch.full_like(mean, x.numel() / x.shape[1]), mean, variance])
        every = self.fabric.all_gather(here, sync_grads=True)
        assert isinstance(every, Tensor)
        numbers, means, variances = every.unbind(1)
        total = numbers.sum(dim=0)
        mean = (numbers * means).sum(dim=0) / total
        variance = (numbers * (variances + (means - mean).square())).sum(dim=0) / total
        self._remember(mean.detach(), (variance * total / (total - 1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (wide * _wide(scale) + _wide(shift)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def _wide(per_channel: Tensor) -> Tensor:
    return per_channel.reshape(1, -1, 1, 1)


def _share_statistics(model: nn.Module, fabric: Fabric) -> None:
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.BatchNorm2d:
                shared = _SharedBatchNorm(layer.num_features, layer.eps, layer.momentum)
                shared.fabric = fabric
                shared.weight, shared.bias = layer.weight, layer.bias
                for buffer, value in layer.named_buffers():
                    shared.register_buffer(buffer, value)
                setattr(parent, name, shared)


def _in_low_precision(block: nn.Module, fabric: Fabric) -> None:
    """While it learns, the block computes in bf16 and gives 32-bit numbers; measured, it is as deployed."""
    plain = block.forward

    def forward(*inputs: Any) -> Tensor:
        if not block.training:
            whole: Tensor = plain(*inputs)
            return whole
        with fabric.autocast():
            out: Tensor = plain(*inputs)
        return out.float()

    block.forward = forward
