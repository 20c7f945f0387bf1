"""The reports: one file each, with everything in it, made from whatever is at hand; and the command."""

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from calib.look.check import check
from calib.look.walker import walker
from calib.points import MarkedPoint, save_points
from calib.report import Looked, write_report
from calib.report.drawing import NET, draw_view
from calib.scene import save_scene
from viewsync.cli import main


def run(*words):
    return CliRunner().invoke(main, ["calib", "check", *map(str, words)])


def looked(scene, points=(), pictures=None):
    return Looked("scene.yaml", scene, points, check(scene, points), pictures or {})


@pytest.fixture
def shaped(plaza):
    square = [[4, 3], [9, 3], [9, 8], [4, 8]]
    return replace(
        plaza,
        zones={"kerb": square},
        region=[[1, 1], [19, 1], [19, 14]],
        occluders={"north": {"kiosk": [[300, 200], [380, 205], [370, 330]]}},
    )


def test_the_page_is_one_file_that_loads_nothing(shaped, marked, tmp_path):
    odd = MarkedPoint("<script>alert(1)</script>", np.array([9.0, 6.0, 0.0]), {"north": (400, 300)})
    path = tmp_path / "report.html"
    write_report(looked(shaped, (*marked, odd)), path)
    text = path.read_text("utf-8")
    targets = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", text)
    assert targets and all(target.startswith("data:") for target in targets)
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert text.count("<figure>") == 5 and "$" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)


def test_a_browser_shows_the_person_in_every_view_and_it_walks(browser, plaza, marked, tmp_path):
    path = tmp_path / "report.html"
    write_report(looked(plaza, marked), path)
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(path.as_uri())
    paths = page.locator("svg[data-poses] path.body")
    assert paths.count() == 3
    before = [paths.nth(number).get_attribute("d") for number in range(3)]
    page.locator("#pose").fill("5")
    assert all(paths.nth(number).get_attribute("d") != d for number, d in enumerate(before))
    # The walker's feet are where the camera has that place of the ground.
    assert page.locator("table").count() == 2 and problems == []
    page.close()


def test_the_picture_has_all_views(plaza, marked, tmp_path):
    write_report(looked(plaza, marked), tmp_path / "report.png")
    image = cv2.imread(str(tmp_path / "report.png"))
    assert image.shape[1] == 1600 and image.shape[0] > 700
    many = replace(plaza, cameras={f"view{n}": c for n, c in enumerate([*plaza.cameras.values()] * 3)})
    write_report(looked(many), tmp_path / "many.png")
    assert cv2.imread(str(tmp_path / "many.png")).shape[0] > 1.5 * image.shape[0]


def test_what_is_drawn_is_where_it_projects(plaza):
    """The net is found in the picture at the whole metres that the camera projects, and nowhere between."""
    camera = plaza.cameras["north"]
    image = draw_view(plaza, "north", None, (), (), camera.width).astype(int)
    off = np.abs(image - NET).max(axis=-1)
    for on_a_line, between in (((9, 6.5), (9.5, 6.5)), ((11, 9.5), (11.5, 9.5)), ((7.5, 8), (7.5, 8.5))):
        for place, drawn in ((on_a_line, True), (between, False)):
            column, row = np.rint(camera.project((*place, 0))).astype(int)
            assert (off[row - 1 : row + 2, column - 1 : column + 2].min() < 60) == drawn
    person = draw_view(plaza, "north", None, (), [walker((9.0, 6.0), 0, 0)], camera.width).astype(int)
    changed = np.argwhere((person != image).any(axis=-1))
    feet, top = camera.project([(9.0, 6.0, 0.0), (9.0, 6.0, 1.75)])
    assert abs(changed[:, 0].max() - feet[1]) < 8 and abs(changed[:, 0].min() - top[1]) < 8


def test_the_command_says_and_draws_what_it_finds(plaza, marked, pictures, posed, tmp_path):
    save_scene(plaza, tmp_path / "scene.yaml")
    save_points(marked, tmp_path / "points.yaml")
    report = tmp_path / "report.html"
    words = (tmp_path / "scene.yaml", "--points", tmp_path / "points.yaml", "--frames", pictures)
    done = run(*words, "--report", report, "--report", tmp_path / "report.png")
    assert done.exit_code == 0 and "nothing suspicious" in done.output
    # With its picture, a view is not flat.
    assert report.stat().st_size > 300_000 and (tmp_path / "report.png").stat().st_size > 300_000

    camera = plaza.cameras["east"]
    save_scene(replace(plaza, cameras={**plaza.cameras, "east": posed(camera, t=1000 * camera.t)}), words[0])
    done = run(*words, "--json")
    assert done.exit_code == 2 and "units" in done.stderr
    found = json.loads(done.stdout.splitlines()[0])["findings"]
    assert ("units", "east") in {(row["code"], row["view"]) for row in found}


def test_a_stream_of_another_size_is_an_error(scene_file, tmp_path):
    wide = np.zeros((72, 128, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / "wide.png"), wide)
    done = run(scene_file, "--source", f"north={tmp_path / 'wide.png'}")
    assert "error: north: the picture is 128x72" in done.stdout and done.exit_code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--report", "report.pdf"), ".html or .png"),
        (("--source", "north"), "VIEW=SOURCE"),
        (("--source", "north=absent.png"), "no such file"),
        (("--source", "north=notes.txt"), "of no known kind"),
        (("--source", "north=half.png"), "half of one"),
        (("--source", "north=broken.mp4"), "cannot be read as a video"),
        (("--frames", "absent"), "no such folder"),
        (("--frames", "empty"), "no pictures"),
        (("--frames", "twice"), "both north"),
        (("--points", "absent.yaml"), "absent.yaml"),
    ],
)
def test_bad_input_is_one_line(scene_file, tmp_path, pictures, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    whole = (pictures / "north.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 3][:60])
    (tmp_path / "notes.txt").write_text("milk")
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 400)
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice").mkdir()
    for ending in ("png", "jpg"):
        (tmp_path / "twice" / f"north.{ending}").write_bytes(whole)
    done = run(scene_file, *words)
    assert done.exit_code == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_picture_is_taken_from_a_video(scene_file, pictures, tmp_path):
    image = cv2.imread(str(pictures / "north.png"))
    film = cv2.VideoWriter(str(tmp_path / "north.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (768, 576))
    for _ in range(3):
        film.write(image)
    film.release()
    done = run(scene_file, "--source", f"north={tmp_path / 'north.avi'}", "--report", tmp_path / "r.png")
    assert done.exit_code == 0, done.output
