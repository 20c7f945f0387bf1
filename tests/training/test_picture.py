"""A snapshot drawn with what every method makes of it."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from calib.scene import Scene, load_scene
from viewsync.cli import main
from viewsync.training.picture import arrows, draw
from viewsync.training.snapshots import Sampling, Snapshot, SnapshotSet, density_map


@pytest.fixture(scope="module")
def scene(small_scene: Path) -> Scene:
    return load_scene(small_scene)


@pytest.fixture(scope="module")
def shot(scene: Scene, small_crowds: Path) -> Snapshot:
    return SnapshotSet(scene, small_crowds, [0], Sampling(2.0)).draw(2, 0, plain=True)


def test_an_arrow_leads_from_where_somebody_is_found_to_where_they_are(scene: Scene, shot: Snapshot) -> None:
    """With the true flow of one person it starts at that person's feet in the other frame."""
    grid, slot = scene.ground, 1
    coarse, camera = grid.coarser(2), list(scene.cameras.values())[int(shot.view[1])].undistorted()
    pixels = [camera.project(np.pad(xy, ((0, 0), (0, 1)))) for xy in (shot.xy[slot], shot.xy[0])]
    inside = [((p >= 0) & (p < (camera.width, camera.height))).all(axis=1) for p in pixels]
    there = inside[0] & inside[1] & coarse.contains(shot.xy[0]) & (shot.true_offset_s[slot] != 0)
    who = int(np.flatnonzero(there)[0])
    row, column = coarse.cell_of(shot.xy[0][who][None])[0]
    flow = np.zeros((3, coarse.rows, coarse.columns, 2), np.float32)
    match = np.zeros((3, coarse.rows, coarse.columns), np.float32)
    flow[slot, row, column], match[slot, row, column] = shot.xy[slot][who] - shot.xy[0][who], 0.9
    alone = replace(shot, xy=shot.xy[:, who : who + 1])
    ((start, end),) = arrows(camera, grid, alone, slot, {"flow_m": flow, "match": match})
    np.testing.assert_allclose([start, end], [p[who] for p in pixels], atol=1e-3)
    match[slot] = 0.1  # nobody whom the method is not sure of
    assert not list(arrows(camera, grid, alone, slot, {"flow_m": flow, "match": match}))


def test_what_is_right_leaves_no_residual(scene: Scene, shot: Snapshot) -> None:
    truth = density_map(shot.xy[0], scene.ground)
    pictures = [
        cv2.imdecode(np.frombuffer(draw(scene, shot, {"one": {"density": d}}), np.uint8), cv2.IMREAD_COLOR)
        for d in (truth, np.zeros_like(truth))
    ]
    right, wrong = (np.asarray(p)[2 * p.shape[0] // 3 : -40].astype(int) for p in pictures)
    coloured = [np.abs(p[..., 0] - p[..., 2]).max() for p in (right, wrong)]
    assert coloured[0] < 20 < 100 < coloured[1]


def test_every_method_is_drawn_with_what_it_got_wrong(tmp_path: Path) -> None:
    bundle = Path(__file__).parents[2] / "bundles" / "plaza"
    out = tmp_path / "made" / "picture.png"
    given = ["evaluate", "--bundle", str(bundle), "--data", str(tmp_path / "data"), "--crowds", "7:8"]
    found = CliRunner().invoke(main, [*given, "--workers", "1", "--draw", str(out)])
    assert found.exit_code == 0, found.output
    picture = cv2.imread(str(out))
    assert picture is not None and picture.shape[0] > 500 and picture.std() > 20
    found = CliRunner().invoke(main, [*given, "--draw", str(tmp_path / "picture.bmp")])
    assert found.exit_code == 2 and "name it .png or .jpg" in found.output
