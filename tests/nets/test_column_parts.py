"""Each part of `column` changes what it says and nothing else: planted people on a grid with odd sides."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viewsync.nets.config import COLUMN_PARTS, MATCHER_PARTS, ModelConfig
from viewsync.nets.descriptors import Described
from viewsync.nets.matching import ColumnMatcher, Matches
from viewsync.nets.model import CountingModel
from viewsync.nets.rounds import coarser_places, finer_flow, match_in_rounds
from viewsync.nets.synchronisers import Synchronised
from viewsync.nets.warp import FASTEST_M_S, ground_places, speed_limit, warp_ground
from viewsync.training.losses import PartnerRows, partner_loss

ROWS, COLUMNS, CELL_M, LENGTH = 7, 11, 0.5, 12
SHAPE, CELLS = (ROWS, COLUMNS), ROWS * COLUMNS
# The right partner scores 12, all strangers together about 4: the score of "nobody" is between.
SURE, NOBODY = 12.0, 8.0
PLACES = ground_places(ROWS, COLUMNS, CELL_M, torch.zeros(1))


def planted(*people: tuple[int, int, int]) -> Described:
    """Person k, who looks like nobody else, in cell (row, column), of each (k, row, column)."""
    descriptor, nobody = torch.zeros(1, LENGTH, CELLS), torch.full((1, CELLS), NOBODY)
    for k, row, column in people:
        descriptor[0, k, row * COLUMNS + column] = 1.0
    return Described(descriptor, nobody, torch.ones(1, CELLS))


def sure(**more: Any) -> ColumnMatcher:
    matcher = ColumnMatcher(**more).requires_grad_(False)
    matcher.log_scale.fill_(math.log(SURE))
    return matcher


def found(first: Described, second: Described, sigma: float, *parts: str) -> Matches:
    matcher = sure(everybody="everybody" in parts, mutual="mutual" in parts, sharp="sharp" in parts)
    return match_in_rounds(matcher, first, second, torch.tensor([sigma]), PLACES, SHAPE, parts)


BEFORE = planted((0, 1, 2), (1, 5, 8), (2, 3, 4), (3, 6, 0))
AFTER = planted((0, 1, 5), (1, 2, 8), (2, 4, 3), (4, 0, 10))  # 3 has gone, 4 has come
WENT = {(1, 2): (1, 5), (5, 8): (2, 8), (3, 4): (4, 3)}


@pytest.mark.parametrize("parts", [(), ("coarse-to-fine",), ("iterated",), ("coarse-to-fine", "iterated")])
def test_planted_people_are_followed_in_any_number_of_rounds(parts: tuple[str, ...]) -> None:
    matches = found(BEFORE, AFTER, 4.0, *parts)
    flow, similarity = matches.flow_m.reshape(*SHAPE, 2), matches.similarity.reshape(SHAPE)
    accounted = matches.accounted.reshape(SHAPE)
    for (row, column), (to_row, to_column) in WENT.items():
        expected = torch.tensor([(to_column - column) * CELL_M, (to_row - row) * CELL_M])
        assert torch.allclose(flow[row, column], expected, atol=0.1), (row, column)
        assert similarity[row, column] > 0.9 and accounted[to_row, to_column] > 0.9
    assert similarity[6, 0] < 0.5 and accounted[0, 10] < 0.5


def test_another_round_settles_on_one_of_two_doubles() -> None:
    """One and three metres away: the first round lands between them, the second near the first of them."""
    first, second = planted((0, 3, 2)), planted((0, 3, 4), (0, 3, 8))
    one, two = (
        found(first, second, 1.8, *parts).flow_m.reshape(*SHAPE, 2)[3, 2, 0] for parts in ((), ("iterated",))
    )
    assert one > 1.1 and abs(two - 1.0) < 0.3 * abs(one - 1.0)


def test_a_sharp_match_goes_all_the_way_to_one_of_two_doubles_and_counts_less() -> None:
    first, second = planted((0, 3, 2)), planted((0, 3, 4), (0, 3, 8))
    alone = planted((0, 3, 4))
    plain, sharp, certain = (
        found(first, other, 1.8, *parts)
        for other, parts in ((second, ()), (second, ("sharp",)), (alone, ("sharp",)))
    )
    here = 3 * COLUMNS + 2
    assert plain.moved_m[0, here, 0] > 1.1 and sharp.moved_m[0, here, 0].item() == pytest.approx(
        1.0, abs=0.02
    )
    assert certain.similarity[0, here] > 0.9 > sharp.similarity[0, here] + 0.1
    assert (sharp.flow_m == sharp.moved_m).all()
    # In doubt whether there is a partner, a plain flow stops on the way to it.
    doubtful = planted((0, 3, 2))
    doubtful.nobody[0, here] = SURE
    half, full = (found(doubtful, alone, 1.8, *parts) for parts in ((), ("sharp",)))
    assert half.flow_m[0, here, 0] < 0.6 and full.flow_m[0, here, 0].item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("parts", [("subcell",), ("subcell", "sharp"), ("subcell", "sharp", "mutual")])
def test_flow_is_from_where_people_stand_to_where_they_stand(parts: tuple[str, ...]) -> None:
    """Not from the middle of one cell to the middle of another; without gradients, to the last digits."""
    first, second = planted((0, 3, 2), (1, 5, 8)), planted((0, 3, 4), (1, 5, 8))
    shifts = torch.zeros(2, 1, CELLS, 2)
    shifts[0, 0, 3 * COLUMNS + 2], shifts[1, 0, 3 * COLUMNS + 4] = torch.tensor([[0.2, -0.1], [-0.15, 0.2]])
    here, there = (replace(v, shift_m=shift) for v, shift in zip((first, second), shifts, strict=True))
    plain, told = found(first, second, 1.8, *parts), found(here, there, 1.8, *parts)
    with torch.no_grad():
        again = found(here, there, 1.8, *parts)
    where = 3 * COLUMNS + 2
    more = (told.moved_m - plain.moved_m)[0, where]
    assert more.tolist() == pytest.approx([-0.35, 0.3], abs=0.03)
    # Who is whose partner is the same, and whoever stands in the middle goes to the middle.
    assert torch.allclose(told.accounted, plain.accounted)
    assert (told.moved_m - plain.moved_m)[0, 5 * COLUMNS + 8].abs().max() < 0.03
    torch.testing.assert_close(again.moved_m, told.moved_m)


def test_where_people_stand_is_told_by_a_layer_that_says_nothing_at_first() -> None:
    plain, told = made(), made("subcell")
    told.load_state_dict(plain.state_dict(), strict=False)
    for method in (plain, told):
        method.eval()
    answers = [m.fuse(*given(), ("column",)).density["column"] for m in (plain, told)]
    assert torch.allclose(*answers, atol=1e-6)
    assert told.column is not None
    torch.nn.init.constant_(told.column.subcell.out.bias, 9.0)
    described = told.fuse(*given(), ()).described
    assert described is not None and described.shift_m is not None
    # Nobody whom a cell shows stands farther than a metre from its middle.
    assert (
        described.shift_m.shape[-1] == 2 and described.shift_m.min() > 0.99 and described.shift_m.max() <= 1
    )


def test_mutual_partners_leave_each_other_what_is_theirs() -> None:
    """Two who look alike: one stands where a double is, the other has a double there and one far behind."""
    first, second = planted((0, 3, 2), (0, 3, 4)), planted((0, 3, 4), (0, 3, 0))
    for parts, least in (((), 0.3), (("sharp",), 0.9)):
        taken, shared = (found(first, second, 1.0, *p) for p in ((*parts, "mutual"), parts))
        middle, stands = 3 * COLUMNS + 2, 3 * COLUMNS + 4
        assert abs(shared.moved_m[0, middle, 0]) < 0.05  # both are as far off
        assert taken.moved_m[0, middle, 0] < -least
        assert abs(taken.moved_m[0, stands, 0]) < 0.1


def test_large_cells_lie_in_the_middle_of_those_they_are_made_of() -> None:
    large = coarser_places(PLACES, SHAPE).reshape(4, 6, 2)
    assert large[0, 0].tolist() == pytest.approx([CELL_M, CELL_M])
    assert large[1, 2].tolist() == pytest.approx([5 * CELL_M, 3 * CELL_M])
    assert large[3, 5].tolist() == pytest.approx(
        [10.5 * CELL_M, 6.5 * CELL_M]
    )  # one small cell at the corner
    flow = torch.arange(48.0).reshape(1, 24, 2)
    fine = finer_flow(flow, SHAPE).reshape(*SHAPE, 2)
    assert (fine[2:4, 4:6] == flow[0, 1 * 6 + 2]).all() and (fine[6, 10] == flow[0, 23]).all()


def test_coarse_to_fine_keeps_to_where_the_large_cells_led() -> None:
    """Two people walk together; the one's double near home is believed by one round, not by two."""
    first = planted((0, 2, 2), (1, 3, 3))
    second = planted((0, 2, 6), (1, 3, 7), (1, 3, 4))
    one = found(first, second, 1.5).flow_m.reshape(*SHAPE, 2)[3, 3, 0]
    two = found(first, second, 1.5, "coarse-to-fine").flow_m.reshape(*SHAPE, 2)[3, 3, 0]
    assert one < 0.8 and two > 1.4  # they went 2 m; the double stands at half a metre


def test_everybody_has_a_partner_without_the_outcome_nobody() -> None:
    first, second = planted((0, 1, 2), (3, 6, 0)), planted((0, 1, 5))
    first.inside[0, :3] = 0.0
    matches = found(first, second, 4.0, "everybody")
    assert matches.similarity[0].tolist() == first.inside[0].tolist()
    assert (matches.accounted == 1).all()
    assert matches.flow_m.reshape(*SHAPE, 2)[1, 2].tolist() == pytest.approx([1.5, 0.0], abs=0.02)
    second.inside.zero_()  # a view that looks nowhere has nobody to offer
    matches = found(first, second, 4.0, "everybody")
    assert matches.similarity.max() == 0 == matches.accounted.max() == matches.flow_m.abs().max()


def test_who_has_no_partner_teaches_nothing_without_the_outcome_nobody() -> None:
    cells = np.array([[1 * COLUMNS + 2, 6 * COLUMNS]])
    rows = PartnerRows(
        *(np.array([v]) for v in (0, 0, 1)),
        cells,
        np.zeros((1, 2, 2), np.float32),
        np.array([[1, 0]], np.float32),
    )
    for everybody in (False, True):
        descriptor = torch.randn(
            1, 2, LENGTH, CELLS, generator=torch.Generator().manual_seed(1), requires_grad=True
        )
        described = Described(descriptor, torch.zeros(1, 2, CELLS), torch.ones(1, 2, CELLS))
        model = CountingModel(
            ModelConfig(methods=("column",), column_parts=("everybody",) if everybody else ())
        )
        assert model.column is not None
        loss, _ = partner_loss(
            model.column, described, rows, torch.zeros(1, 2), torch.ones(1, 2), SHAPE, CELL_M
        )
        loss.backward()
        assert descriptor.grad is not None
        taught = descriptor.grad[0, 0].abs().amax(dim=0)
        assert taught[cells[0, 0]] > 0 and (taught[cells[0, 1]] > 0) == (not everybody)


def test_nobody_walks_faster_than_the_limit_and_at_offset_zero_nothing_moves() -> None:
    flow = torch.randn(1, 4, 3, 5, 2, generator=torch.Generator().manual_seed(2)) * 4.0
    flow[0, :, 0, 0] = 0.0
    offset, known = torch.tensor([[0.0, 0.5, -0.5, 0.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    limited = speed_limit(flow, offset, known)
    assert (limited[0, 0] == 0).all() and (limited[0, 3] == flow[0, 3]).all()
    length, before = limited[0, 1:3].norm(dim=-1), flow[0, 1:3].norm(dim=-1)
    reach = FASTEST_M_S * 0.5
    assert torch.allclose(length, before.clamp_max(reach), atol=1e-5)
    assert torch.allclose(
        F.cosine_similarity(limited[0, 1:3], flow[0, 1:3], dim=-1)[before > 0], torch.tensor(1.0)
    )


VIEWS, HEIGHTS, CHANNELS = 3, 3, 4


def made(*parts: str) -> CountingModel:
    torch.manual_seed(3)
    config = ModelConfig(
        methods=("column",),
        channels=CHANNELS,
        heights=HEIGHTS,
        width=16,
        cell_m=CELL_M / 2,
        column_parts=parts,
    )
    return CountingModel(config).train()


def given(offset: float = 1.0) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(5)
    features = torch.rand(1, VIEWS, CHANNELS, 9, 14, generator=g)
    grids = torch.rand(1, VIEWS, HEIGHTS, 2 * ROWS, 2 * COLUMNS, 2, generator=g) * 1.8 - 0.9
    return features, grids, torch.ones(1, VIEWS), torch.tensor([[0.0, offset, -offset]])


def test_end_to_end_changes_gradients_only() -> None:
    answers = []
    for parts in ((), ("end-to-end",)):
        model = made(*parts)
        density = model.fuse(*given(), ("column",)).density["column"]
        density.square().sum().backward()
        assert model.column is not None
        reached = model.column.matcher.log_scale.grad
        assert (reached is not None and reached.abs() > 0) == bool(parts)
        answers.append(density.detach())
    assert torch.allclose(answers[0], answers[1], atol=1e-6)


def _keep(into: list[tuple[Any, ...]], module: nn.Module, inputs: tuple[Any, ...]) -> None:
    into.append(inputs)


@pytest.mark.parametrize("method", ["column", "column-2"])
def test_what_a_sharp_match_brings_weighs_as_much_as_the_match(method: str) -> None:
    for training in (True, False):
        torch.manual_seed(3)
        sizes: dict[str, Any] = {"channels": CHANNELS, "heights": HEIGHTS, "width": 16, "cell_m": CELL_M / 2}
        model = CountingModel(ModelConfig(methods=(method,), column_parts=("sharp",), **sizes)).train(
            training
        )
        assert model.column is not None
        fused: list[tuple[Any, ...]] = []
        model.heads[method].fusion.register_forward_pre_hook(partial(_keep, fused))
        model.fuse(*given(), (method,))
        moved = fused[0][1]
        assert isinstance(moved, Synchronised)
        ground = model.project(*given()[:3]).features[:, 1:].flatten(0, 1)
        whole = warp_ground(ground, moved.flow_m.flatten(0, 1), CELL_M).unflatten(0, (1, VIEWS - 1))
        assert torch.allclose(moved.warped, whole * moved.evidence[:, :, :1], atol=1e-5)
        assert 0 < moved.evidence[:, :, 0].max() <= 1


def test_shared_descriptors_are_read_off_the_ground_features() -> None:
    own, shared = made(), made("shared")
    assert own.column is not None and shared.column is not None
    sizes = [sum(w.numel() for w in m.column.descriptor.parameters()) for m in (own, shared) if m.column]
    assert sizes[1] == 33 * (16 + 1) < sizes[0] / 10
    answer = shared.fuse(*given(), ())
    assert answer.described is not None
    answer.described.descriptor[..., 0].square().sum().add(answer.described.nobody.sum()).backward()
    reached = [w.grad is not None and bool(w.grad.abs().max() > 0) for w in shared.ground.parameters()]
    assert any(reached)


def test_between_frames_of_one_instant_the_limited_model_moves_nothing() -> None:
    for parts in ((), ("speed-limit",), ("speed-limit", "coarse-to-fine", "iterated")):
        answer = made(*parts).eval().fuse(*given(0.0), ("column",))
        assert answer.synchronised is not None
        moved = answer.synchronised.flow_m.abs().max()
        assert (moved == 0) == ("speed-limit" in parts)


def test_parts_that_cannot_be_are_refused_and_plain_ones_leave_no_trace() -> None:
    assert "column_parts" not in ModelConfig(methods=("column",)).as_dict()
    kept = ModelConfig(methods=("column",), column_parts=COLUMN_PARTS)
    assert ModelConfig.from_dict(kept.as_dict()) == kept
    for wrong, why in ((("faster",), "do not know faster"), (("shared", "shared"), "once each")):
        with pytest.raises(ValueError, match=why):
            ModelConfig(methods=("column",), column_parts=wrong)
    with pytest.raises(ValueError, match="of the methods column and column-2"):
        ModelConfig(methods=("none",), column_parts=("shared",))
    assert ModelConfig(methods=("column-2",), column_parts=MATCHER_PARTS).column_parts == MATCHER_PARTS
    with pytest.raises(ValueError, match=r"column-2 has not shared.*choose from mutual, sharp"):
        ModelConfig(methods=("column", "column-2"), column_parts=("shared", "sharp"))
