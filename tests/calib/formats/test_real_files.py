"""Real files of the data folder, held against what was measured in the world they describe."""

import csv
import gzip
import io
import json

import cv2
import numpy as np
import pytest

from calib.errors import CalibError
from calib.formats import READERS, read_rig
from calib.formats.foreign import Wishes
from calib.formats.pets2009 import load_camera
from calib.formats.source import NotThis, open_source

# Real files (several: one rig), and what they need to be told.
FILES = {
    "pets2009": (["pets2009/calibration"], {}),
    "wildtrack": (
        ["wildtrack-7cam/calibrations/intrinsic_zero", "wildtrack-7cam/calibrations/extrinsic"],
        {},
    ),
    "citystreet": (["citystreet-3cam/cameras.json"], {}),
    "aniposelib": (["caliscope-4webcam/session_a/camera_array.toml"], {}),
    "qualisys": (["pose2sim-4cam/Calib.qca.txt"], {}),
    "epfl": (["calibration-formats/epfl-basketball.txt"], {"unit_m": 17.6}),
    "campus": (["calibration-formats/calibration_campus.json"], {}),
    "human36m": (["h36m-cameras/camera-parameters.json"], {"which": "S1"}),
}


def rig_of(data, name, **wishes):
    paths, needed = FILES[name]
    return read_rig([data / path for path in paths], wishes=Wishes(**{**needed, **wishes}))


def rows(path):
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return list(csv.DictReader(io.StringIO(text.decode())))


@pytest.mark.parametrize("name", FILES)
def test_is_recognised_by_content_alone_and_ends_upright(data, tmp_path, name):
    paths, needed = FILES[name]
    files = [f for p in paths for f in (sorted((data / p).iterdir()) if (data / p).is_dir() else [data / p])]
    # Names say nothing of the format; which two belong together is in WILDTRACK's after the underscore.
    copies = [tmp_path / f"{number}_{file.stem.partition('_')[2]}" for number, file in enumerate(files)]
    for file, copy in zip(files, copies, strict=True):
        copy.write_bytes(file.read_bytes())
    taken = []
    for format, reader in READERS.items():
        try:
            reader.read([open_source(copy) for copy in copies], Wishes(**needed))
            taken.append(format)
        except (NotThis, CalibError):
            pass
    assert taken == [name]
    rig = read_rig(copies, wishes=Wishes(**needed))
    assert rig.notes[0] == f"format: {name}, recognised by its content"
    assert {note.partition(":")[0] for note in rig.notes} >= {"unit", "axes", "handedness"}
    for camera in rig.cameras.values():
        assert np.linalg.det(camera.R) == pytest.approx(1, abs=1e-9)
        assert -camera.R[1, 2] > 0.7  # up in the picture is up in the world: nobody films upside down
    if name != "aniposelib":  # a desk: its world is the board's, 15 cm around
        assert all(1 < camera.centre[2] < 10 for camera in rig.cameras.values())


def test_wildtracks_surveyed_markers_reproject(data):
    rig = read_rig([data / "wildtrack-7cam/raw_image_cameras.json"])
    error = [
        np.linalg.norm(
            rig.cameras[f"C{row['cam']}"].project([float(row[f"{axis}_cm"]) / 100 for axis in "xyz"])
            - [float(row["u"]), float(row["v"])]
        )
        for row in rows(data / "wildtrack-7cam/fixed_points.csv")
    ]
    assert len(error) == 150
    assert np.median(error) < 2.5  # the bound; the data's README measured 2.0


def test_wildtracks_pairs_put_people_where_detectors_saw_them(data):
    cameras = list(rig_of(data, "wildtrack").cameras.values())
    boxes = {}
    for row in rows(data / "wildtrack-7cam/detections.csv.gz"):
        if row["frame"] in ("0", "100"):
            foot = (float(row["x"]) + float(row["w"]) / 2, float(row["y"]) + float(row["h"]))
            boxes.setdefault((row["frame"], int(row["cam"])), []).append(foot)
    off = {number: [] for number in range(1, 8)}
    for row in rows(data / "wildtrack-7cam/ground_truth.csv"):
        if row["frame"] not in ("0", "100"):
            continue
        for number, camera in enumerate(cameras, 1):
            pixel = camera.project([float(row["x_cm"]) / 100, float(row["y_cm"]) / 100, 0.0])
            if camera.inside(pixel):
                feet = np.array(boxes[row["frame"], number])
                off[number].append(np.linalg.norm(feet - pixel, axis=1).min())
    # The data's README: 8 to 26 px, in all seven cameras.
    assert all(len(found) > 10 and np.median(found) < 27 for found in off.values())
    # The same cameras calibrated by somebody else, for raw pixels: within 40 cm of these.
    others = read_rig([data / "wildtrack-7cam/raw_image_cameras.json"]).cameras.values()
    assert all(np.linalg.norm(a.centre - b.centre) < 0.4 for a, b in zip(cameras, others, strict=True))


def board_views(data):
    """Of session_b: (group, corner) -> {camera: pixel}, and the corner's place on the board in metres."""
    seen, place = {}, {}
    for row in rows(data / "caliscope-4webcam/session_b/xy.csv"):
        key, corner = (row["sync_index"], row["keypoint_id"]), row["keypoint_id"]
        pixel = [float(row["img_loc_x"]), float(row["img_loc_y"])]
        seen.setdefault(key, {})[f"cam_{row['cam_id']}"] = np.array(pixel)
        place[corner] = np.array([float(row["obj_loc_x"]), float(row["obj_loc_y"])])
    return seen, place


def test_caliscopes_cameras_agree_on_a_board_and_on_its_size(data):
    path = data / "caliscope-4webcam/session_b/camera_array.toml"
    with pytest.raises(CalibError, match="--up"):
        read_rig([path])  # two of its cameras are turned by 90°: nothing says which way is up
    cameras = read_rig([path], wishes=Wishes(up="-y")).cameras
    assert all(camera.centre[2] <= 0 for camera in cameras.values())  # cam_1 is its origin, and it says so:
    notes = read_rig([path], wishes=Wishes(up="-y")).notes
    assert any("cam_0, cam_1, cam_2, cam_3 not above it" in note for note in notes)
    seen, place = board_views(data)
    points, error = {}, []
    for key, pixels in seen.items():
        if len(pixels) < 3:
            continue
        lines = []
        for name, pixel in pixels.items():
            camera = cameras[name]
            x, y = cv2.undistortPoints(pixel.reshape(1, 1, 2), camera.K, camera.distortion).ravel()
            Rt = np.column_stack([camera.R, camera.t])
            lines += [x * Rt[2] - Rt[0], y * Rt[2] - Rt[1]]
        solution = np.linalg.svd(np.array(lines))[2][-1]
        points[key] = solution[:3] / solution[3]
        error += [
            np.linalg.norm(cameras[name].project(points[key]) - pixel) for name, pixel in pixels.items()
        ]
    assert len(error) > 500
    assert np.median(error) < 1.0  # its own file says 0.2 to 0.7 px
    ratio = [
        np.linalg.norm(points[a] - points[b]) / np.linalg.norm(place[a[1]] - place[b[1]])
        for a in points
        for b in points
        if a[0] == b[0] and a[1] < b[1]
    ]
    assert np.median(ratio) == pytest.approx(1, abs=0.02)  # metres: 5.4 cm squares are 5.4 cm


@pytest.mark.parametrize(
    ("name", "height"), [("human36m", (0, 2)), ("qualisys", (-0.5, 2)), ("campus", (-1, 3))]
)
def test_cameras_around_a_place_look_at_it(data, name, height):
    cameras = rig_of(data, name).cameras.values()
    # The point nearest all optical axes.
    across = [np.eye(3) - np.outer(camera.R[2], camera.R[2]) for camera in cameras]
    centres = [camera.centre for camera in cameras]
    middle = np.linalg.solve(sum(across), sum(a @ c for a, c in zip(across, centres, strict=True)))
    assert height[0] < middle[2] < height[1]
    assert all(camera.inside(camera.project(middle)) for camera in cameras)


def test_campus_is_its_published_formula(data):
    document = json.loads((data / "calibration-formats/calibration_campus.json").read_text())
    points = np.random.default_rng(0).uniform([-3, 0, 0], [6, 9, 2], (200, 3))
    for name, camera in rig_of(data, "campus").cameras.items():
        entry = document[name.removeprefix("cam")]
        x, y, z = np.array(entry["R"]) @ (points.T * 1000 - np.array(entry["T"]))
        pixels = np.stack([entry["fx"] * x / z + entry["cx"], entry["fy"] * y / z + entry["cy"]], axis=-1)
        np.testing.assert_allclose(camera.project(points)[z > 0], pixels[z > 0], atol=1e-6)


def test_human36m_asks_for_the_subject_and_knows_the_pictures(data):
    with pytest.raises(CalibError, match=r"--which: S1, S5, S6, S7, S8"):
        rig_of(data, "human36m", which=None)
    first, other = rig_of(data, "human36m"), rig_of(data, "human36m", which="S5")
    sizes = {name: (camera.width, camera.height) for name, camera in first.cameras.items()}
    assert sizes["54138969"] == sizes["60457274"] == (1000, 1002)
    assert sizes["55011271"] == sizes["58860488"] == (1000, 1000)
    moved = [
        np.linalg.norm(camera.centre - other.cameras[name].centre) for name, camera in first.cameras.items()
    ]
    assert 0 < max(moved) < 0.5


def test_epfls_real_file_with_its_irregular_lines(data):
    with pytest.raises(CalibError, match="--unit"):
        rig_of(data, "epfl", unit_m=None)
    rig = rig_of(data, "epfl")
    heights = [camera.centre[2] for camera in rig.cameras.values()]
    # The data set's page: "All cameras are located about 2 meters from the ground."
    assert list(rig.cameras) == ["cam0", "cam1", "cam2", "cam3"] and np.ptp(heights) < 0.15
    assert rig.cameras["cam0"].distortion.tolist() == [-0.302910, 0.565347, 0, 0, 0]


def test_a_camera_from_a_ground_homography_alone(data):
    path = data / "pets2009/S2L1_ground_homographies.json"
    camera = read_rig([path], wishes=Wishes(unit_m=0.075)).cameras["view1"]
    tsai = load_camera(data / "pets2009/calibration/View_001.xml")
    assert camera.K[0, 0] == pytest.approx(tsai.K[0, 0], rel=0.1)
    x, y = np.meshgrid(np.linspace(80, 700, 12), np.linspace(220, 560, 9))
    pixels = np.stack([x.ravel(), y.ravel()], axis=-1)
    theirs, ours = tsai.back_project(pixels)[:, :2], camera.back_project(pixels)[:, :2]

    def misfit(ours):
        """Of the best turn, scale and shift of `ours` onto `theirs`, relative to their spread."""
        a, b = (points[:, 0] + 1j * points[:, 1] for points in (ours, theirs))
        a, b = a - a.mean(), b - b.mean()
        scale = np.vdot(a, b) / np.vdot(a, a)
        return np.linalg.norm(b - scale * a) / np.linalg.norm(b)

    # Theirs is another calibration of the same view. Mirrored, as the file has it, nothing fits.
    assert misfit(ours) < 0.1
    assert misfit(ours * (1, -1)) > 0.5
