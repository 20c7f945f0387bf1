"""Bundle adjustment: its slopes, what it recovers, what holds the world, and what it says of wrong clicks."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calib.camera import Camera
from calib.errors import CalibError
from calib.points import MarkedPoint, residuals
from calib.projection import intrinsics_of, rotations
from calib.solve.from_scratch import cameras_from_scratch
from calib.solve.lens_columns import Lens
from calib.solve.refine import _Problem, refine
from calib.solve.refine_start import BoardView
from calib.solve.similarity import Similarity, similarity

MakeCamera = Callable[..., Camera]
Cameras = dict[str, Camera]
BOARD = np.stack(np.meshgrid(np.arange(5) * 0.3, np.arange(4) * 0.3, [0.0]), -1).reshape(-1, 3)


@pytest.fixture
def rig(make_camera: MakeCamera) -> Cameras:
    return {name: make_camera(seed) for seed, name in enumerate(("north", "east", "south", "west"))}


def displaced(cameras: Mapping[str, Camera], degrees: float, metres: float, focal: float = 1.0) -> Cameras:
    rng = np.random.default_rng(7)
    moved = {}
    for name, camera in cameras.items():
        turn, shift = rng.normal(size=(2, 3))
        R = rotations(np.deg2rad(degrees) * (turn / np.linalg.norm(turn))[None])[0] @ camera.R
        centre = camera.centre + metres * shift / np.linalg.norm(shift)
        K = camera.K.copy()
        K[:2, :2] *= focal
        moved[name] = Camera(K, R, -R @ centre, camera.distortion, camera.width, camera.height)
    return moved


def clicked(
    cameras: Mapping[str, Camera], surveyed: int, shared: int, noise_px: float = 0.0, seed: int = 0
) -> list[MarkedPoint]:
    rng = np.random.default_rng(seed)
    points = []
    for index, place in enumerate(rng.uniform((-3, -3, 0), (3, 3, 2), (surveyed + shared, 3))):
        pixels = {
            name: camera.project(place) + rng.normal(0, noise_px, 2)
            for name, camera in cameras.items()
            if camera.inside(camera.project(place))
        }
        if len(pixels) > 1:
            points.append(MarkedPoint(f"p{index}", place if index < surveyed else None, pixels))
    return points


def resting(camera: str, cameras: Mapping[str, Camera], placement: str, seed: int) -> BoardView:
    rng = np.random.default_rng(seed)
    turn = rotations(rng.normal(0, 0.15, (1, 3)))[0]
    world = BOARD @ turn.T + rng.uniform((-1, -1, 0.5), (1, 1, 1.5))
    return BoardView(camera, placement, BOARD, cameras[camera].project(world))


def furthest(cameras: Mapping[str, Camera], truth: Mapping[str, Camera]) -> float:
    return max(float(np.linalg.norm(cameras[name].centre - truth[name].centre)) for name in truth)


@pytest.mark.parametrize("lens", ["keep", "all"])
def test_the_jacobian_is_the_slope_of_the_residuals(rig: Cameras, lens: Lens) -> None:
    boards = [resting(name, rig, "floor", 3) for name in ("north", "east")]
    problem = _Problem(displaced(rig, 3, 0.3), clicked(rig, 4, 5, 2.0), boards, lens, ["west"])
    rng = np.random.default_rng(0)
    x = problem.rows.start_vector() + rng.normal(0, 0.01, problem.rows.unknowns)
    told = problem.rows.jacobian(x).toarray()
    for column in range(len(x)):
        step = np.zeros(len(x))
        step[column] = 1e-6
        seen = (problem.rows.residuals(x + step) - problem.rows.residuals(x - step)) / 2e-6
        # Rounding of pixels near 1000 over a step of 1e-6.
        np.testing.assert_allclose(told[:, column], seen, rtol=1e-4, atol=1e-4 * np.abs(seen).max() + 1e-6)


def test_projection_is_the_cameras_own(rig: Cameras) -> None:
    points = clicked(rig, 3, 10)
    problem = _Problem(rig, points, [], "keep", [])
    assert np.abs(problem.rows.residuals(problem.rows.start_vector())).max() < 1e-6  # triangulation's


@pytest.mark.parametrize(("degrees", "metres"), [(2, 0.2), (5, 0.5)])
def test_displaced_cameras_come_back(rig: Cameras, degrees: float, metres: float) -> None:
    start = displaced(rig, degrees, metres)
    found = refine(start, clicked(rig, 8, 30))
    assert found.rms_before_px > 10 and found.rms_after_px < 1e-3
    assert furthest(found.cameras, rig) < 1e-4
    assert all((found.cameras[name].K == start[name].K).all() for name in rig)
    assert found.wrong == () and found.notes == () and "surveyed" in found.world


@pytest.mark.parametrize("lens", ["focal", "focal+k1", True])
def test_intrinsics_come_back_too(rig: Cameras, lens: Lens | bool) -> None:
    start = displaced(rig, 2, 0.2, focal=1.04)
    found = refine(start, clicked(rig, 20, 60), solve_intrinsics=lens)
    for name, camera in found.cameras.items():
        # The price of straying is small against the clicks, not nothing.
        np.testing.assert_allclose(intrinsics_of(camera)[:2], intrinsics_of(rig[name])[:2], rtol=3e-3)
    assert furthest(found.cameras, rig) < 0.04


def test_noise_is_averaged_not_fitted(rig: Cameras) -> None:
    found = refine(displaced(rig, 2, 0.2), clicked(rig, 12, 100, 1.0))
    # Twelve surveyed points hold the distance of 12 m: a pixel in 200 is 6 cm.
    assert furthest(found.cameras, rig) < 0.1
    clean = clicked(rig, 30, 0, 0.0, seed=5)
    assert residuals(found.cameras, clean).overall.rms_px < 1.0


def test_wrong_clicks_do_not_pull_and_are_listed(rig: Cameras) -> None:
    points = clicked(rig, 8, 40, 0.5)
    for index in (2, 20, 33):
        view, pixel = next(iter(points[index].pixels.items()))
        points[index] = replace(points[index], pixels={**points[index].pixels, view: pixel + 80})
    found = refine(displaced(rig, 2, 0.2), points)
    assert furthest(found.cameras, rig) < 0.1
    assert {click.point for click in found.wrong} == {points[index].name for index in (2, 20, 33)}


def test_a_point_behind_a_camera_is_left_out_and_named(rig: Cameras) -> None:
    points = clicked(rig, 10, 20)
    north = rig["north"]
    # On the optical axis, where a projection through the camera's back would come out as well.
    points[3] = MarkedPoint("p3", north.centre - 5 * north.R[2], {"north": (380, 290)})
    found = refine(displaced(rig, 2, 0.2), points)
    assert any("behind the camera: p3 in north" in note for note in found.notes)
    assert ("p3", "north") not in zip(found.residuals.points, found.residuals.cameras, strict=True)
    assert furthest({"north": found.cameras["north"]}, {"north": north}) < 0.01
    with pytest.raises(CalibError, match="p3 in north would be behind the camera"):
        refine({"north": north}, points[3:4])


def test_without_surveyed_points_the_world_stays(rig: Cameras) -> None:
    """Clicks alone say nothing of origin, axes and scale: the cameras as a whole stay where they were."""
    start = displaced(rig, 1, 0.1)
    found = refine(start, clicked(rig, 0, 60))
    assert found.rms_after_px < 0.01 and "kept as it was" in found.world
    back = similarity(
        np.stack([camera.centre for camera in found.cameras.values()]),
        np.stack([camera.centre for camera in rig.values()]),
    )
    moved = {name: back.camera(camera) for name, camera in found.cameras.items()}
    assert furthest(moved, rig) < 1e-3
    again = similarity(
        np.stack([camera.centre for camera in found.cameras.values()]),
        np.stack([camera.centre for camera in start.values()]),
    )
    # A least-squares fit of centres and directions, so the centres' own is near, not exactly, nothing.
    assert abs(again.scale - 1) < 0.02 and np.linalg.norm(again.shift) < 0.1


def test_a_similarity_moves_cameras_with_the_world(rig: Cameras) -> None:
    move = Similarity(1.7, rotations(np.array([[0.3, -1.0, 0.2]]))[0], np.array([1.0, 2, 3]))
    places = np.random.default_rng(0).uniform(-1, 1, (10, 3))
    for camera in rig.values():
        np.testing.assert_allclose(
            move.camera(camera).project(move.points(places)), camera.project(places), atol=1e-9
        )
    found = similarity(places, move.points(places))
    assert found.scale == pytest.approx(1.7) and np.allclose(found.rotation, move.rotation)


def test_boards_at_rest_give_poses_and_scale(rig: Cameras) -> None:
    boards = [resting(name, rig, f"place {seed}", seed) for seed in range(6) for name in rig]
    start = displaced(rig, 2, 0.2)
    found = refine(start, [], boards)
    assert "the scale is the boards'" in found.world and found.board_residuals.overall.rms_px < 0.01
    back = similarity(
        np.stack([camera.centre for camera in found.cameras.values()]),
        np.stack([camera.centre for camera in rig.values()]),
    )
    assert back.scale == pytest.approx(1, abs=1e-3)


def test_a_board_in_the_hand_ties_no_cameras_together(rig: Cameras) -> None:
    """Every camera saw it elsewhere; as placements of their own these views say nothing wrong."""
    moved = [resting(name, rig, f"{name} {seed}", 10 * seed + len(name)) for seed in range(4) for name in rig]
    found = refine(displaced(rig, 2, 0.2), clicked(rig, 8, 30), moved)
    assert furthest(found.cameras, rig) < 1e-3 and found.rms_after_px < 0.01
    joined = [replace(view, placement=view.placement.split()[1]) for view in moved]
    assert refine(displaced(rig, 2, 0.2), clicked(rig, 8, 30), joined).rms_after_px > 5


def test_a_camera_that_is_fixed_or_hardly_seen_stays(rig: Cameras) -> None:
    start = {**displaced(rig, 2, 0.2), "north": rig["north"]}
    points = [
        replace(point, pixels={name: pixel for name, pixel in point.pixels.items() if name != "west"})
        for point in clicked(rig, 8, 30)
    ]
    found = refine(start, points, fixed=["north"])
    assert found.cameras["north"] == start["north"]
    np.testing.assert_allclose(found.cameras["west"].t, start["west"].t)
    assert any("west (0)" in note for note in found.notes)


def test_cameras_from_nothing_but_points(rig: Cameras) -> None:
    """North and east see surveyed points; the others only what those see too."""
    plain = {}
    for name, camera in rig.items():
        K = [[camera.K[0, 0], 0, 383.5], [0, camera.K[0, 0], 287.5], [0, 0, 1]]
        plain[name] = Camera(np.array(K), camera.R, camera.t, [-0.1, 0, 0, 0, 0], camera.width, camera.height)
    points = [
        replace(
            point, pixels={name: point.pixels[name] for name in ("north", "east") if name in point.pixels}
        )
        if point.world is not None
        else point
        for point in clicked(plain, 14, 60, 0.3)
    ]
    sizes = dict.fromkeys(plain, (768, 576))
    start = {name: solved.camera for name, solved in cameras_from_scratch(points, sizes).items()}
    assert list(start) == list(plain)
    found = refine(start, points, solve_intrinsics="focal+k1")
    assert furthest(found.cameras, plain) < 0.15
    with pytest.raises(CalibError, match="cannot place west wing: west wing has 0 points"):
        cameras_from_scratch(points, {**sizes, "west wing": (768, 576)})


@pytest.mark.parametrize(
    ("points", "fixed", "says"),
    [
        ([], (), "nothing to refine"),
        ([MarkedPoint("a", None, {"north": (1, 1)})], (), "nothing to refine"),
        ([MarkedPoint("a", (0, 0, 0), {"north": (1, 1)})], (), "no camera has 4"),
        ([MarkedPoint("a", None, {}), MarkedPoint("a", None, {})], (), "given twice"),
        ([], ("top",), "no camera 'top'"),
    ],
)
def test_what_cannot_be_refined_is_refused(
    rig: Cameras, points: list[MarkedPoint], fixed: tuple[str, ...], says: str
) -> None:
    with pytest.raises(CalibError, match=says):
        refine(rig, points, fixed=fixed)


@pytest.mark.parametrize(("degrees", "metres"), [(2, 0.2), (5, 0.5), (None, None)])
def test_wildtrack_half_of_the_clicks_speak_for_the_other_half(
    data: Path, degrees: float | None, metres: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import wildtrack

    folder = data / "wildtrack-7cam"
    published = wildtrack.published_cameras(folder)
    markers, clicks = wildtrack.marked_points(folder)
    start = None if degrees is None else wildtrack.displaced(published, degrees, 100 * metres)
    found, _ = wildtrack.refined_from(start, clicks[::2] + markers[::2], "focal+k1")
    before = wildtrack.held_out(published, clicks[1::2], markers[1::2])
    after = wildtrack.held_out(found.cameras, clicks[1::2], markers[1::2])
    # People's heads and feet clicked by hand: 3.1 and 7.5 px with the published cameras.
    assert np.nanmedian(after.clicks) < 0.95 * np.nanmedian(before.clicks)
    assert np.nanmedian(after.other) < 0.9 * np.nanmedian(before.other)
    # Half of the markers hold the world, the other half are within what a click is worth.
    assert np.nanmedian(after.markers) < 4.5
