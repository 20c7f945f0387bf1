"""The paper's methods inside the whole model: `masked` and `concat` fusion keep their laws, and nothing
around a synchroniser knows that it is there.
"""

import pytest
import torch
from torch import Tensor, nn

from viewsync.nets.cls_plane import PlaneFlow
from viewsync.nets.config import (
    ALL_METHODS,
    BOUNDS,
    CAMERA_LEVEL,
    METHODS,
    PLANE_LEVEL,
    SCENE_LEVEL,
    TWO_FRAMES,
)
from viewsync.nets.flow import FlowNet
from viewsync.nets.model import CountingModel, ModelConfig, MotionAfter, MotionBefore
from viewsync.training.flow_losses import ground_features, similarity_loss

PAPER = (*SCENE_LEVEL, *CAMERA_LEVEL)
SHIPPED = tuple(m for m in ALL_METHODS if m not in (*BOUNDS, *TWO_FRAMES))
MOVING = (*PAPER, *PLANE_LEVEL)
VIEWS, CHANNELS, HEIGHTS = 4, 5, 3
NAMES = ("north", "south", "west", "east")
# Densities are about 0.02 people per cell here; sums in another order differ in the last bits of float32.
SAME = 2e-6


def made(fusion: str, **more: object) -> CountingModel:
    torch.manual_seed(3)
    config = ModelConfig(
        methods=SHIPPED,
        channels=CHANNELS,
        heights=HEIGHTS,
        width=16,
        cell_m=0.4,
        fusion=fusion,
        views=NAMES if fusion == "concat" else (),
        grid=(9, 14),
        **more,  # type: ignore[arg-type]
    )
    model = CountingModel(config).eval()
    with torch.no_grad():
        for head in model.heads.values():
            head.decoder.out.weight.mul_(6.0)  # type: ignore[union-attr,operator]
        for module in model.modules():
            if isinstance(module, FlowNet):  # as if it had learned something
                nn.init.normal_(module[-1].weight, std=0.03)  # type: ignore[arg-type]
            if isinstance(module, PlaneFlow):
                nn.init.normal_(module.add.weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def masked() -> CountingModel:
    return made("masked")


@pytest.fixture(scope="module")
def concat() -> CountingModel:
    return made("concat", flow_nets="pair")


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(5)
    return {
        "features": torch.rand(1, VIEWS, CHANNELS, 9, 14, generator=g),
        "grids": torch.rand(1, VIEWS, HEIGHTS, 12, 20, 2, generator=g) * 2.4 - 1.2,
        "present": torch.ones(1, VIEWS),
        "offset_s": torch.tensor([[0.0, 1.4, -2.1, 0.3]]),
        "fundamental": torch.randn(1, VIEWS, 3, 3, generator=g),
        # Somewhere in the other picture, and about one place for a metre.
        "planes": torch.eye(4, 3) + torch.rand(1, VIEWS, HEIGHTS, 4, 3, generator=g) * 0.2,
    }


def answer(model: CountingModel, method: str, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        given = (inputs[k] for k in ("features", "grids", "present", "offset_s"))
        return model.fuse(*given, (method,), inputs["fundamental"], planes=inputs["planes"]).density[method][
            0
        ]


def changed(inputs: dict[str, Tensor], slot: int, **parts: Tensor | float) -> dict[str, Tensor]:
    out = {key: value.clone() for key, value in inputs.items()}
    for key, value in parts.items():
        out[key][:, slot] = value
    return out


@pytest.mark.parametrize("method", MOVING)
def test_masked_fusion_keeps_its_laws(masked: CountingModel, inputs: dict[str, Tensor], method: str) -> None:
    base = answer(masked, method, inputs)
    order = [0, 3, 1, 2]
    shuffled = {key: value[:, order] for key, value in inputs.items()}
    assert torch.allclose(base, answer(masked, method, shuffled), atol=SAME)
    absent = changed(inputs, 2, present=0.0)
    kept = {key: value[:, [0, 1, 3]] for key, value in inputs.items()}
    assert torch.allclose(answer(masked, method, absent), answer(masked, method, kept), atol=SAME)
    for rubbish in (float("nan"), float("inf"), -1e30):
        parts = dict.fromkeys(("features", "grids", "offset_s", "fundamental", "planes"), rubbish)
        spoiled = answer(masked, method, changed(absent, 2, **parts))
        assert torch.allclose(answer(masked, method, absent), spoiled, atol=SAME)


@pytest.mark.parametrize("method", MOVING)
def test_every_view_moves_the_answer(masked: CountingModel, inputs: dict[str, Tensor], method: str) -> None:
    base = answer(masked, method, inputs)
    for slot in range(VIEWS):
        other = changed(inputs, slot, features=inputs["features"][:, slot].flip(-1))
        assert (answer(masked, method, other) - base).abs().max() > 100 * SAME, slot
    # The flow matters: without it the answer is another one.
    still = {name: value.clone() for name, value in masked.state_dict().items()}
    for name in still:
        if name.startswith((f"before.{method}.", f"after.{method}.", f"over_planes.{method}.")):
            still[name].zero_()
    unmoved = made("masked")
    unmoved.load_state_dict(still)
    assert (answer(unmoved, method, inputs) - base).abs().max() > 10 * SAME


@pytest.mark.parametrize("method", SHIPPED)
def test_concat_fusion_has_a_place_for_every_view(
    concat: CountingModel, inputs: dict[str, Tensor], method: str
) -> None:
    base = answer(concat, method, inputs)
    order = [0, 3, 1, 2]
    shuffled = answer(concat, method, {key: value[:, order] for key, value in inputs.items()})
    if method == "reference-only":
        assert torch.equal(shuffled, base)
        return
    assert (shuffled - base).abs().max() > 10 * SAME
    for slot in range(VIEWS):
        other = changed(inputs, slot, features=inputs["features"][:, slot].flip(-1))
        assert (answer(concat, method, other) - base).abs().max() > 10 * SAME, slot
    fewer = {key: value[:, :3] for key, value in inputs.items()}
    with pytest.raises(ValueError, match=r"concat fusion of 4 views was given 3|there are 2 pairs"):
        answer(concat, method, fewer)
    if method in (*PAPER, "none"):  # the paper's know no offsets
        late = changed(inputs, 1, offset_s=-2.9)
        assert torch.equal(answer(concat, method, late), base)


def test_a_method_without_flow_answers_as_none_with_the_same_head(
    masked: CountingModel, inputs: dict[str, Tensor]
) -> None:
    """Zero flow is no warp: the seams carry features through unharmed, before projection and after it."""
    still = masked.state_dict()
    still = {k: v * 0.0 if k.startswith(("before.", "after.")) else v for k, v in still.items()}
    for method in PAPER:
        for name in list(still):
            if name.startswith(f"heads.{method}."):
                still[name] = still[name.replace(f".{method}.", ".none.")]
    model = made("masked")
    model.load_state_dict(still)
    expected = answer(model, "none", inputs)
    for method in PAPER:
        assert torch.allclose(answer(model, method, inputs), expected, atol=SAME), method


@pytest.mark.parametrize("method", PAPER)
def test_eq_22_what_is_to_be_alike_teaches_flow_alone(inputs: dict[str, Tensor], method: str) -> None:
    """Ground features as fusion gets them; were their weights to learn from ℓs, all would soon be alike."""
    model = made("masked")
    given = [inputs[k] for k in ("features", "grids", "present", "offset_s")]
    motion = model.fuse(*given, (method,), inputs["fundamental"]).motion[method]
    assert isinstance(motion, MotionAfter if method in SCENE_LEVEL else MotionBefore)
    reference, others = ground_features(model, motion)
    fused: list[Tensor] = []
    model.heads[method].register_forward_pre_hook(lambda head, fed: fused.extend([fed[0], fed[1].warped]))
    with torch.no_grad():
        model.fuse(*given, (method,), inputs["fundamental"])
    torch.testing.assert_close([reference.detach(), others.detach()], fused)
    similarity_loss(model, motion, inputs["present"]).backward()  # type: ignore[no-untyped-call]
    learns = {name for name, weight in model.named_parameters() if weight.grad is not None}
    flow = {f"{name}.{part}" for name, module in model.named_modules() if isinstance(module, FlowNet)
            for part, _ in module.named_parameters()}  # fmt: skip
    taught = {name for name in learns if name in flow}
    assert taught and all(model.get_parameter(name).grad.abs().max() > 0 for name in taught)  # type: ignore[union-attr]
    # After projection, the flow itself is made of ground features, whose weights it reaches back to.
    assert method in SCENE_LEVEL or learns == taught


def test_only_flow_networks_come_with_the_paper_s_methods() -> None:
    """Encoder, projection, fusion and decoder are those of every other method, weight for weight."""
    plain = CountingModel(ModelConfig(methods=("none",)))
    for method in PAPER:
        model = CountingModel(ModelConfig(methods=(method,), grid=(18, 24)))
        shapes = {k.replace(f".{method}.", ".none."): v.shape for k, v in model.state_dict().items()}
        extra = {k for k in shapes if k.startswith(("before.", "after."))}
        assert extra and {k: v for k, v in shapes.items() if k not in extra} == {
            k: v.shape for k, v in plain.state_dict().items()
        }


def test_sizes_are_kept_as_plain_values_and_those_of_old_models_unchanged() -> None:
    old = ModelConfig(methods=METHODS)
    assert set(old.as_dict()) == {"methods", "channels", "levels", "heights", "width", "cell_m"}
    new = made("concat", flow_nets="pair", flow_strides=(4, 2, 1), sigma_px=9.0).config
    for config in (old, new):
        assert ModelConfig.from_dict(config.as_dict()) == config


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"fusion": "concat"}, "names of its views"),
        ({"fusion": "average"}, "fusion is one of masked, concat"),
        ({"methods": ("sls",), "flow_nets": "pair"}, "needs fixed views"),
        ({"methods": ("cls-cor",)}, "cls-cor: needs the rows and columns"),
        ({"flow_strides": (2, 4)}, "powers of two, coarse to fine"),
        ({"flow_strides": (3,)}, "powers of two"),
        ({"sigma_px": 0.0}, "positive"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(parts: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**parts)  # type: ignore[arg-type]


def test_cls_epi_without_geometry_is_refused(masked: CountingModel, inputs: dict[str, Tensor]) -> None:
    with torch.no_grad(), pytest.raises(ValueError, match="needs the fundamental matrices"):
        masked.fuse(*(inputs[k] for k in ("features", "grids", "present", "offset_s")), ("cls-epi",))
