"""Saving never replaces a good scene by a worse one, unless told to."""

from dataclasses import replace

import numpy as np
import pytest

from calib.errors import CalibError
from calib.points import MarkedPoint
from calib.saving import save_checked
from calib.scene import load_scene


def moved(scene, view, posed, by):
    camera = scene.cameras[view]
    return replace(scene, cameras={**scene.cameras, view: posed(camera, t=camera.t + by)})


def refused(scene, path, points=()):
    before = path.read_bytes()
    with pytest.raises(CalibError, match="--force") as caught:
        save_checked(scene, path, points)
    assert path.read_bytes() == before and "\n" not in str(caught.value)
    save_checked(scene, path, points, force=True)
    assert load_scene(path) == scene
    return str(caught.value)


def test_a_new_file_and_a_better_scene_are_saved(plaza, marked, posed, scene_file, tmp_path):
    worse = moved(plaza, "north", posed, (0.05, 0, 0))
    save_checked(worse, tmp_path / "new.yaml", marked)
    save_checked(plaza, tmp_path / "new.yaml", marked)
    assert load_scene(tmp_path / "new.yaml") == plaza


def test_zones_may_come_and_go(plaza, marked, scene_file):
    zones = {"kerb": [[0, 0], [4, 0], [4, 3]]}
    save_checked(replace(plaza, zones=zones, region=zones["kerb"]), scene_file, marked)
    save_checked(plaza, scene_file, marked)
    assert load_scene(scene_file) == plaza


def test_points_further_off_are_refused(plaza, marked, posed, scene_file):
    said = refused(moved(plaza, "north", posed, (0.02, 0, 0)), scene_file, marked)
    assert "marked points are" in said and "0.00 px in the old one" in said


def test_one_ruined_camera_is_refused_though_all_together_are_better(plaza, marked, posed, scene_file):
    good_north = moved(plaza, "east", posed, (2.0, 0, 0))
    save_checked(good_north, scene_file, marked, force=True)
    said = refused(moved(plaza, "north", posed, (0.3, 0, 0)), scene_file, marked)
    assert "camera north" in said


def test_clicks_without_a_position_count_too(plaza, marked, posed, scene_file):
    clicks = [MarkedPoint(point.name, None, point.pixels) for point in marked]
    assert "marked points" in refused(moved(plaza, "north", posed, (0.0, 0.2, 0)), scene_file, clicks)


def test_a_point_that_can_be_seen_no_more_is_worse(plaza, marked, posed, scene_file):
    camera = plaza.cameras["south"]
    turn = np.diag([-1.0, 1.0, -1.0])
    away = replace(
        plaza, cameras={**plaza.cameras, "south": posed(camera, R=turn @ camera.R, t=turn @ camera.t)}
    )
    assert "impossibly far" in refused(away, scene_file, marked)


def test_a_new_mistake_is_refused_without_any_points(plaza, posed, scene_file):
    camera = plaza.cameras["east"]
    said = refused(moved(plaza, "east", posed, 1000 * camera.t), scene_file)
    assert "mistake" in said and "millimetres" in said


def test_an_old_mistake_may_stay(plaza, posed, scene_file):
    sunk = moved(plaza, "east", posed, 1000 * plaza.cameras["east"].t)
    save_checked(sunk, scene_file, force=True)
    save_checked(replace(sunk, name="renamed"), scene_file)
    assert load_scene(scene_file).name == "renamed"


def test_a_lost_camera_is_refused(plaza, scene_file):
    fewer = {view: camera for view, camera in plaza.cameras.items() if view != "east"}
    assert "lacks (east)" in refused(replace(plaza, cameras=fewer), scene_file)


def test_what_is_no_scene_is_not_overwritten(plaza, tmp_path):
    notes = tmp_path / "notes.yaml"
    notes.write_text("shopping: [milk]\n")
    assert "no scene that can be read" in refused(plaza, notes)
