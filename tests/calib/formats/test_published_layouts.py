"""Formats without a real file at hand: written here from their published specification, numbers our own, and
read by our reader and by somebody else's (OpenCV, or the specification's own formula in its own units).
"""

import json
from dataclasses import replace

import cv2
import numpy as np
import pycolmap
import pytest

from calib.errors import CalibError
from calib.formats import read_rig
from calib.formats.foreign import Wishes
from calib.rig import Rig

# github.com/CMU-Perceptual-Computing-Lab/panoptic-toolbox: centimetres, y down.
PANOPTIC = """{"calibDataSource": "160422_test_calib", "cameras": [
 {"name": "00_00", "type": "hd", "resolution": [1920, 1080], "panel": 0, "node": 0,
  "K": [[1400.5, 0, 950.1], [0, 1399.2, 545.3], [0, 0, 1]],
  "distCoef": [-0.22, 0.17, 0.0003, 0.0006, 0.05],
  "R": [[1, 0, 0], [0, 0.98, 0.198997487], [0, -0.198997487, 0.98]], "t": [[10.0], [98.0], [310.0]]},
 {"name": "00_01", "type": "hd", "resolution": [1920, 1080], "panel": 0, "node": 1,
  "K": [[1390.0, 0, 960.0], [0, 1391.0, 540.0], [0, 0, 1]], "distCoef": [0, 0, 0, 0, 0],
  "R": [[0, 0, -1], [0, 1, 0], [1, 0, 0]], "t": [[0.0], [90.0], [280.0]]}]}
"""


def test_panoptic(tmp_path):
    path = tmp_path / "calibration"
    path.write_text(PANOPTIC)
    rig = read_rig([path])
    assert list(rig.cameras) == ["00_00", "00_01"]
    assert any("-y points up" in note and "(x, z, -y)" in note for note in rig.notes)
    # Somebody 175 cm tall, standing at x = 20, z = 30 cm of their world.
    theirs = np.array([[20.0, -175.0, 30.0], [20.0, 0.0, 30.0]])
    ours = np.array([[0.2, 0.3, 1.75], [0.2, 0.3, 0.0]])
    for entry, camera in zip(json.loads(PANOPTIC)["cameras"], rig.cameras.values(), strict=True):
        R, t, K, d = (np.array(entry[key], float) for key in ("R", "t", "K", "distCoef"))
        pixels = cv2.projectPoints(theirs, R, t, K, d)[0][:, 0]
        np.testing.assert_allclose(camera.project(ours), pixels, atol=1e-4)
        assert pixels[0, 1] < pixels[1, 1] and camera.centre[2] > 0
    assert list(read_rig([path], wishes=Wishes(only=("00_01",))).cameras) == ["00_01"]
    with pytest.raises(CalibError, match="no camera '00_07': it has 00_00, 00_01"):
        read_rig([path], wishes=Wishes(only=("00_07",)))


def kalibr(rig):
    """camchain.yaml as github.com/ethz-asl/kalibr/wiki/yaml-formats has it, of a rig without k3."""
    text, before = "", None
    for number, camera in enumerate(rig.cameras.values()):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = camera.R, camera.t
        K = camera.K
        text += f"cam{number}:\n  cam_overlaps: []\n  camera_model: pinhole\n"
        text += f"  distortion_coeffs: {camera.distortion[:4].tolist()}\n  distortion_model: radtan\n"
        text += f"  intrinsics: {K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()}\n"
        text += f"  resolution: [{camera.width}, {camera.height}]\n  rostopic: /cam{number}/image_raw\n"
        if before is not None:
            chain = pose @ np.linalg.inv(before)
            text += "  T_cn_cnm1:\n" + "".join(f"  - {row.tolist()}\n" for row in chain)
        before = pose
    return text


def test_kalibr(tmp_path, rig, people):
    rig = Rig(
        {
            name: replace(camera, distortion=[*camera.distortion[:4], 0])
            for name, camera in rig.cameras.items()
        }
    )
    path = tmp_path / "camchain.txt"
    path.write_text(kalibr(rig))
    read = read_rig([path], wishes=Wishes(up="-y", raise_m=3.2))
    assert list(read.cameras) == ["cam0", "cam1", "cam2"]
    first = rig.cameras["north"]
    for (name, ours), theirs in zip(read.cameras.items(), rig.cameras.values(), strict=True):
        # The same pixels of points given in cam0's frame, which the file's world is: x, z, -y of it, raised.
        in_first = people @ first.R.T + first.t
        world = in_first[:, [0, 2, 1]] * (1, 1, -1) + (0, 0, 3.2)
        np.testing.assert_allclose(ours.project(world), theirs.project(people), atol=1e-6, err_msg=name)
    assert any("3.2 m below the file's height 0" in note for note in read.notes)
    path.write_text(kalibr(rig).replace("radtan", "equidistant"))
    with pytest.raises(CalibError, match=r"cam0: is pinhole with equidistant .*pinhole-radtan"):
        read_rig([path])
    path.write_text(kalibr(rig).replace("cam1:", "cam0:"))
    with pytest.raises(CalibError, match="'cam0' is given twice"):
        read_rig([path])


def opencv_text(ending, entries):
    """What OpenCV itself writes of these."""
    storage = cv2.FileStorage(ending, cv2.FILE_STORAGE_WRITE | cv2.FILE_STORAGE_MEMORY)
    for key, value in entries.items():
        storage.write(key, value)
    return storage.releaseAndGetString()


@pytest.mark.parametrize("ending", [".yaml", ".xml", ".json"])
def test_opencv_one_file_per_camera(tmp_path, rig, people, ending):
    paths = []
    for name, camera in rig.cameras.items():
        entries = {
            # The names of OpenCV's own calibration sample.
            "image_width": camera.width,
            "image_height": camera.height,
            "camera_matrix": camera.K,
            "distortion_coefficients": camera.distortion.reshape(5, 1),
            "rvec": cv2.Rodrigues(camera.R)[0],
            "tvec": camera.t.reshape(3, 1),
        }
        paths.append(tmp_path / name)
        paths[-1].write_text(opencv_text(ending, entries))
    read = read_rig(paths)
    assert read.notes[1:3] == (
        "unit: not stated in the file; metres assumed (--unit says otherwise)",
        "axes: z points up in the file (found: it is up in the pictures)",
    )
    for name, camera in rig.cameras.items():
        np.testing.assert_allclose(read.cameras[name].project(people), camera.project(people), atol=1e-6)


def test_opencv_as_easymocap_spreads_it_over_two_files(tmp_path, rig, people):
    intrinsic = {"names": list(rig.cameras)}
    extrinsic = {"names": list(rig.cameras)}
    for name, camera in rig.cameras.items():
        intrinsic |= {f"K_{name}": camera.K, f"dist_{name}": camera.distortion.reshape(1, 5)}
        extrinsic |= {f"R_{name}": cv2.Rodrigues(camera.R)[0], f"Rot_{name}": camera.R}
        extrinsic |= {f"T_{name}": 1000 * camera.t.reshape(3, 1)}
    (tmp_path / "intri.yml").write_text(opencv_text(".yml", intrinsic))
    (tmp_path / "extri.yml").write_text(opencv_text(".yml", extrinsic))
    with pytest.raises(CalibError, match=r"as metres its cameras would be up to .*--unit mm"):
        read_rig([tmp_path], wishes=Wishes(size=(800, 600)))
    with pytest.raises(CalibError, match="--size"):
        read_rig([tmp_path], wishes=Wishes(unit_m=0.001))
    read = read_rig([tmp_path], "easymocap", Wishes(unit_m=0.001, size=(800, 600)))
    for name, camera in rig.cameras.items():
        np.testing.assert_allclose(read.cameras[name].project(people), camera.project(people), atol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("layout", ["text", "json"])
def test_epfls_ground_homographies(tmp_path, rig, people, layout, mirrored):
    """https://www.epfl.ch/labs/cvlab/data/data-pom-index-php/: ground and head plane, pixels to top view."""
    cameras = {
        name: type(camera)(
            [[700, 0, 399.5], [0, 700, 299.5], [0, 0, 1]], camera.R, camera.t, np.zeros(5), 800, 600
        )
        for name, camera in rig.cameras.items()
    }
    # A top view of 20 units a metre with its corner at (-10, -10) m; y down where it is mirrored.
    top_from_ground = np.array([[20.0, 0, 200], [0, -20.0 if mirrored else 20.0, 200], [0, 0, 1]])

    def homography(camera, z):
        ground_from_image = np.linalg.inv(
            np.column_stack([camera.P[:, :2], camera.P[:, 2] * z + camera.P[:, 3]])
        )
        return 0.3 * top_from_ground @ ground_from_image

    path = tmp_path / "calibration"
    if layout == "text":
        text = "Homographies of the sequence\n"
        for number, camera in enumerate(cameras.values()):
            text += f"\nCamera {number}:\n"
            for plane, z in (("Ground plane homography:", 0.0), ("Head plane homography:", 1.75)):
                text += (
                    plane
                    + "\n"
                    + "\n".join(" ".join(map(repr, row)) for row in homography(camera, z).tolist())
                )
                text += "\n"
        path.write_text(text)
        read = read_rig([path], wishes=Wishes(unit_m=0.05, size=(800, 600)))
        assert list(read.cameras) == ["cam0", "cam1", "cam2"]
    else:
        entry = {"frame_width": 800, "frame_height": 600, "cam_nbr": 3}
        entry["homography"] = [homography(camera, 0.0).tolist() for camera in cameras.values()]
        path.write_text(json.dumps({"Terrace": entry, "Other": entry}))
        with pytest.raises(CalibError, match="--which: Terrace, Other"):
            read_rig([path], wishes=Wishes(unit_m=0.05))
        read = read_rig([path], wishes=Wishes(unit_m=0.05, which="Terrace"))
    assert any(("left-handed in the file" in note) == mirrored for note in read.notes if "handedness" in note)
    for ours, theirs in zip(read.cameras.values(), cameras.values(), strict=True):
        # The corner of the top view is the origin of the file's world.
        shifted = people + np.array([10, -10 if mirrored else 10, 0])
        np.testing.assert_allclose(ours.project(shifted), theirs.project(people), atol=1e-4)


COLMAP_CAMERAS = """# Camera list with one line of data per camera:
#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
# Number of cameras: 3
1 SIMPLE_RADIAL 800 600 650.25 400.5 300.5 -0.031
4 PINHOLE 640 480 500 505 320 240
7 OPENCV 800 600 700 701 400 300 -0.1 0.02 0.0005 -0.0003
"""
COLMAP_IMAGES = """# Image list with two lines of data per image:
#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME
#   POINTS2D[] as (X, Y, POINT3D_ID)
# Number of images: 3, mean observations per image: 1
1 0.6 -0.8 0 0 0.1 0.2 5.0 1 rig/left hand.jpg
101.5 77.25 12 30 40 -1
3 0.5 -0.5 0.5 -0.5 0.3 -0.1 6.0 7 b.png

2 0.5 -0.5 -0.5 0.5 -0.3 0.5 7.5 4 c.jpg
1 1 -1
"""


def test_colmap(tmp_path):
    (tmp_path / "cameras.txt").write_text(COLMAP_CAMERAS)
    (tmp_path / "images.txt").write_text(COLMAP_IMAGES)
    (tmp_path / "points3D.txt").write_text("# 3D point list with one line of data per point:\n")
    with pytest.raises(CalibError, match=r"no unit of length .*--unit"):
        read_rig([tmp_path], wishes=Wishes(up="z"))
    rig = read_rig([tmp_path], wishes=Wishes(up="z", unit_m=2.0))
    assert list(rig.cameras) == ["left-hand", "b", "c"]
    assert any("'left hand' is called left-hand" in note for note in rig.notes)
    theirs = pycolmap.Reconstruction(tmp_path)
    points = np.random.default_rng(2).uniform(-1, 1, (50, 3))
    for image in theirs.images.values():
        camera = rig.cameras[{1: "left-hand", 3: "b", 2: "c"}[image.image_id]]
        in_camera = image.cam_from_world() * points
        pixels = theirs.cameras[image.camera_id].img_from_cam(in_camera)
        # Theirs counts from the corner of the top-left pixel.
        np.testing.assert_allclose(camera.project(2.0 * points), np.asarray(pixels) - 0.5, atol=1e-6)
    with pytest.raises(CalibError, match=r"half a COLMAP model: give cameras\.txt too"):
        read_rig([tmp_path / "images.txt"])
    (tmp_path / "cameras.txt").write_text(COLMAP_CAMERAS.replace("7 OPENCV", "7 OPENCV_FISHEYE"))
    with pytest.raises(CalibError, match="OPENCV_FISHEYE, which is not read: undistort"):
        read_rig([tmp_path], wishes=Wishes(unit_m=1.0))


def test_aniposelib_and_caliscopes_other_layout(tmp_path, rig, people):
    """github.com/lambdaloop/aniposelib, `Camera.get_dict`; Pose2Sim and FreeMoCap write it too."""
    text = ""
    for number, (name, camera) in enumerate(rig.cameras.items(), 1):
        rvec = cv2.Rodrigues(camera.R)[0].ravel().tolist()
        text += f'[cam_{number}]\nname = "{name}"\nsize = [ 800.0, 600.0,]\nmatrix = {camera.K.tolist()}\n'
        text += f"distortions = {camera.distortion.tolist()}\nrotation = {rvec}\n"
        text += f"translation = {(camera.t * 1000).tolist()}\nfisheye = false\n\n"
    text += "[metadata]\nadjusted = false\nerror = 0.0\n"
    path = tmp_path / "calibration"
    path.write_text(text)
    with pytest.raises(CalibError, match="--unit mm"):
        read_rig([path])
    read = read_rig([path], wishes=Wishes(unit_m=0.001))
    for name, camera in rig.cameras.items():
        np.testing.assert_allclose(read.cameras[name].project(people), camera.project(people), atol=1e-6)
    path.write_text(text.replace("fisheye = false", "fisheye = true", 1))
    with pytest.raises(CalibError, match="camera north: is a fisheye camera"):
        read_rig([path], wishes=Wishes(unit_m=0.001))
    nested = text.replace("[cam_", "[cameras.").replace("fisheye = false", "ignore = true", 1)
    path.write_text(nested)
    read = read_rig([path], "caliscope", Wishes(unit_m=0.001))
    assert list(read.cameras) == ["south-east", "cam_3"] and any("ignored" in note for note in read.notes)
