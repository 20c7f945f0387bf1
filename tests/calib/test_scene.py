"""Scene files: what is saved is what is loaded, and what is wrong is said in one line."""

import errno
import os
import pickle

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.errors import CalibError
from calib.ground import GroundGrid
from calib.scene import Scene, load_scene, save_scene

SQUARE = [[0.0, 0.0], [4.0, 0.0], [4.0, 3.0], [0.0, 3.0]]


@pytest.fixture
def scene(make_camera):
    cameras = {"north": make_camera(1), "no": make_camera(2, (0,) * 5), "12": make_camera(3)}
    grid = GroundGrid(-7.3, 2 / 3, 0.2, 75, 100)
    return Scene(
        "plaza",
        cameras,
        grid,
        (0.0, 0.1 + 0.2, 1.75),
        {"kerb": SQUARE, "1e3": SQUARE[::-1]},
        [[0.1 + 0.2, 0.0], [9.0, 0.0], [4.0, 8.0]],
        {"no": {"kiosk": [[-0.5, -0.5], [300, 2 / 3], [300, 575.5]]}, "12": {}},
    )


def test_round_trip_is_exact_and_keeps_the_order(scene, tmp_path):
    path = tmp_path / "scene.yaml"
    save_scene(scene, path)
    loaded = load_scene(path)
    assert loaded == scene and hash(loaded) == hash(scene)
    assert list(loaded.cameras) == ["north", "no", "12"]
    np.testing.assert_array_equal(loaded.cameras["12"].K, scene.cameras["12"].K)
    save_scene(loaded, tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == path.read_bytes()
    assert pickle.loads(pickle.dumps(scene)) == scene  # noqa: S301 (our own bytes)


@settings(max_examples=60, deadline=None)
@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=6, max_size=6))
def test_every_float_survives(tmp_path_factory, numbers):
    numbers[3] = abs(numbers[3])
    x, y, low, rise, kerb_x, kerb_y = (max(-1e9, min(1e9, number)) for number in numbers)
    zone = [[kerb_x, kerb_y], [kerb_x + 1e6, kerb_y], [kerb_x, kerb_y + 1e6]]
    heights = (low, low + rise) if low + rise > low else (low,)
    camera = yaml.safe_load(GOOD)["cameras"]["north"]
    camera = load_text(
        tmp_path_factory, yaml.safe_dump({**yaml.safe_load(GOOD), "cameras": {"n": camera}})
    ).cameras["n"]
    scene = Scene("s", {"n": camera}, GroundGrid(x, y, max(rise, 5e-324), 1, 1), heights, {"z": zone})
    path = tmp_path_factory.mktemp("floats") / "scene.yaml"
    save_scene(scene, path)
    assert load_scene(path) == scene


def test_the_file_is_commented_yaml_that_other_programs_read(scene, tmp_path):
    path = tmp_path / "scene.yaml"
    save_scene(scene, path)
    text = path.read_text()
    assert "metres" in text and "x_camera = R x_world + t" in text
    assert max(len(line) for line in text.splitlines()) < 160
    document = yaml.safe_load(text)
    assert document["schema"] == 1
    assert document["cameras"]["no"]["rotation"] == scene.cameras["no"].R.tolist()
    assert document["zones"]["1e3"]["polygon_m"] == SQUARE[::-1]
    assert document["region"]["polygon_m"][0] == [0.1 + 0.2, 0.0]
    assert document["occluders"] == {
        "no": {"kiosk": {"polygon_px": [[-0.5, -0.5], [300, 2 / 3], [300, 575.5]]}}
    }


GOOD = """\
schema: 1
name: yard
cameras:
  north:
    width_px: 640
    height_px: 480
    intrinsics_px: [[500, 0, 320], [0, 500.0, 240], [0, 0, 1]]
    distortion: [-1e-1, 1e-2, 0, 0, 0]
    rotation: [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    translation_m: [0, 4, 0]
ground: {origin_m: [-5, 2], cell_m: 0.2, columns: 50, rows: 40}
heights_m: [0, 1.75]
"""


def load_text(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("scene") / "scene.yaml"
    path.write_text(text)
    return load_scene(path)


def test_a_hand_written_file_loads(tmp_path_factory):
    scene = load_text(tmp_path_factory, GOOD)
    assert scene.cameras["north"].distortion.tolist() == [-0.1, 0.01, 0, 0, 0]  # YAML reads 1e-2 as text
    assert scene.heights_m == (0.0, 1.75) and not scene.zones
    assert scene.region is None and not scene.occluders
    np.testing.assert_allclose(scene.cameras["north"].centre, (0, 0, 4))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema: 1", "schema: 2", ["schema", "reads schema 1"]),
        ("schema: 1\n", "", ["schema", "missing"]),
        ("name: yard", "name: [a]", ["name"]),
        ("name: yard", "title: yard", ["name", "missing"]),
        ("    height_px: 480\n", "", ["cameras.north.height_px", "missing"]),
        ("height_px", "hight_px", ["cameras.north.height_px", "rename 'hight_px'"]),
        ("heights_m:", "colour: red\nheights_m:", ["colour", "not a known key"]),
        ("rows: 40", "rows: 40, depth: 3", ["ground.depth", "not a known key"]),
        ("rows: 40", "rows: -40", ["ground", "rows"]),
        ("rows: 40", "rows: forty", ["ground.rows", "whole number"]),
        ("cell_m: 0.2", "cell_m: .nan", ["ground.cell_m", "NaN"]),
        ("cell_m: 0.2", "cell_m: -0.2", ["ground", "cell_m", "positive"]),
        ("width_px: 640", "width_px: -640", ["cameras.north", "width"]),
        ("width_px: 640", "width_px: yes", ["cameras.north.width_px", "whole number"]),
        ("[0, 4, 0]", "[0, .inf, 0]", ["cameras.north.translation_m", "NaN or infinity"]),
        ("[0, 4, 0]", "[0, 4]", ["cameras.north.translation_m", "give 3"]),
        ("[0, 4, 0]", "[0, 4, far]", ["cameras.north.translation_m", "not numbers"]),
        ("[0, 4, 0]", "[0, 4, [1, 2]]", ["cameras.north.translation_m", "not numbers"]),
        ("[0, 4, 0]", "[0, 4, null]", ["cameras.north.translation_m", "not numbers"]),
        ("[[1, 0, 0], [0, 0, -1]", "[[-1, 0, 0], [0, 0, -1]", ["cameras.north", "mirrors"]),
        ("[0, 1.75]", "[1.75, 0]", ["heights_m", "ascending"]),
        ("[0, 1.75]", "[]", ["heights_m"]),
        ("  north:", "  'no rth':", ["no rth", "letters"]),
        ("  north:", "  no:", ["name False", "quote it"]),
        ("  north:", "  north: 3\n  north:", ["'north'", "twice", "line 5"]),
        ("heights_m: [0, 1.75]", "heights_m: [0, 1.75", ["line", "not YAML"]),
        ("heights_m:", "zones: {z: {polygon_m: [[0, 0], [1, 1]]}}\nheights_m:", ["zone z", "three"]),
        ("heights_m:", "zones: {z: {polygon_m: [[0, 0], [1, 1], [2, 2]]}}\nheights_m:", ["zone z", "area"]),
        ("heights_m:", "zones: {z: {corners: []}}\nheights_m:", ["zones.z.polygon_m", "missing"]),
        ("heights_m:", "zones: [1]\nheights_m:", ["zones", "mapping"]),
        ("heights_m:", "region: {polygon_m: [[0, 0], [1, 1]]}\nheights_m:", ["region", "three"]),
        ("heights_m:", "region: [[0, 0], [1, 1], [1, 2]]\nheights_m:", ["region", "mapping"]),
        ("heights_m:", "occluders: {south: {}}\nheights_m:", ["'south'", "no such camera", "north"]),
        (
            "heights_m:",
            "occluders: {north: {a: {polygon_px: [[0, 0], [9, 0], [9, 481]]}}}\nheights_m:",
            ["occluder a of camera north", "leaves the image of 640x480"],
        ),
        ("heights_m:", "occluders: {north: [1]}\nheights_m:", ["occluders.north", "mapping"]),
        ("heights_m:", "occluders: {north: {a: {polygon_m: 1}}}\nheights_m:", ["a.polygon_px", "missing"]),
        ("ground: {", "ground: 3 #", ["ground", "mapping"]),
        ("heights_m: [0, 1.75]", "heights_m: &h [0, 1]\nzones: *h", ["line 13", "alias"]),
        (GOOD, "", ["scene.yaml", "mapping"]),
        (GOOD, "!!python/object/apply:os.getcwd []", ["scene.yaml", "not YAML"]),
        (GOOD, "\x00", ["scene.yaml"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path_factory, old, new, said):
    assert old in GOOD
    with pytest.raises(CalibError) as caught:
        load_text(tmp_path_factory, GOOD.replace(old, new, 1))
    message = str(caught.value)
    assert "\n" not in message and "scene.yaml" in message and len(message) < 400
    for words in said:
        assert words in message


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(CalibError, match="check the path"):
        load_scene(tmp_path / "absent.yaml")
    with pytest.raises(CalibError, match="check the path"):
        load_scene(tmp_path)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(CalibError, match="UTF-8"):
        load_scene(tmp_path / "picture.png")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_files_end_in_a_calib_error(tmp_path_factory, data):
    text = list(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 30))] = data.draw(
            st.sampled_from(["", "[", "}", ":", "\n", "-", "&a *a", "9e999", "é"])
        )
    try:
        load_text(tmp_path_factory, "".join(text))
    except CalibError as error:
        assert "scene.yaml" in str(error)


def test_a_failed_save_leaves_the_old_file(scene, tmp_path, monkeypatch):
    path = tmp_path / "scene.yaml"
    save_scene(scene, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    other = Scene("other", scene.cameras, scene.ground, scene.heights_m, {})
    with pytest.raises(CalibError, match="No space left"):
        save_scene(other, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["scene.yaml"]
    with pytest.raises(CalibError, match="cannot be written"):
        save_scene(scene, tmp_path / "absent" / "scene.yaml")


def test_saving_keeps_the_files_rights(scene, tmp_path):
    path = tmp_path / "scene.yaml"
    save_scene(scene, path)
    path.chmod(0o640)
    save_scene(scene, path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_scene_cannot_be_changed(scene):
    with pytest.raises(TypeError):
        scene.cameras["east"] = scene.cameras["no"]
    with pytest.raises(TypeError):
        scene.occluders["no"]["van"] = scene.region
    for polygon in (scene.zones["kerb"], scene.region, scene.occluders["no"]["kiosk"]):
        with pytest.raises(ValueError, match="read-only"):
            polygon[0, 0] = 1.0
