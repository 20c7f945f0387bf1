"""Two frames of each view (`column-2`): what a view's own earlier frame says about how its people walk.

A view's two frames are matched with each other (same camera, same columns, a short time that is known), which
gives a velocity per ground cell. It carries that view's people to the reference's instant: those whom the
reference does not see move there, and those whom it may see are looked for around that place instead of
around where they stood. The reference's own two frames do the same from the other side. Where no frame before
is there, all of it falls back on a person who may have walked anywhere, which is the method `column`.

Shape letters: B batch, V views (slot 0 the reference), P pairs of views, D channels, Hm Wm ground rows and
columns of the matching grid, N = Hm·Wm its cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from viewsync.nets.descriptors import Described
from viewsync.nets.matching import FAR, ColumnMatcher, Matches, match_all, search
from viewsync.nets.projection import project_columns
from viewsync.nets.synchronisers import Columns, ColumnSynchroniser, Synchronised, Timing
from viewsync.nets.warp import ground_places, splat, warp_ground

# Channels of evidence beside the three of `Synchronised`: how much of what is at a place was carried there,
# and how far carrying can be trusted.
EXTRA_EVIDENCE = 2


@dataclass(frozen=True, slots=True)
class Before:
    """Each view's earlier frame: features (B, V, C, h, w), present (B, V) as 0 or 1, and age_s (B, V): how
    much earlier than the view's newest frame it was taken, seconds, above 0 where present.
    """

    features: Tensor
    present: Tensor
    age_s: Tensor

    @classmethod
    def none(cls, features: Tensor, present: Tensor) -> Before:
        """No view has one."""
        return cls(features, torch.zeros_like(present), torch.ones_like(present))

    def clean(self, present: Tensor) -> Before:
        """Without whatever absent slots hold, NaN included; a view that is absent has no frame before."""
        there = (self.present > 0) & (present > 0) & (self.age_s > 0)
        shown = there.reshape(*there.shape, 1, 1, 1)
        return Before(
            torch.where(shown, self.features, torch.zeros_like(self.features)),
            there.to(self.features.dtype),
            torch.where(there, self.age_s, torch.ones_like(self.age_s)),
        )


@dataclass(frozen=True, slots=True)
class Walk:
    """What two frames say of P views: moved_m (P, N, 2) metres from where whoever a cell shows stands to
    where they stood before, sure (P, N) in 0..1 that there was somebody, age_s (P,) between the frames.
    """

    moved_m: Tensor
    sure: Tensor
    age_s: Tensor

    def take(self, index: Tensor) -> Walk:
        """Those of the views `index`, in its order."""
        return Walk(self.moved_m[index], self.sure[index], self.age_s[index])


@dataclass(frozen=True, slots=True)
class TwoFrames:
    """What the method found of one batch, for its losses: all views `described` (B, V) now and `earlier`, and
    their walks, P = B·V.
    """

    described: Described
    earlier: Described
    walks: Walk


class TwoFrameSynchroniser(nn.Module):
    """`column` with velocities. Descriptors and the plain motion prior are those of the `ColumnMatcher` that
    it is given; its own are two numbers: how exact a matched place is (metres), and how people change their
    walk (metres per second²).
    """

    def __init__(self, jitter_m: float = 0.2, change_m_s2: float = 0.25) -> None:
        super().__init__()
        self.log_error = nn.Parameter(torch.tensor([jitter_m, change_m_s2]).log())

    def look(
        self,
        column: ColumnSynchroniser,
        described: Described,
        before: Before,
        view_from_ground: Tensor,
        cell_m: float,
        ground: Callable[[Columns], Tensor],
    ) -> TwoFrames:
        """Describe the frames before, seen through the same grids (B, V, Z, Hg, Wg, 2), and match them with
        the newest ones, which are `described`; `cell_m`: of the matching grid. ground: columns of all views
        to their ground features (B, V, D, Hm, Wm), asked only where descriptors look at those.
        """
        shape = (before.present.shape[0], before.present.shape[1])
        flats = before.features.flatten(0, 1), view_from_ground.flatten(0, 1)
        sampled, inside = (part.unflatten(0, shape) for part in project_columns(*flats))
        there = before.present.reshape(*shape, 1, 1, 1)
        columns = Columns(sampled, inside * there)
        earlier = column.describe(columns, ground(columns) if column.on_ground else None)
        rows, width = view_from_ground.shape[3] // 2, view_from_ground.shape[4] // 2
        with torch.no_grad():
            places = ground_places(rows, width, cell_m, before.features)
            walks = self.walks(column.matcher, described, earlier, before, places)
        return TwoFrames(described, earlier, walks)

    def walks(
        self,
        matcher: ColumnMatcher,
        described: Described,
        earlier: Described,
        before: Before,
        places_m: Tensor,
    ) -> Walk:
        """Match every view's two frames; both `Described` with leading dimensions (B, V)."""
        age_s, there = before.age_s.flatten(), before.present.flatten()
        sigma = matcher.sigma_m(age_s, torch.ones_like(age_s))
        found = match_all(matcher, flat(described, there), flat(earlier, there), sigma, places_m)
        return Walk(found.moved_m, found.similarity * there.unsqueeze(1), age_s)

    def ahead(self, walk: Walk, offset_s: Tensor, places_m: Tensor) -> tuple[Tensor, Tensor]:
        """Where whoever stands in each cell is `offset_s` (P,) later than the newest frame, walking on
        evenly: places (P, N, 2) m, and their standard deviation (P,) m.

        The error of two matched places x, x⁻ of age d becomes that of x + r(x − x⁻), r = offset / d; a change
        of the walk adds ½·a·|offset·(offset + d)|, nothing at the instants of the two frames.
        """
        jitter, change = self.log_error.exp().unbind()
        ratio = offset_s / walk.age_s
        exact = jitter * ((1.0 + ratio).square() + ratio.square()).sqrt()
        sigma = exact + 0.5 * change * (offset_s * (offset_s + walk.age_s)).abs()
        return places_m.unsqueeze(0) - walk.moved_m * ratio.reshape(-1, 1, 1), sigma

    def keys(
        self,
        matcher: ColumnMatcher,
        view: Described,
        walk: Walk,
        offset_s: Tensor,
        known: Tensor,
        places_m: Tensor,
        first: bool,
    ) -> Tensor:
        """As `ColumnMatcher.keys` (P, D + 8, N): this side's view, and where its people are `offset_s` (P,)
        later than its newest frame, at the other side's instant; `known` (P,) is 1 where that counts.

        Each side brings half the precision of the plain motion prior, around where its cell is. A cell whose
        walk is sure trades that for a narrower one, around where it walks to: a quadratic in the other
        side's place.
        """
        place, narrow_m = self.ahead(walk, offset_s, places_m)
        wide_m = matcher.sigma_m(offset_s, known)
        half = (0.5 / wide_m.square()).unsqueeze(1)
        sharp = (0.5 / torch.minimum(narrow_m, wide_m).square()).unsqueeze(1)
        sure = walk.sure * known.unsqueeze(1)
        still, going = half * (1.0 - sure), sharp * sure
        steep = still + going
        here = places_m.transpose(0, 1).unsqueeze(0).expand(steep.shape[0], -1, -1)
        pull = still.unsqueeze(1) * here + going.unsqueeze(1) * place.transpose(1, 2)
        square = here.square().sum(dim=1)
        # A narrow Gaussian is higher, too; and nobody is found where the view does not look.
        height = 0.5 * (steep / half).log() - 0.5 * (still * square + going * place.square().sum(dim=2))
        height = height + (1.0 - view.inside) * FAR
        said = torch.cat([pull, height.unsqueeze(1), (-0.5 * steep).unsqueeze(1)], dim=1)
        own = torch.cat([here, torch.ones_like(square).unsqueeze(1), square.unsqueeze(1)], dim=1)
        if first:
            return torch.cat([view.descriptor * matcher.log_scale.exp(), said, own], dim=1)
        return torch.cat([view.descriptor, own, said], dim=1)

    def match(
        self,
        matcher: ColumnMatcher,
        first: tuple[Described, Walk],
        second: tuple[Described, Walk],
        offset_s: Tensor,
        known: Tensor,
        places_m: Tensor,
        where: bool = True,
    ) -> Matches:
        """Match P pairs of views, the second `offset_s` (P,) later than the first; where: as `search`."""
        keys = self.keys(matcher, *first, offset_s, known, places_m, first=True)
        others = self.keys(matcher, *second, -offset_s, known, places_m, first=False)
        places = places_m.unsqueeze(0).expand(offset_s.shape[0], -1, -1)
        return search(matcher, first[0], second[0], keys, others, places, where)

    def forward(
        self, matcher: ColumnMatcher, found: TwoFrames, ground: Tensor, timing: Timing, cell_m: float
    ) -> Synchronised:
        """Every other view at the reference's instant. What is found carries no gradient, what is moved by it
        does: the matcher learns from its own losses.

        `warped` holds what the reference's cells have as partners, `unmoved` the view's own people where they
        have walked to, with evidence at those places; evidence has 3 + EXTRA_EVIDENCE channels.
        """
        batch, views, _, rows, columns = ground.shape
        others = views - 1
        with torch.no_grad():
            places = ground_places(rows, columns, cell_m, ground)
            matches, by_peers = self._search(matcher, found, timing, places)
            index = torch.arange(batch * views, device=ground.device).reshape(batch, views)[:, 1:].flatten()
            offset, known = timing.offset_s[:, 1:].flatten(), timing.known[:, 1:].flatten()
            target, sigma = self.ahead(found.walks.take(index), -offset, places)
            leaves = found.walks.sure[index] * known.unsqueeze(1)
            goes = (leaves.amax(dim=1) > 0).to(sigma.dtype)
            trust = torch.exp(-sigma) * goes
        unmoved = ground[:, 1:].flatten(0, 1)
        leaving = leaves.reshape(-1, 1, rows, columns)
        about = torch.stack([matches.accounted, by_peers.flatten(0, 1)], dim=1)
        cells = torch.cat([unmoved, about.reshape(-1, 2, rows, columns)], dim=1)
        # Expected: whoever is not sure to have walked stays with the rest of the probability.
        carried = cells * (1.0 - leaving) + splat(cells * leaving, target, cell_m)
        arrived = splat(leaving, target, cell_m)
        flow = matches.flow_m.reshape(-1, rows, columns, 2)
        warped = warp_ground(unmoved, flow, cell_m)
        if matcher.sharp:
            warped = warped * matches.similarity.reshape(-1, 1, rows, columns)
        evidence = torch.cat(
            [
                matches.similarity.reshape(-1, 1, rows, columns),
                carried[:, -2:-1].clamp(0.0, 1.0),
                carried[:, -1:].clamp_min(0.0),
                arrived.clamp(0.0, 1.0),
                trust.reshape(-1, 1, 1, 1).expand(-1, -1, rows, columns),
            ],
            dim=1,
        ).unflatten(0, (batch, others))
        return Synchronised(
            warped.unflatten(0, (batch, others)),
            carried[:, :-2].unflatten(0, (batch, others)),
            evidence,
            flow.unflatten(0, (batch, others)),
        )

    def _search(
        self, matcher: ColumnMatcher, found: TwoFrames, timing: Timing, places: Tensor
    ) -> tuple[Matches, Tensor]:
        """The reference against every other view (P = B·(V − 1)), and how often the other views account for
        each cell of one (B, V − 1, N): pairs as in `ColumnSynchroniser.synchronise`.
        """
        batch, views = timing.present.shape
        others, rest = views - 1, views - 2
        described, walks = flat(found.described, timing.present.flatten()), found.walks
        base = torch.arange(batch, device=places.device) * views
        slot = torch.arange(others, device=places.device) + 1
        other = (base.unsqueeze(1) + slot.unsqueeze(0)).flatten()
        reference = (base.unsqueeze(1) + torch.zeros_like(slot).unsqueeze(0)).flatten()
        offset, known = timing.offset_s.flatten(), timing.known.flatten()

        def side(index: Tensor) -> tuple[Described, Walk]:
            return described.each(lambda part: part[index]), walks.take(index)

        found_there = self.match(matcher, side(reference), side(other), offset[other], known[other], places)
        if others == 1:
            return found_there, torch.zeros_like(found_there.accounted).reshape(batch, others, -1)
        pair = torch.arange(others * rest, device=places.device)
        mine = torch.div(pair, rest, rounding_mode="floor")
        theirs = pair - mine * rest
        theirs = theirs + (theirs >= mine).to(theirs.dtype)
        theirs, mine = ((base.unsqueeze(1) + 1 + who).flatten() for who in (theirs, mine))
        peers = self.match(
            matcher,
            side(theirs),
            side(mine),
            offset[mine] - offset[theirs],
            known[mine] * known[theirs],
            places,
            where=False,
        )
        return found_there, peers.accounted.reshape(batch, others, rest, -1).sum(dim=2)


def flat(view: Described, present: Tensor) -> Described:
    """`Described` of (B, V) views as P = B·V of them; absent ones (`present` (P,) is 0) look nowhere."""
    every = view.each(lambda part: part.flatten(0, 1))
    return replace(every, inside=every.inside * present.unsqueeze(1))
