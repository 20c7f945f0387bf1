"""MVMS as base model: its pyramid, its choice of scales, its plane; and every synchroniser plugs into it as
into ours.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calib.ground import FAR_M, ground_from_image, person_plane, place_distances
from viewsync.nets.base import base_of
from viewsync.nets.config import OVER_MVMS, SCENE_LEVEL
from viewsync.nets.flow import FlowNet
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.nets.mvms import Extractor, PyramidEncoder, ScaleSelection, pack, unpack
from viewsync.nets.scales import SCALES, sent_channels
from viewsync.sim.scenes import look_at

VIEWS, CHANNELS, HEIGHTS, PLANE = 4, 6, 3, 1
NAMES = ("north", "south", "west", "east")
GRID = (9, 14)
# Densities are about 0.004 people per cell here; sums in another order differ in the last bits of float32.
SAME = 2e-6


def made(fusion: str = "masked", **more: object) -> CountingModel:
    torch.manual_seed(3)
    config = ModelConfig(
        methods=OVER_MVMS,
        channels=CHANNELS,
        heights=HEIGHTS,
        cell_m=0.4,
        fusion=fusion,
        views=NAMES if fusion == "concat" else (),
        grid=GRID,
        base="mvms",
        plane=PLANE,
        **more,  # type: ignore[arg-type]
    )
    model = CountingModel(config).eval()
    with torch.no_grad():
        for head in model.heads.values():
            head.decoder.out.weight.mul_(6.0)  # type: ignore[union-attr,operator]
        for module in model.modules():
            if isinstance(module, FlowNet):  # as if it had learned something
                nn.init.normal_(module[-1].weight, std=0.05)  # type: ignore[arg-type]
    return model


@pytest.fixture(scope="module")
def masked() -> CountingModel:
    return made()


@pytest.fixture(scope="module")
def concat() -> CountingModel:
    return made("concat", flow_nets="pair", encoders="view")


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(5)
    return {
        "features": torch.rand(1, VIEWS, sent_channels(CHANNELS, GRID), *GRID, generator=g),
        "grids": torch.rand(1, VIEWS, HEIGHTS, 12, 20, 2, generator=g) * 2.4 - 1.2,
        "present": torch.ones(1, VIEWS),
        "offset_s": torch.tensor([[0.0, 1.4, -2.1, 0.3]]),
        "fundamental": torch.randn(1, VIEWS, 3, 3, generator=g),
        "distance": torch.rand(1, VIEWS, *GRID, generator=g) * 60 + 3,
    }


def answer(model: CountingModel, method: str, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        given = (inputs[k] for k in ("features", "grids", "present", "offset_s"))
        out = model.fuse(*given, (method,), inputs["fundamental"], inputs["distance"])
    return out.density[method][0]


def changed(inputs: dict[str, Tensor], slot: int, **parts: Tensor | float) -> dict[str, Tensor]:
    out = {key: value.clone() for key, value in inputs.items()}
    for key, value in parts.items():
        out[key][:, slot] = value
    return out


def test_the_extractor_has_the_papers_layers_and_every_scale_the_same() -> None:
    layers = [m for m in Extractor(32) if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    convolutions = [m for m in layers if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == [(3, 16), (16, 16), (16, 32), (32, 32)]
    assert all(m.kernel_size == (5, 5) for m in convolutions)
    assert [isinstance(m, nn.MaxPool2d) for m in layers] == [False, False, True, False, False, True]
    encoder = PyramidEncoder(CHANNELS).eval()
    assert [n.partition(".")[0] for n, _ in encoder.named_parameters()] == ["extract"] * 8
    # What the coarser scales see of a picture is what the finest sees of the smaller picture.
    torch.manual_seed(0)
    small = torch.rand(1, 3, 16, 24).repeat_interleave(4, 2).repeat_interleave(4, 3)
    with torch.no_grad():
        whole = unpack(encoder(small), CHANNELS)
        quarter = unpack(encoder(small[..., ::4, ::4]), CHANNELS)
    assert torch.allclose(whole[2], quarter[0], atol=1e-6) and whole[2].std() > 0.01


@pytest.mark.parametrize("grid", [(8, 12), (9, 14), (95, 169), (72, 96)])
def test_scales_come_back_out_of_the_channels_they_were_packed_into(grid: tuple[int, int]) -> None:
    g = torch.Generator().manual_seed(1)
    sides = [tuple(-(-side // stride) for side in grid) for stride in SCALES]
    scales = [torch.rand(2, 16, *side, generator=g) for side in sides]
    sent = pack(scales)
    assert sent.shape == (2, sent_channels(16, grid), *grid)
    assert 21 <= sent.shape[1] <= 23  # 16·(1 + 1/4 + 1/16), where the sides divide
    assert all(torch.equal(a, b) for a, b in zip(unpack(sent, 16), scales, strict=True))


def test_the_scale_is_chosen_by_distance_as_the_formula_says() -> None:
    chosen = ScaleSelection(CHANNELS, GRID)
    metres = torch.tensor([0.1, 5.0, 10.0, 20.0, 40.0, 300.0, FAR_M]).reshape(1, 1, 1, -1)
    masks = chosen.masks(metres)[0, 0, :, 0].detach().numpy()
    wanted = 1 + np.log2(20) - np.log2(np.clip(metres.flatten().numpy(), 0.5, 1000))
    weights = np.exp(-((wanted[None] - np.arange(3)[:, None]) ** 2))
    np.testing.assert_allclose(masks, weights / weights.sum(axis=0), rtol=1e-5, atol=1e-6)
    assert list(masks.argmax(axis=0)) == [2, 2, 2, 1, 0, 0, 0]  # what is far is small: the finest
    # Each scale with one value everywhere: what is gathered is their mean by these shares.
    levels = (0.2, 0.5, 0.9)
    scales = [
        torch.full((1, CHANNELS, -(-9 // s), -(-14 // s)), v) for s, v in zip(SCALES, levels, strict=True)
    ]
    distance = torch.full((1, 1, *GRID), 20.0)
    distance[..., 4, 7] = 300.0
    gathered = chosen(pack(scales).unsqueeze(0), distance)[0, 0]
    assert gathered[:, 4, 7].tolist() == pytest.approx([0.2] * CHANNELS, abs=1e-3)
    middle = float((masks[:, 3] * levels).sum())
    assert gathered[:, 0, 0].tolist() == pytest.approx([middle] * CHANNELS, abs=1e-5)


def test_distances_are_those_of_the_plane_along_each_ray() -> None:
    camera = look_at((-3.0, -3.0, 4.0), (3.6, 2.6, 0.0), 12.0, (24, 18))
    found = place_distances(camera, 1.75)
    assert found.shape == (18, 24)
    x, y = np.meshgrid(np.arange(24), np.arange(18))
    on_plane = np.stack([x, y, np.ones_like(x)], axis=-1) @ ground_from_image(camera, 1.75).T
    ahead = on_plane[..., 2] > 1e-9
    metres = on_plane[..., :2] / on_plane[..., 2:] - camera.centre[:2]
    expected = np.sqrt((metres**2).sum(axis=-1) + (camera.centre[2] - 1.75) ** 2)
    np.testing.assert_allclose(found[ahead], expected[ahead], rtol=1e-5)
    assert 0 < ahead.mean() < 1 and (found[~ahead] == FAR_M).all()
    assert person_plane((0.1, 1.2, 1.75)) == 2 and person_plane((1.7,)) == 0


def test_features_are_projected_onto_one_plane_alone(
    masked: CountingModel, inputs: dict[str, Tensor]
) -> None:
    base = answer(masked, "none", inputs)
    for plane in range(HEIGHTS):
        grids = inputs["grids"].clone()
        grids[:, :, plane] = grids[:, :, plane].flip(-2)
        same = torch.equal(answer(masked, "none", {**inputs, "grids": grids}), base)
        assert same == (plane != PLANE)
    # One-hot: only the ground cell that looks at row 6, column 11 of the second view has it.
    features = torch.zeros(1, VIEWS, CHANNELS, *GRID)
    features[0, 1, 4, 6, 11] = 1.0
    grids = torch.full((1, VIEWS, HEIGHTS, 12, 20, 2), -2.0)
    grids[0, 1, PLANE, 3, 17] = torch.tensor([(2 * 11 + 1) / 14 - 1, (2 * 6 + 1) / 9 - 1])
    found = masked.project(features, grids, torch.ones(1, VIEWS))
    assert found.features.shape == (1, VIEWS, CHANNELS, 12, 20)
    assert found.features.nonzero().tolist() == [[0, 1, 4, 3, 17]]
    assert found.looks.nonzero().tolist() == [[0, 1, 3, 17]]


@pytest.mark.parametrize("method", [m for m in OVER_MVMS if m != "reference-only"])
def test_masked_fusion_keeps_its_laws(masked: CountingModel, inputs: dict[str, Tensor], method: str) -> None:
    base = answer(masked, method, inputs)
    order = [0, 3, 1, 2]
    shuffled = {key: value[:, order] for key, value in inputs.items()}
    assert torch.allclose(base, answer(masked, method, shuffled), atol=SAME)
    absent = changed(inputs, 2, present=0.0)
    kept = {key: value[:, [0, 1, 3]] for key, value in inputs.items()}
    assert torch.allclose(answer(masked, method, absent), answer(masked, method, kept), atol=SAME)
    parts = dict.fromkeys(("features", "grids", "offset_s", "fundamental", "distance"), float("nan"))
    spoiled = answer(masked, method, changed(absent, 2, **parts))
    assert torch.allclose(answer(masked, method, absent), spoiled, atol=SAME)
    for slot in range(VIEWS):
        other = changed(inputs, slot, features=inputs["features"][:, slot].flip(-1))
        assert (answer(masked, method, other) - base).abs().max() > 20 * SAME, slot


def test_concat_fusion_gives_every_view_its_place(concat: CountingModel, inputs: dict[str, Tensor]) -> None:
    for method in ("none", "cls-epi", "sls"):
        base = answer(concat, method, inputs)
        swapped = {key: value[:, [0, 2, 1, 3]] for key, value in inputs.items()}
        assert not torch.allclose(base, answer(concat, method, swapped), atol=100 * SAME)
        fewer = {key: value[:, :3] for key, value in inputs.items()}
        with pytest.raises(ValueError, match=r"concat fusion of 4 views was given 3|there are 2 pairs"):
            answer(concat, method, fewer)


def test_a_synchroniser_that_moves_nothing_leaves_the_model_as_it_was(inputs: dict[str, Tensor]) -> None:
    model = made()
    weights = model.state_dict()
    weights = {k: v * 0.0 if k.startswith(("before.", "after.")) else v for k, v in weights.items()}
    moving = [m for m in OVER_MVMS if m not in ("none", "reference-only")]
    for method in moving:
        for name in list(weights):
            if name.startswith(f"heads.{method}."):
                weights[name] = weights[name.replace(f".{method}.", ".none.")]
    before = [answer(model, method, inputs) for method in moving]
    model.load_state_dict(weights)
    expected = answer(model, "none", inputs)
    for method, moved in zip(moving, before, strict=True):
        assert torch.allclose(answer(model, method, inputs), expected, atol=SAME), method
        assert not torch.allclose(moved, expected, atol=SAME), method


@pytest.mark.parametrize("method", ["none", "sls", "cls-cat", "cls-cor", "cls-epi"])
def test_gradient_reaches_every_part(method: str, inputs: dict[str, Tensor]) -> None:
    model = made("concat", flow_nets="pair", encoders="view").train()
    torch.manual_seed(1)
    images = torch.rand(1, VIEWS, 3, 36, 56)
    geometry = (inputs[k] for k in ("grids", "present", "offset_s", "fundamental", "distance"))
    found = model(images, *geometry)
    (found.density[method].square().sum() * 1e4).backward()
    parts = [f"encoder.{k}." for k in range(VIEWS)] + [
        "gather.slope",
        "gather.offset",
        f"heads.{method}.",
        "",
    ]
    if method != "none":
        seam = "after" if method in SCENE_LEVEL else "before"
        parts += [f"{seam}.{method}.{'nets' if seam == 'after' else 'pairs'}.{k}." for k in range(VIEWS - 1)]
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    for part in parts:
        assert any(name.startswith(part) for name in moved), part
    assert (model.gather.slope.grad != 0).all()  # type: ignore[attr-defined]


def test_sizes_are_kept_and_those_that_contradict_each_other_refused(masked: CountingModel) -> None:
    for config in (masked.config, made("concat", encoders="view").config):
        assert ModelConfig.from_dict(config.as_dict()) == config
    assert not {"base", "encoders", "plane"} & ModelConfig().as_dict().keys()
    assert type(base_of(ModelConfig(methods=("none",))).ground) is not type(masked.ground)
    for parts, message in (
        (
            {"methods": ("column", "none")},
            "column is not for base mvms",
        ),
        ({"encoders": "view"}, "need fixed views"),
        ({"base": "vgg"}, "base is one of ours, mvms"),
        ({"grid": (0, 0)}, "needs the rows and columns"),
        ({"plane": 6}, "one of the heights"),
    ):
        with pytest.raises(ValueError, match=message):
            ModelConfig(**{"methods": ("none",), "base": "mvms", "grid": GRID, **parts})  # type: ignore[arg-type]


def test_what_it_needs_and_does_not_get_is_said(masked: CountingModel, inputs: dict[str, Tensor]) -> None:
    given = [inputs[k] for k in ("features", "grids", "present", "offset_s")]
    with torch.no_grad(), pytest.raises(ValueError, match="needs distance_m of every place"):
        masked.fuse(*given, ("none",))
    with torch.no_grad(), pytest.raises(ValueError, match="features are 8x14, this model is for 9x14"):
        masked.fuse(given[0][..., :8, :], *given[1:], ("none",), None, inputs["distance"][..., :8, :])
