"""The convolution of fewer multiplications is the convolution."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from viewsync.nets.convolution import convolve, pays
from viewsync.nets.flow import FlowNet


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


# Sizes that tiles of 4×4 divide, and sizes that they do not, down to a single place.
@pytest.mark.parametrize("size", [(8, 12), (9, 7), (5, 18), (1, 1)])
@pytest.mark.parametrize("learns", ["both", "filters"])
def test_it_is_the_convolution_and_so_are_its_gradients(size: tuple[int, int], learns: str) -> None:
    x, weight, back = numbers(3, 20, *size), numbers(6, 20, 5, 5), numbers(3, 6, *size)
    wanted: list[Tensor] = []
    for way in (lambda x, w: F.conv2d(x, w, padding=2), convolve):
        ours = x.clone().requires_grad_(learns == "both"), weight.clone().requires_grad_()
        answer = way(*ours)
        (answer * back).sum().backward()
        found = [answer.detach(), *(t.grad for t in ours if t.grad is not None)]
        if not wanted:
            wanted = found
            continue
        assert len(found) == len(wanted) == (3 if learns == "both" else 2)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=5e-5 * float(other.abs().max()))


def test_a_flow_network_learns_the_same_either_way() -> None:
    torch.manual_seed(0)
    net = FlowNet(20 * 15)
    torch.nn.init.normal_(net[-1].weight, std=0.05)  # type: ignore[arg-type]
    match = numbers(2, 20 * 15, 9, 14)
    assert pays(match)
    flow = net(match)
    flow.square().sum().backward()
    learnt = net[0].weight.grad.clone()  # type: ignore[union-attr, operator]
    net.zero_grad()
    with torch.no_grad():
        assert not pays(match)  # what is measured and what is exported is the plain convolution
        plain = net(match)
    torch.testing.assert_close(flow.detach(), plain, rtol=0, atol=1e-4 * float(plain.abs().max()))
    net.double()(match.double()).square().sum().backward()
    wanted = net[0].weight.grad
    torch.testing.assert_close(learnt.double(), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))  # type: ignore[union-attr, operator]


def test_another_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="3×3"):
        convolve(numbers(1, 4, 5, 5), numbers(2, 4, 3, 3))
