"""What is exported comes back as it was, and other programs read the same cameras in it."""

import json
import tomllib
from xml.etree import ElementTree

import cv2
import numpy as np
import pycolmap
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from calib.camera import Camera
from calib.errors import CalibError
from calib.formats import read_rig, write_rig
from calib.rig import Rig

# Each format's own limits: OpenCV writes 17 digits; the others go through a rotation vector or a quaternion,
# and COLMAP's half pixel.
EXACT = {"opencv": 1e-15, "aniposelib": 1e-12, "colmap": 1e-12}
FILES = [("opencv", "rig.yml"), ("opencv", "rig.xml"), ("opencv", "rig.json")]
FILES += [("aniposelib", "rig.toml"), ("colmap", "model")]

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
small = st.floats(-0.3, 0.3, allow_subnormal=False)
metres = st.floats(-400, 400, allow_subnormal=False)


@st.composite
def cameras(draw):
    rotation = Rotation.from_rotvec(draw(st.lists(st.floats(-4, 4), min_size=3, max_size=3)))
    width, height = draw(st.integers(16, 8000)), draw(st.integers(16, 8000))
    focal = draw(st.floats(10, 20_000))
    K = [[focal, 0, draw(st.floats(-50, 8000))], [0, focal * draw(st.floats(0.5, 2)), 7.5], [0, 0, 1]]
    distortion = draw(st.sampled_from(["none", "four", "five"]))
    count = {"none": 0, "four": 4, "five": 5}[distortion]
    lens = draw(st.lists(small, min_size=count, max_size=count)) + [0.0] * (5 - count)
    t = draw(st.lists(metres, min_size=3, max_size=3))
    return Camera(K, rotation.as_matrix(), t, lens, width, height)


rigs = st.dictionaries(names, cameras(), min_size=1, max_size=3).map(Rig)


@pytest.mark.parametrize(("format", "file"), FILES)
@settings(max_examples=20)
@given(rig=rigs)
def test_comes_back_as_it_was(tmp_path_factory, format, file, rig):
    path = tmp_path_factory.mktemp("rig") / file
    assert write_rig(rig, path, format)
    back = read_rig([path])
    assert back.notes[0] == f"format: {format}, recognised by its content"
    assert list(back.cameras) == list(rig.cameras)
    for name, camera in rig.cameras.items():
        other = back.cameras[name]
        assert (other.width, other.height) == (camera.width, camera.height)
        for what in ("K", "R", "t", "distortion"):
            given_, read = getattr(camera, what), getattr(other, what)
            scale = max(1.0, float(np.abs(given_).max()))
            assert np.abs(read - given_).max() <= EXACT[format] * scale, (name, what)


def with_cv2(entry, people):
    """Pixels by OpenCV's own projection, from what another reader found in the file."""
    points = cv2.projectPoints(people, entry["R"], entry["T"], entry["K"], entry["d"])[0]
    return points[:, 0]


def found_in_opencv(path):
    """The cameras by name, read without OpenCV: as XML, JSON or YAML of opencv-matrix."""
    text = path.read_text()

    def matrix(node):
        return np.array(node["data"], float).reshape(node["rows"], node["cols"])

    if path.suffix == ".xml":
        root = ElementTree.fromstring(text)

        def plain(element):
            if element.find("data") is not None:
                data = element.find("data").text.split()
                return {
                    "data": data,
                    "rows": int(element.find("rows").text),
                    "cols": int(element.find("cols").text),
                }
            return element.text.strip().strip('"')

        entries = [{child.tag: plain(child) for child in camera} for camera in root.find("cameras")]
    elif path.suffix == ".json":
        entries = json.loads(text)["cameras"]
    else:

        class Loader(yaml.SafeLoader):
            pass

        Loader.add_constructor(
            "tag:yaml.org,2002:opencv-matrix", lambda self, node: self.construct_mapping(node, True)
        )
        entries = yaml.load(text.replace("%YAML:1.0", "%YAML 1.1"), Loader)["cameras"]  # noqa: S506
    return {
        entry["name"]: {
            "K": matrix(entry["camera_matrix"]),
            "d": matrix(entry["distortion_coefficients"]),
            "R": matrix(entry["R"]),
            "T": matrix(entry["T"]),
        }
        for entry in entries
    }


@pytest.mark.parametrize("file", ["rig.yaml", "rig.xml", "rig.json"])
def test_opencvs_files_by_another_reader(tmp_path, rig, people, file):
    write_rig(rig, tmp_path / file, "opencv")
    found = found_in_opencv(tmp_path / file)
    assert list(found) == list(rig.cameras)
    for name, camera in rig.cameras.items():
        np.testing.assert_allclose(with_cv2(found[name], people), camera.project(people), atol=1e-8)


def test_aniposelibs_file_as_aniposelib_takes_it(tmp_path, rig, people):
    """`CameraGroup.load`: tables in the order of their sorted names, all but metadata; rotation a vector."""
    many = Rig({f"{name}.{number}": rig.cameras[name] for number in range(4) for name in rig.cameras})
    write_rig(many, tmp_path / "rig.toml", "aniposelib")
    document = tomllib.loads((tmp_path / "rig.toml").read_text())
    tables = [document[key] for key in sorted(document) if key != "metadata"]
    assert [table["name"] for table in tables] == list(many.cameras)
    for table, camera in zip(tables, many.cameras.values(), strict=True):
        entry = {
            "K": np.array(table["matrix"]),
            "d": np.array(table["distortions"]),
            "R": np.array(table["rotation"]),
            "T": np.array(table["translation"]),
        }
        np.testing.assert_allclose(with_cv2(entry, people), camera.project(people), atol=1e-8)


def test_colmaps_model_by_colmap(tmp_path, rig, people):
    files = write_rig(rig, tmp_path / "model", "colmap")
    assert sorted(file.name for file in files) == ["cameras.txt", "images.txt", "points3D.txt"]
    theirs = pycolmap.Reconstruction(tmp_path / "model")
    assert {image.name.removesuffix(".png") for image in theirs.images.values()} == set(rig.cameras)
    for image in theirs.images.values():
        pixels = theirs.cameras[image.camera_id].img_from_cam(image.cam_from_world() * people)
        ours = rig.cameras[image.name.removesuffix(".png")].project(people)
        np.testing.assert_allclose(np.asarray(pixels) - 0.5, ours, atol=1e-8)


def test_what_a_format_cannot_hold_is_said(tmp_path, rig):
    camera = rig.cameras["north"]
    K = camera.K + np.array([[0, 0.5, 0], [0, 0, 0], [0, 0, 0]])
    skewed = Rig({"north": Camera(K, camera.R, camera.t, camera.distortion, 800, 600)})
    with pytest.raises(CalibError, match="camera north has skewed pixels"):
        write_rig(skewed, tmp_path / "rig.yaml", "opencv")
    with pytest.raises(CalibError, match="choose one"):
        write_rig(rig, tmp_path / "rig.txt", "opencv")
    with pytest.raises(CalibError, match="no format 'qualisys' to write"):
        write_rig(rig, tmp_path / "rig.xml", "qualisys")
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibError, match="cannot be made"):
        write_rig(rig, tmp_path / "file" / "model", "colmap")
    with pytest.raises(CalibError, match="cannot be written"):
        write_rig(rig, tmp_path / "absent" / "rig.yaml", "opencv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
