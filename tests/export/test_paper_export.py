"""The paper's methods as graphs: ONNX Runtime says what torch says, and a hub runs them behind its reference.

One bundle has them all in `concat` fusion with a network for each pair, as in the paper; another has two in
`masked` fusion, for any number of views.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from calib.scene import Scene, load_scene
from export import parity
from export.bundle import bundle_parts
from hub.buffer import Snapshot, ViewBuffer
from hub.config import HubConfig, rules_of
from hub.fusion import Fusion
from viewsync.bundle import Bundle
from viewsync.errors import BundleError, UserError
from viewsync.nets.cls_plane import PlaneFlow
from viewsync.nets.config import ALL_METHODS, BOUNDS, TWO_FRAMES
from viewsync.nets.flow import FlowNet
from viewsync.nets.model import UNKNOWN_OFFSET_S, CountingModel, ModelConfig, MotionBefore
from viewsync.ort import open_session
from viewsync.training.evaluate import BundleRunner, evaluate
from viewsync.training.geometry import scene_grids
from viewsync.training.inputs import fundamentals, pictures, plane_maps, tensors
from viewsync.training.snapshots import Sampling, SnapshotSet
from viewsync.wire import FeatureMessage, OffsetEstimate, Tensor

VIEWS = ("right", "left", "far")  # the reference first, then the scene's order
NOON_NS = 1_800_000_000_000_000_000
NOW_NS = NOON_NS + 3_000_000_000  # when every frame has come in
# Sums of some thousand products in another order: float32 keeps about six digits.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def scene(small_scene: Path) -> Scene:
    return load_scene(small_scene)


def made(scene: Scene, methods: tuple[str, ...], **more: object) -> CountingModel:
    torch.manual_seed(2)
    sizes = {"width": 16, "cell_m": scene.ground.cell_m, "grid": (18, 24), "sigma_px": 4.0, **more}
    model = CountingModel(ModelConfig(methods=methods, **sizes)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for head in model.heads.values():
            head.decoder.out.weight.mul_(8.0)  # type: ignore[union-attr,operator]
        for module in model.modules():
            if isinstance(module, FlowNet):  # as if it had learned something
                nn.init.normal_(module[-1].weight, std=0.3)  # type: ignore[arg-type]
            if isinstance(module, PlaneFlow):
                nn.init.normal_(module.add.weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def model(scene: Scene) -> CountingModel:
    methods = tuple(m for m in ALL_METHODS if m not in ("column", "none", *BOUNDS, *TWO_FRAMES))
    return made(scene, methods, fusion="concat", views=VIEWS, flow_nets="pair")


@pytest.fixture(scope="module")
def bundle(model: CountingModel, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    parts = bundle_parts(model, scene, "paper", kappa_s=2.0, default="cls-epi")
    return parts.write(tmp_path_factory.mktemp("paper") / "bundle", {}, {})


@pytest.fixture(scope="module")
def shots(scene: Scene, small_crowds: Path) -> SnapshotSet:
    return SnapshotSet(scene, small_crowds, range(2), Sampling(2.0, 0.0, 0.0, reference=1))


def test_every_graph_says_what_torch_says_end_to_end(
    bundle: Bundle, model: CountingModel, shots: SnapshotSet
) -> None:
    found = parity.measure(model, BundleRunner(bundle, threads=1), shots, 4)
    assert set(found) == set(model.config.methods)
    for figures in found.values():
        assert figures.count_max_percent < 0.5
    parity.refuse_beyond_limit(found)


def test_flow_comes_with_the_density(bundle: Bundle, model: CountingModel, shots: SnapshotSet) -> None:
    scene, shot = bundle.scene, shots.draw(1, 0)
    images = pictures([shot.images])
    grids, present, offset = tensors([shot], torch.from_numpy(scene_grids(scene, 96, 72)))
    runner = BundleRunner(bundle, threads=1)
    with torch.inference_mode():
        features = model.encode(images)
        answer = model.fuse(
            features,
            grids,
            present,
            offset,
            model.config.methods,
            fundamentals(model, [shot], scene),
            planes=plane_maps(model, [shot], scene),
        )
    sent = np.rint(features[0].numpy() * 15).astype(np.uint8)
    outputs = runner.fuse(sent, shot)
    for method, motion in answer.motion.items():
        given = outputs[method]
        np.testing.assert_allclose(given["density"], answer.density[method][0].numpy(), **CLOSE)
        if isinstance(motion, MotionBefore):
            flow, name, shape = motion.moved.flow_px[-1][0], "flow_px", (3, 9, 12, 2)
        else:
            flow, name, shape = motion.synchronised.flow_m[0], "flow_m", (3, 6, 8, 2)
        assert given[name].shape == shape and not given[name][0].any()
        largest = float(np.abs(flow.numpy()).max())
        assert largest > 0.01, method
        np.testing.assert_allclose(given[name][1:], flow.numpy(), rtol=0, atol=1e-3 * max(largest, 1.0))


def test_the_manifest_says_what_the_graphs_need(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.references == ("right",) and manifest.views == ("left", "right", "far")
    kinds = {name: spec.fusion for name, spec in manifest.fusion.items()}
    assert kinds.pop("reference-only") == "masked" and set(kinds.values()) == {"concat"}
    assert list(manifest.fusion["cls-epi"].inputs) == ["features", "view_from_ground", "fundamental"]
    assert list(manifest.fusion["cls-cor"].inputs) == ["features", "view_from_ground"]
    geometry = ["view_from_ground", "fundamental", "planes"]
    assert list(manifest.fusion["cls-plane"].inputs) == ["features", "offset_s", *geometry]
    assert manifest.fusion["cls-epi"].inputs["features"].shape == (3, 16, 18, 24)
    assert manifest.fusion["cls-epi"].outputs["flow_px"].shape == (3, 9, 12, 2)


def snapshot_of(bundle: Bundle, sent: dict[str, np.ndarray], offset_s: dict[str, float]) -> Snapshot:
    """As a hub has it: every view's newest message in its buffer."""
    rules = rules_of(HubConfig(bundle=bundle.path, site="yard"), bundle)
    buffer = ViewBuffer(rules, session=1)
    for view, features in sent.items():
        message = FeatureMessage(
            site="yard",
            scene=bundle.scene.name,
            view=view,
            session=1,
            seq=1,
            capture_ns=NOON_NS + round(1e9 * offset_s[view]),
            clock="file",
            arrival_ns=NOW_NS,
            sent_ns=NOW_NS,
            camera_offset=None,
            hub_offset=OffsetEstimate(0, 1_000_000),
            features_hash=bundle.features_hash(view),
            tensors=(Tensor("features", features),),
        )
        assert buffer.put(message, NOW_NS).accepted
    shot = buffer.snapshot(NOW_NS)
    assert shot is not None
    return shot


def test_a_hub_runs_cls_epi_behind_its_reference_and_refuses_anything_else(
    bundle: Bundle, model: CountingModel, shots: SnapshotSet
) -> None:
    shot, names = shots.draw(1, 3), bundle.manifest.views
    runner = BundleRunner(bundle, threads=1)
    sent = {names[int(v)]: runner.encode(image) for v, image in zip(shot.view, shot.images, strict=True)}
    offsets = {names[int(v)]: float(o) for v, o in zip(shot.view, shot.offset_s, strict=True)}
    hub = Fusion(bundle, ("cls-epi", "cls-cor", "cls-plane", "reference-only"))
    hub.warm_up()
    outputs = hub.predict(snapshot_of(bundle, sent, offsets), VIEWS)
    expected = runner.fuse(np.stack([sent[view] for view in VIEWS]), shot)
    np.testing.assert_allclose(outputs.density, expected["cls-epi"]["density"], **CLOSE)
    assert outputs.slots == VIEWS
    assert set(outputs.counts) == {"cls-epi", "cls-cor", "cls-plane", "reference-only"}
    # What the hub computes from the scene is what the graph was measured with.
    assert outputs.counts["cls-plane"] == pytest.approx(expected["cls-plane"]["density"].sum(), rel=1e-3)
    with torch.inference_mode():
        lines = fundamentals(model, [shot], bundle.scene)
        answer = model(
            pictures([shot.images]),
            *tensors([shot], torch.from_numpy(scene_grids(bundle.scene, 96, 72))),
            lines,
            planes=plane_maps(model, [shot], bundle.scene),
        )
    # From frames to the hub's density against torch; features of two roundings may differ by a level.
    np.testing.assert_allclose(outputs.density, answer.density["cls-epi"][0].numpy(), rtol=0, atol=1e-3)
    assert hub.objection(VIEWS) == ""
    assert hub.objection(("right", "far")) == "graph cls-epi needs all views; missing: left"
    assert hub.objection(("left", "right", "far")) == "graph cls-epi needs reference right, not left"


def test_what_a_concat_graph_is_not_for_is_refused_when_measuring(
    bundle: Bundle, scene: Scene, shots: SnapshotSet, small_crowds: Path
) -> None:
    runner = BundleRunner(bundle, threads=1)
    assert runner.reference == "right"
    found = evaluate(runner, small_crowds, (0, 1), (2, 3), 3, 2.0, reference="right")
    assert set(found.scores) == set(bundle.manifest.fusion)
    anywhere = SnapshotSet(scene, small_crowds, range(2), Sampling(2.0))
    shot = next(s for s in (anywhere.draw(0, k) for k in range(20)) if s.view[0] != 1)
    features = np.zeros((3, 16, 18, 24), np.uint8)
    with pytest.raises(
        UserError, match=r"answers for reference right with left, far, in this order, not for"
    ):
        runner.fuse(features, shot)


@pytest.mark.parametrize("method", ["cls-epi", "cls-plane"])
def test_a_shared_network_in_masked_fusion_takes_any_number_of_views(
    scene: Scene, tmp_path: Path, method: str
) -> None:
    model = made(scene, (method,))
    bundle = bundle_parts(model, scene, "shared", kappa_s=2.0).write(tmp_path / "bundle", {}, {})
    assert bundle.manifest.references == tuple(scene.cameras)
    for views in (2, 3, 5):
        rng = np.random.default_rng(views)
        given = {
            "features": rng.integers(0, 16, (views, 16, 18, 24)) / 15.0,
            "present": np.ones(views),
            "offset_s": np.where(np.arange(views) == 1, UNKNOWN_OFFSET_S, rng.uniform(-2, 2, views)),
            "view_from_ground": rng.uniform(-1.2, 1.2, (views, 6, 12, 16, 2)),
            "fundamental": rng.normal(size=(views, 3, 3)) * [0.02, 0.02, 0.4],
            "planes": np.eye(4, 3) + rng.uniform(0, 0.05, (views, 6, 4, 3)),
        }
        given["present"][-1] = 0.0
        given["fundamental"][-1] = given["planes"][-1] = np.nan
        inputs = {key: value.astype(np.float32) for key, value in given.items()}
        names = ("features", "view_from_ground", "present", "offset_s")
        with torch.inference_mode():
            tensors_ = [torch.from_numpy(inputs[name])[None] for name in names]
            geometry = [torch.from_numpy(inputs[name])[None] for name in ("fundamental", "planes")]
            answer = model.fuse(*tensors_, (method,), geometry[0], planes=geometry[1])
        spec = bundle.manifest.fusion[method]
        session = open_session(bundle.fusion_bytes(method), "cpu", 1)
        density = session.run(["density"], {name: inputs[name] for name in spec.inputs})[0]
        assert density.std() > 5e-4
        np.testing.assert_allclose(density, answer.density[method][0].numpy(), rtol=1e-3, atol=1e-4)


def test_a_scene_of_other_views_or_pictures_is_refused(model: CountingModel, scene: Scene) -> None:
    renamed = {("up" if view == "far" else view): camera for view, camera in scene.cameras.items()}
    with pytest.raises(
        BundleError, match="its views are right, left, up, the model was trained for right, left"
    ):
        bundle_parts(model, Scene("other", renamed, scene.ground, scene.heights_m, {}), "other", 2.0)
    larger = {view: camera.resized(192, 144) for view, camera in scene.cameras.items()}
    with pytest.raises(BundleError, match="do not make features of 18 rows and 24 columns"):
        bundle_parts(model, Scene("other", larger, scene.ground, scene.heights_m, {}), "other", 2.0)
