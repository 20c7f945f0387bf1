"""`column-2` as a graph: ONNX Runtime says what torch says, the manifest what the graph takes, and a hub
gives it the newest two frames of each view.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from calib.scene import Scene, load_scene
from export import parity
from export.bundle import bundle_parts
from hub.buffer import ViewBuffer
from hub.config import HubConfig, policy_of, rules_of
from hub.fusion import Fusion
from hub.step import step
from viewsync.bundle import Bundle
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.prediction import Prediction, decode_prediction, encode_prediction
from viewsync.training.evaluate import BundleRunner, evaluate
from viewsync.training.snapshots import Sampling, Snapshot, SnapshotSet
from viewsync.units import SECOND_NS
from viewsync.wire import Clock, FeatureMessage, OffsetEstimate, Tensor


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


# --- in a hub ---------------------------------------------------------------------------------------------

NOON_NS = 1_800_000_000_000_000_000
NOW_NS = NOON_NS + 3 * SECOND_NS  # when every frame has come in


class Hub:
    """A hub without sockets: frames in, answers out."""

    def __init__(self, bundle: Bundle) -> None:
        config = HubConfig(bundle=bundle.path, site="yard")
        self.bundle, self.fusion = bundle, Fusion(bundle)
        self.policy = policy_of(config, bundle)
        self.buffer = ViewBuffer(rules_of(config, bundle), 1)

    def put(
        self,
        view: str,
        seq: int,
        at_s: float,
        features: np.ndarray,
        session: int = 1,
        clock: Clock = "file",
    ) -> None:
        message = FeatureMessage(
            site="yard",
            scene=self.bundle.scene.name,
            view=view,
            session=session,
            seq=seq,
            capture_ns=NOON_NS + round(SECOND_NS * at_s),
            clock=clock,
            arrival_ns=NOW_NS,
            sent_ns=NOW_NS,
            camera_offset=None,
            hub_offset=OffsetEstimate(0, 1_000_000),
            features_hash=self.bundle.features_hash(view),
            tensors=(Tensor("features", features),),
        )
        assert self.buffer.put(message, NOW_NS).accepted

    def answer(self) -> Prediction:
        found = step(self.buffer, self.fusion, self.policy, NOW_NS)
        assert found is not None
        return found

    def told(self) -> dict[str, int | None]:
        return {report.view: report.before_ns for report in self.answer().views}


@pytest.fixture(scope="module")
def shot(scene: Scene, small_crowds: Path) -> Snapshot:
    shots = SnapshotSet(scene, small_crowds, range(1), Sampling(1.0, before_s=(1.0,)))
    drawn = (shots.draw(2, k, plain=True) for k in range(60))
    return next(s for s in drawn if s.earlier is not None and s.earlier.present.all())


def test_a_hub_gives_the_graph_the_newest_two_of_each_view(bundle: Bundle, shot: Snapshot) -> None:
    runner, hub = BundleRunner(bundle, threads=1), Hub(bundle)
    hub.fusion.warm_up()
    assert shot.earlier is not None and hub.buffer.rules.depth == 2
    newest, earlier = (np.stack([runner.encode(image) for image in s.images]) for s in (shot, shot.earlier))
    views = [bundle.manifest.views[int(v)] for v in shot.view]
    for slot, view in enumerate(views):
        at_s, age_s = float(shot.offset_s[slot]), -float(shot.earlier.offset_s[slot])
        # In the wrong order, and after a frame that is older still.
        hub.put(view, 3, at_s - age_s - 0.4, newest[slot] * 0)
        hub.put(view, 5, at_s, newest[slot])
        hub.put(view, 4, at_s - age_s, earlier[slot])
    answer = hub.answer()
    slot_of = [views.index(view) for view in hub.fusion.slots(answer.reference)]
    order = np.array(slot_of)
    offset = (shot.offset_s - shot.offset_s[slot_of[0]])[order]
    same = Snapshot(
        **{
            **{name: getattr(shot, name)[order] for name in ("images", "view", "present", "xy", "seen")},
            "true_offset_s": offset,
            "offset_s": offset,
            "earlier": None,
        }
    )
    back = shot.earlier.offset_s[order]
    before = Snapshot(
        **{
            **{
                name: getattr(shot.earlier, name)[order]
                for name in ("images", "view", "present", "xy", "seen")
            },
            "true_offset_s": back,
            "offset_s": back,
        }
    )
    with_before = Snapshot(**{**{n: getattr(same, n) for n in Snapshot.__slots__}, "earlier": before})
    expected = runner.fuse(newest[order], with_before, earlier[order])["column-2"]["density"]
    np.testing.assert_allclose(answer.density, expected, rtol=1e-4, atol=1e-5)
    for report in answer.views:
        age_s = -float(shot.earlier.offset_s[views.index(report.view)])
        assert report.before_ns == pytest.approx(age_s * SECOND_NS, abs=2)
    assert decode_prediction(encode_prediction(answer)).views == answer.views
    without = runner.fuse(newest[order], same)["column-2"]["density"]
    assert np.abs(answer.density - without).max() > 1e-4


def test_a_frame_before_is_of_the_same_run_and_clock_and_not_too_old(bundle: Bundle, shot: Snapshot) -> None:
    features = BundleRunner(bundle, threads=1).encode(shot.images[0])

    def told(*frames: tuple[str, int, float, int, Clock]) -> dict[str, int | None]:
        hub = Hub(bundle)
        for view, seq, at_s, session, clock in frames:
            hub.put(view, seq, at_s, features, session, clock)
        return hub.told()

    one = told(("left", 1, 0.0, 1, "file"), ("left", 2, 0.5, 1, "file"), ("far", 1, 0.2, 1, "file"))
    assert one == {"left": SECOND_NS // 2, "right": None, "far": None}
    restarted = told(("left", 7, 0.0, 1, "file"), ("left", 0, 0.5, 2, "file"))
    assert restarted["left"] is None
    assert told(("left", 1, 0.0, 1, "arrival"), ("left", 2, 0.5, 1, "decode"))["left"] is None
    # At the very bound, half of the nearest that was trained (1 s), jitter does not drop it.
    assert told(("left", 1, 0.0, 1, "file"), ("left", 2, 0.49, 1, "file"))["left"] is not None
    # Nearer: as at ten frames per second.
    assert told(("left", 1, 0.0, 1, "file"), ("left", 2, 0.1, 1, "file"))["left"] is None
    # A clock stepped back, and a pause longer than the farthest that was trained (2 s) and half of that: how
    # far offsets were trained (2 s, too) is another thing.
    assert told(("left", 1, 0.5, 1, "file"), ("left", 2, 0.2, 1, "file"))["left"] is None
    assert told(("left", 1, -1.0, 1, "file"), ("left", 2, 1.9, 1, "file"))["left"] == round(2.9 * SECOND_NS)
    assert told(("left", 1, -1.0, 1, "file"), ("left", 2, 2.1, 1, "file"))["left"] is None
