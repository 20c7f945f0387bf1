"""Snapshots: pure functions of seed and index, what the agent sees, clear words about data that are wrong."""

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calib.scene import Scene, load_scene
from edge.extractor import FeatureExtractor
from viewsync.errors import UserError
from viewsync.nets.model import UNKNOWN_OFFSET_S
from viewsync.sim.dataset import load_truth
from viewsync.training.geometry import scene_grids
from viewsync.training.snapshots import Sampling, Snapshot, SnapshotSet


@pytest.fixture(scope="module")
def scene(small_scene: Path) -> Scene:
    return load_scene(small_scene)


@pytest.fixture(scope="module")
def shots(scene: Scene, small_crowds: Path) -> SnapshotSet:
    return SnapshotSet(scene, small_crowds, range(4), Sampling(kappa_s=2.0))


def same(first: Snapshot, second: Snapshot) -> bool:
    return all(np.array_equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(Snapshot))


def test_drawing_is_a_pure_function_of_seed_and_index(
    scene: Scene, small_crowds: Path, shots: SnapshotSet
) -> None:
    fresh = SnapshotSet(scene, small_crowds, range(4), Sampling(kappa_s=2.0))
    forwards = [fresh.draw(7, k) for k in range(6)]
    backwards = [shots.draw(7, k) for k in reversed(range(6))][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert not same(shots.draw(7, 0), shots.draw(7, 1)) and not same(shots.draw(7, 0), shots.draw(8, 0))


def test_a_snapshot_is_what_its_frames_truth_says(small_crowds: Path, shots: SnapshotSet) -> None:
    truths = [load_truth(small_crowds / f"{seed:06d}.npz") for seed in range(4)]
    references = set()
    for index in range(40):
        shot = shots.draw(1, index, crowd=index % 4)
        truth = truths[index % 4]
        assert sorted(shot.view.tolist()) == [0, 1, 2] and shot.present[0] == 1.0
        references.add(int(shot.view[0]))
        start = truth.times_s[shot.view[0]]
        frames = [
            int(np.flatnonzero((truth.xy[v] == shot.xy[s]).all(axis=(1, 2)))[0])
            for s, v in enumerate(shot.view)
        ]
        for slot, (view, frame) in enumerate(zip(shot.view, frames, strict=True)):
            offset = truth.times_s[view, frame] - start[frames[0]]
            assert shot.true_offset_s[slot] == pytest.approx(offset, abs=1e-6)
            assert (shot.seen[slot] == truth.seen[view, frame]).all()
            assert abs(offset) <= 2.0  # κ; frames are about a second apart, so some always lie within
    assert references == {0, 1, 2}


def test_views_go_missing_and_offsets_unknown_as_often_as_asked(scene: Scene, small_crowds: Path) -> None:
    drawn = SnapshotSet(scene, small_crowds, range(2), Sampling(2.0, drop=0.3, unknown=0.5))
    many = [drawn.draw(3, k) for k in range(200)]
    # 400 and 200 draws: four standard deviations are 0.09 and 0.14.
    assert np.mean([s.present[1:] for s in many]) == pytest.approx(0.7, abs=0.09)
    unknown = [bool((s.offset_s[1:] == UNKNOWN_OFFSET_S).all()) for s in many]
    assert np.mean(unknown) == pytest.approx(0.5, abs=0.14)
    for shot, told in zip(many, unknown, strict=True):
        assert shot.offset_s[0] == 0.0
        assert told or (shot.offset_s == shot.true_offset_s).all()
    plain = drawn.draw(3, 0, plain=True)
    assert (plain.present == 1).all() and (plain.offset_s == plain.true_offset_s).all()


class Watcher:
    """Stands where the encoder's session does and keeps the image it is given."""

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[np.ndarray]:
        self.image = inputs["image"][0]
        return [np.zeros((1, 1, 1, 1), np.uint8)]


def test_frames_are_remapped_as_the_agent_does_it(
    scene: Scene, small_crowds: Path, shots: SnapshotSet
) -> None:
    stored = np.load(small_crowds / "000001.npy")
    shot = shots.at(1, [(0, 2), (1, 0), (2, 4)])
    for slot, (view, frame) in enumerate([("left", 2), ("right", 0), ("far", 4)]):
        camera, watcher = scene.cameras[view], Watcher()
        agent = FeatureExtractor(watcher, "image", "features", camera, camera.undistorted())  # type: ignore[arg-type]
        agent.extract(stored[slot, frame], (camera.width, camera.height))
        difference = np.abs(watcher.image.astype(int) - shot.images[slot])
        # The agent's fixed-point tables round to 1/32 pixel: a grey level or so, a few at sharp edges.
        assert difference.mean() < 0.5 and np.percentile(difference, 99.9) <= 4
        assert (shot.images[slot] != stored[slot, frame]).any()


def test_grids_lead_to_the_cameras_own_pixels(scene: Scene) -> None:
    grids = scene_grids(scene, 48, 36)  # half the pictures' size: grids are in shares of it
    assert grids.shape == (3, 6, 12, 16, 2)
    centres = scene.ground.centres()
    for v, camera in enumerate(scene.cameras.values()):
        for z, height in enumerate(scene.heights_m):
            points = np.concatenate([centres, np.full((12, 16, 1), height)], axis=-1)
            x, y = np.moveaxis(camera.undistorted().project(points), -1, 0)
            expected = np.stack([(2 * x + 1) / camera.width - 1, (2 * y + 1) / camera.height - 1], axis=-1)
            assert np.allclose(grids[v, z], expected, atol=1e-4)  # float32


def test_missing_damaged_and_foreign_crowds_are_explained(
    scene: Scene, small_crowds: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"1 of 2 crowds are missing.*\[6\].*--crowds 5:7"):
        SnapshotSet(scene, small_crowds, (5, 6))
    with pytest.raises(UserError, match="0 of 0 crowds"):
        SnapshotSet(scene, small_crowds, ())
    for name in ("000000.npy", "000000.npz", "000001.npy", "000001.npz"):
        shutil.copy(small_crowds / name, tmp_path / name)
    whole = (tmp_path / "000000.npy").read_bytes()
    (tmp_path / "000000.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"000000\.npy: this crowd is damaged .* make it again"):
        SnapshotSet(scene, tmp_path, range(2))
    np.save(tmp_path / "000000.npy", np.load(small_crowds / "000000.npy")[:, :3])
    with pytest.raises(UserError, match=r"\(3, 3\) frames, but times for \(3, 5\)"):
        SnapshotSet(scene, tmp_path, range(2))
    (tmp_path / "000001.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UserError, match=r"000001\.npy: this crowd is damaged"):
        SnapshotSet(scene, tmp_path, (1,))
    views = dict(reversed(list(scene.cameras.items())))
    other = Scene(scene.name, views, scene.ground, scene.heights_m, {})
    with pytest.raises(UserError, match="another scene"):
        SnapshotSet(other, small_crowds, range(2))
    bare = tmp_path / "bare"  # made before sets carried their scene: their frames still say what they are
    bare.mkdir()
    for name in ("000002.npy", "000002.npz"):
        shutil.copy(small_crowds / name, bare / name)
    with pytest.raises(UserError, match=r"left, right, far .* not this scene's cameras \(far, right, left\)"):
        SnapshotSet(other, bare, (2,))
