"""Marked points: their file, their place in the world, and how far cameras are from agreeing on it."""

from pathlib import Path

import numpy as np
import pytest

from calib.errors import CalibError
from calib.points import MarkedPoint, Spread, load_points, residuals, save_points
from calib.triangulation import triangulate


def test_a_file_reads_back_as_it_was_written(tmp_path: Path) -> None:
    points = (
        MarkedPoint("door-corner", (1.2, 1 / 3, -1e-17), {"north": (120.5, 88), "süd 2": (1e-5, 3)}),
        MarkedPoint("007", None, {"north": (0.1 + 0.2, 1e17)}),
        MarkedPoint("not clicked yet", (0, 0, 2.5), {}),
    )
    save_points(points, tmp_path / "p.yaml")
    assert load_points(tmp_path / "p.yaml") == points
    save_points((), tmp_path / "p.yaml")
    assert load_points(tmp_path / "p.yaml") == ()
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schema: 2\npoints: {}", "schema is 2"),
        ("points: {}", "schema is missing"),
        ("schema: 1\npionts: {}", "'pionts'"),
        ("schema: 1\npoints: [1]", "points must be a mapping"),
        ("schema: 1\npoints: {a: 3}", "points.a: must be a mapping"),
        ("schema: 1\npoints: {a: {pixel: {}}}", "points.a.pixel is not a known key"),
        ("schema: 1\npoints: {a: {pixels: [1, 2]}}", "points.a.pixels must be a mapping"),
        ("schema: 1\npoints: {a: {pixels: {north: [1]}}}", "pixel of point 'a' in camera north is [1]"),
        ("schema: 1\npoints: {a: {pixels: {north: [1, .nan]}}}", "give 2 finite numbers"),
        ("schema: 1\npoints: {a: {pixels: {north: [1, yes]}}}", "give 2 finite numbers"),
        ("schema: 1\npoints: {a: {pixels: {1: [1, 2]}}}", "camera 1"),
        ("schema: 1\npoints: {a: {world: [1, 2], pixels: {}}}", "world of point 'a'"),
        ("schema: 1\npoints: {12: {}}", "point name 12"),
        ("schema: 1\npoints: {a: {}, a: {}}", "given twice"),
        ("schema: 1\npoints: {a: {pix", "not YAML"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(CalibError) as caught:
        load_points(path)
    assert str(caught.value).startswith(str(path)) and says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_points_of_one_name_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(CalibError, match="'a' is given twice"):
        save_points([MarkedPoint("a", None, {}), MarkedPoint("a", None, {})], tmp_path / "p.yaml")
    assert not list(tmp_path.iterdir())


def test_a_point_is_found_where_it_was_projected_from(make_camera) -> None:  # type: ignore[no-untyped-def]
    cameras = {str(seed): make_camera(seed) for seed in range(4)}
    for world in np.random.default_rng(1).uniform(-1.5, 1.5, (20, 3)):
        pixels = {name: camera.project(world) for name, camera in cameras.items()}
        np.testing.assert_allclose(triangulate(cameras, pixels), world, atol=1e-7)  # Newton of undistort
        two = {name: pixels[name] for name in ("0", "3")}
        np.testing.assert_allclose(triangulate(cameras, two), world, atol=1e-7)


def test_no_place_nearby_projects_closer_to_noisy_pixels(make_camera) -> None:  # type: ignore[no-untyped-def]
    cameras = {str(seed): make_camera(seed) for seed in range(4)}
    rng = np.random.default_rng(2)
    world = np.array([0.5, -0.3, 1.0])
    pixels = {name: camera.project(world) + rng.normal(0, 3, 2) for name, camera in cameras.items()}
    found = triangulate(cameras, pixels)

    def cost(point: np.ndarray) -> float:
        return sum(float(np.sum((cameras[name].project(point) - pixels[name]) ** 2)) for name in cameras)

    assert all(cost(found) <= cost(found + step) for step in rng.normal(0, 0.005, (200, 3)))


def test_a_point_that_cannot_be_placed_is_nan(make_camera) -> None:  # type: ignore[no-untyped-def]
    camera = make_camera(0)
    pixel = camera.project((0, 0, 0))
    assert np.isnan(triangulate({"a": camera}, {"a": pixel})).all()
    assert np.isnan(triangulate({"a": camera, "b": camera}, {"a": pixel, "b": pixel})).all()
    assert np.isnan(triangulate({}, {})).all()
    marked = MarkedPoint("one view", None, {"a": pixel})
    spread = residuals({"a": camera}, [marked]).overall
    assert (spread.count, spread.unseen) == (0, 1) and np.isnan(spread.rms_px)


def test_residuals_are_by_camera_and_by_point(make_camera) -> None:  # type: ignore[no-untyped-def]
    cameras = {"a": make_camera(0), "b": make_camera(1)}
    world = np.array([0.2, 0.3, 0.4])
    off = MarkedPoint(
        "off",
        world,
        {
            "a": cameras["a"].project(world) + np.array([3, 4]),
            "b": cameras["b"].project(world),
            "other": (1, 1),
        },
    )
    behind = MarkedPoint("behind", 3 * cameras["a"].centre, {"a": (10, 10)})
    found = residuals(cameras, [off, behind])
    assert found.points == ("off", "off", "behind") and found.cameras == ("a", "b", "a")
    np.testing.assert_allclose(found.offsets_px[0], (3, 4), atol=1e-9)
    assert found.by_camera()["a"] == Spread(1, pytest.approx(5), pytest.approx(5), pytest.approx(5), 1)
    assert found.by_point()["off"].rms_px == pytest.approx(np.sqrt(12.5))
    assert found.by_point()["behind"].count == 0
    assert residuals(cameras, []).overall.count == 0
