"""How well a flow brings a view's features to another instant, where nothing but that view's own later or
earlier frame is the truth.

Shape letters: C channels, h w rows and columns of the features.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# A difference of so many grey levels, in a quarter of a place's pixels, is somebody who moved.
_DIFFERENT, _SHARE = 20.0, 0.25


def moving(before: NDArray[np.uint8], after: NDArray[np.uint8], stride: int) -> NDArray[np.bool_]:
    """Places (h, w) of a grid of `stride` pixels whose grey pictures (h·stride, w·stride) of two instants
    differ.
    """
    smooth = [cv2.GaussianBlur(p.astype(np.float32), (0, 0), 1.0) for p in (before, after)]
    different = (np.abs(smooth[0] - smooth[1]) > _DIFFERENT).astype(np.float32)
    rows, columns = before.shape[0] // stride, before.shape[1] // stride
    share = different.reshape(rows, stride, columns, stride).mean(axis=(1, 3))
    found: NDArray[np.bool_] = share >= _SHARE
    return found


def normalised_error(features: Tensor, wanted: Tensor, where: NDArray[np.bool_]) -> float:
    """Mean square difference of two (C, h, w) at the places `where`, each without its channels' means and
    over its own standard deviation: 2 − 2ρ, 0 for the same, 2 for what has nothing in common, or is flat.

    So features that collapse, by being scaled down or warped to one place, gain nothing. Raises ValueError
    where the wanted ones do not vary.
    """
    chosen = torch.from_numpy(where)
    ours, theirs = (x[:, chosen] - x[:, chosen].mean(dim=1, keepdim=True) for x in (features, wanted))
    # Below what rounding leaves of a constant there is nothing that varies.
    varies = [
        bool(x.square().sum() > 1e-10 * whole[:, chosen].square().sum())
        for x, whole in ((ours, features), (theirs, wanted))
    ]
    if not varies[1]:
        raise ValueError("the features that are wanted do not vary there")
    if not varies[0]:
        return 2.0
    length = (ours.square().sum() * theirs.square().sum()).sqrt()
    return float(2.0 - 2.0 * (ours * theirs).sum() / length)


def plain_error(features: Tensor, wanted: Tensor, where: NDArray[np.bool_]) -> float:
    """Mean square difference of two (C, h, w) at the places `where`."""
    chosen = torch.from_numpy(where)
    return float((features[:, chosen] - wanted[:, chosen]).square().mean())


def optical_flow(wanted: NDArray[np.uint8], given: NDArray[np.uint8], stride: int) -> Tensor:
    """Flow (1, 2, h, w) by Farneback's method from a view's picture of the wanted instant to the given one:
    what a warp can do that knows the true frame.
    """
    start = np.zeros((*wanted.shape, 2), np.float32)
    flow = cv2.calcOpticalFlowFarneback(wanted, given, start, 0.5, 5, 21, 5, 7, 1.5, 0)
    rows, columns = wanted.shape[0] // stride, wanted.shape[1] // stride
    places = flow.reshape(rows, stride, columns, stride, 2).mean(axis=(1, 3)) / stride
    return torch.from_numpy(places).permute(2, 0, 1).unsqueeze(0)
