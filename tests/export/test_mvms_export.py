"""The paper's synchronisers over MVMS as bundles: ONNX Runtime says what torch says, and a hub runs them."""

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
from viewsync.errors import BundleError
from viewsync.nets.flow import FlowNet
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.ort import open_session
from viewsync.training.evaluate import BundleRunner
from viewsync.training.snapshots import Sampling, SnapshotSet
from viewsync.wire import FeatureMessage, OffsetEstimate, Tensor

VIEWS = ("right", "left", "far")  # the reference first, then the scene's order
NOW_NS = 1_800_000_003_000_000_000
# The small scene's pictures of 96x72 make features of 18 rows and 24 columns.
GRID = (18, 24)


@pytest.fixture(scope="module")
def scene(small_scene: Path) -> Scene:
    return load_scene(small_scene)


def made(scene: Scene, methods: tuple[str, ...], **more: object) -> CountingModel:
    torch.manual_seed(2)
    sizes = {"channels": 8, "cell_m": scene.ground.cell_m, "grid": GRID, "plane": 5, "base": "mvms", **more}
    model = CountingModel(ModelConfig(methods=methods, **sizes)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for head in model.heads.values():
            head.decoder.out.weight.mul_(8.0)  # type: ignore[union-attr,operator]
        for module in model.modules():
            if isinstance(module, FlowNet):  # as if it had learned something
                nn.init.normal_(module[-1].weight, std=0.3)  # type: ignore[arg-type]
    return model


@pytest.fixture(scope="module")
def model(scene: Scene) -> CountingModel:
    methods = ("cls-epi", "sls", "reference-only")
    return made(scene, methods, fusion="concat", views=VIEWS, flow_nets="pair", sigma_px=4.0)


@pytest.fixture(scope="module")
def bundle(model: CountingModel, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    parts = bundle_parts(model, scene, "mvms", kappa_s=2.0)
    return parts.write(tmp_path_factory.mktemp("mvms") / "bundle", {}, {})


@pytest.fixture(scope="module")
def shots(scene: Scene, small_crowds: Path) -> SnapshotSet:
    return SnapshotSet(scene, small_crowds, range(2), Sampling(2.0, 0.0, 0.0, reference=1))


def test_every_graph_says_what_torch_says_end_to_end(
    bundle: Bundle, model: CountingModel, shots: SnapshotSet
) -> None:
    found = parity.measure(model, BundleRunner(bundle, threads=1), shots, 3)
    assert set(found) == set(model.config.methods)
    for figures in found.values():
        assert figures.count_max_percent < 0.5
    # Eight channels of the finest scale, two and a half for the coarser ones.
    assert bundle.manifest.features.channels == 11
    epi = bundle.manifest.fusion["cls-epi"]
    assert list(epi.inputs) == ["features", "view_from_ground", "fundamental", "distance_m"]
    assert epi.inputs["distance_m"].shape == (3, *GRID)
    assert bundle.manifest.fusion["sls"].outputs["flow_m"].shape == (3, 12, 16, 2)
    assert list(bundle.manifest.fusion["reference-only"].inputs)[-1] == "distance_m"


def test_a_hub_runs_cls_epi_over_mvms(bundle: Bundle, shots: SnapshotSet) -> None:
    shot, names = shots.draw(1, 3), bundle.manifest.views
    runner = BundleRunner(bundle, threads=1)
    sent = {names[int(v)]: runner.encode(image) for v, image in zip(shot.view, shot.images, strict=True)}
    buffer = ViewBuffer(rules_of(HubConfig(bundle=bundle.path, site="yard"), bundle), session=1)
    for view, features in sent.items():
        message = FeatureMessage(
            site="yard",
            scene=bundle.scene.name,
            view=view,
            session=1,
            seq=1,
            capture_ns=NOW_NS - 1_000_000_000,
            clock="file",
            arrival_ns=NOW_NS,
            sent_ns=NOW_NS,
            camera_offset=None,
            hub_offset=OffsetEstimate(0, 1_000_000),
            features_hash=bundle.features_hash(view),
            tensors=(Tensor("features", features),),
        )
        assert buffer.put(message, NOW_NS).accepted
    snapshot = buffer.snapshot(NOW_NS)
    assert isinstance(snapshot, Snapshot)
    hub = Fusion(bundle, ("cls-epi", "sls", "reference-only"))
    hub.warm_up()
    outputs = hub.predict(snapshot, VIEWS)
    expected = runner.fuse(np.stack([sent[view] for view in VIEWS]), shot)
    np.testing.assert_allclose(outputs.density, expected["cls-epi"]["density"], rtol=1e-4, atol=1e-5)
    assert outputs.density.std() > 1e-4 and set(outputs.counts) == {"cls-epi", "sls", "reference-only"}
    assert hub.objection(("right", "far")) == "graph cls-epi needs all views; missing: left"


@pytest.mark.slow
def test_masked_fusion_over_mvms_takes_any_number_of_views(scene: Scene, tmp_path: Path) -> None:
    model = made(scene, ("cls-epi",), sigma_px=4.0)
    bundle = bundle_parts(model, scene, "shared", kappa_s=2.0).write(tmp_path / "bundle", {}, {})
    session = open_session(bundle.fusion_bytes("cls-epi"), "cpu", 1)
    for views in (2, 5):
        rng = np.random.default_rng(views)
        given = {
            "features": rng.integers(0, 16, (views, 11, *GRID)) / 15.0,
            "present": np.ones(views),
            "offset_s": rng.uniform(-2, 2, views),
            "view_from_ground": rng.uniform(-1.2, 1.2, (views, 6, 12, 16, 2)),
            "fundamental": rng.normal(size=(views, 3, 3)) * [0.02, 0.02, 0.4],
            "distance_m": rng.uniform(2, 90, (views, *GRID)),
        }
        given["present"][-1] = 0.0
        given["distance_m"][-1] = np.nan
        inputs = {key: value.astype(np.float32) for key, value in given.items()}
        ours = {key: torch.from_numpy(value)[None] for key, value in inputs.items()}
        with torch.inference_mode():
            order = ("features", "view_from_ground", "present", "offset_s")
            lines, far = ours["fundamental"], ours["distance_m"]
            answer = model.fuse(*(ours[k] for k in order), ("cls-epi",), lines, far)
        density = session.run(["density"], {n: inputs[n] for n in bundle.manifest.fusion["cls-epi"].inputs})[
            0
        ]
        assert density.std() > 1e-4
        np.testing.assert_allclose(density, answer.density["cls-epi"][0].numpy(), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_a_bundle_is_one_line(scene: Scene) -> None:
    by_view = made(scene, ("none",), fusion="concat", views=VIEWS, encoders="view")
    with pytest.raises(
        BundleError, match="a bundle has one encoder for all views; train with encoders: shared"
    ):
        bundle_parts(by_view, scene, "views", 2.0)
    with pytest.raises(BundleError, match="another of its heights is a person's than number 3"):
        bundle_parts(made(scene, ("none",), plane=2), scene, "low", 2.0)
