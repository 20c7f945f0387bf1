"""The page clicked, typed into, undone and saved in a real browser, by mouse and by keyboard alone."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from calib.points import MarkedPoint, load_points, save_points
from calib.scene import load_scene

DOCS = Path(__file__).parents[4] / "docs"
CORNERS = ((6.0, 4.0), (9.0, 4.5), (8.5, 8.0), (6.5, 7.5))


@pytest.fixture
def served(serve, scene_file, pictures, marked):
    save_points(marked, scene_file.with_name("points.yaml"))
    return serve(scene_file, "--frames", pictures)


def cell(window, point, column):
    return (
        window.page.locator("#point-list tr", has=window.page.get_by_text(point, exact=True))
        .locator("td")
        .nth(column)
    )


def test_a_point_is_clicked_named_typed_undone_and_saved(
    window, command, plaza, marked, pictures, scene_file
):
    save_points(marked, scene_file.with_name("points.yaml"))
    north = f"north={pictures / 'north.png'}"
    points = scene_file.with_name("points.yaml")
    served = command(scene_file, "--frames", pictures, "--source", north, "--points", points)
    window.open(served)
    world = (12.0, 8.0, 0.0)
    for view in ("north", "east", "south"):
        window.page.locator(f'[data-view="{view}"] canvas').click()  # brings it to the front
        window.settle()
        if view == "north":
            window.press("n")
        window.click(view, plaza.cameras[view].project(world))
    state = window.state()
    # The click that brings a small view to the front marks nothing; the one on the large one did.
    (point,) = (p for p in state["points"] if p["name"] == "p2")
    assert set(point["pixels"]) == {"north", "east", "south"} and point["world"] is None
    assert point["found"] == pytest.approx(world, abs=0.05)  # a click is a whole pixel of the screen
    window.page.fill("#point-name", "lamp post")
    window.page.keyboard.press("Enter")
    window.settle()
    for axis, value in zip("xyz", ("12", "8,0", "0"), strict=True):
        window.page.fill(f"#world-{axis}", value)
    window.page.keyboard.press("Enter")
    window.settle()
    lamp = next(p for p in window.state()["points"] if p["name"] == "lamp post")
    assert lamp["world"] == [12, 8, 0] and lamp["rms_px"] < 1.5
    assert cell(window, "lamp post", 1).inner_text() == "12.00"
    for _ in range(2):
        window.page.click("#undo")
        window.settle()
    assert "lamp post" not in [p["name"] for p in window.state()["points"]]
    window.page.click("#redo")
    window.page.click("#redo")
    window.settle()
    assert window.page.inner_text("#saved") == "not saved"
    window.page.click("#save")
    window.settle()
    assert window.page.inner_text("#saved") == "saved"
    saved = {p.name: p for p in load_points(scene_file.with_name("points.yaml"))}
    np.testing.assert_array_equal(saved["lamp post"].world, world)
    assert load_scene(scene_file) == plaza
    assert served.stop() == 0


def test_a_mark_is_dragged_and_the_residual_follows(window, served, plaza, marked):
    window.open(served)
    start = plaza.cameras["north"].project((10.0, 6.0, 0.0))
    window.page.mouse.move(*window.at("north", start))
    window.page.mouse.down()
    window.page.mouse.move(*window.at("north", np.add(start, (12, 0))), steps=4)
    window.page.mouse.up()
    window.settle()
    drain = next(p for p in window.state()["points"] if p["name"] == "drain")
    assert drain["errors"]["north"] == pytest.approx(12, abs=1) and drain["errors"]["east"] < 0.1
    window.page.click("#tab-checks")
    window.settle()
    assert "worst: drain" in window.page.inner_text("#panel")
    window.press("Control+z")
    drain = next(p for p in window.state()["points"] if p["name"] == "drain")
    assert drain["errors"]["north"] < 0.1


def test_everything_by_keyboard_alone(window, served, plaza):
    """Not one mouse event: a point in two views, its position, a zone, undo, and save."""
    window.open(served)
    window.press("1", "n")
    window.press(*["ArrowRight"] * 3, "Shift+ArrowDown", "Enter")
    point = window.state()["points"][-1]
    assert point["pixels"] == {"north": [387, 298]}
    window.press("Alt+ArrowLeft")
    assert window.state()["points"][-1]["pixels"] == {"north": [386.75, 298]}
    window.press("2", "Shift+ArrowUp", "Enter", "Shift+ArrowUp", "m")
    assert set(window.state()["points"][-1]["pixels"]) == {"north", "east"}
    assert window.state()["points"][-1]["pixels"]["east"] == [384, 268]
    window.press("t")
    window.page.keyboard.type("7.5")
    window.page.keyboard.press("Tab")
    window.page.keyboard.type("6")
    window.page.keyboard.press("Tab")
    window.page.keyboard.type("0")
    window.press("Enter")
    assert window.state()["points"][-1]["world"] == [7.5, 6, 0]
    window.press("Escape", "1", "z")
    for _ in range(3):
        window.press("Shift+ArrowRight", *["Shift+ArrowDown"] * 2, "Enter")
        window.press("Shift+ArrowLeft", *["Shift+ArrowLeft"] * 3)
    # Three corners on a line would be no area; one more, off it.
    window.press(*["Shift+ArrowUp"] * 6, "Enter", "Shift+Enter")
    assert list(window.state()["zones"]) == ["zone-1"] and len(window.state()["zones"]["zone-1"]) == 4
    window.press("Control+z")
    assert window.state()["zones"] == {}
    window.press("Control+Shift+z", "Control+s")
    assert window.state()["saved"] is True
    # Every control can be reached: Tab goes through the page and comes to all of these.
    reached = set()
    for _ in range(80):
        window.page.keyboard.press("Tab")
        reached.add(window.page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"undo", "refine", "save", "help", "tool-occluder", "walk", "layout", "show-rays"} <= reached
    assert {"plan", "layer", "tab-scene", "CANVAS" if "CANVAS" in reached else "plan"} <= reached


def test_shapes_are_drawn_in_views_and_on_the_plan_and_saved(window, served, plaza, scene_file):
    window.open(served)
    shares = "fetch('/api/plan').then((answer) => answer.json()).then((plan) => plan.shares)"
    all_three = window.page.evaluate(shares)[2]
    window.page.click("#tool-zone")
    for corner in CORNERS:
        window.click("north", plaza.cameras["north"].project((*corner, 0)))
    window.click("north", plaza.cameras["north"].project((*CORNERS[0], 0)))
    window.page.fill("#shape-name", "kerb")
    window.press("Enter")
    window.page.click("#tool-region")
    box = window.page.locator("#plan").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for dx, dy in ((-50, -40), (50, -40), (50, 40)):
        window.page.mouse.click(middle[0] + dx, middle[1] + dy)
        window.settle()
    window.page.mouse.dblclick(middle[0] - 50, middle[1] + 40)
    window.settle()
    window.page.click("#tool-occluder")
    for pixel in ((300, 200), (380, 205), (370, 330)):
        window.click("north", pixel)
    window.press("Shift+Enter")
    window.press("Control+s")
    saved = load_scene(scene_file)
    np.testing.assert_allclose(saved.zones["kerb"], CORNERS, atol=0.06)
    assert saved.region is not None and len(saved.region) == 4
    np.testing.assert_allclose(
        saved.occluders["north"]["occluder-1"], [(300, 200), (380, 205), (370, 330)], atol=1
    )
    assert saved.cameras == plaza.cameras
    # What is behind the occluder is not seen any more: the plan says so at once.
    assert window.page.evaluate(shares)[2] < all_three - 0.01
    window.page.click("#remove-shape")
    window.settle()
    assert window.state()["views"][0]["occluders"] == {}


def test_a_scene_is_made_from_pictures_alone(window, serve, plaza, marked, pictures, tmp_path):
    """No calibration at all: points, then poses and focal lengths, then a file that is right."""
    save_points(marked, tmp_path / "points.yaml")
    served = serve(tmp_path / "scene.yaml", "--frames", pictures)
    window.open(served)
    assert "0 of 3 views have a pose" in window.page.inner_text("#summary")
    assert "no pose yet" in window.page.inner_text("#view-facts")
    for view in range(1, 4):
        window.press(str(view), "s")
        window.page.wait_for_function(
            f"document.getElementById('summary').textContent.startsWith('{view} of')"
        )
    window.press("Control+s")
    saved = load_scene(tmp_path / "scene.yaml")
    for view, camera in plaza.cameras.items():
        assert np.linalg.norm(saved.cameras[view].centre - camera.centre) < 0.25
        assert saved.cameras[view].K[0, 0] == pytest.approx(camera.K[0, 0], rel=0.03)
    assert window.state()["findings"] == []


def test_a_worse_scene_is_saved_only_when_told_twice(window, served, scene_file):
    window.open(served)
    good = scene_file.read_bytes()
    positions = {point["name"]: point["world"] for point in window.state()["points"]}
    place = """async (positions) => {
      const {edit} = await import('/static/store.js');
      for (const [name, world] of positions) await edit({do: 'place', point: name, world});
    }"""
    # The pose that fits wrong positions does not fit the right ones.
    wrong = [(name, [x + 1, y, z]) for name, (x, y, z) in positions.items()]
    window.page.evaluate(place, wrong)
    window.press("1", "s")
    assert "solve" in window.page.get_attribute("#undo", "title")
    window.page.evaluate(place, list(positions.items()))
    window.press("Control+s")
    dialog = window.page.locator("#ask")
    assert dialog.is_visible() and "marked points" in dialog.inner_text()
    dialog.get_by_text("Cancel").click()
    assert scene_file.read_bytes() == good
    window.press("Control+s")
    dialog.get_by_text("Save anyway").click()
    window.settle()
    assert scene_file.read_bytes() != good and window.state()["saved"]


def test_epipolar_lines_and_the_person_move_with_the_mouse(window, served, plaza):
    """What is drawn is read from the canvases: pink where the curve is, orange where the person walks."""
    window.open(served)
    for name in ("grid", "points", "person"):
        window.page.click(f"#show-{name}")
    world = (10.0, 6.0, 0.0)
    window.page.mouse.move(*window.at("north", plaza.cameras["north"].project(world)))
    window.settle()
    pink = coloured(window, "east", (255, 121, 198))
    there = plaza.cameras["east"].project(world)
    assert len(pink) > 50 and np.linalg.norm(pink - there, axis=1).min() < 6
    window.page.click("#show-person")
    window.settle()
    # Translucent over a grey ground.
    before = coloured(window, "south", (228, 168, 91))
    assert len(before) > 20
    window.page.click("#walk")
    for _ in range(100):
        window.settle()
        after = coloured(window, "south", (228, 168, 91))
        if len(after) > 20 and np.linalg.norm(before.mean(axis=0) - after.mean(axis=0)) > 1:
            break
    else:
        raise AssertionError("nobody walked")
    window.page.click("#walk")


def coloured(window, view, rgb):
    """Pixels (N, 2) of the view where its canvas has this colour, nearly."""
    found = window.page.evaluate(
        """([view, rgb]) => import('/static/store.js').then(({viewOf}) => {
          const canvas = document.querySelector(`[data-view="${view}"] canvas`);
          const {width, height} = canvas;
          const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
          const facts = viewOf(view);
          const scale = Math.min(width / facts.width, height / facts.height);
          const [ox, oy] = [(width - facts.width * scale) / 2, (height - facts.height * scale) / 2];
          const found = [];
          for (let i = 0; i < data.length; i += 4) {
            const off = Math.max(...rgb.map((value, c) => Math.abs(data[i + c] - value)));
            const [x, y] = [(i / 4) % width, Math.floor(i / 4 / width)];
            if (off < 30) found.push([(x - ox) / scale, (y - oy) / scale]);
          }
          return found;
        })""",
        [view, list(rgb)],
    )
    return np.array(found).reshape(-1, 2)


def test_a_picture_that_is_missing_is_said_in_its_place(window, serve, scene_file, pictures, tmp_path):
    whole = (pictures / "east.png").read_bytes()
    (tmp_path / "late").mkdir()
    late = tmp_path / "late" / "east.png"
    late.write_bytes(whole)
    served = serve(scene_file, "--source", f"east={late}")
    late.unlink()
    window.open(served)
    window.page.get_by_text("no picture of north").wait_for()
    state = window.state()
    assert [view["camera"] is not None for view in state["views"]] == [True] * 3


def test_two_windows_do_not_overwrite_each_other(window, served, browser):
    window.open(served)
    other = browser.new_page()
    other.goto(served.url)
    other.locator("#point-list tr").nth(1).wait_for()
    window.page.locator("#point-list tbody tr").nth(0).click()
    window.page.click("#remove-point")
    window.settle()
    other.locator("#point-list tbody tr").nth(1).click()
    other.click("#remove-point")
    other.get_by_text("changed in another window").wait_for()
    assert len(window.state()["points"]) == 9
    assert other.locator("#point-list tbody tr").count() == 9
    other.close()


def test_the_picture_of_the_page_in_the_documentation(
    window, serve, plaza, marked, pictures, scene_file, tmp_path
):
    """Taken as a user would see it; it replaces the one in docs/ only when asked to."""
    rng = np.random.default_rng(1)
    clicked = [
        MarkedPoint(
            p.name, p.world, {view: pixel + rng.normal(0, 0.5, 2) for view, pixel in p.pixels.items()}
        )
        for p in marked
    ]
    save_points(clicked, scene_file.with_name("points.yaml"))
    window.open(serve(scene_file, "--frames", pictures))
    edit = "(action) => import('/static/store.js').then(({edit}) => edit(action))"
    window.page.evaluate(edit, {"do": "zone", "corners": [list(c) for c in CORNERS], "rename": "entrance"})
    window.page.evaluate(edit, {"do": "region", "corners": [[1, 1], [18.5, 1], [18.5, 14], [1, 14]]})
    window.page.locator("#point-list tbody tr").nth(6).click()
    window.press("p")
    window.page.mouse.move(*window.at("north", plaza.cameras["north"].project((12.5, 9.0, 0.0))))
    window.settle()
    window.page.wait_for_timeout(300)
    taken = tmp_path / "page.png"
    window.page.screenshot(path=taken)
    image = cv2.imread(str(taken))
    assert image.shape[:2] == (768, 1366)
    # Nothing is cut off: the page does not scroll, and its parts are inside the window.
    assert window.page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    for part in ("#save", "#panel", "#plan", ".status", "#show-shapes", "#solve"):
        box = window.page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 1366 and box["y"] + box["height"] <= 768, part
    if os.environ.get("VIEWSYNC_SCREENSHOTS"):
        (DOCS / "calibration.png").write_bytes(taken.read_bytes())
    assert json.dumps(window.state()["findings"]) == "[]"
