"""`viewsync calib import` and `export`, as one types them."""

import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from calib.formats import ALSO, READERS, WRITERS, write_rig
from calib.scene import Scene, load_scene, save_scene
from viewsync.cli import main


def run(*words):
    return CliRunner().invoke(main, ["calib", *map(str, words)])


@pytest.fixture
def files(tmp_path, rig):
    """The rig in centimetres with z down, as CityStreet's layout has it."""
    document = {"image_size": [800, 600], "world_unit": "cm", "world_z": "negative is up", "cameras": []}
    for name, camera in rig.cameras.items():
        Rt = np.column_stack([camera.R @ np.diag([1, -1, -1]), camera.t * 100])
        entry = {"name": name, "K": camera.K.tolist(), "Rt_world_to_camera": Rt.tolist()}
        document["cameras"].append({**entry, "distortion_k1k2p1p2k3": camera.distortion.tolist()})
    path = tmp_path / "cameras.json"
    path.write_text(json.dumps(document))
    return path


def test_import_says_what_it_found_and_writes_a_scene(files, tmp_path, rig):
    out = tmp_path / "scene.yaml"
    done = run("import", files, "--out", out)
    assert done.exit_code == 0, done.output
    for said in (
        "format: citystreet, recognised by its content",
        "unit: cm by the file or its format, metres here",
        "-z points up in the file",
        "(x, -y, -z)",
        "right-handed in the file, det R = +1",
        "what the cameras see best together",
        "south-east",
        f"{out}: 3 cameras",
    ):
        assert said in done.output
    scene = load_scene(out)
    assert scene.name == "scene" and list(scene.cameras) == list(rig.cameras)
    for name, camera in rig.cameras.items():
        np.testing.assert_allclose(scene.cameras[name].centre, camera.centre, atol=1e-12)
    centre = scene.ground.origin_x_m + scene.ground.columns * scene.ground.cell_m / 2
    assert abs(centre) < 3 and scene.heights_m[-1] == 1.75


def test_import_as_one_line_of_json_and_with_everything_said(files, tmp_path):
    out = tmp_path / "scene.yaml"
    options = [
        "--ground=-3,-9,12,36",
        "--cameras",
        "cam_3,north",
        "--name",
        "yard",
        "--raise",
        "0.5",
        "--up",
        "-z",
    ]
    done = run("import", files, "--format", "citystreet", "--unit", "0.01", *options, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["scene"] == str(out) and list(facts["cameras"]) == ["cam_3", "north"]
    assert facts["cameras"]["north"]["centre_m"] == pytest.approx([0.5, 9.0, 3.7])
    assert facts["ground"] == {"origin_m": [-3, -9], "cell_m": 0.25, "columns": 48, "rows": 144}
    assert any("as you say" in note for note in facts["notes"]) and load_scene(out).name == "yard"


def test_the_options_name_every_format():
    def choices(name):
        command = main.get_command(None, "calib").get_command(None, name)
        return set(next(p for p in command.params if p.name == "format").type.choices)

    assert choices("import") == {"auto", *READERS, *ALSO} and choices("export") == set(WRITERS)


def test_without_out_nothing_is_written(files, tmp_path):
    before = set(tmp_path.iterdir())
    done = run("import", files)
    assert done.exit_code == 0 and "ground grid:" in done.output and set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--unit", "mile"), "neither one of m, dm"),
        (("--unit", "-1"), "neither one of m, dm"),
        (("--size", "800"), "1920x1080"),
        (("--ground", "1,2,3"), "x,y,width,height"),
        (("--ground", "1,2,3,0"), "no rectangle"),
        (("--up", "w"), "is not one of"),
        (("--cameras", "west"), "no camera 'west': it has north"),
        (("--size", "640x480"), "leave --size out"),
        (("--format", "kalibr"), "try --format auto"),
    ],
)
def test_a_wrong_option_is_one_line_that_says_what_is_right(files, option, said):
    done = CliRunner(catch_exceptions=False).invoke(main, ["calib", "import", str(files), *option])
    assert done.exit_code == 2 and said in done.output.replace("\n", " ")
    assert "Traceback" not in done.output and len(done.stderr.strip().splitlines()) == 1


def test_a_good_scene_is_not_overwritten_by_a_worse_one(files, tmp_path):
    out = tmp_path / "scene.yaml"
    assert run("import", files, "--out", out).exit_code == 0
    good = out.read_bytes()
    fewer = run("import", files, "--cameras", "north", "--out", out)
    assert fewer.exit_code == 2 and "not overwritten" in fewer.output and out.read_bytes() == good
    scene = load_scene(out)
    zoned = Scene(
        scene.name, scene.cameras, scene.ground, scene.heights_m, {"door": [[0, 0], [1, 0], [1, 1]]}
    )
    save_scene(zoned, out)
    again = run("import", files, "--out", out)
    assert again.exit_code == 2 and "it has zones, which an import does not" in again.output
    assert run("import", files, "--out", out, "--force").exit_code == 0 and not load_scene(out).zones


@pytest.mark.parametrize(
    ("format", "name"), [("opencv", "rig.yaml"), ("aniposelib", "rig.toml"), ("colmap", "model")]
)
def test_export_and_back(files, tmp_path, format, name):
    scene, out = tmp_path / "scene.yaml", tmp_path / name
    assert run("import", files, "--out", scene).exit_code == 0
    done = run("export", scene, "--format", format, "--out", out)
    assert done.exit_code == 0 and str(out) in done.stdout
    back = tmp_path / "back.yaml"
    assert run("import", out, "--out", back).exit_code == 0
    for camera, other in zip(
        load_scene(scene).cameras.values(), load_scene(back).cameras.values(), strict=True
    ):
        np.testing.assert_allclose(other.P, camera.P, atol=1e-9)
    if format == "opencv":
        storage = cv2.FileStorage(str(out), cv2.FILE_STORAGE_READ)
        assert storage.getNode("cameras").at(0).getNode("camera_matrix").mat().shape == (3, 3)


def test_export_never_writes_over_its_scene(files, tmp_path, rig):
    scene = tmp_path / "scene.yaml"
    assert run("import", files, "--out", scene).exit_code == 0
    done = run("export", scene, "--format", "opencv", "--out", tmp_path / "." / "scene.yaml")
    assert done.exit_code == 2 and "is the scene itself" in done.output and load_scene(scene)
    write_rig(rig, tmp_path / "rig.yaml", "opencv")
    wrong = run("export", tmp_path / "rig.yaml", "--format", "colmap", "--out", tmp_path / "model")
    assert wrong.exit_code == 2 and "rig.yaml" in wrong.output
