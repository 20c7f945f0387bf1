"""The published JSON Schema is the one the code makes, and agrees with the reader of scene files."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from calib.errors import CalibError
from calib.ground import GroundGrid
from calib.scene import Scene, load_scene, save_scene
from calib.scene_schema import schema_text

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "scene.schema.json"
SQUARE = [[0.0, 0.0], [4.0, 0.0], [4.0, 3.0], [0.0, 3.0]]


@pytest.fixture
def validator():
    schema = json.loads(PUBLISHED.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def document(make_camera, tmp_path):
    """A scene file with everything in it, as saved."""
    scene = Scene(
        "plaza",
        {"north": make_camera(1), "12": make_camera(2)},
        GroundGrid(-1.5, 2.0, 0.2, 30, 40),
        (0.0, 1.75),
        {"kerb": SQUARE},
        SQUARE,
        {"north": {"kiosk": [[10, 10], [40, 10], [40, 90]]}},
    )
    save_scene(scene, tmp_path / "scene.yaml")
    return yaml.safe_load((tmp_path / "scene.yaml").read_text("utf-8"))


def test_the_published_file_is_what_the_code_makes():
    assert PUBLISHED.read_text("utf-8") == schema_text(), (
        "run: python -m calib.scene_schema > docs/scene.schema.json"
    )


def test_what_is_saved_and_what_comes_with_viewsync_is_accepted(validator, document):
    validator.validate(document)
    shipped = yaml.safe_load((ROOT / "bundles" / "plaza" / "scene.yaml").read_text("utf-8"))
    validator.validate(shipped)
    assert "occluders" not in shipped
    validator.validate({**shipped, "zones": None, "region": None})


def put(place, value):
    def change(document):
        *way, last = place
        for part in way:
            document = document[part]
        if value is DROP:
            del document[last]
        else:
            document[last] = value

    return change


DROP = object()


@pytest.mark.parametrize(
    "change",
    [
        put(["schema"], 2),
        put(["schema"], DROP),
        put(["name"], "two words"),
        put(["cameras"], {}),
        put(["cameras", "no rth"], {}),
        put(["cameras", "north", "hight_px"], 480),
        put(["cameras", "north", "height_px"], DROP),
        put(["cameras", "north", "width_px"], 640.5),
        put(["cameras", "north", "width_px"], 0),
        put(["cameras", "north", "rotation"], [[1, 0, 0], [0, 1, 0]]),
        put(["cameras", "north", "distortion"], [0, 0, 0, 0]),
        put(["cameras", "north", "translation_m"], [1, 2, "far"]),
        put(["ground", "cell_m"], 0),
        put(["ground", "rows"], -4),
        put(["heights_m"], []),
        put(["zones", "kerb", "polygon_m"], [[0, 0], [1, 1]]),
        put(["zones", "kerb", "polygon_px"], SQUARE),
        put(["region", "polygon_m"], [[0, 0, 0]] * 4),
        put(["occluders", "north", "kiosk"], SQUARE),
        put(["occluders", "north", "kiosk", "polygon_m"], SQUARE),
        put(["colour"], "red"),
    ],
)
def test_what_the_schema_refuses_the_reader_refuses_too(validator, document, tmp_path, change):
    changed = copy.deepcopy(document)
    change(changed)
    assert not validator.is_valid(changed)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(CalibError, match=r"changed\.yaml"):
        load_scene(path)


def test_every_key_says_what_it_is_and_in_which_unit():
    cameras = json.loads(schema_text())["properties"]["cameras"]["additionalProperties"]["properties"]
    assert "metres" in cameras["translation_m"]["description"]
    occluders = json.loads(schema_text())["properties"]["occluders"]
    polygon = occluders["additionalProperties"]["additionalProperties"]["properties"]["polygon_px"]
    assert "pixels" in polygon["description"]
