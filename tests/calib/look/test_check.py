"""Every mistake that `check` looks for, made on purpose; and none found where none was made."""

from dataclasses import replace

import numpy as np
import pytest

from calib.camera import Camera
from calib.ground import GroundGrid
from calib.look.check import check
from calib.points import MarkedPoint

Z_DOWN = np.diag([1.0, -1.0, -1.0])


def every(scene, change):
    return replace(scene, cameras={view: change(camera) for view, camera in scene.cameras.items()})


def one(scene, view, camera):
    return replace(scene, cameras={**scene.cameras, view: camera})


def codes(checked, severity="error"):
    return {(f.code, f.view) for f in checked.findings if f.severity == severity}


def test_a_good_scene_has_nothing_to_report(plaza, marked):
    sizes = {view: (camera.width, camera.height) for view, camera in plaza.cameras.items()}
    assert check(plaza, marked, sizes).findings == ()


def test_a_camera_below_the_ground(plaza, posed):
    camera = plaza.cameras["east"]
    # t taken for the camera's centre with the wrong sign of its height.
    sunk = posed(camera, t=-camera.R @ (camera.centre * (1, 1, -1)))
    checked = check(one(plaza, "east", sunk))
    (finding,) = (f for f in checked.findings if f.code == "below-ground")
    assert finding.view == "east" and finding.severity == "error"
    assert "4.80 m below the ground" in finding.message


def test_a_rig_whose_z_points_down_is_mirrored(plaza, posed):
    # CityStreet's files: x_camera = R Z x_world, with Z turning the world upside down.
    down = every(plaza, lambda camera: posed(camera, R=camera.R @ Z_DOWN))
    found = codes(check(down))
    assert {("below-ground", view) for view in plaza.cameras} <= found
    assert {("mirrored", view) for view in plaza.cameras} <= found


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_axis_is_told_by_the_points(plaza, marked, axis):
    """A left-handed world, its points surveyed right-handed: nothing but the points can tell."""
    mirrored = tuple(
        MarkedPoint(p.name, p.world * np.where(np.arange(3) == axis, -1, 1), p.pixels) for p in marked
    )
    checked = check(plaza, mirrored)
    found = [f for f in checked.findings if f.code == "mirrored"]
    assert {f.view for f in found} == set(plaza.cameras)
    wanted = ["x", "y", "z"]
    wanted[axis] = f"-{wanted[axis]}"
    assert all(f"read as ({', '.join(wanted)})" in f.message for f in found)


def test_swapped_axes_are_told_by_the_points(plaza, marked):
    swapped = tuple(MarkedPoint(p.name, p.world[[1, 0, 2]], p.pixels) for p in marked)
    assert {("mirrored", view) for view in plaza.cameras} <= codes(check(plaza, swapped))


def test_a_flipped_picture_is_told_by_the_points(plaza, marked):
    """det R = -1 "repaired" by turning round both the image's x and the world's y: a consistent lie."""
    camera = plaza.cameras["north"]
    flip = np.diag([-1.0, 1.0, 1.0])
    R = flip @ camera.R @ np.diag([1.0, -1.0, 1.0])
    lie = Camera(camera.K, R, flip @ camera.t, camera.distortion, camera.width, camera.height)
    found = [f for f in check(one(plaza, "north", lie), marked).findings if f.code == "mirrored"]
    assert [f.view for f in found] == ["north"] and "the picture flipped" in found[0].message


def test_millimetres_taken_for_metres(plaza, posed):
    checked = check(every(plaza, lambda camera: posed(camera, t=1000 * camera.t)))
    found = [f for f in checked.findings if f.code == "units"]
    assert {f.view for f in found} == set(plaza.cameras)
    assert all("millimetres" in f.message for f in found)


def test_centimetres_taken_for_metres(plaza, posed):
    checked = check(every(plaza, lambda camera: posed(camera, t=100 * camera.t)))
    assert all("centimetres" in f.message for f in checked.findings if f.code == "units")
    assert ("units", "north") in codes(checked)


def test_metres_divided_by_a_thousand(plaza, posed):
    assert ("units", None) in codes(check(every(plaza, lambda camera: posed(camera, t=camera.t / 1000))))


def test_a_ground_grid_in_millimetres(plaza):
    grid = GroundGrid(0, 0, 200.0, 100, 76)
    assert ("units", None) in codes(check(replace(plaza, ground=grid)))


def test_points_in_millimetres(plaza, marked):
    checked = check(plaza, tuple(MarkedPoint(p.name, 1000 * p.world, p.pixels) for p in marked))
    found = [f for f in checked.findings if f.severity == "error"]
    assert {(f.code, f.view) for f in found} == {("units", view) for view in plaza.cameras}
    assert "the points' world positions are in millimetres" in found[0].message


def test_no_overlap_with_any_other_view(plaza, posed):
    # Two cameras left, far apart on either side of the grid's middle, each seeing its own half.
    grid = GroundGrid(-60, 0, 0.5, 160, 30)
    north = plaza.cameras["north"]
    away = posed(north, t=-north.R @ np.add(north.centre, (-50, 0, 0)))
    scene = replace(plaza, cameras={"north": north, "lost": away}, ground=grid)
    assert codes(check(scene)) == {("no-overlap", "north"), ("no-overlap", "lost")}
    # A third that sees what the first sees: only the lost one is alone.
    beside = posed(north, t=-north.R @ np.add(north.centre, (2, 0, 0)))
    scene = replace(scene, cameras={**scene.cameras, "beside": beside})
    assert codes(check(scene)) == {("no-overlap", "lost")}


def test_a_view_that_sees_no_ground_at_all(plaza, posed):
    east = plaza.cameras["east"]
    behind = posed(east, R=np.diag([-1.0, 1.0, -1.0]) @ east.R, t=np.diag([-1.0, 1.0, -1.0]) @ east.t)
    assert ("sees-no-ground", "east") in codes(check(one(plaza, "east", behind)))


def test_one_camera_alone_needs_no_overlap(plaza):
    assert check(replace(plaza, cameras={"north": plaza.cameras["north"]})).findings == ()


def test_reprojection_over_three_pixels(plaza, marked, posed):
    camera = plaza.cameras["south"]
    moved = posed(camera, t=np.add(camera.t, (0.3, 0, 0)))  # 30 cm aside
    checked = check(one(plaza, "south", moved), marked)
    (finding,) = checked.findings
    assert (finding.code, finding.severity, finding.view) == ("reprojection", "error", "south")
    distances = [
        np.linalg.norm(moved.project(p.world) - p.pixels["south"]) for p in marked if "south" in p.pixels
    ]
    assert f"{np.sqrt(np.mean(np.square(distances))):.1f} px off" in finding.message


def test_one_wrong_click_is_named(plaza, marked):
    wrong = tuple(
        MarkedPoint(p.name, p.world, {**p.pixels, "north": p.pixels["north"] + (6, 2)})
        if p.name == "drain"
        else p
        for p in marked
    )
    (finding,) = check(plaza, wrong).findings
    assert (finding.code, finding.severity, finding.view) == ("reprojection", "warning", "north")
    assert "drain (6.3 px)" in finding.message


def test_a_point_behind_the_camera_is_named(plaza, marked):
    behind = MarkedPoint("lamp", np.add(plaza.cameras["north"].centre, (0, 9, 0)), {"north": (300, 200)})
    (finding,) = check(plaza, (*marked, behind)).findings
    assert finding.view == "north" and "lamp" in finding.message and "cannot be seen" in finding.message


def test_points_of_a_view_that_is_not_there(plaza, marked):
    other = MarkedPoint("gate", (1, 2, 0), {"west": (3, 4)})
    assert codes(check(plaza, (*marked, other)), "warning") == {("unknown-view", "west")}


@pytest.mark.parametrize(
    ("size", "severity"), [((1280, 720), "error"), ((384, 288), "warning"), ((768, 576), None)]
)
def test_an_image_size_that_disagrees_with_the_stream(plaza, size, severity):
    found = check(plaza, (), {"east": size}).findings
    if severity is None:
        assert found == ()
        return
    (finding,) = found
    assert (finding.code, finding.severity, finding.view) == ("image-size", severity, "east")
    assert f"{size[0]}x{size[1]}" in finding.message and "768x576" in finding.message


def test_pictures_of_no_camera_of_the_scene(plaza):
    (finding,) = check(plaza, (), {"west": (768, 576)}).findings
    assert finding.view == "west" and "no camera of the scene" in finding.message


def test_errors_come_first_and_are_one_line(plaza, marked, posed):
    moved = posed(plaza.cameras["south"], t=plaza.cameras["south"].t * 1000)
    found = check(one(plaza, "south", moved), marked, {"east": (384, 288)}).findings
    assert [f.severity for f in found] == sorted(f.severity for f in found) and len(found) > 1
    assert all("\n" not in str(f) and len(str(f)) < 300 for f in found)
