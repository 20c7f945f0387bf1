"""What the paper's synchronisers share: the network that estimates flow (Table I), the warp W, and `up`.

A flow lives on the grid that is sampled and is told in places of that grid, (x, y): out(p) = in(p + flow(p)).
Grids get coarser by powers of two, so that place x of a grid of stride s is place s·x + (s − 1)/2 of the
finest one.

Shape letters: P pairs (reference, view i), C channels, h w rows and columns of a grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viewsync.nets import convolution
from viewsync.nets.warp import warp_ground

# Output channels of Table I; every filter is 5×5.
FILTERS = (128, 128, 64, 64, 32, 2)
FILTER_SIZE = 5


class FlowNet(nn.Sequential):
    """Motion estimation network M (paper, Table I): (P, n, h, w) to a flow (P, 2, h, w).

    The paper names neither activation nor start. tanh stands between the layers, as in the authors' code:
    rectifiers over thousands of channels died. Weights start as Glorot's, the last layer at zero: before
    anything is learned, nothing is moved.

    With `reference`, what the network sees is a correlation (Eq. 15) that is never made: of reference (P, r,
    h0, w0) with `match`, view i's (P, r, h, w), n = h0·w0. It is linear in both, and the first layer in it:
    filters times the reference's features are filters over view i's, of r channels instead of n. The same
    numbers to rounding, for (1/n + 1/hw)·r of that layer's operations.
    """

    def __init__(self, inputs: int) -> None:
        layers: list[nn.Module] = []
        for outputs in FILTERS:
            layer = nn.Conv2d(inputs, outputs, FILTER_SIZE, padding=FILTER_SIZE // 2)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            layers += [layer, nn.Tanh()]
            inputs = outputs
        nn.init.zeros_(layer.weight)
        super().__init__(*layers[:-1])

    def forward(self, match: Tensor, reference: Tensor | None = None) -> Tensor:
        first: nn.Conv2d = self[0]  # type: ignore[assignment]
        flow: Tensor
        if reference is not None:
            flow = _convolve_correlation(first, reference, match)
        elif convolution.pays(match):
            flow = convolution.convolve(match, first.weight) + first.bias[:, None, None]  # type: ignore[index]
        else:
            flow = first(match)
        for layer in list(self)[1:]:
            flow = layer(flow)
        return flow


def _convolve_correlation(layer: nn.Conv2d, reference: Tensor, other: Tensor) -> Tensor:
    """The layer's answer to the correlation of (P, r, h0, w0) with (P, r, h, w): (P, ·, h, w)."""
    outputs, places, height, width = layer.weight.shape
    if places != reference.shape[2] * reference.shape[3]:
        raise ValueError(
            f"{reference.shape[2] * reference.shape[3]} places to correlate with, the network is for {places}"
        )
    # (P, outputs, r · taps), as `unfold` lays view i's features out.
    filters = layer.weight.flatten(2).transpose(1, 2).flatten(0, 1) @ reference.flatten(2).transpose(1, 2)
    filters = filters.unflatten(1, (outputs, height * width)).transpose(2, 3).flatten(2)
    around = F.unfold(other, (height, width), padding=(height // 2, width // 2))
    convolved = torch.matmul(filters, around)
    convolved = convolved + layer.bias[:, None].to(convolved.dtype)  # type: ignore[index]
    answer: Tensor = convolved.unflatten(2, other.shape[-2:])
    return answer


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """W (paper, Eq. 5, 10): view i's features (P, C, h, w) by a flow (P, 2, h, w) of the same grid; zero
    outside.
    """
    return warp_ground(features, flow.permute(0, 2, 3, 1), 1.0)


def coarser(features: Tensor, stride: int) -> Tensor:
    """Features (P, C, h, w) on the grid of that stride (a power of two), each place the mean of stride²."""
    while stride > 1:
        height, width = features.shape[-2:]
        # An odd last row or column stands for itself and its missing neighbour.
        features = F.pad(features, (0, width % 2, 0, height % 2), mode="replicate")
        features = F.avg_pool2d(features, 2)
        stride //= 2
    return features


def grid_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of the grid that `coarser` makes."""
    return -(-size[0] // stride), -(-size[1] // stride)


def up(x: Tensor, size: tuple[int, int], times: int) -> Tensor:
    """(P, C, h, w) on the grid `times` finer, which has `size` (paper, Eq. 18); bilinear."""
    finer = F.interpolate(x, scale_factor=float(times), mode="bilinear", align_corners=False)
    return finer[..., : size[0], : size[1]]


def up_flow(flow: Tensor, size: tuple[int, int], times: int) -> Tensor:
    """`up` of a flow (P, 2, h, w): a place of the coarse grid is `times` places of the fine one."""
    return up(flow, size, times) * float(times) if times > 1 else flow


def up_correlation(
    correlation: Tensor, before: tuple[int, int], after: tuple[int, int], size: tuple[int, int], times: int
) -> Tensor:
    """`up` of C (P, h0·w0, hi, wi), which enlarges both its grids: the reference's places, which are its
    channels, from `before` (h0, w0) to `after`, and view i's places to `size`.
    """
    here = correlation.shape[-2:]
    channels = correlation.flatten(2).transpose(1, 2).unflatten(2, before)  # (P, hi·wi, h0, w0)
    channels = up(channels, after, times).flatten(2).transpose(1, 2).unflatten(2, here)
    return up(channels, size, times)


def reported(flow: Tensor, batch: int) -> Tensor:
    """Flows (batch·(V-1), 2, h, w) of all pairs as (batch, V-1, h, w, 2)."""
    out: Tensor = flow.permute(0, 2, 3, 1).unflatten(0, (batch, flow.shape[0] // batch))
    return out


def pairs_of(slots: Tensor) -> tuple[Tensor, Tensor]:
    """(B, V, …) as pairs of the reference and every other slot, both (B·(V-1), …), sample by sample."""
    others = slots[:, 1:]
    reference = slots[:, :1].expand_as(others)
    return reference.flatten(0, 1), others.flatten(0, 1)


def check_networks(networks: int, others: int) -> None:
    """Raise ValueError unless one network serves all `others` views, or each has its own."""
    if networks not in (1, others):
        raise ValueError(f"{networks} flow networks, one for each pair of views; there are {others} pairs")
