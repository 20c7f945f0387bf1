"""From a checkpoint to a bundle that says what the model says: each graph, any number of views, the wire."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from calib.ground import GroundGrid
from calib.scene import Scene, load_scene
from export import parity
from export.bundle import Parts, bundle_parts
from export.graphs import encoder_onnx
from viewsync.bundle import Bundle
from viewsync.cli import main
from viewsync.errors import BundleError
from viewsync.nets.model import METHODS, UNKNOWN_OFFSET_S, CountingModel, ModelConfig
from viewsync.onnx_metadata import read_metadata
from viewsync.ort import open_session
from viewsync.training.checkpoint import save_checkpoint
from viewsync.training.evaluate import BundleRunner, evaluate
from viewsync.training.runners import TorchRunner
from viewsync.training.snapshots import Sampling, SnapshotSet

# Sums of some thousand products in another order: float32 keeps about six digits.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def scene(small_scene: Path) -> Scene:
    return load_scene(small_scene)


@pytest.fixture(scope="module")
def model(scene: Scene) -> CountingModel:
    torch.manual_seed(2)
    made = CountingModel(ModelConfig(width=16, cell_m=scene.ground.cell_m)).eval()
    with torch.no_grad():
        for head in made.heads.values():
            head.decoder.out.weight.mul_(8.0)  # type: ignore[union-attr,operator]
    return made


@pytest.fixture(scope="module")
def checkpoint(
    model: CountingModel, small_scene: Path, small_crowds: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """As training leaves it; the weights are random, which is no matter to parity."""
    folder = tmp_path_factory.mktemp("run") / "best"
    config = {"scene": str(small_scene), "data": str(small_crowds), "methods": list(METHODS), "kappa_s": 2.0}
    config |= {"train_seeds": [0, 4], "validation_seeds": [4, 6], "steps": 6, "seed": 0}
    save_checkpoint(folder, model, None, {"step": 6, "config": config, "validation": {"score": 1.0}})
    return folder


@pytest.fixture(scope="module")
def parts(model: CountingModel, scene: Scene) -> Parts:
    return bundle_parts(model, scene, "small", kappa_s=2.0)


@pytest.fixture(scope="module")
def bundle(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return parts.write(tmp_path_factory.mktemp("export") / "small", {}, {})


@pytest.fixture(scope="module")
def runner(bundle: Bundle) -> BundleRunner:
    return BundleRunner(bundle, threads=1)


def inputs(views: int, scene: Scene, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows, columns = scene.ground.rows, scene.ground.columns
    offset = rng.uniform(-2, 2, views)
    offset[0], offset[-1] = 0.0, UNKNOWN_OFFSET_S
    given = {
        "features": rng.integers(0, 16, (views, 16, 18, 24)) / 15.0,
        "present": np.ones(views),
        "offset_s": offset,
        "view_from_ground": rng.uniform(-1.2, 1.2, (views, 6, rows, columns, 2)),
    }
    return {key: value.astype(np.float32) for key, value in given.items()}


def ask(bundle: Bundle, graph: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    spec = bundle.manifest.fusion[graph]
    session = open_session(bundle.fusion_bytes(graph), "cpu", 1)
    results = session.run(list(spec.outputs), {name: given[name] for name in spec.inputs})
    return dict(zip(spec.outputs, results, strict=True))


@pytest.mark.parametrize("views", [2, 3, 4, 5])
@pytest.mark.parametrize("graph", METHODS)
def test_a_graph_says_what_torch_says_for_any_number_of_views(
    bundle: Bundle, model: CountingModel, scene: Scene, graph: str, views: int
) -> None:
    given = inputs(views, scene)
    with torch.inference_mode():
        tensors = (
            torch.from_numpy(given[k])[None] for k in ("features", "view_from_ground", "present", "offset_s")
        )
        answer = model.fuse(*tensors, (graph,))
    found = ask(bundle, graph, given)
    density = answer.density[graph][0].numpy()
    assert found["density"].std() > 5e-4  # not a flat map that anything would agree with
    np.testing.assert_allclose(found["density"], density, **CLOSE)
    if graph == "column":
        assert answer.synchronised is not None
        assert found["flow_m"].shape == (views, 6, 8, 2) and found["match"].shape == (views, 6, 8)
        # Places are some metres, and probabilities differ in the last digits.
        np.testing.assert_allclose(
            found["flow_m"][1:], answer.synchronised.flow_m[0].numpy(), rtol=0, atol=1e-3
        )
        np.testing.assert_allclose(
            found["match"][1:], answer.synchronised.evidence[0, :, 0].numpy(), rtol=0, atol=1e-4
        )
        assert (found["flow_m"][0] == 0).all() and (found["match"][0] == 1).all()


@pytest.mark.parametrize("graph", METHODS)
def test_an_exported_graph_keeps_the_laws(bundle: Bundle, scene: Scene, graph: str) -> None:
    given = inputs(4, scene)
    base = ask(bundle, graph, given)["density"]
    order = [0, 2, 3, 1]
    shuffled = ask(bundle, graph, {key: value[order] for key, value in given.items()})["density"]
    np.testing.assert_allclose(shuffled, base, **CLOSE)
    without = {key: value.copy() for key, value in given.items()}
    without["present"][2] = 0.0
    spoiled = {key: value.copy() for key, value in without.items()}
    for key in ("features", "offset_s", "view_from_ground"):
        spoiled[key][2] = np.nan
    np.testing.assert_allclose(
        ask(bundle, graph, spoiled)["density"], ask(bundle, graph, without)["density"], **CLOSE
    )
    kept = {key: value[[0, 1, 3]] for key, value in given.items()}
    np.testing.assert_allclose(
        ask(bundle, graph, kept)["density"], ask(bundle, graph, without)["density"], **CLOSE
    )


def test_the_encoder_sends_what_torch_quantises(runner: BundleRunner, model: CountingModel) -> None:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (3, 72, 96, 3), dtype=np.uint8)
    with torch.inference_mode():
        together = model.encode(torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 255.0)[0].numpy()
    for image, expected in zip(frames, together, strict=True):  # batched in torch, one by one in the graph
        sent = runner.encode(image)
        assert sent.dtype == np.uint8 and sent.shape == (16, 18, 24) and sent.max() <= 15
        # A value that lies between two levels may be rounded either way: one step, and rarely.
        apart = np.abs(sent / 15.0 - expected)
        assert apart.max() < 1.001 / 15 and (apart > 1e-3).mean() < 1e-3


def test_names_shapes_and_dynamic_sides_are_pinned(bundle: Bundle) -> None:
    column = onnx.load_from_string(bundle.fusion_bytes("column")).graph

    def sides(values: object) -> dict[str, list[object]]:
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}  # type: ignore[attr-defined]

    assert sides(column.input) == {
        "features": ["V", 16, 18, 24],
        "present": ["V"],
        "offset_s": ["V"],
        "view_from_ground": ["V", 6, 12, 16, 2],
    }
    assert list(sides(column.output)) == ["density", "flow_m", "match"]
    assert sides(column.output)["density"] == [12, 16]
    only = onnx.load_from_string(bundle.fusion_bytes("reference-only")).graph
    assert list(sides(only.input)) == ["features", "view_from_ground"]
    encoder = onnx.load_from_string(bundle.encoder_bytes).graph
    assert sides(encoder.input) == {"image": [1, 72, 96, 3]}
    assert sides(encoder.output) == {"features": [1, 16, 18, 24]}
    manifest = bundle.manifest
    assert manifest.default == "column" and set(manifest.fusion) == set(METHODS)
    assert manifest.offset.trained_s == 2.0 and manifest.offset.unknown_s == UNKNOWN_OFFSET_S
    for graph in METHODS:
        facts = read_metadata(bundle.fusion_bytes(graph))
        assert facts is not None and facts["synchroniser"] == graph


def test_exporting_again_gives_the_same_bytes_and_nothing_of_this_machine(
    bundle: Bundle, parts: Parts, model: CountingModel
) -> None:
    assert encoder_onnx(model, 72, 96) == parts.encoder
    for data in (bundle.encoder_bytes, *(bundle.fusion_bytes(graph) for graph in METHODS)):
        assert b".py" not in data and str(Path(__file__).parents[2]).encode() not in data


def test_parity_is_measured_over_the_wire_and_refused_beyond_two_percent(
    model: CountingModel, runner: BundleRunner, scene: Scene, small_crowds: Path
) -> None:
    shots = SnapshotSet(scene, small_crowds, range(4, 6), Sampling(2.0))
    found = parity.measure(model, runner, shots, 12)
    assert set(found) == set(METHODS)
    for figures in found.values():
        assert 0 <= figures.count_p50_percent <= figures.count_p95_percent <= figures.count_max_percent < 0.5
    parity.refuse_beyond_limit(found)
    torch.manual_seed(9)
    other = CountingModel(model.config).eval()  # weights that were not exported
    wrong = parity.measure(other, runner, shots, 6)
    with pytest.raises(
        BundleError, match=r"does not say what the model says: counts differ by .* nothing was written"
    ):
        parity.refuse_beyond_limit(wrong)
    shot = shots.draw(0, 0)
    arrived = parity.over_the_wire(runner, shot)
    for slot, image in enumerate(shot.images):
        expected = runner.encode(image) if shot.present[slot] else np.zeros((16, 18, 24))
        assert (arrived[slot] == expected).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heights_m": (0.1, 0.5)}, "2 heights, the model was trained with 6"),
        ({"ground": GroundGrid(0.0, 0.0, 0.4, 16, 12)}, r"0\.4 m, the model was trained with 0\.5 m"),
        ({"ground": GroundGrid(0.0, 0.0, 0.5, 16, 13)}, "odd number of rows"),
    ],
)
def test_a_scene_that_does_not_fit_the_weights_is_refused(
    model: CountingModel, scene: Scene, changes: dict[str, object], message: str
) -> None:
    given = {"heights_m": scene.heights_m, "ground": scene.ground} | changes
    other = Scene("other", scene.cameras, given["ground"], given["heights_m"], {})  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=message):
        bundle_parts(model, other, "other", 2.0)


def test_a_bundle_and_its_checkpoint_score_alike(
    runner: BundleRunner, checkpoint: Path, small_crowds: Path
) -> None:
    ours = evaluate(runner, small_crowds, (4, 5), (0, 1), 16, 2.0)
    theirs = evaluate(TorchRunner(checkpoint, threads=1), small_crowds, (4, 5), (0, 1), 16, 2.0)
    assert (ours.offsets_s == theirs.offsets_s).all() and np.abs(ours.offsets_s).max() <= 2.0
    joined = ours.joined(theirs, {graph: f"{graph} (torch)" for graph in METHODS})
    for graph in METHODS:
        counts, same = joined.scores[graph].predicted, joined.scores[f"{graph} (torch)"].predicted
        np.testing.assert_allclose(counts, same, rtol=5e-3)
        assert (joined.scores[graph].true == joined.scores[f"{graph} (torch)"].true).all()
    with pytest.raises(ValueError, match="there already"):
        joined.joined(theirs, {graph: graph for graph in METHODS})


def test_from_checkpoint_to_a_measured_bundle_on_the_command_line(
    checkpoint: Path,
    parts: Parts,
    small_scene: Path,
    small_crowds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Exporting takes long and always gives the same bytes: once is enough.
    monkeypatch.setattr("export.bundle.bundle_parts", lambda *args: parts)

    def viewsync(*args: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, [*args, "--data", str(small_crowds)])
        assert result.exit_code == code, result.output
        return result.output

    made, accuracy = tmp_path / "bundle", tmp_path / "accuracy.json"
    export = ("export", "--checkpoint", str(checkpoint), "--scene", str(small_scene), "--crowds", "4:6")
    export += ("--snapshots", "4")
    assert "parity column" in viewsync(*export, "--out", str(made))
    assert "exists; choose a new place" in viewsync(*export, "--out", str(made), code=2)
    before = Bundle.load(made)
    assert before.manifest.accuracy["parity"]["snapshots"] == 4
    assert before.manifest.training["seeds"]["train"] == [0, 4]
    assert before.manifest.training["before"] == []
    assert str(tmp_path.parents[1]) not in (made / "manifest.yaml").read_text()

    measure = (
        "evaluate",
        "--bundle",
        str(made),
        "--scene",
        str(small_scene),
        "--crowds",
        "2:6",
        "--frames",
        "12",
    )
    measure += ("--tuning", "0:2", "--threads", "1", "--json", str(accuracy), "--checkpoint", str(checkpoint))
    measure += ("--offsets", "known")
    printed = viewsync(*measure, "--markdown")
    assert "| column | " in printed and f"| none ({checkpoint.parent.name}/{checkpoint.name}) | " in printed
    assert "- column − none: MAE " in printed and "12 snapshots of 4 unseen crowds" in printed
    document = json.loads(accuracy.read_text())
    assert set(document["graphs"]["column"]) == {"mae", "nae", "density_mse", "precision", "recall", "f1"}
    assert set(document["differences"]["column"]["reference-only"]) == {"mae", "density_mse", "f1"}
    low, value, high = (document["graphs"]["none"]["mae"][k] for k in ("low", "value", "high"))
    assert low <= value <= high

    viewsync(*export, "--out", str(made), "--replace", "--accuracy", str(accuracy))
    after = Bundle.load(made)
    assert after.manifest.accuracy["graphs"] == document["graphs"]
    assert after.manifest.accuracy["thresholds"].keys() >= set(METHODS)
    assert after.manifest.hashes.features == before.manifest.hashes.features and after.hash != before.hash

    document["measured"]["files"]["encoder.onnx"] = "0" * 64
    accuracy.write_text(json.dumps(document))
    refused = viewsync(*export, "--out", str(made), "--replace", "--accuracy", str(accuracy), code=2)
    assert "measured on another encoder.onnx" in refused
    assert Bundle.load(made).hash == after.hash  # what was there stays
    assert "--tuning and --crowds share crowds" in viewsync(*measure, "--tuning", "5:7", code=2)
