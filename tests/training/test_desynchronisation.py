"""Frames out of step as the paper has them (Section IV-B): constant τ per view, random U(−κ, κ), and none."""

from pathlib import Path

import numpy as np
import pytest

from calib.scene import Scene, load_scene
from viewsync.errors import UserError
from viewsync.sim.dataset import load_truth
from viewsync.training.config import TrainConfig
from viewsync.training.geometry import scene_fundamentals
from viewsync.training.snapshots import Sampling, SnapshotSet


@pytest.fixture(scope="module")
def scene(small_scene: Path) -> Scene:
    return load_scene(small_scene)


def test_crowds_made_together_share_their_instants_and_nothing_else_changes(
    crowds_together: Path, small_crowds: Path
) -> None:
    together, apart = (load_truth(folder / "000000.npz") for folder in (crowds_together, small_crowds))
    assert (together.times_s == together.times_s[0]).all() and (together.xy == together.xy[0]).all()
    assert (apart.times_s[0] == together.times_s[0]).all() and (apart.xy[0] == together.xy[0]).all()
    assert (apart.times_s[1] != together.times_s[1]).all()


@pytest.mark.parametrize("reference", [None, 1])
def test_random_offsets_cover_plus_minus_kappa_around_a_reference(
    scene: Scene, crowds_together: Path, reference: int | None
) -> None:
    shots = SnapshotSet(scene, crowds_together, range(2), Sampling(2.0, 0.0, 0.0, reference=reference))
    drawn = [shots.draw(1, k) for k in range(60)]
    offsets = np.concatenate([s.true_offset_s[1:] for s in drawn])
    assert np.abs(offsets).max() <= 2.0 and (offsets > 0.5).any() and (offsets < -0.5).any()
    references = {int(s.view[0]) for s in drawn}
    assert references == ({0, 1, 2} if reference is None else {1})
    if reference is not None:
        assert all(s.view.tolist() == [1, 0, 2] for s in drawn)  # the hub's slots
    again = SnapshotSet(scene, crowds_together, range(2), Sampling(2.0, 0.0, 0.0, reference=reference))
    assert (again.draw(1, 7).images == drawn[7].images).all()


@pytest.mark.parametrize("reference", [None, 0])
def test_constant_offsets_are_the_views_own_less_the_references(
    scene: Scene, small_crowds: Path, reference: int | None
) -> None:
    tau = (0.0, 1.5, -1.0)
    sampling = Sampling(3.0, 0.0, 0.0, tau_s=tau, reference=reference)
    shots = SnapshotSet(scene, small_crowds, range(3), sampling)
    for k in range(30):
        shot = shots.draw(2, k)
        for slot in (1, 2):
            aim = tau[int(shot.view[slot])] - tau[int(shot.view[0])]
            # Frames are up to 1.7 s apart here, so the nearest is within half of that.
            assert abs(shot.true_offset_s[slot] - aim) <= 0.86
        assert (shot.present == 1).all()


def test_no_kappa_is_synchronised_frames(scene: Scene, crowds_together: Path, small_crowds: Path) -> None:
    shots = SnapshotSet(scene, crowds_together, range(2), Sampling(0.0, 0.0, 0.0))
    drawn = [shots.draw(3, k) for k in range(10)]
    assert all((s.true_offset_s == 0).all() for s in drawn)
    with pytest.raises(UserError, match=r"no frames within 0\.01 s of each other; .*sim dataset --together"):
        SnapshotSet(scene, small_crowds, range(2), Sampling(0.0, together_s=0.01))
    near = SnapshotSet(scene, small_crowds, range(2), Sampling(0.0, together_s=0.9))
    assert np.abs(near.draw(3, 0).true_offset_s).max() <= 0.9


def test_snapshots_come_with_every_view_at_the_references_instant(
    scene: Scene, crowds_together: Path
) -> None:
    sampling = Sampling(2.0, 0.0, 0.0, synchronous=True)
    shots = SnapshotSet(scene, crowds_together, range(2), sampling)
    truth = load_truth(crowds_together / "000001.npz")
    for k in range(8):
        shot = shots.draw(4, k, crowd=1)
        assert shot.synchronous is not None
        assert (shot.synchronous[0] == shot.images[0]).all()
        frame = int(np.flatnonzero((truth.xy[0] == shot.xy[0]).all(axis=(1, 2)))[0])
        exact = shots.at(1, [(int(v), frame) for v in shot.view])
        assert (shot.synchronous == exact.images).all()
        moved = shot.true_offset_s != 0
        assert all((shot.synchronous[s] != shot.images[s]).any() == moved[s] for s in (1, 2))
    assert SnapshotSet(scene, crowds_together, range(2)).draw(4, 0).synchronous is None


def test_offsets_longer_than_the_crowd_are_one_line(scene: Scene, small_crowds: Path) -> None:
    with pytest.raises(
        UserError, match=r"crowd 0 lasts \d\.\d s, too short for the constant offsets 0, 9, 0 s"
    ):
        SnapshotSet(scene, small_crowds, range(2), Sampling(tau_s=(0.0, 9.0, 0.0)))


def test_geometry_is_from_the_reference_to_the_view(scene: Scene) -> None:
    """Points of the scene, in pixels of the features, lie on their lines; a transposed F would miss them."""
    every = scene_fundamentals(scene, 24, 18)
    points = np.random.default_rng(0).uniform((1, 1, 0), (7, 5, 2), (40, 3))
    pixels = []
    for camera in scene.cameras.values():
        place = camera.undistorted().resized(24, 18).project(points)
        pixels.append(np.column_stack([place, np.ones(len(points))]))
    for r in range(3):
        assert not every[r, r].any()
        for i in range(3):
            if i != r:
                residual = np.einsum("ni,ij,nj->n", pixels[i], every[r, i].astype(np.float64), pixels[r])
                assert np.abs(residual).max() < 1e-4  # F in float32, unit norm, pixels up to 24


# --- from a configuration ---------------------------------------------------------------------------------

VIEWS = ("left", "right", "far")


def config(**parts: object) -> TrainConfig:
    return TrainConfig(data=Path("x"), **parts)  # type: ignore[arg-type]


def test_a_configuration_says_which_frames_belong_together() -> None:
    assert config().sampling(VIEWS) == Sampling(3.0)  # as before there was anything to choose
    paper = config(fusion="concat", reference="far", tau_s={"left": 5.0, "right": -5.0}, methods=("none",))
    assert paper.slots(VIEWS) == ("far", "left", "right") and paper.reach_s == 10.0
    sampling = paper.sampling(VIEWS)
    assert (sampling.reference, sampling.tau_s) == (2, (5.0, -5.0, 0.0))
    assert sampling.drop == sampling.unknown == 0.0  # all views, always
    base = config(fusion="concat", kappa_s=0.0, methods=("none",))
    assert base.slots(VIEWS) == VIEWS and base.sampling(VIEWS).kappa_s == 0.0
    assert base.sampling(VIEWS, labels=False).kappa_s == base.reach_s == 0.05
    warped = config(methods=("cls-epi",), flow_loss="warp")
    assert warped.sampling(VIEWS).synchronous and not warped.sampling(VIEWS, labels=False).synchronous
    with pytest.raises(UserError, match="scene plaza has no view up; it has left, right, far"):
        config(reference="up").slots(VIEWS)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"flow_nets": "pair"}, "needs fixed views; set fusion to concat"),
        ({"flow_loss": "warp"}, "is for sls, cls-cat, cls-cor, cls-epi, cls-plane; methods has none of them"),
        ({"gamma": 2.0}, "gamma is the weight of a flow_loss"),
        ({"flow_strides": (2, 4)}, "powers of two, coarse to fine"),
        ({"flow_strides": ()}, "powers of two"),
    ],
)
def test_settings_that_contradict_each_other_are_one_line(parts: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**parts)
