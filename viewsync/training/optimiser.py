"""How weights are moved: AdamW in groups, whose rates and gradients are each group's own.

A flow network sees thousands of channels where other layers see a few dozen. One step of Adam moves every
weight by the rate, whatever its gradient: with 43,200 weights to a filter the sum moves far at once, and at
the rate of the rest the first layer of CLS-cor's coarse network had no filter left that answered. So a
layer's rate goes with the inverse of its inputs (Yang & Hu, Tensor Programs V, 2022, Table 3), and flow
networks learn at `flow_rate` of that: where the loss hardly tells which way to go, Adam wanders as fast as
where it does. And γ weighs ℓs by 1000: clipped together with it, nothing was left of the gradient of fusion
and decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from viewsync.nets.flow import FlowNet

# Inputs of a 3×3 convolution of 48 channels, what most of fusion and decoder is made of.
_INPUTS = 432
_LONGEST = 1.0


def optimiser_of(
    model: nn.Module, rate: float, weight_decay: float, flow_rate: float
) -> torch.optim.Optimizer:
    """AdamW over every weight of `model` that learns. A group's `share` is its part of the rate; flow_rate:
    the most that a layer of a flow network gets.
    """
    shares: dict[int, float] = {}
    for net in model.modules():
        if isinstance(net, FlowNet):
            for layer in net:
                if isinstance(layer, nn.Conv2d):
                    share = flow_rate * min(1.0, _INPUTS / layer.weight[0].numel())
                    shares |= {id(weight): share for weight in layer.parameters()}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for weight in model.parameters():
        if weight.requires_grad:
            key = id(weight) in shares, shares.get(id(weight), 1.0)
            groups.setdefault(key, []).append(weight)
    named: list[dict[str, Any]] = [
        {"params": weights, "of_flow": of_flow, "share": share}
        for (of_flow, share), weights in groups.items()
    ]
    return torch.optim.AdamW(named, rate, weight_decay=weight_decay)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The rate of this step, for every group its share."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


def clip(optimiser: torch.optim.Optimizer) -> Tensor:
    """Shorten the gradient of the flow networks, and that of all the rest, to 1; their lengths before."""
    lengths = []
    for of_flow in (False, True):
        weights = [w for g in optimiser.param_groups if g["of_flow"] is of_flow for w in g["params"]]
        if weights:
            lengths.append(torch.nn.utils.clip_grad_norm_(weights, _LONGEST))
    return torch.stack(lengths)


def learnt_by(optimiser: torch.optim.Optimizer) -> Sequence[nn.Parameter]:
    """Every weight that it moves."""
    return [weight for group in optimiser.param_groups for weight in group["params"]]
