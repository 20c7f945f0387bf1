"""Camera-level synchronisation, CLS-cat, CLS-cor and CLS-epi (paper, Section III-B): view i's features are
moved in view i's own picture before anything is projected.

What is matched and the flow both live on view i's grid: a correlation has view i's places, and the
reference's places are its channels. Views may have grids of different sizes.

Shape letters: P pairs, B batch, V views (slot 0 the reference), C channels, H0 W0 the reference's grid, Hi Wi
view i's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from viewsync.nets.flow import (
    FlowNet,
    check_networks,
    coarser,
    grid_size,
    pairs_of,
    reported,
    up,
    up_correlation,
    up_flow,
    warp,
)
from viewsync.nets.synchronisers import Moved, Timing

MATCHINGS = ("cat", "cor", "epi")
# A correlation on average, of features between 0 and 1, below which there is nothing to compare.
_LEAST = 0.01


def concatenate(reference: Tensor, other: Tensor) -> Tensor:
    """Cat(F_0, F_i) (paper, Eq. 14): (P, C, H, W) twice to (P, 2C, H, W)."""
    if reference.shape != other.shape:
        raise ValueError(
            f"concatenation needs features of one size, these are {tuple(reference.shape[-2:])} and "
            f"{tuple(other.shape[-2:])}"
        )
    return torch.cat([reference, other], dim=1)


def correlate(reference: Tensor, other: Tensor) -> Tensor:
    """C_i((x, y), (x', y')) = F_0(x, y)ᵀ F_i(x', y') (paper, Eq. 15) of features (P, C, H0, W0) and
    (P, C, Hi, Wi): (P, H0·W0, Hi, Wi), in memory place by place of view i, as the network reads it.
    """
    product = torch.bmm(other.flatten(2).transpose(1, 2), reference.flatten(2))
    correlation: Tensor = product.transpose(1, 2).unflatten(2, other.shape[-2:])
    return correlation


def about_its_mean(reference: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Features (P, C, H0, W0) and (P, C, Hi, Wi) whose correlation is C / C̄ − 1: that of the given ones, for
    each place of the reference over its mean C̄ over view i, less one. (The authors' code divides so, too.)

    Linear in both still: C̄ = F_0ᵀ F̄_i, and C − C̄ = F_0ᵀ (F_i − F̄_i). Nought where nothing is shown.
    """
    mean = other.mean(dim=(2, 3), keepdim=True)
    at_all = (reference * mean).sum(dim=1, keepdim=True)
    return reference / (at_all.clamp_min(0.0) + _LEAST), other - mean


def epipolar_weight(
    fundamental: Tensor, first: tuple[int, int], second: tuple[int, int], stride: int, sigma_px: float
) -> Tensor:
    """M_i (paper, Eq. 17) for grids of `stride`: (P, H0·W0, Hi, Wi), from F (P, 3, 3) between places of the
    finest grids (x_iᵀ F x_0 = 0) and σ in places of the finest grid.

    The closed form of mask ∗ Gaussian (`calib.epipolar.epipolar_weights`, which it equals but for the mask's
    one-pixel steps and its end at the border): max(|a|, |b|)·exp(−d²/2σ²), d the distance to the line a x +
    b y + c = 0; 0 for an epipole. Made in place: one tensor of this size and no other.
    """
    middle = (stride - 1) / 2
    finest = torch.tensor(
        [[stride, 0.0, middle], [0.0, stride, middle], [0.0, 0.0, 1.0]],
        dtype=fundamental.dtype,
        device=fundamental.device,
    )
    here = finest.T @ fundamental @ finest
    lines = _places(first, fundamental) @ here.transpose(1, 2)  # (P, H0·W0, 3)
    length = lines[..., :2].norm(dim=2, keepdim=True).clamp_min(1e-12)
    lines = lines / length
    steps = lines[..., :2].abs().amax(dim=2, keepdim=True)
    weight: Tensor = _places(second, fundamental) @ lines.transpose(1, 2)  # (P, Hi·Wi, H0·W0)
    # Floored so that no weight is a denormal number: with a line far outside, a convolution took ten times as
    # long. e^-38 is nothing.
    weight = weight.square_().mul_(-0.5 * (stride / sigma_px) ** 2).clamp_min_(-38.0).exp_()
    weight = weight.mul_(steps.transpose(1, 2)).transpose(1, 2).unflatten(2, second)
    return weight


def _places(size: tuple[int, int], like: Tensor) -> Tensor:
    """(H·W, 3) homogeneous places (x, y, 1), row by row."""
    rows, columns = size
    x = torch.arange(columns, dtype=like.dtype, device=like.device).unsqueeze(0).expand(rows, columns)
    y = torch.arange(rows, dtype=like.dtype, device=like.device).unsqueeze(1).expand(rows, columns)
    return torch.stack([x, y, torch.ones_like(x)], dim=2).reshape(-1, 3)


class PairFlow(nn.Module):
    """Flow between the reference and one view, from the coarsest of `strides` to the finest (paper, Eq. 14,
    16–18, Fig. 4). `size`: rows and columns of the reference's features, which fix the networks' channels.
    """

    def __init__(
        self, matching: str, channels: int, size: tuple[int, int], strides: tuple[int, ...], sigma_px: float
    ) -> None:
        super().__init__()
        if matching not in MATCHINGS:
            raise ValueError(f"matching {matching}: choose from {', '.join(MATCHINGS)}")
        self.matching = matching
        self.size = size
        self.strides = strides
        self.sigma_px = sigma_px
        places = [rows * columns for rows, columns in (grid_size(size, stride) for stride in strides)]
        inputs = [2 * channels] * len(strides) if matching == "cat" else places
        self.nets = nn.ModuleList(FlowNet(n) for n in inputs)

    def match(self, reference: Tensor, other: Tensor, fundamental: Tensor, stride: int) -> tuple[Tensor, ...]:
        """What the network is given at one scale, for features (P, C, H0, W0) and (P, C, Hi, Wi) of it. A
        correlation that nothing weighs is never made: view i's features and the reference's stand for it.
        """
        if self.matching == "cat":
            return (concatenate(reference, other),)
        reference, other = about_its_mean(reference, other)
        if self.matching == "cor":
            return other, reference
        correlation = correlate(reference, other)
        sizes = (_size(reference), _size(other))
        weight = epipolar_weight(fundamental, *sizes, stride, self.sigma_px)
        # In place where nobody learns: of a view, its gradient would hold three more of this size.
        if not torch.is_grad_enabled():
            return (correlation.mul_(weight),)
        return (correlation * weight,)

    def beyond(
        self,
        match: tuple[Tensor, ...],
        below: tuple[Tensor, ...],
        there: tuple[int, int],
        scales: tuple[int, int],
    ) -> tuple[Tensor, ...]:
        """What `match` has that `below`, of the scale before, has not (Eq. 18): match − up(below). there:
        view i's size; scales: strides of both, coarse and fine.
        """
        times = scales[0] // scales[1]
        if self.matching == "cat":
            return (match[0] - up(below[0], there, times),)
        before, after = (grid_size(self.size, stride) for stride in scales)
        if self.matching == "cor":
            # up(f_0ᵀ f_i) = u_0ᵀ u_i, and F_0ᵀ F_i − u_0ᵀ u_i = (F_0 − u_0)ᵀ F_i + u_0ᵀ (F_i − u_i): one
            # correlation, of twice as many channels; of differences, as that of two sums would lose digits.
            other, reference = up(below[0], there, times), up(below[1], after, times)
            return (
                torch.cat([match[0], match[0] - other], dim=1),
                torch.cat([match[1] - reference, reference], dim=1),
            )
        return (match[0] - up_correlation(below[0], before, after, there, times),)

    def forward(self, reference: Tensor, other: Tensor, fundamental: Tensor) -> list[Tensor]:
        """Features (P, C, H0, W0), (P, C, Hi, Wi) and F (P, 3, 3) between their places to a flow (P, 2, ·, ·)
        on view i's grid at each of the strides.
        """
        if self.matching != "cat" and _size(reference) != self.size:
            raise ValueError(
                f"the reference's features are {_size(reference)}, this network is for {self.size}"
            )
        flows: list[Tensor] = []
        below: tuple[Tensor, ...] = ()
        for net, stride, coarse in zip(self.nets, self.strides, (0, *self.strides), strict=False):
            here, there = coarser(reference, stride), coarser(other, stride)
            match = self.match(here, there, fundamental, stride)
            if below:
                size = _size(there)
                flow = net(*self.beyond(match, below, size, (coarse, stride)))
                flows.append(up_flow(flows[-1], size, coarse // stride) + flow)
            else:
                flows.append(net(*match))
            below = match
        return flows


class CameraSynchroniser(nn.Module):
    """`PairFlow` for every other view, and the warp (paper, Eq. 10). `networks`: one for each pair of views,
    or 1 that all pairs share. Offsets are not looked at: the paper's models do without.
    """

    def __init__(
        self,
        matching: str,
        channels: int,
        size: tuple[int, int],
        strides: tuple[int, ...],
        networks: int,
        sigma_px: float,
    ) -> None:
        super().__init__()
        self.strides = strides
        self.pairs = nn.ModuleList(
            PairFlow(matching, channels, size, strides, sigma_px) for _ in range(networks)
        )

    def forward(self, features: Tensor, fundamental: Tensor, timing: Timing) -> Moved:
        batch, others = features.shape[0], features.shape[1] - 1
        networks = len(self.pairs)
        check_networks(networks, others)
        if networks == 1:
            reference, other = pairs_of(features)
            flows = self.pairs[0](reference, other, fundamental[:, 1:].flatten(0, 1))
        else:
            # One pair after the other: their correlations are never there at the same time.
            single = [
                pair(features[:, 0], features[:, slot], fundamental[:, slot])
                for slot, pair in enumerate(self.pairs, start=1)
            ]
            flows = [torch.stack(scale, dim=1).flatten(0, 1) for scale in zip(*single, strict=True)]
        other = features[:, 1:].flatten(0, 1)
        moved = warp(other, up_flow(flows[-1], _size(other), self.strides[-1]))
        return Moved(
            torch.cat([features[:, :1], moved.unflatten(0, (batch, others))], dim=1),
            tuple(reported(flow, batch) for flow in flows),
            self.strides,
        )


def _size(features: Tensor) -> tuple[int, int]:
    return features.shape[-2], features.shape[-1]
