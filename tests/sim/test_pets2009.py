"""PETS2009 as a scene: cameras and people fit together, and fit the one stretch of real video there is."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from calib.errors import CalibError
from calib.scene import Scene, load_scene
from viewsync.cli import main
from viewsync.errors import ConfigError
from viewsync.sim import pets2009
from viewsync.sim.body import joints
from viewsync.sim.dataset import load_truth
from viewsync.sim.scenes import from_scene
from viewsync.sim.track_crowd import TrackCrowd
from viewsync.sim.tracks import PETS2009_FPS


@pytest.fixture(scope="module")
def data() -> Path:
    if not os.environ.get("VIEWSYNC_DATA"):
        pytest.skip("VIEWSYNC_DATA is not set: real cameras and tracks are needed")
    return pets2009.data_folder()


@pytest.fixture(scope="module")
def scene(data: Path) -> Scene:
    return pets2009.scene(data)


def positions(data: Path, sequence: str) -> np.ndarray:
    xy = pets2009.tracks(data, sequence).xy
    return xy[~np.isnan(xy[..., 0])]


def test_the_region_holds_the_people_and_the_views_overlap_there(data: Path, scene: Scene) -> None:
    matching = scene.ground.coarser(2)
    assert matching.rows * matching.columns <= 2500
    # Chosen on the other two sequences, so nothing forces these shares on the two that are tested.
    for sequence, share in (("S1L2-1", 0.97), ("S2L2", 0.8), ("S1L1-1", 0.97), ("S2L1", 0.85)):
        assert scene.ground.contains(positions(data, sequence)).mean() > share, sequence
    feet = np.dstack([scene.ground.centres(), np.full(scene.ground.shape, 0.1)])
    views = sum(camera.inside(camera.project(feet)).astype(int) for camera in scene.cameras.values())
    assert (views >= 2).mean() > 0.9 and (views >= 1).mean() > 0.97


def test_the_command_writes_the_scene(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "scene.yaml"
    assert CliRunner().invoke(main, ["sim", "pets2009", "scene", "--out", str(path)]).exit_code == 0
    again = load_scene(path)
    assert list(again.cameras) == list(pets2009.VIEWS)
    assert all(again.cameras[view] == scene.cameras[view] for view in pets2009.VIEWS)
    assert again.ground == scene.ground and again.heights_m == scene.heights_m


def test_simulated_people_stand_where_real_ones_move_in_the_video(data: Path, scene: Scene) -> None:
    """Real frames 0 and 10 of S2L1, view 1: what changed between them lies where our people stand in either.

    The camera, the tracks and the people's sizes would have to be wrong together for this to pass by chance.
    """
    folder = data / "pets2009" / "S2L1_View_001"
    first, last = (cv2.imread(str(folder / f"frame_{k:04d}.jpg"), cv2.IMREAD_GRAYSCALE) for k in (0, 10))
    change = cv2.GaussianBlur(cv2.absdiff(first, last), (0, 0), 2.0)
    moved = cv2.resize(change, (pets2009.WIDTH, pets2009.HEIGHT), interpolation=cv2.INTER_AREA) > 24
    crowd = TrackCrowd(pets2009.tracks(data, "S2L1"), seed=1)
    people = np.zeros(moved.shape, np.uint8)
    for t in (0.0, 10 / PETS2009_FPS):
        pixels = scene.cameras["view1"].project(joints(crowd.state(t), crowd.appearance))
        for person in pixels[np.isfinite(pixels).all(axis=(1, 2))]:
            cv2.rectangle(
                people, *np.round([person.min(axis=0), person.max(axis=0)]).astype(int).tolist(), 1, -1
            )
    people = cv2.dilate(people, np.ones((5, 5)))
    # Trees and light move too. By chance it would be people.mean().
    assert moved.sum() > 1000 and people.mean() < 0.08
    assert people[moved].mean() > 0.75


def test_simulated_crowds_are_as_sparse_and_as_packed_as_the_real_ones(scene: Scene) -> None:
    place = from_scene(scene)
    x0, y0, x1, y1 = place.walk_area
    density = []
    for seed in range(200):
        part, people = pets2009.training_crowd(place, seed)
        left, near, right, far = part.walk_area
        assert x0 <= left < right <= x1 and y0 <= near < far <= y1 and people >= 2
        density.append(people / ((right - left) * (far - near)))
    assert min(density) < 0.02 and 0.4 < max(density) < 0.75
    assert pets2009.training_crowd(place, 7) == pets2009.training_crowd(place, 7)


def test_training_crowds_are_made_once_and_carry_their_truth(
    data: Path, scene: Scene, tmp_path: Path
) -> None:
    words = f"sim pets2009 crowds --out {tmp_path} --crowds 5:6 --workers 1".split()
    assert CliRunner().invoke(main, words).exit_code == 0
    made = (tmp_path / "000005.npz").stat().st_mtime_ns
    assert CliRunner().invoke(main, words).exit_code == 0
    assert (tmp_path / "000005.npz").stat().st_mtime_ns == made
    truth, frames = load_truth(tmp_path / "000005.npz"), np.load(tmp_path / "000005.npy")
    assert truth.views == pets2009.VIEWS and frames.shape == (3, 12, pets2009.HEIGHT, pets2009.WIDTH, 3)
    # Long enough for offsets of ±5 s around some frame.
    assert (np.ptp(truth.times_s, axis=1) > 10.0).all()
    _, people = pets2009.training_crowd(from_scene(scene), 5)
    assert truth.xy.shape == (3, 12, people, 2)


def test_a_missing_folder_or_sequence_is_one_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="it has S1L1-1, S1L2-1, S2L1, S2L2"):
        pets2009.tracks(data, "S9L9")
    with pytest.raises(CalibError, match="View_001"):
        pets2009.scene(tmp_path)
    monkeypatch.delenv("VIEWSYNC_DATA")
    with pytest.raises(ConfigError, match="VIEWSYNC_DATA"):
        pets2009.data_folder()
