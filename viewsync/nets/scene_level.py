"""Scene-level synchronisation, SLS (paper, Section III-A): view i's ground features are moved on the ground.

Shape letters: B batch, V views (slot 0 the reference), D channels, Hm Wm ground rows and columns of the
matching grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from viewsync.nets.flow import FlowNet, check_networks, pairs_of, reported
from viewsync.nets.synchronisers import Columns, Synchronised, Timing
from viewsync.nets.warp import warp_views


class SceneSynchroniser(nn.Module):
    """w_i = M_s(Cat(𝓕_0, 𝓕_i)) and its warp (paper, Eq. 4, 5). `networks`: one for each pair of views, or 1
    that all pairs share. Offsets are not looked at: the paper's models do without.
    """

    def __init__(self, width: int, networks: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList(FlowNet(2 * width) for _ in range(networks))

    def forward(self, columns: Columns, ground: Tensor, timing: Timing, cell_m: float) -> Synchronised:
        batch, others = ground.shape[0], ground.shape[1] - 1
        check_networks(len(self.nets), others)
        reference, other = pairs_of(ground)
        both = torch.cat([reference, other], dim=1).unflatten(0, (batch, others))
        if len(self.nets) == 1:
            flow = self.nets[0](both.flatten(0, 1))
        else:
            single = [net(both[:, k]) for k, net in enumerate(self.nets)]
            flow = torch.stack(single, dim=1).flatten(0, 1)
        flow_m = reported(flow, batch) * cell_m
        warped = warp_views(ground[:, 1:], flow_m, cell_m)
        return Synchronised(warped, ground[:, 1:], ground[:, 1:, :3] * 0.0, flow_m)
