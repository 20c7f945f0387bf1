"""Every change that the page can make, its undo, and what it refuses: without a browser, without a socket."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.camera import Camera
from calib.errors import CalibError
from calib.page.draft import Draft
from calib.page.edits import apply
from calib.page.facts import draft_facts, hover_facts, plan_facts
from calib.page.history import History

SQUARE = [[0, 0], [4, 0], [4, 3], [0, 3]]


@pytest.fixture(scope="session")
def draft(plaza, marked):
    return Draft.of("plaza", plaza, marked, {})


def done(draft, **action):
    return apply(draft, action)


def test_a_draft_of_a_scene_is_that_scene(draft, plaza):
    assert draft.scene() == plaza


def test_marks_names_and_positions(draft):
    first = done(draft, do="mark", view="north", pixel=[10, 20])
    assert first.point == "p1" and first.draft.point("p1").pixels["north"].tolist() == [10, 20]
    both = done(first.draft, do="mark", view="east", pixel=[30, 40], point="p1").draft
    assert set(both.point("p1").pixels) == {"north", "east"}
    named = done(both, do="rename", point="p1", name=" lamp ").draft
    placed = done(named, do="place", point="lamp", world=[1, 2, 3]).draft
    assert placed.point("lamp").world.tolist() == [1, 2, 3]
    assert done(placed, do="place", point="lamp", world=None).draft.point("lamp").world is None
    less = done(placed, do="unmark", point="lamp", view="east").draft
    assert set(less.point("lamp").pixels) == {"north"}
    with pytest.raises(CalibError, match="no point 'lamp'"):
        done(placed, do="remove", point="lamp").draft.point("lamp")
    # The draft that was changed is as it was.
    assert set(first.draft.point("p1").pixels) == {"north"} and len(draft.points) == 10


def test_a_mark_beyond_the_picture_is_at_its_border(draft):
    edited = done(draft, do="mark", view="north", pixel=[-40, 9000])
    assert edited.draft.point("p1").pixels["north"].tolist() == [-0.5, 575.5]


def test_the_last_mark_of_a_point_without_a_position_takes_it_along(draft):
    first = done(draft, do="mark", view="north", pixel=[10, 20]).draft
    assert done(first, do="unmark", view="north", point="p1").draft.points == draft.points


def test_shapes_come_change_and_go(draft):
    zone = done(draft, do="zone", corners=SQUARE).draft
    kerb = done(zone, do="zone", name="zone-1", rename="kerb", corners=SQUARE[:3]).draft
    assert list(kerb.zones) == ["kerb"] and len(kerb.zones["kerb"]) == 3
    region = done(kerb, do="region", corners=SQUARE).draft
    hidden = done(region, do="occluder", view="east", corners=[[5, 5], [900, 5], [60, 60]]).draft
    assert hidden.occluders["east"]["occluder-1"][1].tolist() == [767.5, 5]
    assert hidden.scene().region is not None and list(hidden.scene().occluders) == ["east"]
    for action in (
        {"kind": "zone", "name": "kerb"},
        {"kind": "region"},
        {"kind": "occluder", "view": "east", "name": "occluder-1"},
    ):
        hidden = done(hidden, do="erase", **action).draft
    assert hidden.scene() == draft.scene()


def test_a_pose_is_solved_from_points_and_the_wrong_one_is_named(draft, plaza):
    camera = plaza.cameras["north"]
    aside = Camera(camera.K, camera.R, camera.t + 1.5, camera.distortion, camera.width, camera.height)
    lost = replace(draft, cameras={**draft.cameras, "north": aside})
    wrong = done(lost, do="place", point="drain", world=[14, 2, 0]).draft
    solved = done(wrong, do="solve", view="north")
    np.testing.assert_allclose(solved.draft.cameras["north"].centre, camera.centre, atol=0.01)
    assert any("drain" in note for note in solved.notes) and "9 points" in solved.notes[0]


def test_four_points_are_enough_where_the_lens_is_known(plaza, marked, posed):
    north = plaza.cameras["north"]
    lens = posed(north, R=np.eye(3), t=np.zeros(3))
    sizes = {view: (camera.width, camera.height) for view, camera in plaza.cameras.items()}
    draft = Draft.of("plaza", None, marked[:4], sizes, {"north": lens})
    solved = done(draft, do="solve", view="north").draft
    assert np.linalg.norm(solved.cameras["north"].centre - north.centre) < 1e-6
    assert (solved.cameras["north"].K == north.K).all()
    with pytest.raises(CalibError, match="too few"):
        done(draft, do="solve", view="east")


def test_refining_brings_a_camera_back(draft, plaza):
    camera = plaza.cameras["south"]
    aside = Camera(camera.K, camera.R, camera.t + 0.1, camera.distortion, camera.width, camera.height)
    refined = done(replace(draft, cameras={**draft.cameras, "south": aside}), do="refine")
    np.testing.assert_allclose(refined.draft.cameras["south"].centre, camera.centre, atol=1e-3)
    assert "px RMS before" in refined.notes[0]


def test_the_ground_grid_is_typed(draft):
    grid = done(draft, do="ground", origin_m=[-1, 2], cell_m=0.5, columns=20, rows=12.0).draft.ground
    assert (grid.origin_x_m, grid.cell_m, grid.columns, grid.rows) == (-1, 0.5, 20, 12)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ({"do": "fly"}, "reload the page"),
        ({}, "do is empty"),
        ({"do": "mark", "view": "west", "pixel": [1, 2]}, "no view 'west'"),
        ({"do": "mark", "view": "north", "pixel": [1, None]}, "pixel needs 2"),
        ({"do": "mark", "view": "north", "pixel": [1, 1e300]}, "pixel needs 2"),
        ({"do": "mark", "view": "north", "pixel": [1, 2], "point": "ghost"}, "no point 'ghost'"),
        ({"do": "rename", "point": "drain", "name": "sign"}, "given twice"),
        ({"do": "rename", "point": "drain", "name": " "}, "name is empty"),
        ({"do": "place", "point": "drain", "world": [1, 2]}, "world needs 3"),
        ({"do": "unmark", "view": "north", "point": "ghost"}, "no point"),
        ({"do": "zone", "corners": [[0, 0], [1, 1]]}, "at least three"),
        ({"do": "zone", "corners": [[0, 0], [1, 1], [2, 2]]}, "no area"),
        ({"do": "zone", "corners": [[0, 0]] * 501}, "at most 500"),
        ({"do": "zone", "corners": SQUARE, "name": "ghost"}, "no zone 'ghost'"),
        ({"do": "zone", "corners": SQUARE, "rename": "two words"}, "letters"),
        ({"do": "erase", "kind": "zone", "name": "ghost"}, "nothing named"),
        ({"do": "ground", "origin_m": [0, 0], "cell_m": -1, "columns": 4, "rows": 4}, "positive"),
        ({"do": "ground", "origin_m": [0, 0], "cell_m": 1, "columns": 4.5, "rows": 4}, "whole number"),
        ({"do": "solve", "view": "west"}, "no view 'west'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(draft, action, said):
    with pytest.raises(CalibError) as caught:
        apply(draft, action)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_too_few_points_and_points_on_a_line(draft):
    few = replace(draft, points=draft.points[:3])
    with pytest.raises(CalibError, match="too few"):
        done(few, do="solve", view="north")
    for number, x in enumerate((2, 5, 8, 11, 14)):
        pixel = draft.cameras["north"].project((x, 6, 0)).tolist()
        few = done(few, do="mark", view="north", pixel=pixel).draft
        few = done(few, do="place", point=f"p{number + 1}", world=[x, 6, 0]).draft
    on_a_line = replace(few, points=few.points[3:])
    with pytest.raises(CalibError, match="line"):
        done(on_a_line, do="solve", view="north")


class Anything:
    json = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
    keys = st.sampled_from(
        ["view", "pixel", "point", "world", "name", "rename", "corners", "kind", "columns", "rows", "cell_m"]
    )
    names = st.sampled_from(
        ["mark", "unmark", "place", "rename", "remove", "zone", "occluder", "region", "erase", "ground"]
    )
    action = st.builds(
        lambda do, more: {**more, "do": do},
        names,
        st.dictionaries(keys, json | st.sampled_from(["north", "drain"]), max_size=5),
    )


@given(action=Anything.action)
def test_whatever_a_browser_sends_ends_in_a_draft_or_a_calib_error(draft, action):
    try:
        edited = apply(draft, action)
    except CalibError as error:
        assert "\n" not in str(error)
    else:
        assert edited.label and isinstance(edited.draft, Draft)


@given(steps=st.lists(st.sampled_from(["add", "undo", "redo", "save"]), max_size=30))
def test_undo_and_redo_are_what_an_editor_of_text_does(steps):
    """Against two plain stacks."""
    history = History(first := object())
    back, forth, now, saved, number = [], [], first, first, 0
    for step in steps:
        before = history.revision
        if step == "add":
            number += 1
            new = object()
            history.add(new, f"step {number}")
            back.append(now)
            now, forth = new, []
        elif step == "undo":
            assert history.undo() == bool(back)
            if back:
                forth.append(now)
                now = back.pop()
        elif step == "redo":
            assert history.redo() == bool(forth)
            if forth:
                back.append(now)
                now = forth.pop()
        else:
            history.mark_saved(now)
            saved = now
        assert history.draft is now and history.saved == (now is saved)
        assert (history.undo_label is None) == (not back) and (history.redo_label is None) == (not forth)
        assert history.revision >= before


def test_what_the_page_is_told_agrees_with_the_cameras(draft, plaza):
    facts = draft_facts(draft, {})
    assert [view["name"] for view in facts["views"]] == list(plaza.cameras) and facts["findings"] == []
    drain = next(point for point in facts["points"] if point["name"] == "drain")
    for view, camera in plaza.cameras.items():
        np.testing.assert_allclose(drain["projected"][view], camera.project((10, 6, 0)), atol=0.01)
    north = facts["views"][0]
    places = np.concatenate([np.reshape(part, (-1, 2)) for part in north["lines"]["net"]])
    ground = plaza.cameras["north"].back_project(places)
    # The fewer places that a line is drawn with lie on it: whole metres of x or y.
    off = np.abs(ground[:, :2] - np.round(ground[:, :2])).min(axis=1)
    assert np.median(off) < 0.02
    plan = plan_facts(draft)
    assert len(plan["pixels"]["north"]) == plan["columns"] * plan["rows"]
    hover = hover_facts(draft, "north", plaza.cameras["north"].project((9, 5, 0)).tolist())
    np.testing.assert_allclose(hover["ground"], (9, 5), atol=1e-3)
    np.testing.assert_allclose(
        hover["curves"]["east"]["ground"], plaza.cameras["east"].project((9, 5, 0)), atol=0.1
    )


def test_outlines_go_all_the_way_round(draft, plaza):
    corners = np.array([[6, 4], [9, 4.5], [8.5, 8], [6.5, 7.5]])
    shaped = done(done(draft, do="zone", corners=corners.tolist()).draft, do="region", corners=SQUARE).draft
    for view in draft_facts(shaped, {})["views"]:
        camera = plaza.cameras[view["name"]]
        (part,) = view["shapes"]["zones"]["zone-1"]
        line = np.reshape(part, (-1, 2))
        np.testing.assert_allclose(line[0], line[-1], atol=0.1)
        for place in (*corners, *(corners + np.roll(corners, -1, axis=0)) / 2):
            pixel = camera.project((*place, 0))
            start, step = line[:-1], np.diff(line, axis=0)
            along = np.clip(((pixel - start) * step).sum(axis=1) / (step**2).sum(axis=1), 0, 1)
            assert np.linalg.norm(start + along[:, None] * step - pixel, axis=1).min() < 0.5


def test_a_view_without_a_pose_has_no_lines_and_no_plan(marked):
    bare = Draft.of("new", None, marked, {"north": (768, 576)})
    facts = draft_facts(bare, {})
    assert facts["views"][0]["camera"] is None and "lines" not in facts["views"][0]
    assert hover_facts(bare, "north", (5, 5)) == {"ground": None, "person_px": None, "curves": {}}
    with pytest.raises(CalibError, match="no view has a pose yet"):
        bare.scene()
