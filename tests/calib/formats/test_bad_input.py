"""Files that cannot be used: one line that names file and entry and says what to do; never anything else."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.errors import CalibError
from calib.formats import READERS, read_rig, write_rig
from calib.formats.foreign import Wishes
from calib.rig import Rig

PETS = """<Camera name="View_001"><Geometry width="768" height="576" dpx="5e-3" dpy="5e-3"/>
<Intrinsic focal="5.5" kappa1="5e-3" cx="384" cy="288" sx="1.0"/>
<Extrinsic tx="0" ty="0" tz="20000" rx="2.0" ry="0" rz="0"/></Camera>"""
QUALISYS = """<calibration source="x"><cameras><camera active="1" serial="a1" model="Miqus Video">
<fov_video left="0" top="0" right="1087" bottom="1919"/>
<transform x="1460" y="-1909" z="1896"
r11="1" r12="0" r13="0" r21="0" r22="0" r23="1" r31="0" r32="-1" r33="0"/>
<intrinsic focalLengthU="107599" focalLengthV="107588" centerPointU="34110" centerPointV="60680" skew="0"
radialDistortion1="-0.05" radialDistortion2="0.1" radialDistortion3="0" tangentalDistortion1="0"
tangentalDistortion2="0"/></camera></cameras></calibration>"""
CAMPUS = json.dumps(
    {
        "0": {
            "R": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
            "T": [[0], [-5000], [1900]],
            "fx": 437.9,
            "fy": 437.9,
            "cx": 180.1,
            "cy": 140.2,
            "k": [[0], [0], [0]],
            "p": [[0], [0]],
        }
    }
)
CITY = json.dumps(
    {
        "image_size": [2704, 1520],
        "world_unit": "mm",
        "world_z": "negative is up",
        "cameras": [
            {
                "name": "view1",
                "K": [[1243.4, 0, 1384.5], [0, 1248.9, 747.8], [0, 0, 1]],
                "Rt_world_to_camera": [[1, 0, 0, 1.0], [0, 0, 1, 2.0], [0, -1, 0, 24000.0]],
                "distortion_k1k2p1p2k3": [-0.2, 0.03, 0, 0, 0],
            }
        ],
    }
)
TOML = """[cam_0]
name = "north"
size = [800, 600]
matrix = [[700.0, 0.0, 400.0], [0.0, 700.0, 300.0], [0.0, 0.0, 1.0]]
distortions = [-0.1, 0.02, 0.0, 0.0, 0.0]
rotation = [1.6, 0.0, 0.0]
translation = [0.0, 1.5, 4.0]
"""
EPFL = """camera 0
original image size: 720 576
internal parameters:
986.68 0.0 356.74
0.0 1210.19 277.27
0.0 0.0 1.0
external parameters: P = [R -R*T]
1 0 0 0.5
0 0 -1 1.5
0 1 0 0.8
"""
TEXTS = {"a.xml": PETS, "q.txt": QUALISYS, "c.json": CAMPUS, "v.json": CITY, "t.toml": TOML, "e.txt": EPFL}


@pytest.fixture
def written(tmp_path):
    def write(text, name="calibration"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", TEXTS)
def test_they_are_good_to_begin_with(written, name):
    assert read_rig([written(TEXTS[name], name)], wishes=Wishes(unit_m=1.0))


def refusal(paths, format="auto", **wishes):
    with pytest.raises(CalibError) as caught:
        read_rig(paths, format, Wishes(**wishes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", TEXTS)
@given(cut=st.floats(0, 0.999))
@settings(max_examples=25)
def test_half_a_file_is_one_line(tmp_path_factory, name, cut):
    path = tmp_path_factory.mktemp("half") / name
    text = TEXTS[name]
    # Less a last number: a text cut within it is whole to any reader.
    path.write_text(text[: int(cut * len(text.rstrip(" >}\n].0123456789")))])
    said = refusal([path], unit_m=1.0)
    assert str(path) in said


@given(data=st.data())
@settings(max_examples=150)
def test_whatever_is_changed_it_is_a_rig_or_one_line(tmp_path_factory, rig_texts, data):
    name, text = data.draw(st.sampled_from(rig_texts))
    start = data.draw(st.integers(0, len(text) - 1))
    end = min(len(text), start + data.draw(st.integers(0, 30)))
    put = data.draw(
        st.sampled_from(["", "nan", "1e400", "-", "{", "]", "<", '"', "null", "%", "\n", ": ", "9" * 40])
    )
    path = tmp_path_factory.mktemp("changed") / name
    path.write_text(text[:start] + put + text[end:])
    try:
        read_rig([path], wishes=Wishes(unit_m=1.0))
    except CalibError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="session")
def rig_texts(tmp_path_factory):
    """The files above and OpenCV's own three."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "rig.toml").write_text(TOML)
    rig = read_rig([folder / "rig.toml"])
    texts = list(TEXTS.items())
    for file in ("rig.yaml", "rig.xml", "rig.json"):
        write_rig(rig, folder / file, "opencv")
        texts.append((file, (folder / file).read_text()))
    return texts


def test_an_unknown_format_lists_what_was_tried_and_why(written):
    said = refusal([written("x,y\n1,2\n", "points.csv")])
    assert said.startswith(str(written("x,y\n1,2\n", "points.csv"))) and "no known format. Tried:" in said
    assert all(name in said for name in READERS)
    assert "pets2009, wildtrack, qualisys: not XML" in said
    assert "is not qualisys: not XML; try --format auto" in refusal([written(CAMPUS)], "qualisys")
    assert "there is no format 'tsai'" in refusal([written(CAMPUS)], "tsai")


@pytest.mark.parametrize(
    ("text", "old", "new", "said"),
    [
        (CAMPUS, '"T": [[0], [-5000], [1900]]', '"T": [[0], [-5000]]', "camera 0: T has 2 numbers where 3"),
        (CAMPUS, "180.1", "18.1", "--size"),
        (CAMPUS, "437.9", "-437.9", r"camera cam0: camera K is not"),
        (CITY, '"mm"', '"miles"', "world_unit is 'miles'"),
        (CITY, "distortion_k1k2p1p2k3", "distortion", "spells out its order"),
        (CITY, "[0, 0, 1, 2.0]", "[0, 0, 0.7, 2.0]", "camera view1: camera R is not a rotation"),
        (TOML, "rotation = [1.6, 0.0, 0.0]\n", "", "camera north has no rotation"),
        (TOML, "0.0, 0.0, 0.0]\nrot", "0.0, 0.0, 0.0, 0.1, 0.0, 0.0]\nrot", "8 coefficients"),
        (TOML, "[0.0, 1.5, 4.0]", "[0.0, nan, 4.0]", "translation holds NaN"),
        (TOML, "[1.6, 0.0, 0.0]", "[2.4, 0.0, 0.0]", "--up"),
        (EPFL, "original image size: 720 576\n", "", "--size"),
        (QUALISYS, 'r11="1"', 'r11="x"', "transform r11 is not 1 numbers"),
        (TOML, "[800, 600]", "[800.5, 600]", "image size is 800.5x600"),
    ],
)
def test_what_is_wrong_is_named(written, text, old, new, said):
    assert old in text
    path = written(text.replace(old, new, 1))
    unit = {"unit_m": 1.0} if text is EPFL else {}
    with pytest.raises(CalibError, match=said) as caught:
        read_rig([path], wishes=Wishes(**unit))
    assert str(path) in str(caught.value)


def test_names_twice_and_files_twice(written, tmp_path):
    path = written(TOML + TOML.replace("cam_0", "cam_1"))
    assert "two cameras are called north: rename one" in refusal([path])
    assert "given twice" in refusal([path, tmp_path / "." / "calibration"])
    one, two = written(PETS, "one.xml"), written(PETS, "two.xml")
    assert "two cameras are called View_001" in refusal([one, two])
    clash = TOML.replace('"north"', '"a b"') + TOML.replace("cam_0", "cam_1").replace('"north"', '"a/b"')
    assert "two cameras are called a-b" in refusal([written(clash)])


def test_what_is_no_calibration_at_all(written, tmp_path):
    assert "check the path" in refusal([tmp_path / "absent.xml"])
    assert "is empty" in refusal([written(" \n")])
    (tmp_path / "cameras.bin").write_bytes(bytes(range(256)))
    assert "model_converter" in refusal([tmp_path / "cameras.bin"])
    (tmp_path / "folder").mkdir()
    assert "holds no calibration file" in refusal([tmp_path / "folder"])
    assert "no files to import" in refusal([])
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Camera>&b;</Camera>'
    assert "declares a document type" in refusal([written(bomb)])
    assert "nested too deeply" in refusal([written("[" * 5_000)])


def test_wildtracks_halves(tmp_path, data):
    """WILDTRACK's own files, because half of a pair is a matter of names."""
    folder = data / "wildtrack-7cam/calibrations"
    pair = [folder / "intrinsic_zero/intr_CVLab1.xml", folder / "extrinsic/extr_CVLab1.xml"]
    assert list(read_rig(pair).cameras) == ["CVLab1"]
    other = folder / "extrinsic/extr_CVLab2.xml"
    assert "its other half, intr_CVLab2.xml, is missing" in refusal([*pair, other])
    assert "intrinsics but no rotation" in refusal(pair[:1])
    copy = tmp_path / "intr_CVLab1.xml"
    copy.write_bytes(pair[0].read_bytes())
    assert "second file for camera CVLab1" in refusal([*pair, copy])


def test_worlds_that_contradict_themselves(written):
    """One camera in a left-handed world and one in a right-handed world are no rig."""
    two = json.loads(CITY)
    two["cameras"].append({**two["cameras"][0], "name": "view2"})
    mirror = np.array(two["cameras"][1]["Rt_world_to_camera"]) * [1, -1, 1, 1]
    two["cameras"][1]["Rt_world_to_camera"] = mirror.tolist()
    assert "det R is -1 for view2 and +1 for the other" in refusal([written(json.dumps(two))])


def test_a_left_handed_world_is_turned_over_and_said(written):
    """All cameras of a mirrored world see the same people at the same pixels, with y the other way."""
    right = json.loads(CITY)
    left = json.loads(CITY)
    mirror = np.array(left["cameras"][0]["Rt_world_to_camera"]) * [1, -1, 1, 1]
    left["cameras"][0]["Rt_world_to_camera"] = mirror.tolist()
    ours, theirs = read_rig([written(json.dumps(right), "r")]), read_rig([written(json.dumps(left), "l")])
    assert any("left-handed in the file" in note for note in theirs.notes)
    assert ours == Rig(theirs.cameras)
