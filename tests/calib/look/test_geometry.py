"""What is drawn into views and onto the plan: laws of the walker, lines, epipolar curves, coverage."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.epipolar import epipolar_lines, fundamental_matrix
from calib.ground import GroundGrid
from calib.look.coverage import coarse_plan, coverage
from calib.look.overlay import epipolar_curves, ground_lines, image_lines
from calib.look.walker import HEIGHT_M, Walk, seen_walker, walker

PHASES = np.linspace(0, 1, 23)


def test_a_walker_stands_on_the_ground_and_has_a_height():
    for phase in PHASES:
        person = walker((3.0, -2.0), 0.7, phase)
        joints = np.concatenate([*person.limbs, person.head[None]])
        assert joints[:, 2].min() >= 0 and joints[:, 2].max() < HEIGHT_M
        # One foot is always near the ground, and nothing reaches further than a step.
        assert min(leg[2, 2] for leg in person.limbs[:2]) < 0.06 * HEIGHT_M
        assert np.abs(joints[:, :2] - (3.0, -2.0)).max() < 0.5 * HEIGHT_M
    np.testing.assert_array_equal(person.top - person.feet, (0, 0, HEIGHT_M))


def test_bones_keep_their_length_while_walking():
    lengths = []
    for phase in PHASES:
        legs = walker((0, 0), 0.0, phase).limbs[:2]
        lengths.append([np.linalg.norm(np.diff(leg[:2], axis=0), axis=1)[0] for leg in legs])
    np.testing.assert_allclose(lengths, np.full_like(lengths, lengths[0][0]), rtol=1e-9)


def test_half_a_stride_later_left_and_right_have_changed():
    early, late = walker((0, 0), 0.0, 0.1), walker((0, 0), 0.0, 0.6)
    mirrored = late.limbs[1] * (1, -1, 1)
    np.testing.assert_allclose(early.limbs[0], mirrored, atol=1e-12)


@given(x=st.floats(1, 19), y=st.floats(1, 14), heading=st.floats(-4, 4))
def test_a_turned_walker_is_the_same_one(x, y, heading):
    plain, turned = walker((0, 0), 0.0, 0.3), walker((x, y), heading, 0.3)
    cos, sin = np.cos(heading), np.sin(heading)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    for ours, theirs in zip(plain.limbs, turned.limbs, strict=True):
        np.testing.assert_allclose(ours @ turn.T + (x, y, 0), theirs, atol=1e-9)


def test_a_walk_stays_on_the_grid_and_in_the_region(plaza):
    region = np.array([[4.0, 3.0], [12.0, 3.0], [12.0, 9.0], [4.0, 9.0]])
    for within in (None, region):
        walk = Walk.over(plaza.ground, within)
        places = np.array([walk.at(share).feet for share in np.linspace(0, 1, 40)])
        assert plaza.ground.contains(places).all()
        if within is not None:
            assert (places[:, :2] > within.min(axis=0)).all() and (places[:, :2] < within.max(axis=0)).all()
        steps = np.linalg.norm(np.diff(places, axis=0), axis=1).sum()
        assert steps == pytest.approx(walk.length_m, rel=0.01)


def test_a_walker_out_of_sight_is_not_drawn(plaza):
    camera = plaza.cameras["north"]
    assert seen_walker(camera, walker(np.add(camera.centre[:2], (0, 20)), 0, 0)) is None
    seen = seen_walker(camera, walker((9, 7), 0, 0))
    assert seen is not None and seen.head_radius_px < 0.1 * seen.height_px


def test_lines_lie_where_their_points_project(plaza):
    camera = plaza.cameras["east"]
    ends = np.array([[2.0, 3.0, 0.0], [15.0, 9.0, 0.0]])
    (part,) = image_lines(camera, ends)
    back = camera.back_project(part)
    direction = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    away = (back - ends[0]) - np.outer((back - ends[0]) @ direction, direction)
    assert np.abs(away).max() < 1e-6 and np.allclose(camera.back_project(part[-1]), ends[1], atol=1e-6)


def test_lines_end_where_the_camera_sees_no_more(plaza):
    camera = plaza.cameras["north"]
    parts = image_lines(camera, [[9, -500, 0], [9, 500, 0]], 4000)
    assert parts and all(np.isfinite(part).all() for part in parts)
    assert max(np.abs(part).max() for part in parts) < 10 * camera.width
    assert image_lines(camera, [[0, 60, 0], [5, 60, 0]]) == []


def test_a_line_is_drawn_to_the_border_of_the_picture_however_coarsely_it_is_sampled(plaza):
    camera = plaza.cameras["south"]
    for samples in (20, 400):
        (part,) = image_lines(camera, [[3.0, -3.0, 0.0], [3.0, 15.0, 0.0]], samples)
        # It comes in at the bottom, beneath the camera.
        assert part[:, 1].max() > camera.height


def test_the_net_covers_the_grid(plaza):
    lines = ground_lines(plaza.cameras["south"], plaza.ground)
    places = np.concatenate([plaza.cameras["south"].back_project(line) for line in lines.net])
    # The net's lines lie at whole metres of x or of y.
    off = np.abs(places[:, :2] - np.round(places[:, :2])).min(axis=1)
    assert off.max() < 1e-6 and len(lines.net) > 20
    assert all(lines.axes)


def distance(polyline, point):
    """From a point to the nearest place of a polyline."""
    start, step = polyline[:-1], np.diff(polyline, axis=0)
    along = np.clip(((point - start) * step).sum(axis=1) / (step**2).sum(axis=1), 0, 1)
    return np.linalg.norm(start + along[:, None] * step - point, axis=1).min()


@given(x=st.floats(100, 660), y=st.floats(200, 560))
def test_curves_are_epipolar_lines_without_a_lens(plaza, x, y):
    cameras = {view: camera.undistorted() for view, camera in plaza.cameras.items()}
    for name, seen in epipolar_curves(cameras, "north", (x, y)).items():
        line = epipolar_lines(fundamental_matrix(cameras["north"], cameras[name]), (x, y))
        for part in seen.parts:
            assert np.abs(part @ line[:2] + line[2]).max() < 1e-5
        if seen.ground is not None:
            assert abs(seen.ground @ line[:2] + line[2]) < 1e-5


def test_a_curve_passes_the_point_that_both_see_through_their_lenses(plaza):
    for world in ((9.0, 6.0, 0.0), (12.0, 8.0, 1.6)):
        pixel = plaza.cameras["north"].project(world)
        for name, seen in epipolar_curves(plaza.cameras, "north", pixel).items():
            there = plaza.cameras[name].project(world)
            if plaza.cameras[name].inside(there):
                # The curve is drawn straight between its samples: the lens bends it less than this there.
                assert min(distance(part, there) for part in seen.parts) < 0.1
                if world[2] == 0:
                    np.testing.assert_allclose(seen.ground, there, atol=1e-6)


def test_coverage_agrees_with_people_projected_one_by_one(plaza):
    covered = coverage(plaza)
    rng = np.random.default_rng(3)
    for _ in range(200):
        row, column = rng.integers(covered.plan.rows), rng.integers(covered.plan.columns)
        x, y = covered.plan.centres()[row, column]
        for view, camera in plaza.cameras.items():
            pixels = covered.pixels[covered.views.index(view), row, column]
            assert (pixels > 0) == camera.inside(camera.project((x, y, HEIGHT_M / 2)))
            if pixels:
                feet, top = camera.project([(x, y, 0), (x, y, HEIGHT_M)])
                assert pixels == pytest.approx(np.linalg.norm(top - feet), rel=0.08)


def test_an_occluder_takes_away_what_is_behind_it(plaza):
    camera = plaza.cameras["north"]
    x, y = camera.project((9.0, 5.0, 0.0))
    box = {"north": {"kiosk": [[x - 40, y - 25], [x + 40, y - 25], [x + 40, y + 25], [x - 40, y + 25]]}}
    before, after = coverage(plaza), coverage(replace(plaza, occluders=box))
    row, column = before.plan.cell_of((9.0, 5.0))
    assert before.pixels[0, row, column] > 0 and after.pixels[0, row, column] == 0
    assert (after.pixels <= before.pixels).all() and (after.pixels[1:] == before.pixels[1:]).all()
    assert 0 < (after.pixels[0] < before.pixels[0]).mean() < 0.2


def test_a_large_grid_is_drawn_in_few_cells():
    plan = coarse_plan(GroundGrid(-3.0, -9.0, 0.025, 480, 1440))
    assert max(plan.columns, plan.rows) <= 120
    assert plan.columns * plan.cell_m >= 480 * 0.025 and plan.rows * plan.cell_m >= 1440 * 0.025
