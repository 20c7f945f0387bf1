"""`column-2` as a graph: ONNX Runtime says what torch says, and the manifest what the graph takes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from calib.scene import Scene, load_scene
from export import parity
from export.bundle import bundle_parts
from viewsync.bundle import Bundle
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.training.evaluate import BundleRunner, evaluate
from viewsync.training.snapshots import Sampling, SnapshotSet


@pytest.fixture(scope="module")
def scene(small_scene: Path) -> Scene:
    return load_scene(small_scene)


@pytest.fixture(scope="module")
def model(scene: Scene) -> CountingModel:
    torch.manual_seed(2)
    made = CountingModel(ModelConfig(methods=("column-2",), width=16, cell_m=scene.ground.cell_m)).eval()
    with torch.no_grad():
        made.heads["column-2"].decoder.out.weight.mul_(8.0)  # type: ignore[union-attr,operator]
    return made


@pytest.fixture(scope="module")
def bundle(model: CountingModel, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    parts = bundle_parts(model, scene, "two", kappa_s=2.0)
    training = {"config": {"before_s": [1.0, 2.0]}}
    return parts.write(tmp_path_factory.mktemp("two") / "bundle", training, {})


def test_it_says_what_torch_says_end_to_end(
    bundle: Bundle, model: CountingModel, scene: Scene, small_crowds: Path
) -> None:
    """Frames before and views missing, offsets unknown, as in training."""
    shots = SnapshotSet(scene, small_crowds, range(2), Sampling(2.0, 0.3, 0.3, before_s=(1.0, 2.0)))
    drawn = [shots.draw(4, k, crowd=k // 3) for k in range(6)]
    frames = [s.earlier.present * s.present for s in drawn if s.earlier is not None]
    assert {0.0, 1.0} == set(np.concatenate(frames))
    found = parity.measure(model, BundleRunner(bundle, threads=1), shots, 6)
    assert found["column-2"].count_max_percent < 0.5
    parity.refuse_beyond_limit(found)


def test_the_manifest_says_that_it_takes_frames_before(bundle: Bundle) -> None:
    spec = bundle.manifest.fusion["column-2"]
    assert spec.fusion == "masked" and list(spec.inputs) == [
        *("features", "present", "offset_s", "features_before", "present_before", "before_s"),
        "view_from_ground",
    ]
    assert spec.inputs["features_before"] == spec.inputs["features"]
    assert spec.inputs["before_s"].shape == ("V",)


def test_rubbish_in_absent_slots_does_not_come_through(
    bundle: Bundle, scene: Scene, small_crowds: Path
) -> None:
    runner = BundleRunner(bundle, threads=1)
    shots = SnapshotSet(scene, small_crowds, range(1), Sampling(2.0, before_s=(1.0,)))
    shot = next(s for k in range(30) if (s := shots.draw(2, k, plain=True)).earlier.present.all())  # type: ignore[union-attr]
    assert shot.earlier is not None
    features, earlier = (np.stack([runner.encode(image) for image in s.images]) for s in (shot, shot.earlier))
    shot.present[2], shot.earlier.present[1] = 0.0, 0.0
    base = runner.fuse(features, shot, earlier)["column-2"]
    spoiled = earlier.copy()
    spoiled[1:], shot.earlier.offset_s[1] = 255, np.nan
    other = runner.fuse(features, shot, spoiled)["column-2"]
    for name, values in base.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)
    shot.earlier.present[0] = 0.0
    assert (runner.fuse(features, shot, earlier)["column-2"]["density"] != base["density"]).any()


def test_it_is_measured_with_the_frames_before_that_it_learned_from(
    bundle: Bundle, small_crowds: Path
) -> None:
    runner = BundleRunner(bundle, threads=1)
    assert runner.before_s == 1.0
    with_them = evaluate(runner, small_crowds, [1], [2], 3, 2.0, before_s=1.0)
    without = evaluate(runner, small_crowds, [1], [2], 3, 2.0)
    assert (with_them.scores["column-2"].predicted != without.scores["column-2"].predicted).any()
