"""Laws of the camera, with OpenCV as the independent second implementation."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.camera import Camera, nearest_rotation
from calib.errors import CalibError

LENSES = [
    (0.0, 0.0, 0.0, 0.0, 0.0),
    (-0.28, 0.09, 0.0012, -0.0008, -0.012),  # barrel, tangential
    (0.35, -0.2, -0.001, 0.002, 0.05),  # pincushion
    (-0.42, 0.25, 0.0, 0.0, -0.1),  # strong barrel
]


def image_points(camera: Camera, step: int = 24) -> np.ndarray:
    x, y = np.meshgrid(np.arange(0, camera.width, step), np.arange(0, camera.height, step))
    return np.stack([x, y], axis=-1).astype(float)


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("z", [0.0, 1.75])
def test_project_undoes_back_project(make_camera, lens, z):
    for seed in range(5):
        camera = make_camera(seed, lens)
        pixels = image_points(camera)
        points = camera.back_project(pixels, z)
        below_horizon = ~np.isnan(points[..., 0])
        assert below_horizon.mean() > 0.4
        assert np.all(points[below_horizon][:, 2] == z)
        # 1e-6 px is what the undistortion promises; the ground may be far, so the reprojection is what is
        # compared.
        np.testing.assert_allclose(camera.project(points[below_horizon]), pixels[below_horizon], atol=1e-6)


def test_back_project_undoes_project(make_camera):
    rng = np.random.default_rng(1)
    for seed, lens in enumerate(LENSES):
        camera = make_camera(seed, lens)
        points = np.column_stack([rng.uniform(-4, 4, (200, 2)), rng.uniform(0, 2, 200)])
        pixels = camera.project(points)
        seen = camera.inside(pixels)
        assert seen.sum() > 100
        # One height for each point. Metres: 1e-6 px at 20 m is far below 1e-6 m.
        np.testing.assert_allclose(
            camera.back_project(pixels[seen], points[seen, 2]), points[seen], atol=1e-6
        )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k1=st.floats(-0.3, 0.3),
    k2=st.floats(-0.1, 0.1),
    p1=st.floats(-0.003, 0.003),
    p2=st.floats(-0.003, 0.003),
    k3=st.floats(-0.03, 0.03),
)
def test_project_agrees_with_opencv(seed, k1, k2, p1, p2, k3):
    rng = np.random.default_rng(seed)
    R = cv2.Rodrigues(rng.normal(size=3))[0]
    t = rng.normal(size=3)
    K = np.array([[700.0, 0, 400], [0, 720, 300], [0, 0, 1]])
    camera = Camera(K, nearest_rotation(R), t, (k1, k2, p1, p2, k3), 800, 600)
    in_camera = np.column_stack([rng.uniform(-0.55, 0.55, (50, 2)), np.ones(50)]) * rng.uniform(
        2, 40, (50, 1)
    )
    points = (in_camera - t) @ R
    ours = camera.project(points)
    theirs = cv2.projectPoints(points, cv2.Rodrigues(R)[0], t, K, camera.distortion)[0].reshape(-1, 2)
    known = ~np.isnan(ours[:, 0])  # NaN beyond the lens model's reach
    assert known.any()
    # Same formula in the same precision, apart from the Rodrigues round trip.
    np.testing.assert_allclose(ours[known], theirs[known], atol=1e-6)


def test_projection_matrix_centre_and_depth_agree_with_projecting(make_camera):
    camera = make_camera(3).undistorted()
    points = np.random.default_rng(0).uniform(-3, 3, (4, 5, 3))
    homogeneous = np.concatenate([points, np.ones((4, 5, 1))], axis=-1) @ camera.P.T
    np.testing.assert_allclose(homogeneous[..., :2] / homogeneous[..., 2:], camera.project(points), atol=1e-9)
    np.testing.assert_allclose(homogeneous[..., 2], camera.depth(points), atol=1e-9)
    np.testing.assert_allclose(camera.P @ np.append(camera.centre, 1.0), 0, atol=1e-9)


def test_points_behind_the_camera_have_no_pixel(make_camera):
    camera = make_camera(0)
    ahead = camera.R[2]
    assert np.isfinite(camera.project(camera.centre + 3 * ahead)).all()
    assert np.isnan(camera.project(camera.centre - 3 * ahead)).all()
    assert np.isnan(camera.project(camera.centre)).all()
    assert camera.depth(camera.centre - 3 * ahead) == pytest.approx(-3)


def test_pixels_above_the_horizon_have_no_ground(make_camera):
    camera = make_camera(0)
    points = camera.back_project([(camera.width / 2, -3000.0), (camera.width / 2, camera.height - 1.0)])
    assert np.isnan(points[0]).all() and np.isfinite(points[1]).all()


@pytest.mark.parametrize("lens", LENSES[1:])
def test_what_the_lens_model_would_fold_into_the_picture_stays_out(make_camera, lens):
    camera = make_camera(0, lens)
    rng = np.random.default_rng(2)
    rays = rng.normal(size=(20_000, 3))
    rays[:, 2] = np.abs(rays[:, 2]) * 0.5 + 0.02  # mostly far off the axis
    pixels = camera.project(camera.centre + rays @ camera.R)
    inside = camera.inside(pixels)
    assert inside.any()
    # A pixel belongs to one ray: undistorting it must lead back to the ray it came from.
    back = camera._normalised(pixels[inside])
    np.testing.assert_allclose(back, rays[inside, :2] / rays[inside, 2:], atol=1e-8)


def test_opencv_folds_where_we_do_not():
    # k1 < 0 alone folds at r = 1/sqrt(-3 k1) = 0.98; a ray at 60 degrees (r = 1.73) then lands back near
    # the middle.
    camera = Camera(
        [[500, 0, 320], [0, 500, 240], [0, 0, 1]], np.eye(3), np.zeros(3), (-0.35, 0, 0, 0, 0), 640, 480
    )
    point = np.array([[1.73, 0.0, 1.0]])
    folded = cv2.projectPoints(point, np.zeros(3), np.zeros(3), camera.K, camera.distortion)[0].reshape(2)
    assert camera.inside(folded)
    assert np.isnan(camera.project(point)).all()


def blob(camera: Camera, pixel: np.ndarray, sigma: float = 6.0) -> np.ndarray:
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    return np.exp(-((x - pixel[0]) ** 2 + (y - pixel[1]) ** 2) / (2 * sigma**2)).astype(np.float32)


def centroid(image: np.ndarray) -> np.ndarray:
    y, x = np.indices(image.shape)
    return np.array([(image * x).sum(), (image * y).sum()]) / image.sum()


def test_resizing_the_image_and_the_camera_agree(make_camera):
    camera = make_camera(1)
    point = camera.back_project((300.3, 350.7))
    small = camera.resized(camera.width // 4, camera.height // 4)
    image = cv2.resize(
        blob(camera, camera.project(point)), (small.width, small.height), interpolation=cv2.INTER_AREA
    )
    # Averaging whole 4x4 blocks keeps the centroid exactly; a camera that forgot the half pixel is off by
    # 0.375 px.
    np.testing.assert_allclose(centroid(image), small.project(point), atol=1e-3)
    back = small.resized(camera.width, camera.height)
    np.testing.assert_allclose(back.K, camera.K, atol=1e-9)


def test_resizing_keeps_the_image_border(make_camera):
    camera = make_camera(2)
    corners = camera.back_project([(-0.5, camera.height - 0.5), (camera.width - 0.5, camera.height - 0.5)])
    for width, height in ((384, 288), (1536, 1152), (97, 73)):
        resized = camera.resized(width, height)
        wanted = [(-0.5, height - 0.5), (width - 0.5, height - 0.5)]
        np.testing.assert_allclose(resized.project(corners), wanted, atol=1e-6)


def test_cropping_shifts_pixels(make_camera):
    camera = make_camera(2)
    point = camera.back_project((500.0, 400.0))
    np.testing.assert_allclose(camera.cropped(100, 50, 600, 500).project(point), (400, 350), atol=1e-6)
    with pytest.raises(CalibError, match="not inside"):
        camera.cropped(700, 0, 100, 100)


@pytest.mark.parametrize("lens", LENSES)
def test_remap_shows_what_the_pinhole_camera_would_have_seen(make_camera, lens):
    camera = make_camera(4, lens)
    target = camera.undistorted().resized(384, 288)
    map_x, map_y = camera.remap_to(target)
    assert map_x.shape == map_y.shape == (288, 384) and map_x.dtype == np.float32
    points = camera.back_project([(250.0, 420.0), (520.0, 300.0), (384.0, 500.0)])
    for point in points:
        image = cv2.remap(blob(camera, camera.project(point)), map_x, map_y, cv2.INTER_LINEAR)
        peak = centroid(image * (image > 0.3))
        # Distortion varies over the blob's 12 px and cv2.remap works in 1/32 px.
        np.testing.assert_allclose(peak, target.project(point), atol=0.15)


def test_remap_agrees_with_opencv(make_camera):
    camera = make_camera(5)
    target = camera.undistorted().resized(384, 288)
    ours = camera.remap_to(target)
    theirs = cv2.initUndistortRectifyMap(
        camera.K, camera.distortion, None, target.K, (384, 288), cv2.CV_32FC1
    )
    seen = camera.inside(np.stack(theirs, axis=-1))
    for mine, other in zip(ours, theirs, strict=True):
        # float32 of numbers up to 768.
        np.testing.assert_allclose(mine[seen], other[seen], atol=1e-3)


def test_remap_refuses_what_is_not_the_same_picture(make_camera):
    camera = make_camera(0)
    with pytest.raises(CalibError, match="aspect"):
        camera.resized(640, 360)
    with pytest.raises(CalibError, match="aspect"):
        camera.remap_to(camera.undistorted().cropped(0, 0, 768, 300))
    with pytest.raises(CalibError, match="distortion"):
        camera.remap_to(camera.resized(384, 288))
    with pytest.raises(CalibError, match="another R or t"):
        camera.remap_to(make_camera(1).undistorted())


def test_unreachable_pixels_have_no_ground():
    # This lens only reaches r = 0.65 on the picture; the corners at r = 0.8 belong to no ray.
    camera = Camera(
        [[500, 0, 319.5], [0, 500, 239.5], [0, 0, 1]],
        np.diag([1.0, -1, -1]),
        [0, 0, 5],
        (-0.35, 0, 0, 0, 0),
        640,
        480,
    )
    points = camera.back_project([(0.0, 0.0), (320.0, 240.0)])
    assert np.isnan(points[0]).all() and np.isfinite(points[1]).all()
    map_x, _ = camera.remap_to(camera.undistorted())
    assert np.isfinite(map_x).all()


def good() -> dict[str, object]:
    return {
        "K": np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]),
        "R": np.eye(3),
        "t": np.zeros(3),
        "distortion": np.zeros(5),
        "width": 640,
        "height": 480,
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("K", np.eye(2), "shape"),
        ("K", np.diag([500.0, -500, 1]), "fx, fy > 0"),
        ("K", [[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]], "NaN"),
        ("K", "text", "numbers"),
        ("R", np.diag([1.0, 1, -1]), "mirrors"),
        ("R", np.eye(3) * 1.01, "orthonormal"),
        ("t", [0, 0], "shape"),
        ("distortion", [0, 0, 0, 0], "shape"),
        ("width", 0, "whole pixels"),
        ("height", -480, "whole pixels"),
        ("height", 480.5, "whole pixels"),
        ("width", True, "whole pixels"),
    ],
)
def test_no_half_calibrated_camera(key, value, message):
    with pytest.raises(CalibError, match=message) as caught:
        Camera(**{**good(), key: value})
    assert "\n" not in str(caught.value)


def test_cameras_are_values(make_camera):
    camera, same, other = make_camera(0), make_camera(0), make_camera(1)
    assert camera == same and hash(camera) == hash(same) and camera != other
    with pytest.raises(ValueError, match="read-only"):
        camera.K[0, 0] = 1.0
    given_K = good()["K"]
    kept = Camera(**{**good(), "K": given_K})
    given_K[0, 0] = 1.0
    assert kept.K[0, 0] == 500


def test_nearest_rotation():
    R = cv2.Rodrigues(np.array([0.3, -0.8, 1.1]))[0]
    np.testing.assert_allclose(nearest_rotation(np.round(R, 4)), R, atol=1e-4)
    with pytest.raises(CalibError, match="not a rotation"):
        nearest_rotation(R @ np.diag([1.0, 1, -1]))
