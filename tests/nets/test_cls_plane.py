"""`cls-plane` by its laws, with people planted whose place in both views, and so whose flow, is known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calib.camera import Camera
from calib.epipolar import fundamental_matrix
from calib.planes import plane_maps
from viewsync.nets.cls_plane import (
    MOST_SCORES,
    PlaneFlow,
    PlaneSynchroniser,
    evidence_of,
    unit_candidates,
)
from viewsync.nets.synchronisers import Candidates, Timing
from viewsync.sim.scenes import look_at

HEIGHTS_M = (0.1, 0.45, 0.85, 1.2, 1.5, 1.75)
PARTS = len(HEIGHTS_M)
# Every part of three people has its own channel.
CHANNELS = 3 * PARTS
# The reference's features and view i's: no side equals another, so that nothing transposed fits.
FIRST, SECOND = (48, 64), (54, 80)


def cameras() -> tuple[Camera, Camera]:
    reference = look_at((-3.0, -3.0, 4.0), (3.6, 2.6, 0.0), 75.0, FIRST[::-1], (0.0,) * 5)
    return reference, look_at((11.0, -2.5, 4.2), (4.4, 2.8, 0.0), 60.0, SECOND[::-1], (0.0,) * 5)


def geometry() -> tuple[Tensor, Tensor]:
    """F (1, 3, 3) and plane maps (1, Z, 4, 3)."""
    reference, view = cameras()
    F = torch.tensor(fundamental_matrix(reference, view), dtype=torch.float32)
    return F[None], torch.from_numpy(plane_maps(view, reference, HEIGHTS_M))[None]


class Planted(nn.Module):
    """Stands where descriptors are made: parts of people are channels already, and say how high they are."""

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features, 8.0 * features.unflatten(1, (3, PARTS)).amax(dim=1) - 8.0


def flow_net(stride: int = 1) -> PlaneFlow:
    net = PlaneFlow(CHANNELS, PARTS, stride)
    net.descriptor = Planted()  # type: ignore[assignment]
    with torch.no_grad():
        net.log_scale.fill_(3.0)
        net.nobody.fill_(6.0)
    return net.eval()


def standing(camera: Camera, people: dict[int, tuple[float, float]]) -> Tensor:
    """Person k's part j is a blob in channel k·Z + j, at height j above (x, y) metres: (1, C, h, w)."""
    features = torch.zeros(1, CHANNELS, camera.height, camera.width)
    rows, columns = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
    for k, (x, y) in people.items():
        for j, z in enumerate(HEIGHTS_M):
            px, py = camera.project(np.array([x, y, z]))
            blob = torch.exp(-0.5 * ((columns - px) ** 2 + (rows - py) ** 2) / 2.2**2)
            features[0, k * PARTS + j] = blob
    return features


def test_candidates_are_in_the_unit_disc_and_never_more_scores_than_allowed() -> None:
    for heights in range(1, 20):
        unit = unit_candidates(heights)
        assert heights * len(unit) <= MOST_SCORES and unit.norm(dim=1).max() <= 1 + 1e-6
        assert (unit.norm(dim=1) < 1e-6).sum() == 1  # one moves nothing
        assert torch.allclose(unit.sum(dim=0), torch.zeros(2), atol=1e-5)
    assert len(unit_candidates(6)) == 57
    with pytest.raises(ValueError, match="40 heights leave no candidates"):
        unit_candidates(40)


def test_candidates_lie_along_the_epipolar_line_of_the_partners_over_every_height() -> None:
    F, planes = geometry()
    net = flow_net(2)
    where = net.search(F, planes, torch.tensor([2.0]), SECOND)
    rows, columns = 27, 40
    assert where.shift.shape == (1, 57, rows * columns, 2)
    for row, column in ((13, 20), (20, 9), (18, 33)):
        n = row * columns + column
        assert where.centre[n].tolist() == [2 * column + 0.5, 2 * row + 0.5]
        shift = where.shift[0, :, n]
        middle = shift.norm(dim=1).argmin()
        assert shift[middle].abs().max() < 1e-4
        # The whole middle row of candidates lies on the epipolar line of each partner.
        for partner in where.partner[0, :, n]:
            line = F[0] @ torch.tensor([*partner.tolist(), 1.0])
            line = line / line[:2].norm()
            on = (where.centre[n] + shift[19:38]) @ line[:2] + line[2]
            assert on.abs().max() < 0.02
        # The farthest is as far as two metres are there, at the height in the middle.
        depth = float(1.0 / (planes[0, 3, 3] @ torch.tensor([*where.centre[n].tolist(), 1.0])))
        assert shift.norm(dim=1).max().item() * depth == pytest.approx(2.0, rel=1e-4)
        assert where.looks[0, :, n].all()


@pytest.mark.parametrize("stride", [1, 2])
def test_planted_people_are_found_where_they_went(stride: int) -> None:
    reference, view = cameras()
    before = {0: (3.0, 1.5), 1: (3.5, 4.0), 2: (6.5, 0.5)}
    now = {0: (4.2, 1.9), 1: (3.5, 4.0)}  # 0 walks, 1 stands, 2 has left
    net = flow_net(stride)
    with torch.no_grad():
        log_share, _, flow = net(
            standing(reference, before), standing(view, now), *geometry(), torch.tensor([2.0])
        )
    assert flow.shape == (1, 2, -(-SECOND[0] // stride), -(-SECOND[1] // stride))
    assert log_share.exp().sum(dim=1).sub(1).abs().max() < 1e-4
    for k, (x, y) in now.items():
        for z in (0.45, 0.85, 1.2):
            here = (view.project(np.array([*before[k], z])) + 0.5) / stride - 0.5
            true = (view.project(np.array([x, y, z])) + 0.5) / stride - 0.5 - here
            column, row = np.rint(here).astype(int)
            found = flow[0, :, row, column].numpy()
            # Candidates are up to four places apart across the line, and the soft arg-max lies between.
            assert np.linalg.norm(found - true) < 2.0 / stride, (k, z)
            assert log_share[0, -1, row, column] < -1.0
    column, row = np.rint((view.project(np.array([6.5, 0.5, 0.85])) + 0.5) / stride - 0.5).astype(int)
    assert log_share[0, -1, row, column] > -0.5  # nobody
    assert flow[0, :, row, column].norm() < 1.5


def test_the_warp_brings_a_walker_back() -> None:
    _, view = cameras()
    before, now = {0: (3.0, 1.5), 1: (3.5, 4.0)}, {0: (4.2, 1.9), 1: (3.5, 4.0)}
    net = PlaneSynchroniser(CHANNELS, PARTS, 1).eval()
    net.pair = flow_net()
    # Views of one size, as they cross the wire.
    larger = look_at((-3.0, -3.0, 4.0), (3.6, 2.6, 0.0), 75.0, SECOND[::-1], (0.0,) * 5)
    F = torch.tensor(fundamental_matrix(larger, view), dtype=torch.float32)
    planes = torch.from_numpy(plane_maps(view, larger, HEIGHTS_M))
    wanted, given = (standing(view, people)[0] for people in (before, now))
    features = torch.stack([standing(larger, before)[0], given])[None]
    timing = Timing(torch.ones(1, 2), torch.tensor([[0.0, 1.2]]), torch.ones(1, 2))
    with torch.no_grad():
        geometry_ = (torch.stack([F * 0, F])[None], torch.stack([planes * 0, planes])[None])
        moved = net(features, *geometry_, timing)
    assert torch.equal(moved.features[:, 0], features[:, 0]) and moved.strides == (1,)
    for j, z in enumerate(HEIGHTS_M):
        column, row = np.rint(view.project(np.array([3.0, 1.5, z]))).astype(int)
        assert given[j, row, column] < 0.1 and wanted[j, row, column] > 0.8
        assert moved.features[0, 1, j, row, column] > 0.5, z


def learned(seed: int = 1) -> PlaneSynchroniser:
    """As if it had learned something."""
    torch.manual_seed(seed)
    net = PlaneSynchroniser(CHANNELS, PARTS, 2).eval()
    nn.init.normal_(net.pair.add.weight, std=0.3)
    return net


def inputs(views: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(4)
    F, planes = geometry()
    return (
        torch.rand(1, views, CHANNELS, *SECOND, generator=g),
        F.expand(views, 3, 3)[None],
        planes.expand(views, PARTS, 4, 3)[None],
    )


def moved_px(offset_s: float, known: float = 1.0) -> tuple[Tensor, PlaneSynchroniser]:
    net = learned()
    offsets = torch.tensor([[0.0, offset_s]])
    with torch.no_grad():
        moved = net(*inputs(2), Timing(torch.ones(1, 2), offsets * known, torch.tensor([[1.0, known]])))
    return moved.flow_px[0][0, 0], net


def test_at_the_same_instant_nothing_moves_beyond_sigma_0() -> None:
    F, planes = geometry()
    flow, net = moved_px(0.0)
    walk, least, unknown = net.pair.log_reach.exp().tolist()
    where = net.pair.search(F, planes, torch.tensor([1.0]), SECOND)
    per_metre = where.shift[0].norm(dim=2).amax(dim=0).reshape(flow.shape[:2]) / 2  # of the flow's grid
    assert flow.norm(dim=2).max() > 0.1
    assert (flow.norm(dim=2) <= least * per_metre * 1.0001 + 1e-6).all()
    later, _ = moved_px(2.0)
    assert (later.norm(dim=2) <= (2 * walk + least) * per_metre * 1.0001 + 1e-6).all()
    assert later.norm(dim=2).max() > flow.norm(dim=2).max()
    earlier, _ = moved_px(-2.0)
    assert torch.equal(later, earlier)  # who walks where in |δ| is the same for both signs
    not_known, _ = moved_px(2.0, known=0.0)
    assert (not_known.norm(dim=2) <= unknown * per_metre * 1.0001 + 1e-6).all()


def test_an_absent_view_has_no_geometry_and_is_not_moved() -> None:
    # In 64 bit: how many views are computed together changes the order of sums.
    features, F, planes = (part.double() for part in inputs(3))
    net, one = learned().double(), torch.ones(1, 3, dtype=torch.float64)
    timing = Timing(one * torch.tensor([[1.0, 0.0, 1.0]]), one * torch.tensor([[0.0, 0.0, 1.0]]), one)
    gone = one[0].mul(torch.tensor([1.0, 0.0, 1.0])).reshape(1, 3, 1, 1)
    with torch.no_grad():
        moved = net(features * gone.unsqueeze(4), F * gone, planes * gone.unsqueeze(4), timing)
        alone = net(
            features[:, [0, 2]],
            F[:, [0, 2]],
            planes[:, [0, 2]],
            Timing(one[:, :2], one[:, :2] * torch.tensor([[0.0, 1.0]]), one[:, :2]),
        )
    assert moved.flow_px[0][0, 0].abs().max() == 0 and torch.isfinite(moved.features).all()
    assert torch.allclose(moved.features[:, 2], alone.features[:, 1], atol=1e-6)


def test_evidence_stands_on_the_ground_at_the_height_that_is_surest() -> None:
    log_share = torch.log(
        torch.tensor([[[[[0.1, 0.9]], [[0.9, 0.1]]]]])
    )  # one candidate, nobody; 1 × 2 places
    candidates = Candidates(log_share, torch.zeros(1, 1, 1, 1, 2, 2))
    left, right, outside = (-0.5, 0.0), (0.5, 0.0), (3.0, 0.0)
    heights = torch.tensor([[left, left, outside, outside], [left, right, left, outside]])  # (Z, 4, 2)
    grids = heights.repeat_interleave(2, dim=1).reshape(1, 1, 2, 1, 8, 2).expand(1, 1, 2, 2, 8, 2)
    evidence = evidence_of(candidates, grids)
    assert evidence.shape == (1, 1, 3, 1, 4)
    np.testing.assert_allclose(evidence[0, 0, 0, 0], [0.1, 0.9, 0.1, 0.0], atol=1e-6)
    assert evidence[:, :, 1:].abs().max() == 0
