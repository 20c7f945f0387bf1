"""Column matching and the ground warp: planted people whose displacement is known, on grids not square."""

import math

import pytest
import torch
from torch import Tensor

from viewsync.nets import matching
from viewsync.nets.descriptors import Described
from viewsync.nets.matching import ColumnMatcher, match_all
from viewsync.nets.synchronisers import Columns, ColumnSynchroniser, NoSynchroniser, Timing
from viewsync.nets.warp import ground_places, warp_ground

ROWS, COLUMNS, CELL_M, LENGTH = 7, 12, 0.5, 24
# The right partner scores 12, all strangers together about 4 (84 cells, each e^0 or less): between them lies
SURE, NOBODY = 12.0, 8.0


def planted(people: dict[int, tuple[int, int]]) -> Described:
    """Person k, who looks like nobody else (unit vector k), in cell (row, column); nobody anywhere else."""
    descriptor = torch.zeros(1, LENGTH, ROWS * COLUMNS)
    for k, (row, column) in people.items():
        descriptor[0, k, row * COLUMNS + column] = 1.0
    return Described(descriptor, torch.full((1, ROWS * COLUMNS), NOBODY), torch.ones(1, ROWS * COLUMNS))


def places() -> Tensor:
    return ground_places(ROWS, COLUMNS, CELL_M, torch.zeros(1))


def sure_matcher() -> ColumnMatcher:
    matcher = ColumnMatcher().requires_grad_(False)
    matcher.log_scale.fill_(math.log(SURE))
    return matcher


BEFORE = {0: (1, 2), 1: (5, 9), 2: (3, 4), 3: (6, 0)}
AFTER = {0: (1, 5), 1: (2, 9), 2: (4, 3), 4: (0, 11)}  # 3 has gone, 4 has come


def test_planted_people_are_followed_to_where_they_went() -> None:
    found = match_all(sure_matcher(), planted(BEFORE), planted(AFTER), torch.tensor([4.0]), places())
    flow = found.flow_m.reshape(ROWS, COLUMNS, 2)
    similarity = found.similarity.reshape(ROWS, COLUMNS)
    for k in (0, 1, 2):
        (row, column), (to_row, to_column) = BEFORE[k], AFTER[k]
        # x along columns, y along rows. Being 98 % sure shortens 1.5 m by 3 cm.
        expected = torch.tensor([(to_column - column) * CELL_M, (to_row - row) * CELL_M])
        assert torch.allclose(flow[row, column], expected, atol=0.06), k
        assert similarity[row, column] > 0.9
        assert found.accounted.reshape(ROWS, COLUMNS)[to_row, to_column] > 0.9
    # Whoever has gone has no partner, whoever has come is nobody's, and empty ground stays where it is.
    rest = torch.ones(ROWS, COLUMNS, dtype=torch.bool)
    for k in (0, 1, 2):
        rest[BEFORE[k]] = False
    assert similarity[rest].max() < 0.1 and flow[rest].norm(dim=1).max() < 0.1
    assert found.accounted.reshape(ROWS, COLUMNS)[AFTER[4]] < 0.1


def test_scores_are_similarity_less_squared_distance_over_two_sigma_squared() -> None:
    generator = torch.Generator().manual_seed(0)
    matcher = ColumnMatcher()
    first, second = (
        Described(
            torch.nn.functional.normalize(torch.randn(2, LENGTH, 84, generator=generator), dim=1),
            torch.zeros(2, 84),
            torch.ones(2, 84),
        )
        for _ in range(2)
    )
    sigma, where = torch.tensor([0.8, 2.5]), places().expand(2, -1, -1)
    ours = matcher.keys(first, where, sigma, first=True)
    theirs = matcher.keys(second, where, sigma, first=False)
    scores = ours.transpose(1, 2) @ theirs
    for pair in range(2):
        for a, b in ((0, 0), (3, 40), (83, 11)):
            distance = (places()[a] - places()[b]).norm()
            alike = matcher.log_scale.exp() * first.descriptor[pair, :, a] @ second.descriptor[pair, :, b]
            expected = alike - 0.5 * (distance / sigma[pair]) ** 2
            # The product is expanded, |a|² − 2ab + |b|²: float32 keeps four decimals of some hundreds.
            assert scores[pair, a, b].item() == pytest.approx(expected.item(), abs=2e-3)


def test_the_nearer_of_two_doubles_is_chosen_by_the_prior() -> None:
    first, second = planted({0: (3, 5)}), planted({0: (3, 7)})
    second.descriptor[0, 0, 3 * COLUMNS + 11] = 1.0  # a double, three metres away instead of one
    for sigma, expected, tolerance in ((0.8, 1.0, 0.06), (50.0, 2.0, 0.06)):
        found = match_all(sure_matcher(), first, second, torch.tensor([sigma]), places())
        flow = found.flow_m.reshape(ROWS, COLUMNS, 2)[3, 5]
        assert flow[0].item() == pytest.approx(expected, abs=tolerance)  # without a prior: in between
        assert flow[1].item() == pytest.approx(0.0, abs=tolerance)


def test_the_prior_widens_with_the_offset_and_has_a_width_for_unknown_ones() -> None:
    matcher = ColumnMatcher(walk_m_s=0.9, spread_m=0.45, unknown_m=1.8)
    offset, known = torch.tensor([0.0, 2.0, -2.0, 2.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    expected = torch.tensor([0.45, 0.9 * 2 + 0.45, 0.9 * 2 + 0.45, 1.8])
    assert torch.allclose(matcher.sigma_m(offset, known), expected, atol=1e-5)


def test_cells_a_view_does_not_look_at_have_no_partner_and_are_none() -> None:
    first, second = planted(BEFORE), planted(AFTER)
    first.inside[0, 1 * COLUMNS + 2] = 0.0  # person 0 before
    second.inside[0, 2 * COLUMNS + 9] = 0.0  # person 1 after
    found = match_all(sure_matcher(), first, second, torch.tensor([4.0]), places())
    similarity, accounted = (m.reshape(ROWS, COLUMNS) for m in (found.similarity, found.accounted))
    assert similarity[1, 2] == 0.0 and found.flow_m.reshape(ROWS, COLUMNS, 2)[1, 2].abs().max() == 0.0
    assert accounted[2, 9] == 0.0
    whole = match_all(sure_matcher(), planted(BEFORE), planted(AFTER), torch.tensor([4.0]), places())
    # Their partners are left alone; the third one's are not touched.
    assert accounted[1, 5] < 0.1 and similarity[5, 9] < 0.1
    assert similarity[3, 4] == pytest.approx(whole.similarity.reshape(ROWS, COLUMNS)[3, 4].item(), abs=1e-4)


def test_no_flow_is_no_warp() -> None:
    features = torch.randn(2, 3, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))
    warped = warp_ground(features, torch.zeros(2, ROWS, COLUMNS, 2), CELL_M)
    assert torch.allclose(warped, features, atol=1e-5)  # grid_sample's own rounding


def test_the_flow_says_where_to_look_in_view_i() -> None:
    features = torch.arange(ROWS * COLUMNS, dtype=torch.float32).reshape(1, 1, ROWS, COLUMNS)
    flow = torch.zeros(1, ROWS, COLUMNS, 2)
    flow[..., 0], flow[..., 1] = 2 * CELL_M, -1 * CELL_M  # two columns on, one row back
    warped = warp_ground(features, flow, CELL_M)
    assert torch.allclose(warped[0, 0, 1:, :-2], features[0, 0, :-1, 2:], atol=1e-3)
    assert (
        warped[0, 0, 0].abs().max() == 0 and warped[0, 0, :, -2:].abs().max() < 1e-4
    )  # from outside: nothing
    flow[..., 0], flow[..., 1] = 0.5 * CELL_M, 0.0
    half = warp_ground(features, flow, CELL_M)
    assert torch.allclose(half[0, 0, :, :-1], features[0, 0, :, :-1] + 0.5, atol=1e-3)


class PlantedDescriptor(torch.nn.Module):
    """Reads the descriptor straight from the columns: channel k is person k's look."""

    def forward(self, columns: Tensor, inside: Tensor) -> Described:
        halved = torch.nn.functional.max_pool2d(columns, 2)
        seen = torch.nn.functional.max_pool2d(inside.amin(dim=1, keepdim=True), 2)
        return Described(halved.flatten(2), torch.full_like(seen.flatten(1), NOBODY), seen.flatten(1))


def test_a_synchroniser_brings_every_view_to_the_reference() -> None:
    """Three views with people planted on the ground: features move to where the reference sees them."""
    where = [{0: (2, 3), 1: (5, 8)}, {0: (2, 6), 1: (3, 8)}, {0: (4, 3), 2: (1, 10)}]
    columns = torch.zeros(1, 3, 3, 2 * ROWS, 2 * COLUMNS)
    ground = torch.zeros(1, 3, 3, ROWS, COLUMNS)
    for view, people in enumerate(where):
        for k, (row, column) in people.items():
            columns[0, view, k, 2 * row, 2 * column] = 1.0
            ground[0, view, k, row, column] = 1.0
    synchroniser = ColumnSynchroniser(channels=1, heights=1)
    synchroniser.descriptor = PlantedDescriptor()  # type: ignore[assignment]
    synchroniser.matcher = sure_matcher()
    timing = Timing(torch.ones(1, 3), torch.tensor([[0.0, 2.0, -2.0]]), torch.ones(1, 3))
    inside = torch.ones(1, 3, 1, 2 * ROWS, 2 * COLUMNS)
    with torch.no_grad():
        moved = synchroniser(Columns(columns, inside), ground, timing, CELL_M)
    assert moved.warped.shape == (1, 2, 3, ROWS, COLUMNS) and moved.flow_m.shape == (1, 2, ROWS, COLUMNS, 2)
    assert moved.evidence.shape == (1, 2, 3, ROWS, COLUMNS)
    # Person 0 is in all views: both others' features arrive at the reference's cell.
    assert (moved.warped[0, :, 0, 2, 3] > 0.8).all() and moved.warped[0, 0, 1, 5, 8] > 0.8
    assert (moved.unmoved == ground[:, 1:]).all()
    by_reference, by_peers = moved.evidence[0, :, 1], moved.evidence[0, :, 2]
    assert by_reference[0, 2, 6] > 0.9 and by_reference[1, 4, 3] > 0.9
    # The two others see person 0 both, and person 2 only one of them.
    assert by_peers[1, 4, 3] > 0.9 > by_peers[1, 1, 10]

    plain = NoSynchroniser()(Columns(columns, inside), ground, timing, CELL_M)
    assert (
        plain.warped == ground[:, 1:]
    ).all() and plain.flow_m.abs().max() == 0 == plain.evidence.abs().max()
    assert plain.flow_m.shape == moved.flow_m.shape and plain.evidence.shape == moved.evidence.shape


KINDS = ({}, {"mutual": True}, {"sharp": True}, {"mutual": True, "sharp": True}, {"everybody": True})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", [True, False])
def test_block_by_block_is_all_pairs_at_once(
    monkeypatch: pytest.MonkeyPatch, kind: dict[str, bool], where: bool
) -> None:
    """Where nobody learns, some rows of one pair are matched at a time: each answer is what it was."""
    monkeypatch.setattr(matching, "_ROWS", 10)  # the last of nine blocks has four
    generator = torch.Generator().manual_seed(5)
    first, second = (
        Described(
            torch.nn.functional.normalize(torch.randn(3, LENGTH, 84, generator=generator), dim=1),
            torch.randn(3, 84, generator=generator),
            (torch.rand(3, 84, generator=generator) > 0.3).float(),
            torch.rand(3, 84, 2, generator=generator) - 0.5,
        )
        for _ in range(2)
    )
    second.inside[2] = 0.0  # a view that looks nowhere
    matcher, sigma = ColumnMatcher(**kind), torch.tensor([0.8, 2.5, 5.0])
    together = match_all(matcher, first, second, sigma, places(), where=where)
    with torch.no_grad():
        alone = match_all(matcher, first, second, sigma, places(), where=where)
    for part in ("similarity", "moved_m", "flow_m", "accounted"):
        torch.testing.assert_close(
            getattr(alone, part), getattr(together, part).detach(), atol=1e-4, rtol=1e-3
        )
    assert (alone.moved_m[:2].norm(dim=2).max() > 1.0) == where
