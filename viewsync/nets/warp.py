"""W on the ground, and its adjoint: features of ground cells moved by a metric flow; and how long one may be.

Shape letters: B batch, V views, P pairs of views, D channels, Hm Wm ground rows and columns, N = Hm·Wm.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Nobody moves faster; people run at 3 m/s.
FASTEST_M_S = 3.0


def speed_limit(flow_m: Tensor, offset_s: Tensor, known: Tensor) -> Tensor:
    """Flow (B, V-1, Hm, Wm, 2) no longer than FASTEST_M_S · |offset| where the offset is known, all (B, V-1):
    none at all between frames of one instant.
    """
    reach = (FASTEST_M_S * offset_s.abs()).reshape(*offset_s.shape, 1, 1, 1)
    counts = known.reshape(*known.shape, 1, 1, 1)
    # Floored, not added to: torch's way to ONNX leaves out what adds next to nothing, and 0/0 is no number.
    length = flow_m.square().sum(dim=-1, keepdim=True).clamp_min(1e-12).sqrt()
    return flow_m * (counts * (reach / length).clamp_max(1.0) + (1.0 - counts))


def ground_places(rows: int, columns: int, cell_m: float, like: Tensor) -> Tensor:
    """Centres (rows·columns, 2) of ground cells, (x, y) metres from the grid's corner, row by row."""
    x = (torch.arange(columns, dtype=like.dtype, device=like.device) + 0.5) * cell_m
    y = (torch.arange(rows, dtype=like.dtype, device=like.device) + 0.5) * cell_m
    return torch.stack(
        [x.unsqueeze(0).expand(rows, columns).reshape(-1), y.unsqueeze(1).expand(rows, columns).reshape(-1)],
        dim=-1,
    )


def warp_views(features: Tensor, flow_m: Tensor, cell_m: float) -> Tensor:
    """`warp_ground` of views (B, V, D, Hm, Wm) by flows (B, V, Hm, Wm, 2)."""
    warped = warp_ground(features.flatten(0, 1), flow_m.flatten(0, 1), cell_m)
    out: Tensor = warped.unflatten(0, features.shape[:2])
    return out


def warp_ground(features: Tensor, flow_m: Tensor, cell_m: float) -> Tensor:
    """W on the ground: out(g) = features(g + flow(g)), bilinear, zero outside (paper, Eq. 5; view i's grid is
    sampled).

    features (B, D, Hm, Wm), flow (B, Hm, Wm, 2) metres (x, y) -> (B, D, Hm, Wm).
    """
    rows, columns = features.shape[-2:]
    places = ground_places(rows, columns, cell_m, features).reshape(1, rows, columns, 2)
    x = (places[..., 0] + flow_m[..., 0]) * (2.0 / (columns * cell_m)) - 1.0
    y = (places[..., 1] + flow_m[..., 1]) * (2.0 / (rows * cell_m)) - 1.0
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def splat(features: Tensor, target_m: Tensor, cell_m: float) -> Tensor:
    """Carry what is in each cell to a place: features (P, D, Hm, Wm), targets (P, N, 2) metres from the
    grid's corner -> (P, D, Hm, Wm). Shared out bilinearly among the four cells around it; what leaves the
    grid is lost. The adjoint of sampling there, as `warp_ground` does.
    """
    pairs, depth, rows, columns = features.shape
    at = target_m / cell_m - 0.5
    low = at.floor()
    share = at - low
    values = features.flatten(2)
    out = torch.zeros_like(values)
    for right in (0, 1):
        for below in (0, 1):
            x, y = low[..., 0] + right, low[..., 1] + below
            inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
            across = share[..., 0] if right else 1.0 - share[..., 0]
            down = share[..., 1] if below else 1.0 - share[..., 1]
            weight = (across * down * inside.to(values.dtype)).unsqueeze(1)
            cell = y.clamp(0, rows - 1).long() * columns + x.clamp(0, columns - 1).long()
            out = out.scatter_add(2, cell.unsqueeze(1).expand(-1, depth, -1), values * weight)
    return out.reshape(pairs, depth, rows, columns)
