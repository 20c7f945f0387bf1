"""A convolution of thousands of channels in a sixth of its multiplications, for learning on a CPU.

Winograd's minimal filtering (Lavin & Gray, CVPR 2016) for 5×5 filters: of each 8×8 tile of the input come 4×4
outputs by 64 products instead of 400. Tile and filter are taken to the points 0, ±1, ±2, ±½ and ∞, where
convolving is multiplying, and the products back; what a tile costs on the way is paid once for all filters.
Rounding is that of float32 times a hundred: 1e-5 of the largest output.

Shape letters: P pairs, C channels, O outputs, h w rows and columns, T tiles of 4×4 outputs.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # and ∞
FILTER, OUT = 5, 4
TILE = OUT + FILTER - 1


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """What `conv2d` says of x (P, C, h, w) and weight (O, C, 5, 5), with zeros around: (P, O, h, w)."""
    if weight.shape[2:] != (FILTER, FILTER):
        raise ValueError(f"filters of {weight.shape[2]}×{weight.shape[3]}, this is for {FILTER}×{FILTER}")
    convolved: Tensor = _Convolution.apply(x, weight)  # type: ignore[no-untyped-call]
    return convolved


def pays(x: Tensor) -> bool:
    """Whether `convolve` is the faster way for x (P, C, h, w): where a CPU learns from very many channels."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.shape[1] >= 256
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


class _Convolution(torch.autograd.Function):
    """Pair by pair, and its tiles made again on the way back: held is one pair's, four times its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        outputs, channels = weight.shape[:2]
        tile, taps, out = _transforms()
        filters = taps @ weight.permute(2, 3, 1, 0).reshape(FILTER**2, -1)
        filters = filters.view(TILE**2, channels, outputs)
        down, across = _tiles_of(x)
        answer = x.new_empty(len(x), outputs, *x.shape[2:])
        for pair, one in zip(answer, x, strict=True):
            products = torch.bmm(_tiles(one, tile), filters)
            places = (out @ products.view(TILE**2, -1)).view(OUT, OUT, down, across, outputs)
            whole = places.permute(4, 2, 0, 3, 1).reshape(outputs, down * OUT, across * OUT)
            pair.copy_(whole[:, : x.shape[2], : x.shape[3]])
        return answer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = conv2d_input(x.shape, weight, gradient, padding=FILTER // 2)
        if ctx.needs_input_grad[1]:
            outputs, channels = weight.shape[:2]
            tile, taps, out = _transforms()
            down, across = _tiles_of(x)
            padding = (0, across * OUT - x.shape[3], 0, down * OUT - x.shape[2])
            products = x.new_zeros(TILE**2, channels, outputs)
            for one, back in zip(x, gradient, strict=True):
                places = F.pad(back, padding).view(outputs, down, OUT, across, OUT)
                places = places.permute(2, 4, 1, 3, 0).reshape(OUT**2, -1)
                places = (out.T @ places).view(TILE**2, down * across, outputs)
                products.baddbmm_(_tiles(one, tile).transpose(1, 2), places)
            of_weight = (taps.T @ products.view(TILE**2, -1)).view(FILTER, FILTER, channels, outputs)
            of_weight = of_weight.permute(3, 2, 0, 1)
        return of_x, of_weight


def _tiles_of(x: Tensor) -> tuple[int, int]:
    """How many tiles there are down and across."""
    return -(-x.shape[-2] // OUT), -(-x.shape[-1] // OUT)


def _tiles(x: Tensor, tile: Tensor) -> Tensor:
    """The tiles of one pair's (C, h, w) at the points: (64, T, C)."""
    down, across = _tiles_of(x)
    edge = FILTER // 2
    padding = (0, 0, edge, across * OUT - x.shape[2] + edge, edge, down * OUT - x.shape[1] + edge)
    padded = F.pad(x.permute(1, 2, 0), padding)
    places = padded.unfold(0, TILE, OUT).unfold(1, TILE, OUT).permute(3, 4, 0, 1, 2)
    points = tile @ places.reshape(TILE**2, -1)
    return points.view(TILE**2, down * across, x.shape[0])


@functools.cache
def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """A tile's (64, 64), a filter's (64, 25), the outputs' (16, 64) matrix, for rows and columns at once.

    Polynomials of 4 and 5 coefficients are multiplied at 8 points; filtering is that product transposed.
    """
    powers = np.zeros((TILE, TILE))
    powers[:-1] = np.array(_POINTS)[:, None] ** np.arange(TILE)
    powers[-1, -1] = 1.0

    def of(coefficients: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        some = powers[:, :coefficients].copy()
        some[-1, -1] = 1.0
        return some

    taps, out, tile = of(FILTER), of(OUT).T, np.linalg.inv(powers).T
    # Of like size at every point, so that no product loses digits.
    taps_size = np.linalg.norm(taps, axis=1, keepdims=True)
    tile_size = np.linalg.norm(tile, axis=1, keepdims=True)
    taps, tile, out = taps / taps_size, tile / tile_size, out * (taps_size * tile_size).T
    square = [torch.tensor(np.kron(m, m), dtype=torch.float32) for m in (tile, taps, out)]
    return square[0], square[1], square[2]
