"""The bound `perfect-matching`: whom both views show arrive where the reference has them, others stay."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.nets.perfect import BODY_M, People, perfect_matching
from viewsync.nets.synchronisers import Synchronised, Timing
from viewsync.nets.warp import ground_places

ROWS, COLUMNS, CELL_M = 9, 14, 0.5
NAN = float("nan")
# Person by person: where they are (x, y) metres at the instants of three views, and who shows them.
PLACE = [
    [(1.25, 1.25), (3.25, 1.75), (1.75, 3.25)],  # in all views
    [(5.25, 2.25), (5.25, 3.75), (6.25, 2.25)],  # hidden from view 1
    [(2.25, 3.75), (6.25, 0.75), (4.25, 3.25)],  # hidden from the reference
    [(NAN, NAN), (4.75, 2.25), (5.75, 0.75)],  # not about yet at the reference's instant, then in view 1 only
    [(6.25, 3.75), (9.25, 3.75), (6.75, 3.75)],  # has left the ground in view 1
]
SEEN = [[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 1, 0], [1, 1, 0]]


def people() -> People:
    place = torch.tensor(PLACE).transpose(0, 1).unsqueeze(0)
    return People(place, torch.tensor(SEEN, dtype=torch.bool).T.unsqueeze(0))


def timing(*present: float) -> Timing:
    there = torch.tensor([present or (1.0, 1.0, 1.0)])
    return Timing(there, torch.tensor([[0.0, 2.0, -2.0]]) * there, there)


def blobs(truth: People) -> Tensor:
    """Ground features (1, 3, N, Hm, Wm): channel n is person n where the view shows them, a blob of 0.3 m."""
    cells = ground_places(ROWS, COLUMNS, CELL_M, torch.zeros(1))
    away = (cells - truth.place_m.unsqueeze(3)).square().sum(dim=4).nan_to_num(1e6)
    return (torch.exp(-0.5 * away / 0.3**2) * truth.seen.unsqueeze(3)).unflatten(3, (ROWS, COLUMNS))


def at(person: int, view: int) -> tuple[int, int]:
    x, y = PLACE[person][view]
    return int(y / CELL_M), int(x / CELL_M)


@pytest.fixture(scope="module")
def moved() -> Synchronised:
    return perfect_matching(people(), blobs(people()), timing(), CELL_M)


def test_people_whom_both_show_arrive_where_the_reference_has_them(moved: Synchronised) -> None:
    ground = blobs(people())[0]
    for person, view in ((0, 1), (0, 2), (1, 2)):
        row, column = at(person, 0)
        expected = torch.tensor(PLACE[person][view]) - torch.tensor(PLACE[person][0])
        assert torch.allclose(moved.flow_m[0, view - 1, row, column], expected, atol=1e-5)
        # The whole blob, the cells around its middle, too: all moved by whole cells.
        around = (slice(row - 1, row + 2), slice(column - 1, column + 2))
        arrived = moved.warped[0, view - 1, person][around]
        assert torch.allclose(arrived, ground[0, person][around], atol=1e-4)
        assert moved.evidence[0, view - 1, 0, row, column] == 1.0
        assert moved.evidence[0, view - 1, 1][at(person, view)] == 1.0
    assert (moved.unmoved == ground[1:]).all()


def test_nobody_else_is_matched(moved: Synchronised) -> None:
    matched, accounted, by_peers = moved.evidence[0].unbind(dim=1)
    assert matched[0][at(1, 0)] == 0 and matched[0][at(4, 0)] == 0 and matched[1][at(4, 0)] == 0
    assert accounted[0][at(2, 1)] == accounted[1][at(2, 2)] == 0 and accounted[0][at(3, 1)] == 0
    # Shared out: person 0 and 2 are shown by both other views, person 3 and 1 by one of them.
    assert by_peers[0][at(0, 1)] == by_peers[1][at(0, 2)] == 1
    assert by_peers[0][at(2, 1)] == by_peers[1][at(2, 2)] == 1
    assert by_peers[0][at(3, 1)] == by_peers[1][at(1, 2)] == 0
    # Ground where nobody stands stays where it is, and so does everything unmatched.
    assert (moved.flow_m[0][matched == 0] == 0).all()
    cells = ground_places(ROWS, COLUMNS, CELL_M, torch.zeros(1))
    both = torch.tensor([PLACE[0][0], PLACE[1][0]])
    far = torch.cdist(cells, both).amin(dim=1).reshape(ROWS, COLUMNS) > BODY_M
    assert (matched[:, far] == 0).all() and far.any()
    assert torch.isfinite(moved.warped).all() and torch.isfinite(moved.flow_m).all()


def test_perfect_flow_goes_with_the_nearest_person_and_does_not_tell_where_people_stand() -> None:
    truth, ground = people(), blobs(people())
    found = perfect_matching(truth, ground, timing(), CELL_M, everywhere=True)
    cells = ground_places(ROWS, COLUMNS, CELL_M, torch.zeros(1))
    shown = truth.seen[0, 0]
    nearest = torch.cdist(cells, truth.place_m[0, 0][shown]).argmin(dim=1)
    who = shown.nonzero().flatten()[nearest].reshape(ROWS, COLUMNS)
    # View 2 shows persons 0 and 1, view 1 only 0 and, beyond its edge, 4: all around them, near or far.
    for view, persons in ((1, (0,)), (2, (0, 1))):
        for person in (0, 1, 4):
            went = torch.tensor(PLACE[person][view]) - torch.tensor(PLACE[person][0])
            both = person in persons
            assert (found.evidence[0, view - 1, 0][who == person] == both).all(), (view, person)
            assert torch.allclose(found.flow_m[0, view - 1][who == person], went * both, atol=1e-5)
    nobody = People(truth.place_m, torch.zeros_like(truth.seen))
    empty = perfect_matching(nobody, ground, timing(), CELL_M, everywhere=True)
    assert empty.evidence.abs().max() == 0 == empty.flow_m.abs().max()


def test_at_offset_zero_nothing_moves() -> None:
    still = people()
    still = replace(still, place_m=still.place_m[:, :1].expand(-1, 3, -1, -1).clone())
    ground = blobs(still)
    found = perfect_matching(still, ground, timing(), CELL_M)
    assert found.flow_m.abs().max() == 0
    assert torch.allclose(found.warped, ground[:, 1:], atol=1e-5)  # grid_sample's own rounding
    assert found.evidence[0, 0, 0][at(0, 0)] == 1  # and yet it is known who is who


def test_a_cell_between_two_belongs_to_the_nearer() -> None:
    """Whom the reference does not show is not explained away by a neighbour whom it does."""
    place = torch.tensor([[[1.25, 1.25], [1.85, 1.25]]] * 2).unsqueeze(0)
    found = perfect_matching(
        People(place, torch.tensor([[[True, False], [True, True]]])),
        torch.zeros(1, 2, 2, ROWS, COLUMNS),
        Timing(torch.ones(1, 2), torch.zeros(1, 2), torch.ones(1, 2)),
        CELL_M,
    )
    accounted = found.evidence[0, 0, 1]
    assert accounted[2, 2] == 1 and accounted[2, 3] == 0


def test_an_absent_view_shows_nobody(moved: Synchronised) -> None:
    found = perfect_matching(people(), blobs(people()), timing(1.0, 0.0, 1.0), CELL_M)
    assert found.evidence[0, 0].abs().max() == 0 == found.flow_m[0, 0].abs().max()
    assert (found.evidence[0, 1, :2] == moved.evidence[0, 1, :2]).all()
    assert found.evidence[0, 1, 2].max() == 0  # there is no other view left that could share


def test_shapes_that_do_not_fit_are_refused() -> None:
    truth = people()
    with pytest.raises(ValueError, match="N at least one"):
        People(truth.place_m, truth.seen[:, :2])
    with pytest.raises(ValueError, match="N at least one"):
        People(truth.place_m[:, :, :0], truth.seen[:, :, :0])


def test_the_model_learns_through_the_warp_and_asks_for_the_truth() -> None:
    torch.manual_seed(0)
    model, plain = (
        CountingModel(ModelConfig(methods=(method,), channels=4, heights=3, cell_m=CELL_M / 2))
        for method in ("perfect-matching", "none")
    )
    shapes = {n.replace("perfect-matching", "none"): w.shape for n, w in model.state_dict().items()}
    assert shapes == {n: w.shape for n, w in plain.state_dict().items()}  # no weights of its own
    features = torch.rand(1, 3, 4, 9, 14, requires_grad=True)
    grids = torch.rand(1, 3, 3, 2 * ROWS, 2 * COLUMNS, 2) * 1.8 - 0.9
    given = features, grids, timing().present, timing().offset_s, ("perfect-matching",)
    with pytest.raises(ValueError, match="needs the truth"):
        model.fuse(*given)
    model.fuse(*given, people=people()).density["perfect-matching"].sum().backward()
    assert features.grad is not None and torch.isfinite(features.grad).all()
    assert all(features.grad[0, view].abs().max() > 0 for view in range(3))
