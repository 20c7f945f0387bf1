"""The paper's synchronisers by number: Table I, Eq. 4–5, 10 and 14–18, on views whose grids differ in size,
with features planted whose partners, and so whose flow, are known.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calib.camera import Camera
from calib.epipolar import distance_weights, epipolar_lines, epipolar_weights, fundamental_matrix
from viewsync.nets.camera_level import (
    CameraSynchroniser,
    PairFlow,
    about_its_mean,
    concatenate,
    correlate,
    epipolar_weight,
)
from viewsync.nets.flow import FlowNet, coarser, up, up_correlation, up_flow, warp
from viewsync.nets.scene_level import SceneSynchroniser
from viewsync.nets.synchronisers import Columns, Timing

# The reference's grid and view i's: no side equals another, so that nothing transposed fits.
FIRST, SECOND = (5, 8), (6, 11)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def timing(batch: int, views: int) -> Timing:
    return Timing(torch.ones(batch, views), torch.zeros(batch, views), torch.ones(batch, views))


def planted(people: dict[int, tuple[int, int]], size: tuple[int, int], channels: int = 6) -> Tensor:
    """Person k is channel k, at a place (row, column) of a grid of `size`: (1, C, h, w)."""
    features = torch.zeros(1, channels, *size)
    for k, (row, column) in people.items():
        features[0, k, row, column] = 1.0
    return features


# --- Table I -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [32, 432])
def test_table_1_channel_by_channel(inputs: int) -> None:
    net = FlowNet(inputs)
    filters = [tuple(layer.weight.shape) for layer in net if isinstance(layer, nn.Conv2d)]
    assert filters == [
        (128, inputs, 5, 5),
        (128, 128, 5, 5),
        (64, 128, 5, 5),
        (64, 64, 5, 5),
        (32, 64, 5, 5),
        (2, 32, 5, 5),
    ]
    # The last layer is linear: a flow has both signs.
    assert isinstance(net[-1], nn.Conv2d) and sum(isinstance(layer, nn.Tanh) for layer in net) == 5
    assert net(noise(2, inputs, *SECOND)).shape == (2, 2, *SECOND)


def test_before_anything_is_learned_nothing_is_moved() -> None:
    assert FlowNet(4)(noise(1, 4, *SECOND)).abs().max() == 0


def test_table_1_s_first_layer_sees_a_correlation_that_is_never_made() -> None:
    """Filters times the reference's features, over view i's: what the correlation itself gives, and its
    gradients.
    """
    torch.manual_seed(0)
    net = FlowNet(5 * 8)
    nn.init.normal_(net[-1].weight, std=0.1)  # type: ignore[arg-type]
    nn.init.normal_(net[0].bias, std=0.1)  # type: ignore[arg-type]
    answers, gradients = [], []
    for made in (True, False):
        reference, other = noise(3, 7, *FIRST).requires_grad_(), noise(3, 7, *SECOND, seed=1).requires_grad_()
        flow = net(correlate(reference, other)) if made else net(other, reference)
        answers.append(flow)
        learns = [reference, other, *net.parameters()]
        gradients.append(torch.autograd.grad(flow.square().sum(), learns))
    assert answers[0].abs().max() > 0.1
    # Sums in another order: float32's rounding through six layers, and once more on the way back.
    assert torch.allclose(*answers, rtol=1e-4, atol=1e-5)
    for built, never_built in zip(*gradients, strict=True):
        assert torch.allclose(built, never_built, rtol=1e-3, atol=1e-4 * float(built.abs().max()))
    with pytest.raises(ValueError, match="66 places to correlate with, the network is for 40"):
        net(noise(1, 7, *FIRST), noise(1, 7, *SECOND))


# --- Eq. 5 and 10: W --------------------------------------------------------------------------------------


def test_eq_10_the_warp_samples_view_i_at_place_plus_flow() -> None:
    features = torch.arange(66.0).reshape(1, 1, *SECOND)
    flow = torch.zeros(1, 2, *SECOND)
    assert torch.allclose(warp(features, flow), features, atol=1e-4)  # grid_sample's own rounding
    flow[:, 0], flow[:, 1] = 3.0, -2.0  # x: three columns on; y: two rows back
    warped = warp(features, flow)
    assert torch.allclose(warped[..., 2:, :-3], features[..., :-2, 3:], atol=1e-4)
    assert warped[..., :2, :].abs().max() < 1e-4 and warped[..., -3:].abs().max() < 1e-4  # outside: nothing


# --- Eq. 14 to 16: what is matched ------------------------------------------------------------------------


def test_eq_14_concatenation_keeps_the_reference_first() -> None:
    first, second = noise(2, 3, *FIRST), noise(2, 3, *FIRST, seed=1)
    assert torch.equal(concatenate(first, second), torch.cat([first, second], dim=1))
    with pytest.raises(ValueError, match=r"features of one size, these are \(5, 8\) and \(6, 11\)"):
        concatenate(first, noise(2, 3, *SECOND))


def test_eq_15_correlation_has_view_i_s_places_and_the_reference_s_channels() -> None:
    first, second = noise(2, 7, *FIRST), noise(2, 7, *SECOND, seed=1)
    correlation = correlate(first, second)
    assert correlation.shape == (2, 5 * 8, 6, 11)
    for y, x, there_y, there_x in ((0, 0, 0, 0), (4, 7, 5, 10), (1, 6, 4, 2), (3, 0, 0, 9)):
        expected = (first[:, :, y, x] * second[:, :, there_y, there_x]).sum(dim=1)
        assert torch.allclose(correlation[:, y * 8 + x, there_y, there_x], expected, atol=1e-6)


def test_eq_15_of_planted_people_is_one_where_each_meets_itself() -> None:
    before, after = {0: (1, 6), 1: (4, 2), 2: (0, 0)}, {0: (5, 1), 1: (2, 10), 3: (3, 3)}
    correlation = correlate(planted(before, FIRST), planted(after, SECOND))[0]
    found = {tuple(index) for index in correlation.nonzero().tolist()}
    assert found == {(1 * 8 + 6, 5, 1), (4 * 8 + 2, 2, 10)}  # 2 has gone, 3 has come


# --- Eq. 17: the epipolar weight --------------------------------------------------------------------------


def cameras() -> tuple[Camera, Camera]:
    """Two pinhole cameras whose pictures are the two grids, eight times as fine."""
    made = []
    for (rows, columns), centre, yaw in (((40, 64), (0.0, 0.0), 0.15), ((48, 88), (2.5, 0.4), -0.25)):
        c, s = np.cos(yaw), np.sin(yaw)
        rotation = np.array([[c, -s, 0.0], [0.0, 0.0, -1.0], [s, c, 0.0]])
        position = np.array([centre[0], centre[1], 1.5])
        intrinsics = np.array([[60.0, 0, (columns - 1) / 2], [0, 60.0, (rows - 1) / 2], [0, 0, 1]])
        made.append(Camera(intrinsics, rotation, -rotation @ position, np.zeros(5), columns, rows))
    return made[0], made[1]


def test_eq_17_the_weight_is_the_mask_convolved_with_a_gaussian() -> None:
    first, second = cameras()
    F, sizes, sigma_px = fundamental_matrix(first, second), ((40, 64), (48, 88)), 5.0
    ours = epipolar_weight(torch.tensor(F, dtype=torch.float32)[None], *sizes, 1, sigma_px)[0].numpy()
    assert ours.shape == (40 * 64, 48, 88)
    mask = epipolar_weights(F, *sizes, sigma_px)
    # The mask's line ends at the border; away from it, it is a staircase around the straight line.
    inside = (slice(None), slice(15, -15), slice(15, -15))
    difference = np.abs(ours - mask)[inside]
    assert ours[inside].max() > 0.95
    assert difference.mean() < 0.01 and np.percentile(difference, 99) < 0.06


@pytest.mark.parametrize("stride", [2, 4])
def test_eq_17_coarser_grids_have_coarser_cameras(stride: int) -> None:
    """F between the finest grids, rescaled in the graph, against F of cameras with coarser pictures."""
    first, second = cameras()
    F = torch.tensor(fundamental_matrix(first, second), dtype=torch.float32)[None]
    coarse = [c.resized(c.width // stride, c.height // stride) for c in (first, second)]
    sizes = [(c.height, c.width) for c in coarse]
    between = fundamental_matrix(*coarse)
    expected = distance_weights(between, *sizes, 6.0 / stride)
    places = np.stack(np.meshgrid(np.arange(sizes[0][1]), np.arange(sizes[0][0])), axis=-1).reshape(-1, 2)
    steps = np.abs(epipolar_lines(between, places)[:, :2]).max(axis=1)
    ours = epipolar_weight(F, *sizes, stride, 6.0)[0].numpy()
    # float32 lines: some ten-thousandths of a pixel.
    np.testing.assert_allclose(ours, expected * steps[:, None, None], rtol=0, atol=2e-3)


def test_eq_15_a_correlation_is_looked_at_over_its_mean() -> None:
    """Of a place of the reference, over view i's places, however bright the picture is."""
    first, second = noise(2, 3, *FIRST), noise(2, 3, *SECOND, seed=1)
    first[0, :, 2, 3] = 0.0
    plain = correlate(first, second)
    about = correlate(*about_its_mean(first, second))
    mean = plain.mean(dim=(2, 3), keepdim=True)
    # The hundredth keeps places that show next to nothing from being divided by nothing.
    assert torch.allclose(about, (plain - mean) / (mean + 0.01), atol=1e-4)
    assert about[0, 2 * FIRST[1] + 3].abs().max() == 0
    # The brighter a picture, the larger a correlation; over its mean it is no larger.
    ten = correlate(*about_its_mean(10 * first, 10 * second))
    assert torch.allclose(ten[1], about[1], rtol=0.3, atol=1e-3)


def test_eq_17_suppresses_what_is_off_the_line_and_nothing_on_it() -> None:
    first, second = cameras()
    F = torch.tensor(fundamental_matrix(first, second), dtype=torch.float32)[None]
    sizes = ((10, 16), (12, 22))
    weight = epipolar_weight(F, *sizes, 4, 5.0)[0]
    assert weight.min() >= 0 and weight.max() <= 1.0
    for point in ([0.3, 6.0, 1.2], [-0.5, 8.0, 2.1], [1.5, 7.0, 0.9]):
        (x, y), (there_x, there_y) = (
            np.rint((c.project(np.array(point)) + 0.5) / 4 - 0.5).astype(int) for c in (first, second)
        )
        row = weight[y * 16 + x]
        # The true place is on the line up to the rounding of both places, and three σ above or below is not.
        assert row[there_y, there_x] > 0.8
        far = [there_y + d for d in (-4, 4) if 0 <= there_y + d < 12]
        assert all(row[y, there_x] < 0.05 for y in far)


def test_eq_17_an_epipole_has_no_line_and_no_weight() -> None:
    """Place (3, 2) of the reference is the epipole of this F: F (3, 2, 1)ᵀ = 0."""
    line = torch.tensor([0.0, 1.0, -2.0])  # through the epipole
    F = torch.outer(torch.tensor([0.3, -0.5, 1.0]), line).unsqueeze(0)
    F = F + torch.outer(torch.tensor([0.7, 0.2, -0.4]), torch.tensor([1.0, 0.0, -3.0]))
    weight = epipolar_weight(F, FIRST, SECOND, 1, 2.0)[0]
    assert torch.isfinite(weight).all()
    assert weight[2 * 8 + 3].max() < 1e-5 < weight[2 * 8 + 4].max()


def test_eq_17_a_line_far_outside_the_picture_weighs_nothing_and_is_no_denormal_number() -> None:
    """Lines y = −200 to −235: at σ = 16, e^-78 and far less; below e^-87 32-bit numbers get slow."""
    F = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [5.0, 0.0, 200.0]]])
    weight = epipolar_weight(F, FIRST, SECOND, 1, 16.0)
    assert weight.max() < 1e-15 and weight[weight > 0].min() > torch.finfo(torch.float32).tiny


def test_eq_17_is_the_weight_times_the_correlation() -> None:
    first, second = noise(1, 4, 10, 16), noise(1, 4, 12, 22, seed=1)
    F = torch.tensor(fundamental_matrix(*cameras()), dtype=torch.float32)[None]
    pair = PairFlow("epi", 4, (40, 64), (4,), 5.0)
    expected = correlate(*about_its_mean(first, second)) * epipolar_weight(F, (10, 16), (12, 22), 4, 5.0)
    assert torch.allclose(pair.match(first, second, F, 4)[0], expected)


# --- Eq. 18: scales ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 12), (7, 11)])
def test_coarser_places_are_means_and_know_where_they_are(size: tuple[int, int]) -> None:
    y, x = torch.meshgrid(torch.arange(float(size[0])), torch.arange(float(size[1])), indexing="ij")
    coarse = coarser(torch.stack([x, y]).unsqueeze(0), 4)
    rows, columns = -(-size[0] // 4), -(-size[1] // 4)
    assert coarse.shape == (1, 2, rows, columns)
    # Place X of stride 4 is place 4·X + 1.5 of the finest, but for a last one that is cut off.
    whole = coarse[0, :, : size[0] // 4, : size[1] // 4]
    assert torch.allclose(whole[0, 0], 4 * torch.arange(whole.shape[2]) + 1.5)
    assert torch.allclose(whole[1, :, 0], 4 * torch.arange(whole.shape[1]) + 1.5)


def test_eq_18_up_of_a_flow_counts_in_finer_places() -> None:
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0], flow[:, 1] = 1.5, -0.5
    finer = up_flow(flow, (5, 8), 2)  # an odd number of rows: the last is cut off
    assert finer.shape == (1, 2, 5, 8)
    assert torch.allclose(finer[:, 0], torch.tensor(3.0)) and torch.allclose(finer[:, 1], torch.tensor(-1.0))


def test_eq_18_up_enlarges_both_grids_of_a_correlation() -> None:
    """`up` is linear in each grid, so enlarging C is correlating enlarged features: an independent way."""
    first, second = noise(2, 7, 3, 4), noise(2, 7, 4, 6, seed=1)
    after, size = (5, 8), (7, 11)
    found = up_correlation(correlate(first, second), (3, 4), after, size, 2)
    assert found.shape == (2, 5 * 8, 7, 11)
    assert torch.allclose(found, correlate(up(first, after, 2), up(second, size, 2)), atol=1e-5)


class Recorder(nn.Module):
    """Stands where a flow network does: keeps what it is given and answers with one flow everywhere."""

    def __init__(self, flow: tuple[float, float]) -> None:
        super().__init__()
        self.flow = torch.tensor(flow).reshape(1, 2, 1, 1)

    def forward(self, *match: Tensor) -> Tensor:
        self.given = whole(match)
        return self.flow.expand(match[0].shape[0], 2, *match[0].shape[-2:])


def whole(match: tuple[Tensor, ...]) -> Tensor:
    """What a network is given as one tensor: a correlation comes as the two that are correlated."""
    return match[0] if len(match) == 1 else correlate(match[1], match[0])


@pytest.mark.parametrize("matching", ["cor", "epi", "cat"])
def test_eq_18_a_scale_sees_the_difference_and_adds_to_the_flow_below(matching: str) -> None:
    sizes = ((10, 16), (10, 16) if matching == "cat" else (13, 22))
    first, second = noise(1, 4, *sizes[0]), noise(1, 4, *sizes[1], seed=1)
    F = torch.tensor(fundamental_matrix(*cameras()), dtype=torch.float32)[None]
    pair = PairFlow(matching, 4, sizes[0], (4, 2, 1), 5.0)
    nets = [Recorder((1.0, 0.5)), Recorder((-0.25, 0.0)), Recorder((0.0, 2.0))]
    pair.nets = nn.ModuleList(nets)
    flows = pair(first, second, F)
    for flow, expected in zip(flows, ((1.0, 0.5), (1.75, 1.0), (3.5, 4.0)), strict=True):
        assert torch.allclose(flow.mean(dim=(2, 3)), torch.tensor([expected]), atol=1e-5)
        assert flow.std(dim=(2, 3)).max() < 1e-5
    assert [tuple(flow.shape[-2:]) for flow in flows] == [
        (-(-sizes[1][0] // s), -(-sizes[1][1] // s)) for s in (4, 2, 1)
    ]

    def matched(stride: int) -> Tensor:
        return whole(pair.match(coarser(first, stride), coarser(second, stride), F, stride))

    assert torch.allclose(nets[0].given, matched(4))
    here = (-(-sizes[1][0] // 2), -(-sizes[1][1] // 2))
    below = (
        up(matched(4), here, 2) if matching == "cat" else up_correlation(matched(4), (3, 4), (5, 8), here, 2)
    )
    assert torch.allclose(nets[1].given, matched(2) - below, atol=1e-6)
    finest = (
        up(matched(2), sizes[1], 2)
        if matching == "cat"
        else up_correlation(matched(2), (5, 8), (10, 16), sizes[1], 2)
    )
    assert torch.allclose(nets[2].given, matched(1) - finest, atol=1e-6)


def test_networks_have_the_reference_s_places_as_channels_at_every_scale() -> None:
    pair = PairFlow("cor", 4, (10, 18), (4, 2, 1), 5.0)
    assert [net[0].in_channels for net in pair.nets] == [3 * 5, 5 * 9, 10 * 18]  # type: ignore[index,union-attr]
    assert [net[0].in_channels for net in PairFlow("cat", 4, (10, 18), (4, 2), 5.0).nets] == [8, 8]  # type: ignore[index,union-attr]
    with pytest.raises(ValueError, match=r"features are \(10, 16\), this network is for \(10, 18\)"):
        pair(noise(1, 4, 10, 16), noise(1, 4, 12, 22), torch.zeros(1, 3, 3))


# --- flow that is known -----------------------------------------------------------------------------------


class Partner(nn.Module):
    """A flow network that needs no learning: in view i, person k now stands where the reference says they
    stood; the reference's place is the channel, view i's place is where the flow is read.

    Given a correlation of planted people, it answers at place p of view i with where person k, who belongs at
    p, is now. `belongs` (row, column) in view i of each person by their place (row, column) in the reference.
    """

    def __init__(self, columns: int, belongs: dict[tuple[int, int], tuple[int, int]]) -> None:
        super().__init__()
        self.columns, self.belongs = columns, belongs

    def forward(self, *match: Tensor) -> Tensor:
        correlation = whole(match)
        flow = torch.zeros(correlation.shape[0], 2, *correlation.shape[-2:])
        for (row, column), (to_row, to_column) in self.belongs.items():
            now = correlation[:, row * self.columns + column]
            for sample, there_row, there_column in (now > 0).nonzero().tolist():
                flow[sample, :, to_row, to_column] = torch.tensor(
                    [there_column - to_column, there_row - to_row], dtype=flow.dtype
                )
        return flow


def test_planted_people_are_brought_to_where_they_belong_in_view_i() -> None:
    """Views of one size here, as they cross the wire; one person per sample and view has moved."""
    size, people = (6, 11), {0: (1, 6), 1: (4, 2)}
    belongs = {(1, 6): (2, 3), (4, 2): (5, 9)}
    now = [{0: (4, 5), 1: (5, 9)}, {0: (2, 3), 1: (0, 8)}]  # of view 1 and view 2
    features = torch.stack([planted(p, size)[0] for p in (people, *now)]).unsqueeze(0)
    synchroniser = CameraSynchroniser("cor", 6, size, (1,), 1, 5.0)
    synchroniser.pairs[0].nets = nn.ModuleList([Partner(11, belongs)])  # type: ignore[union-attr]
    moved = synchroniser(features, torch.zeros(1, 3, 3, 3), timing(1, 3))
    assert torch.equal(moved.features[:, 0], features[:, 0])
    assert moved.flow_px[0].shape == (1, 2, 6, 11, 2) and moved.strides == (1,)
    for view in (1, 2):
        for k, (row, column) in enumerate(belongs.values()):
            assert moved.features[0, view, k, row, column] > 0.999, (view, k)
    # (x, y): two columns on, two rows on; whoever did not move has no flow.
    assert moved.flow_px[0][0, 0, 2, 3].tolist() == [2.0, 2.0]
    assert moved.flow_px[0][0, 1, 2, 3].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("matching", ["cat", "cor", "epi"])
def test_a_network_for_each_pair_is_that_pair_s_and_a_shared_one_everybody_s(matching: str) -> None:
    torch.manual_seed(0)
    features, F = noise(2, 3, 4, 6, 11), noise(2, 3, 3, 3, seed=4) - 0.5
    each = CameraSynchroniser(matching, 4, (6, 11), (2, 1), 2, 5.0)
    shared = CameraSynchroniser(matching, 4, (6, 11), (2, 1), 1, 5.0)
    for module in (*each.modules(), *shared.modules()):
        if isinstance(module, FlowNet):
            nn.init.normal_(module[-1].weight, std=0.02)  # type: ignore[arg-type]
    shared.pairs[0].load_state_dict(each.pairs[0].state_dict())
    with torch.no_grad():
        ours, theirs = (net(features, F, timing(2, 3)) for net in (each, shared))
        changed = features.clone()
        changed[:, 2] = changed[:, 2].flip(-1)
        after = each(changed, F, timing(2, 3))
    assert ours.flow_px[-1].shape == (2, 2, 6, 11, 2) and ours.flow_px[-1].abs().max() > 0.005
    assert torch.allclose(ours.features[:, 1], theirs.features[:, 1], atol=1e-5)
    assert (ours.features[:, 2] - theirs.features[:, 2]).abs().max() > 1e-3
    # What one view shows has no say in how another one is moved.
    assert torch.allclose(after.features[:, 1], ours.features[:, 1], atol=1e-6)
    with pytest.raises(ValueError, match="2 flow networks, one for each pair of views; there are 3 pairs"):
        each(noise(1, 4, 4, 6, 11), noise(1, 4, 3, 3), timing(1, 4))


def test_eq_4_and_5_scene_level_flow_is_of_both_views_ground_features() -> None:
    ground = noise(2, 3, 4, 7, 12)
    synchroniser = SceneSynchroniser(4, 2)
    recorders = [Recorder((2.0, 0.0)), Recorder((0.0, -1.0))]
    synchroniser.nets = nn.ModuleList(recorders)
    columns = Columns(ground, ground)  # not looked at
    moved = synchroniser(columns, ground, timing(2, 3), 0.5)
    for view, recorder in enumerate(recorders, start=1):
        assert torch.equal(recorder.given, torch.cat([ground[:, 0], ground[:, view]], dim=1))  # Eq. 4
    assert torch.allclose(moved.flow_m[:, 0], torch.tensor([1.0, 0.0]))  # two cells of half a metre
    assert torch.allclose(moved.warped[:, 0, :, :, :-2], ground[:, 1, :, :, 2:], atol=1e-5)  # Eq. 5
    assert torch.allclose(moved.warped[:, 1, :, 1:], ground[:, 2, :, :-1], atol=1e-5)
    assert torch.equal(moved.unmoved, ground[:, 1:]) and moved.evidence.abs().max() == 0
