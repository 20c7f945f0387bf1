"""Laws of `column-2`: what a view's frame before may say, what must not matter, and what it falls back on."""

import pytest
import torch
from torch import Tensor

from viewsync.nets.descriptors import Described
from viewsync.nets.matching import ColumnMatcher
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.nets.synchronisers import Synchronised, Timing
from viewsync.nets.two_frames import Before, TwoFrames, TwoFrameSynchroniser, Walk
from viewsync.nets.warp import ground_places, splat, warp_ground

VIEWS, CHANNELS, HEIGHT, WIDTH, HEIGHTS, ROWS, COLUMNS = 4, 5, 9, 14, 3, 12, 20
# Densities are about 0.02 people per cell here; sums in another order differ in the last bits of float32.
SAME = 2e-6
SLOTS = ("features", "grids", "present", "offset_s", "before", "before_present", "before_s")


@pytest.fixture(scope="module", params=[(), ("subcell",)], ids=["plain", "subcell"])
def model(request: pytest.FixtureRequest) -> CountingModel:
    torch.manual_seed(3)
    sizes = {"channels": CHANNELS, "heights": HEIGHTS, "width": 16, "cell_m": 0.4}
    methods = ("column", "column-2")
    made = CountingModel(ModelConfig(methods=methods, column_parts=request.param, **sizes)).eval()  # type: ignore[arg-type]
    assert made.column is not None
    with torch.no_grad():
        if made.column.subcell is not None:  # which says nothing at first
            made.column.subcell.out.weight.normal_()
        for head in made.heads.values():
            head.decoder.out.weight.mul_(6.0)  # type: ignore[union-attr,operator]
    return made


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(5)
    return {
        "features": torch.rand(1, VIEWS, CHANNELS, HEIGHT, WIDTH, generator=g),
        "grids": torch.rand(1, VIEWS, HEIGHTS, ROWS, COLUMNS, 2, generator=g) * 2.4 - 1.2,
        "present": torch.ones(1, VIEWS),
        "offset_s": torch.tensor([[0.0, 1.4, -2.1, 0.3]]),
        "before": torch.rand(1, VIEWS, CHANNELS, HEIGHT, WIDTH, generator=g),
        "before_present": torch.ones(1, VIEWS),
        "before_s": torch.tensor([[0.5, 1.0, 2.0, 0.7]]),
    }


def answer(model: CountingModel, inputs: dict[str, Tensor]) -> Tensor:
    before = Before(inputs["before"], inputs["before_present"], inputs["before_s"])
    with torch.no_grad():
        given = (inputs[k] for k in SLOTS[:4])
        return model.fuse(*given, ("column-2",), before=before).density["column-2"][0]


def changed(inputs: dict[str, Tensor], slot: int, **parts: Tensor | float) -> dict[str, Tensor]:
    out = {key: value.clone() for key, value in inputs.items()}
    for key, value in parts.items():
        out[key][:, slot] = value
    return out


def test_the_order_of_the_other_views_does_not_matter(
    model: CountingModel, inputs: dict[str, Tensor]
) -> None:
    shuffled = {key: value[:, [0, 3, 1, 2]] for key, value in inputs.items()}
    assert torch.allclose(answer(model, inputs), answer(model, shuffled), atol=SAME)


@pytest.mark.parametrize("rubbish", [7.0, float("nan"), float("inf")])
def test_nothing_that_an_absent_slot_or_frame_holds_matters(
    model: CountingModel, inputs: dict[str, Tensor], rubbish: float
) -> None:
    absent = changed(inputs, 2, present=0.0)
    spoiled = changed(absent, 2, before=rubbish, before_s=rubbish, before_present=1.0, features=rubbish)
    assert torch.allclose(answer(model, absent), answer(model, spoiled), atol=SAME)
    without = changed(inputs, 1, before_present=0.0)
    spoiled = changed(without, 1, before=rubbish, before_s=rubbish)
    assert torch.allclose(answer(model, without), answer(model, spoiled), atol=SAME)
    assert answer(model, spoiled).isfinite().all()


def test_an_absent_view_is_like_none(model: CountingModel, inputs: dict[str, Tensor]) -> None:
    fewer = {key: value[:, :3] for key, value in inputs.items()}
    padded = changed(inputs, 3, present=0.0)
    assert torch.allclose(answer(model, fewer), answer(model, padded), atol=SAME)


def test_every_frame_before_matters(model: CountingModel, inputs: dict[str, Tensor]) -> None:
    base = answer(model, inputs)
    for slot in range(VIEWS):
        assert (answer(model, changed(inputs, slot, before_present=0.0)) - base).abs().max() > 10 * SAME, slot
    assert (answer(model, changed(inputs, 1, before_s=2.5)) - base).abs().max() > 10 * SAME


def test_a_batch_is_its_snapshots(model: CountingModel, inputs: dict[str, Tensor]) -> None:
    other = changed(changed(inputs, 1, before_present=0.0), 2, before_s=0.4)
    both = {key: torch.cat([inputs[key], other[key]]) for key in inputs}
    with torch.no_grad():
        before = Before(both["before"], both["before_present"], both["before_s"])
        found = model.fuse(*(both[k] for k in SLOTS[:4]), ("column-2",), before=before).density["column-2"]
    assert torch.allclose(found, torch.stack([answer(model, inputs), answer(model, other)]), atol=SAME)


@pytest.mark.parametrize("known", [True, False])
def test_without_frames_before_it_finds_what_column_finds(
    model: CountingModel, inputs: dict[str, Tensor], known: bool
) -> None:
    given = [inputs[k] for k in SLOTS[:4]]
    if not known:
        given[3] = torch.full_like(given[3], 1000.0)
    with torch.no_grad():
        one = model.fuse(*given, ("column",)).synchronised
        two = model.fuse(*given, ("column-2",)).synchronised
    assert one is not None and two is not None
    assert torch.allclose(one.flow_m, two.flow_m, atol=1e-4)  # metres
    assert torch.allclose(one.evidence, two.evidence[:, :, :3], atol=1e-5)
    assert torch.equal(one.unmoved, two.unmoved) and not two.evidence[:, :, 3:].any()


# --- the ways people are carried --------------------------------------------------------------------------


def test_where_people_stand_is_told_alike_of_both_frames_and_teaches_the_ground_nothing() -> None:
    torch.manual_seed(3)
    sizes = {"channels": CHANNELS, "heights": HEIGHTS, "width": 16, "cell_m": 0.4}
    model = CountingModel(ModelConfig(methods=("column-2",), column_parts=("subcell",), **sizes)).train()  # type: ignore[arg-type]
    assert model.column is not None and model.column.subcell is not None
    torch.nn.init.normal_(model.column.subcell.out.weight)
    g = torch.Generator().manual_seed(5)
    features = torch.rand(1, VIEWS, CHANNELS, HEIGHT, WIDTH, generator=g)
    grids = torch.rand(1, VIEWS, HEIGHTS, ROWS, COLUMNS, 2, generator=g) * 2.4 - 1.2
    there, offset_s = torch.ones(1, VIEWS), torch.tensor([[0.0, 1.4, -2.1, 0.3]])
    same = Before(features, there, torch.ones(1, VIEWS))
    found = model.fuse(features, grids, there, offset_s, ("column-2",), before=same).two_frames
    assert found is not None and found.described.shift_m is not None and found.earlier.shift_m is not None
    assert found.described.shift_m.std() > 0.1
    torch.testing.assert_close(found.earlier.shift_m, found.described.shift_m)
    (found.described.shift_m.sum() + found.earlier.shift_m.sum()).backward()
    taught = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert taught and all(name.startswith("column.subcell.") for name in taught)


def test_carrying_is_the_adjoint_of_sampling() -> None:
    g = torch.Generator().manual_seed(1)
    features, probe = (torch.rand(2, 3, 6, 9, generator=g) for _ in range(2))
    flow = torch.randn(2, 6, 9, 2, generator=g)
    target = ground_places(6, 9, 0.5, features) + flow.reshape(2, -1, 2)
    sampled = warp_ground(probe, flow, 0.5)
    assert torch.allclose((splat(features, target, 0.5) * probe).sum(), (features * sampled).sum(), rtol=1e-5)
    still = ground_places(6, 9, 0.5, features).expand(2, -1, -1)
    assert torch.allclose(splat(features, still, 0.5), features, atol=1e-6)


def test_an_even_walk_is_carried_to_where_it_leads_and_no_two_frames_are_doubted_at_their_own_instants() -> (
    None
):
    walking = TwoFrameSynchroniser(jitter_m=0.1, change_m_s2=0.3)
    places = ground_places(2, 2, 1.0, torch.zeros(1))
    # Everybody walked (0.5, −0.25) m in 0.5 s, so a cell's people were that much further back.
    moved = torch.tensor([-0.5, 0.25]).expand(1, 4, 2)
    walk = Walk(moved, torch.ones(1, 4), torch.tensor([0.5]))
    with torch.no_grad():
        for offset in (2.0, 0.0, -0.5, -1.0):
            place, sigma = walking.ahead(walk, torch.tensor([offset]), places)
            assert torch.allclose(place[0], places + offset * torch.tensor([1.0, -0.5]), atol=1e-6)
            if offset in (0.0, -0.5):
                assert sigma.item() == pytest.approx(0.1)
        far, near = (walking.ahead(walk, torch.tensor([s]), places)[1] for s in (3.0, 1.0))
    assert far > near > 0.1


def walker(now: tuple[int, int], then: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    """Descriptors (2, N) of a view that shows one person on 8 by 12 cells of empty ground, and those of its
    earlier frame.
    """
    out = []
    for cell in (now, then):
        shown = torch.zeros(2, 8 * 12)
        shown[1] = 1.0
        if cell is not None:
            shown[:, cell[0] * 12 + cell[1]] = torch.tensor([1.0, 0.0])
        out.append(shown)
    return out[0], out[1]


def described(views: list[Tensor]) -> Described:
    stacked = torch.stack(views).unsqueeze(0)
    person = stacked[:, :, 0] > 0.5
    # Empty ground is sure to be nobody, a person is not.
    nobody = torch.where(person, torch.tensor(-4.0), torch.tensor(30.0))
    return Described(stacked, nobody, torch.ones_like(nobody))


def synchronise(now: list[Tensor], then: list[Tensor], offset_s: float, there: Tensor) -> Synchronised:
    """One batch of the reference and one other view; ground features show where people are."""
    rows, columns = 8, 12
    walking, matcher = TwoFrameSynchroniser(0.1, 0.1), ColumnMatcher()
    places = ground_places(rows, columns, 0.5, torch.zeros(1))
    ages = torch.tensor([[1.0, 1.0]])
    before = Before(torch.zeros(1, 2, 1, 1, 1), there, ages)
    with torch.no_grad():
        ours, earlier = described(now), described(then)
        walks = walking.walks(matcher, ours, earlier, before, places)
        ground = torch.stack(now).unsqueeze(0)[:, :, :1].reshape(1, 2, 1, rows, columns)
        timing = Timing(torch.ones(1, 2), torch.tensor([[0.0, offset_s]]), torch.ones(1, 2))
        return walking(matcher, TwoFrames(ours, earlier, walks), ground, timing, 0.5)


def test_somebody_whom_the_reference_does_not_see_is_put_where_they_have_walked() -> None:
    """View i saw them at column 3, then 5, a metre per second; the reference's instant is 2 s later."""
    nobody = walker((0, 0), None)[1]
    now, then = walker((4, 5), (4, 3))
    found = synchronise([nobody, now], [nobody, then], -2.0, torch.ones(1, 2))
    where = found.unmoved[0, 0, 0]
    assert where.argmax().item() == 4 * 12 + 9 and where[4, 9] > 0.9 and where[4, 5] < 0.1
    assert found.evidence[0, 0, 3].argmax().item() == 4 * 12 + 9
    # With one frame they stay where they were seen.
    still = synchronise([nobody, now], [nobody, then], -2.0, torch.zeros(1, 2))
    assert still.unmoved[0, 0, 0].argmax().item() == 4 * 12 + 5


@pytest.mark.parametrize("sides", [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_of_two_alike_the_one_on_the_way_is_the_partner(sides: tuple[float, float]) -> None:
    """The reference sees somebody at column 8; view i, 2 s before, two alike: at 4, walking there, and at 9,
    nearer, who walks away. Either side's velocity is enough to tell.
    """
    reference, right, wrong = walker((4, 8), (4, 6)), walker((4, 4), (4, 2)), walker((4, 9), (4, 7))

    def together(one: Tensor, other: Tensor) -> Tensor:
        out = one.clone()
        shown = other[0] > 0.5
        out[:, shown] = other[:, shown]
        return out

    two = [together(right[k], wrong[k]) for k in (0, 1)]
    there = torch.tensor([[sides[0], sides[1]]])
    found = synchronise([reference[0], two[0]], [reference[1], two[1]], -2.0, there)
    flow = found.flow_m[0, 0, 4, 8]
    assert flow[0].item() == pytest.approx(-2.0, abs=0.4) and abs(flow[1].item()) < 0.2  # metres
    plain = synchronise([reference[0], two[0]], [reference[1], two[1]], -2.0, torch.zeros(1, 2))
    assert plain.flow_m[0, 0, 4, 8, 0] > -1.0  # one frame rather takes the nearer one


def test_it_goes_by_capture_times_which_concat_ignores() -> None:
    with pytest.raises(ValueError, match="column-2 needs masked fusion"):
        ModelConfig(methods=("column-2",), fusion="concat", views=("a", "b"))
