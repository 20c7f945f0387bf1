"""Flow networks move at rates of their own, and what they learn from takes nothing from the rest."""

import pytest
import torch
from torch import nn

from viewsync.nets.flow import FlowNet
from viewsync.training.optimiser import clip, learnt_by, optimiser_of, set_rate


class Some(nn.Module):
    """A flow network over 432 channels beside a convolution, and something that does not learn."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = FlowNet(432)
        self.head = nn.Conv2d(48, 2, 3)
        self.encoder = nn.Conv2d(3, 16, 3).requires_grad_(False)


def rates(model: Some, optimiser: torch.optim.Optimizer) -> dict[str, float]:
    by_weight = {id(w): group["lr"] for group in optimiser.param_groups for w in group["params"]}
    return {name: by_weight[id(w)] for name, w in model.named_parameters() if id(w) in by_weight}


def test_a_layer_of_many_inputs_moves_slowly() -> None:
    model = Some()
    optimiser = optimiser_of(model, 1e-3, 1e-4, 0.1)
    assert {id(w) for w in learnt_by(optimiser)} == {id(w) for w in model.parameters() if w.requires_grad}
    set_rate(optimiser, 2e-3)
    found = rates(model, optimiser)
    assert found["head.weight"] == found["head.bias"] == 2e-3
    assert found["flow.0.weight"] == found["flow.0.bias"] == pytest.approx(2e-4 / 25)
    assert found["flow.2.weight"] == pytest.approx(2e-4 * 432 / (128 * 25))
    assert not any(name.startswith("encoder") for name in found)


def test_a_thousandfold_flow_loss_takes_nothing_from_the_head() -> None:
    model = Some()
    optimiser = optimiser_of(model, 1e-3, 1e-4, 0.1)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            torch.manual_seed(len(name))
            weight.grad = torch.randn_like(weight) * (1000.0 if name.startswith("flow") else 1e-3)
    head = model.head.weight.grad
    assert head is not None
    before = head.clone()
    lengths = clip(optimiser)
    assert lengths.shape == (2,) and lengths[1] > 1e5 * lengths[0] > 0
    torch.testing.assert_close(model.head.weight.grad, before, rtol=0, atol=0)
    flow = [w.grad.flatten() for w in model.flow.parameters() if w.grad is not None]
    assert torch.cat(flow).norm() == pytest.approx(1.0, rel=1e-3)
    assert head.norm() < 1.0


def test_a_gradient_that_is_not_a_number_is_told_wherever_it_is() -> None:
    for where in ("flow.0.weight", "head.weight"):
        model = Some()
        optimiser = optimiser_of(model, 1e-3, 1e-4, 0.1)
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.grad = torch.full_like(weight, float("nan") if name == where else 0.1)
        assert not torch.isfinite(clip(optimiser)).all()
