"""The graphs' inputs against independent geometry, and the laws of `masked` fusion."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from hub.buffer import Entry, Snapshot, ViewBuffer
from hub.fusion import Fusion, FusionOutputs
from viewsync.bundle import Bundle
from viewsync.bundle_writing import write_bundle
from viewsync.errors import BundleError, UserError
from viewsync.wire import FeatureMessage

NOON_NS = 1_800_000_000_000_000_000
Frames = Callable[..., FeatureMessage]


@pytest.fixture
def snapshot(buffer: ViewBuffer, frame: Frames) -> Snapshot:
    """South half a second before north, west one second after."""
    for view, offset_ms in (("north", 0), ("south", -500), ("west", 1000)):
        assert buffer.put(frame(view, 3, NOON_NS + offset_ms * 1_000_000), NOON_NS + 10**9).accepted
    shot = buffer.snapshot(NOON_NS + 10**9)
    assert shot is not None
    return shot


def seen(bundle: Bundle, entry: Entry) -> np.ndarray:
    """(Hg, Wg) brightness over each cell, by the definition: project, then bilinear between feature
    centres.
    """
    camera, spec = bundle.pinhole(entry.view), bundle.manifest.features
    image = np.zeros((spec.height + 2, spec.width + 2))
    image[1:-1, 1:-1] = entry.features[-1] / 255
    total = np.zeros(bundle.scene.ground.shape)
    for height_m in bundle.scene.heights_m:
        centres = bundle.scene.ground.centres()
        pixels = camera.project(np.concatenate([centres, np.full((*centres.shape[:2], 1), height_m)], -1))
        # Pixel centres at integers: feature column u covers pixels 4u … 4u + 3. One column of zeros on each
        # side.
        u, v = np.moveaxis((pixels + 0.5) / spec.stride - 0.5 + 1, -1, 0)
        ok = (u > 0) & (u < spec.width + 1) & (v > 0) & (v < spec.height + 1)
        u, v = np.where(ok, u, 0), np.where(ok, v, 0)
        left, top = np.floor(u).astype(int), np.floor(v).astype(int)
        a, b = u - left, v - top
        value = (1 - b) * ((1 - a) * image[top, left] + a * image[top, left + 1])
        value += b * ((1 - a) * image[top + 1, left] + a * image[top + 1, left + 1])
        total += np.where(ok, value, 0)
    return total / len(bundle.scene.heights_m)


def test_every_reference_and_subset_agrees_with_the_definition(
    bundle: Bundle, fusion: Fusion, snapshot: Snapshot, tiny: ModuleType
) -> None:
    """Float32 sampling coordinates move a sample by 1e-5 of a feature: 1e-4 of people per cell and unit is
    ample.
    """
    maps = {view: seen(bundle, entry) for view, entry in snapshot.entries.items()}
    offsets = {"north": 0.0, "south": -0.5, "west": 1.0}
    for used in (("north", "south", "west"), ("west", "north"), ("south",), ("west", "north", "south")):
        outputs = fusion.predict(snapshot, used)
        weights = {view: np.exp(-abs(offsets[view] - offsets[used[0]]) / tiny.FADE_S) for view in used}
        expected = sum(weights[view] * maps[view] for view in used) / sum(weights.values())
        np.testing.assert_allclose(outputs.density, tiny.DENSITY_PER_BRIGHTNESS * expected, atol=1e-6)
        alone = tiny.DENSITY_PER_BRIGHTNESS * maps[used[0]].sum()
        mean = tiny.DENSITY_PER_BRIGHTNESS * np.mean([maps[view] for view in used], axis=0).sum()
        assert outputs.counts["reference-only"] == pytest.approx(alone, rel=1e-4)
        assert outputs.counts["none"] == pytest.approx(mean, rel=1e-4)
        assert outputs.counts["column"] == pytest.approx(float(outputs.density.sum()), rel=1e-6)


def test_the_warp_is_the_flow_of_that_view(fusion: Fusion, snapshot: Snapshot, tiny: ModuleType) -> None:
    outputs = fusion.predict(snapshot, ("south", "west", "north"))
    assert outputs.mean_warp_m("south") is None
    assert outputs.mean_warp_m("west") == pytest.approx(1.5 * tiny.FLOW_X_M_PER_S)
    assert outputs.mean_warp_m("north") == pytest.approx(0.5 * tiny.FLOW_X_M_PER_S)


def test_an_unknown_offset_reaches_the_model_as_the_trained_value(fusion: Fusion, snapshot: Snapshot) -> None:
    """The tiny model forgets a view at 1000 s: south then counts as if it were absent."""
    unknown = fusion.predict(snapshot, ("north", "south"), unknown=("south",))
    np.testing.assert_allclose(unknown.density, fusion.predict(snapshot, ("north",)).density, atol=1e-9)


def test_padding_with_absent_views_changes_nothing(
    fusion: Fusion, snapshot: Snapshot, tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle that knows two of the views only has no padding to do."""
    monkeypatch.setattr(tiny, "VIEWS", ("north", "west"))
    smaller = Fusion(tiny.write_tiny_bundle(tmp_path / "two"), ("column", "none", "reference-only"))
    for used in (("north", "west"), ("west", "north")):
        padded, exact = fusion.predict(snapshot, used), smaller.predict(snapshot, used)
        np.testing.assert_allclose(padded.density, exact.density, atol=1e-8)
        assert padded.counts == pytest.approx(exact.counts, rel=1e-6)


def test_the_order_of_views_in_the_bundle_changes_nothing(
    fusion: Fusion, snapshot: Snapshot, tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "VIEWS", ("west", "south", "north"))
    other = Fusion(tiny.write_tiny_bundle(tmp_path / "turned"), ("column", "none", "reference-only"))
    for used in (("north", "south", "west"), ("west", "south")):
        mine, theirs = fusion.predict(snapshot, used), other.predict(snapshot, used)
        np.testing.assert_allclose(mine.density, theirs.density, atol=1e-8)
        assert mine.counts == pytest.approx(theirs.counts, rel=1e-6)


# --- graphs that the tiny bundle has not -------------------------------------------------------------------


def custom_bundle(
    tiny: ModuleType,
    bundle: Bundle,
    path: Path,
    kind: str,
    inputs: dict[str, list],
    extra: list | None = None,
) -> Bundle:
    """A bundle whose graph `odd` takes these inputs and answers with zeros, except where `extra` nodes say
    more.
    """
    rows, columns = bundle.scene.ground.shape
    zeros = helper.make_tensor("zeros", TensorProto.FLOAT, [rows, columns], [0.0] * (rows * columns))
    nodes = [helper.make_node("ReduceSum", [name], [f"sum_{name}"], keepdims=0) for name in inputs]
    nodes += [helper.make_node("Sum", [f"sum_{name}" for name in inputs], ["all"])]
    nodes += [helper.make_node("Add", ["zeros", "all"], ["density"])] if extra is None else extra
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("density", TensorProto.FLOAT, [rows, columns])],
        [zeros],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    specs = {name: {"shape": shape, "dtype": "float32"} for name, shape in inputs.items()}
    spec = {"fusion": kind, "synchroniser": "odd", "inputs": specs}
    spec["outputs"] = {"density": {"shape": [rows, columns], "dtype": "float32"}}
    facts = bundle.manifest.model_dump(
        mode="json", by_alias=True, exclude={"hashes", "fusion", "manifest_schema"}
    )
    facts = {key: value for key, value in facts.items() if key not in ("schema", "wire")}
    facts["encoder"].pop("file")
    facts |= {"fusion": {"odd": spec}, "default": "odd"}
    return write_bundle(path, facts, bundle.scene, bundle.encoder_bytes, {"odd": model.SerializeToString()})


FEATURES = ["V", 4, 18, 24]


def test_concat_names_what_is_missing(
    tiny: ModuleType, bundle: Bundle, snapshot: Snapshot, tmp_path: Path
) -> None:
    fusion = Fusion(custom_bundle(tiny, bundle, tmp_path / "concat", "concat", {"features": FEATURES}))
    assert fusion.objection(("north", "south", "west")) == ""
    assert fusion.objection(("north", "west")) == "graph odd needs all views; missing: south"
    assert fusion.objection(("west", "north", "south")) == "graph odd needs reference north, not west"


def test_fundamental_matrices_reach_the_graph_that_asks(
    tiny: ModuleType, bundle: Bundle, snapshot: Snapshot, tmp_path: Path
) -> None:
    """The graph returns the matrices themselves; points of the scene in feature pixels satisfy them."""
    inputs = {"features": FEATURES, "fundamental": ["V", 3, 3]}
    rows, columns = bundle.scene.ground.shape
    pads = helper.make_tensor("pads", TensorProto.INT64, [4], [0, 0, rows - 3, columns - 9])
    extra = [
        helper.make_node(
            "Constant", [], ["row"], value=helper.make_tensor("r", TensorProto.INT64, [2], [3, 9])
        ),
        helper.make_node("Constant", [], ["pads"], value=pads),
        helper.make_node("Reshape", ["fundamental", "row"], ["flat"]),
        helper.make_node("Pad", ["flat", "pads"], ["density"]),
    ]
    fusion = Fusion(custom_bundle(tiny, bundle, tmp_path / "epipolar", "masked", inputs, extra))
    matrices = fusion.predict(snapshot, ("south", "north", "west")).density[:3, :9].reshape(3, 3, 3)
    assert not matrices[0].any()
    points = np.random.default_rng(1).uniform((0, 0, 0), (8, 6, 2), (50, 3))

    def in_features(view: str) -> np.ndarray:
        pixels = (bundle.pinhole(view).project(points) + 0.5) / 4 - 0.5
        return np.concatenate([pixels, np.ones((50, 1))], -1)

    for slot, view in ((1, "north"), (2, "west")):
        residuals = np.einsum("ni,ij,nj->n", in_features(view), matrices[slot], in_features("south"))
        # Unit norm in float32, points of up to 24 pixels: rounding alone is 24² · 6e-8.
        assert np.abs(residuals).max() < 1e-4


def test_a_graph_may_take_the_reference_alone(
    tiny: ModuleType, bundle: Bundle, snapshot: Snapshot, tmp_path: Path
) -> None:
    fusion = Fusion(custom_bundle(tiny, bundle, tmp_path / "one", "masked", {"features": [1, 4, 18, 24]}))
    density = fusion.predict(snapshot, ("west", "north")).density
    assert density[0, 0] == pytest.approx(snapshot.entries["west"].features.sum(dtype=float) / 255, rel=1e-5)


def test_what_cannot_run_is_refused_when_loaded(tiny: ModuleType, bundle: Bundle, tmp_path: Path) -> None:
    odd = custom_bundle(
        tiny, bundle, tmp_path / "odd", "masked", {"features": FEATURES, "homography": ["V", 3, 3]}
    )
    with pytest.raises(BundleError, match="homography"):
        Fusion(odd)
    with pytest.raises(BundleError, match="no fusion graph 'best'; choose one of column, none"):
        Fusion(bundle, ("best",))
    wrong = custom_bundle(
        tiny,
        bundle,
        tmp_path / "wrong",
        "masked",
        {"features": ["V", 4, 9, 9]},
        [
            helper.make_node("Add", ["zeros", "all"], ["unused"]),
            helper.make_node("Identity", ["zeros"], ["density"]),
        ],
    )
    with pytest.raises(BundleError, match="graph odd failed"):
        Fusion(wrong).warm_up()


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this machine may have CUDA"
)
def test_cuda_without_cuda_is_refused_unless_the_fallback_is_allowed(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="cuda"):
        Fusion(bundle, provider="cuda")
    fusion = Fusion(bundle, provider="cuda", allow_cpu_fallback=True)
    assert fusion.on_cpu_against_wish


def test_the_mean_warp_is_that_of_people_who_were_matched() -> None:
    """Four cells in two: two people moved 3 m and one moved 1 m, matched twice as surely."""
    density = np.array([[1.0, 0.5, 0.4, 0.0], [0.5, 0.0, 0.0, 0.6]], np.float32)
    flow_m = np.zeros((2, 1, 2, 2), np.float32)
    flow_m[1, 0, :, 0] = 3.0, -1.0
    match = np.array([[[0.0, 0.0]], [[0.4, 0.8]]], np.float32)
    outputs = FusionOutputs(density, {"odd": 3.0}, (), ("north", "west"), flow_m, match, 0, 0)
    assert outputs.mean_warp_m("north") is None
    assert outputs.mean_warp_m("west") == pytest.approx((2 * 0.4 * 3 + 1 * 0.8 * 1) / (2 * 0.4 + 1 * 0.8))
    nobody = dataclasses.replace(outputs, density=np.zeros_like(density))
    assert nobody.mean_warp_m("west") is None
