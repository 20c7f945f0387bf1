"""Laws of the whole model, for every way of answering: what must not matter does not, what must does."""

import numpy as np
import pytest
import torch
from torch import Tensor

from viewsync.nets.encoder import Encoder, quantise
from viewsync.nets.model import METHODS, UNKNOWN_OFFSET_S, CountingModel, ModelConfig
from viewsync.nets.projection import project_columns

VIEWS, CHANNELS, HEIGHT, WIDTH, HEIGHTS, ROWS, COLUMNS = 4, 5, 9, 14, 3, 12, 20
# Densities are about 0.02 people per cell here; sums in another order differ in the last bits of float32.
SAME = 2e-6


@pytest.fixture(scope="module")
def model() -> CountingModel:
    torch.manual_seed(3)
    made = CountingModel(ModelConfig(channels=CHANNELS, heights=HEIGHTS, width=16, cell_m=0.4)).eval()
    with torch.no_grad():
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
    }


def answer(model: CountingModel, method: str, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        given = (inputs[k] for k in ("features", "grids", "present", "offset_s"))
        return model.fuse(*given, (method,)).density[method][0]


def changed(inputs: dict[str, Tensor], slot: int, **parts: Tensor | float) -> dict[str, Tensor]:
    out = {key: value.clone() for key, value in inputs.items()}
    for key, value in parts.items():
        out[key][:, slot] = value
    return out


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_other_views_does_not_matter(
    model: CountingModel, inputs: dict[str, Tensor], method: str
) -> None:
    order = [0, 3, 1, 2]
    shuffled = {key: value[:, order] for key, value in inputs.items()}
    assert torch.allclose(answer(model, method, inputs), answer(model, method, shuffled), atol=SAME)


@pytest.mark.parametrize("method", METHODS)
def test_padding_with_absent_views_does_not_matter(
    model: CountingModel, inputs: dict[str, Tensor], method: str
) -> None:
    padded = {key: torch.cat([value, value[:, :2]], dim=1) for key, value in inputs.items()}
    padded["present"][:, VIEWS:] = 0.0
    assert torch.allclose(answer(model, method, inputs), answer(model, method, padded), atol=SAME)
    fewer = changed(inputs, 2, present=0.0)
    kept = {key: value[:, [0, 1, 3]] for key, value in inputs.items()}
    assert torch.allclose(answer(model, method, fewer), answer(model, method, kept), atol=SAME)


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), -1e30])
@pytest.mark.parametrize("method", METHODS)
def test_rubbish_in_an_absent_slot_does_not_matter(
    model: CountingModel, inputs: dict[str, Tensor], method: str, rubbish: float
) -> None:
    absent = changed(inputs, 1, present=0.0)
    spoiled = changed(absent, 1, features=rubbish, grids=rubbish, offset_s=rubbish)
    said = answer(model, method, spoiled)
    assert torch.isfinite(said).all()
    assert torch.allclose(answer(model, method, absent), said, atol=SAME)


@pytest.mark.parametrize("method", ["column", "none"])
def test_every_present_view_matters(model: CountingModel, inputs: dict[str, Tensor], method: str) -> None:
    base = answer(model, method, inputs)
    for slot in range(VIEWS):
        other = changed(inputs, slot, features=inputs["features"][:, slot].flip(-1))
        assert (answer(model, method, other) - base).abs().max() > 100 * SAME, slot
    assert (answer(model, method, changed(inputs, 1, present=0.0)) - base).abs().max() > 100 * SAME


def test_reference_only_looks_at_nothing_else(model: CountingModel, inputs: dict[str, Tensor]) -> None:
    base = answer(model, "reference-only", inputs)
    for slot in range(1, VIEWS):
        other = changed(inputs, slot, features=0.3, present=0.0, offset_s=2.9)
        assert torch.equal(answer(model, "reference-only", other), base)
    other = changed(inputs, 0, features=inputs["features"][:, 0].flip(-1))
    assert (answer(model, "reference-only", other) - base).abs().max() > 100 * SAME


@pytest.mark.parametrize("method", ["column", "none"])
def test_offsets_matter_and_unknown_is_one_value(
    model: CountingModel, inputs: dict[str, Tensor], method: str
) -> None:
    base = answer(model, method, inputs)
    assert (answer(model, method, changed(inputs, 1, offset_s=2.9)) - base).abs().max() > 10 * SAME
    unknown = changed(inputs, 1, offset_s=UNKNOWN_OFFSET_S)
    assert (answer(model, method, unknown) - base).abs().max() > 10 * SAME
    # Whatever stands for "unknown", nothing of the number itself gets through.
    for stand_in in (-UNKNOWN_OFFSET_S, 777.0):
        assert torch.equal(
            answer(model, method, unknown), answer(model, method, changed(inputs, 1, offset_s=stand_in))
        )


def test_a_batch_is_its_samples_one_by_one(model: CountingModel, inputs: dict[str, Tensor]) -> None:
    other = {key: value.flip(1) if key == "features" else value for key, value in inputs.items()}
    other = changed(other, 2, present=0.0)
    both = {key: torch.cat([inputs[key], other[key]]) for key in inputs}
    with torch.no_grad():
        given = (both[k] for k in ("features", "grids", "present", "offset_s"))
        together = model.fuse(*given, METHODS).density
    for method in METHODS:
        alone = torch.stack([answer(model, method, inputs), answer(model, method, other)])
        assert torch.allclose(together[method], alone, atol=SAME)


def test_the_reference_alone_is_answered_by_every_method(
    model: CountingModel, inputs: dict[str, Tensor]
) -> None:
    for slot in range(1, VIEWS):
        inputs = changed(inputs, slot, present=0.0)
    for method in METHODS:
        density = answer(model, method, inputs)
        assert density.shape == (ROWS, COLUMNS) and torch.isfinite(density).all() and (density >= 0).all()


def test_columns_are_sampled_where_the_grid_says_and_nowhere_else() -> None:
    features = torch.arange(2 * 3 * 4, dtype=torch.float32).reshape(1, 2, 3, 4)
    # The centre of the pixel in row r and column c, in grid_sample's coordinates (align_corners=False).
    spots = [(0, 0), (2, 3), (1, 2)]
    grid = torch.full((1, 1, 1, 4, 2), 1.4)  # the last one lies outside
    for k, (row, column) in enumerate(spots):
        grid[0, 0, 0, k] = torch.tensor([(2 * column + 1) / 4 - 1, (2 * row + 1) / 3 - 1])
    sampled, inside = project_columns(features, grid)
    assert inside.flatten().tolist() == [1, 1, 1, 0]
    for k, (row, column) in enumerate(spots):
        assert torch.allclose(sampled[0, :, 0, k], features[0, :, row, column], atol=1e-5)
    assert sampled[0, :, 0, 3].abs().max() == 0


@pytest.mark.parametrize("levels", [2, 16, 256])
def test_the_quantiser_is_the_wires(levels: int) -> None:
    features = torch.rand(50, generator=torch.Generator().manual_seed(1)).requires_grad_()
    quantised = quantise(features, levels)
    # What the encoder graph sends and the hub reads back.
    sent = torch.round(features.detach() * (levels - 1)).to(torch.uint8).numpy()
    read = np.linspace(0.0, 1.0, levels).astype(np.float32)[sent]
    assert np.allclose(quantised.detach().numpy(), read, atol=1e-6)
    quantised.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(features.grad, torch.ones(50))  # straight through


def test_features_fill_the_wires_range_whatever_the_exposure() -> None:
    torch.manual_seed(0)
    encoder = Encoder(6).eval()
    image = torch.rand(1, 3, 24, 40)
    with torch.no_grad():
        features = encoder(image)
        darker = encoder(image * 0.5)
    assert features.shape == (1, 6, 6, 10) and features.min() >= 0 and features.max() <= 1
    # Mean and contrast are taken out; only the small constant that guards a black frame is felt.
    assert (features - darker).abs().max() < 0.15


def test_a_model_of_an_unknown_method_is_refused() -> None:
    with pytest.raises(
        ValueError, match="unknown method telepathy: choose from column, none, reference-only"
    ):
        ModelConfig(methods=("telepathy",))
