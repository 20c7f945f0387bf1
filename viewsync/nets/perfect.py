"""The bounds `perfect-matching` and `perfect-flow`: true correspondences in place of learned ones, for the
same warp, evidence, fusion and decoder that `column` has.

They say what a synchroniser could reach that has one frame per view: people whom both views show are brought
to where the reference has them, and nothing is known of anybody else. `perfect-matching` knows whose cell a
cell is, and so shows the decoder where people stand, which no matching could; `perfect-flow` says of every
cell where the nearest person went, near or far, and but for the edges half way between people leaves it to
the features to tell where they are. They need a simulator's truth, so they are never exported.

Shape letters: B batch, V views (slot 0 the reference), N people, D channels, Hm Wm matching grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from viewsync.nets.synchronisers import Synchronised, Timing
from viewsync.nets.warp import ground_places, warp_ground

# For `perfect-matching` a cell belongs to the nearest person shown within this distance: a body, and what its
# features spread over.
BODY_M = 0.75


@dataclass(frozen=True, slots=True)
class People:
    """The simulator's truth: `place_m` (B, V, N, 2), metres (x, y) from the grid's corner at each slot's own
    instant, not a number where somebody is not about; `seen` (B, V, N), whether that slot's frame shows them.
    Raises ValueError for shapes that do not fit.
    """

    place_m: Tensor
    seen: Tensor

    def __post_init__(self) -> None:
        if self.place_m.shape != (*self.seen.shape, 2) or self.seen.dim() != 3 or not self.seen.shape[2]:
            raise ValueError(
                f"people's places are (B, V, N, 2) and seen (B, V, N), N at least one, not "
                f"{tuple(self.place_m.shape)} and {tuple(self.seen.shape)}"
            )


def perfect_matching(
    people: People, ground: Tensor, timing: Timing, cell_m: float, everywhere: bool = False
) -> Synchronised:
    """Ground features (B, V, D, Hm, Wm) on cells of `cell_m` metres, brought to the reference's instant by
    the truth. Only features carry a gradient. everywhere: every cell goes with the nearest person shown, as
    `perfect-flow` has it.
    """
    batch, views, _, rows, columns = ground.shape
    place = people.place_m.to(ground.device, torch.float32)  # of half the digits, 20 m would be told to 10 cm
    cells = ground_places(rows, columns, cell_m, place)
    corner = torch.tensor([columns * cell_m, rows * cell_m], device=place.device)
    on_grid = ((place >= 0) & (place < corner)).all(dim=-1)  # false for NaN, too
    place = torch.where(on_grid.unsqueeze(-1), place, torch.zeros_like(place))
    shown = people.seen.bool() & on_grid & (timing.present > 0).unsqueeze(-1)  # (B, V, N)

    # Whose cell is it? That of the nearest person whom this view shows.
    distance = torch.cdist(
        cells.expand(batch, views, -1, -1), place, compute_mode="donot_use_mm_for_euclid_dist"
    )
    distance = torch.where(shown.unsqueeze(2), distance, torch.full_like(distance, torch.inf))
    near, who = distance.min(dim=3)
    reach_m = max(BODY_M, 0.75 * cell_m)  # three quarters reach a corner
    taken = (near.isfinite() if everywhere else near <= reach_m).to(place)  # (B, V, Hm·Wm)

    def of_cell(slot: Tensor, values: Tensor) -> Tensor:
        """`values` (B, V-1, N[, 2]) of the person whose cell it is, of `slot` (B, V-1, Hm·Wm)."""
        index = slot.reshape(*slot.shape, *[1] * (values.dim() - 3)).expand(-1, -1, -1, *values.shape[3:])
        return torch.gather(values, 2, index)

    whose, in_view = who[:, :1].expand(-1, views - 1, -1), shown[:, 1:].to(place)
    matched = taken[:, :1] * of_cell(whose, in_view)
    moved = torch.where(shown[:, 1:].unsqueeze(-1), place[:, 1:] - place[:, :1], torch.zeros(()).to(place))
    flow = of_cell(whose, moved) * matched.unsqueeze(-1)
    theirs, by_reference = who[:, 1:], shown[:, :1].to(place).expand(-1, views - 1, -1)
    accounted = taken[:, 1:] * of_cell(theirs, by_reference)
    # Of the other views that show this person, view i itself is one.
    peers = in_view.sum(dim=1, keepdim=True) - in_view
    by_peers = taken[:, 1:] * of_cell(theirs, peers)
    evidence = torch.stack([matched, accounted, by_peers], dim=2).unflatten(3, (rows, columns))
    flow = flow.unflatten(2, (rows, columns))
    warped = warp_ground(ground[:, 1:].flatten(0, 1), flow.flatten(0, 1), cell_m)
    return Synchronised(warped.unflatten(0, (batch, views - 1)), ground[:, 1:], evidence, flow)
