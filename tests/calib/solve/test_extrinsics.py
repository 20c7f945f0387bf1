"""Where a camera stands, from points: found exactly, robustly, and refused where it cannot be known."""

from pathlib import Path

import numpy as np
import pytest

from calib.camera import Camera
from calib.errors import CalibError
from calib.solve.extrinsics import pose_from_points

SIZE = (768, 576)


def plain(make_camera, seed: int, k1: float = 0.0) -> Camera:  # type: ignore[no-untyped-def]
    """Square pixels, principal point at the centre: what the unknown camera is taken to be."""
    camera = make_camera(seed, distortion=(k1, 0, 0, 0, 0))
    focal = camera.K[0, 0]
    K = [[focal, 0, (SIZE[0] - 1) / 2], [0, focal, (SIZE[1] - 1) / 2], [0, 0, 1]]
    return Camera(K, camera.R, camera.t, camera.distortion, *SIZE)


def box(count: int, seed: int = 0, flat: bool = False) -> np.ndarray:
    world = np.random.default_rng(seed).uniform((-3, -3, 0), (3, 3, 2), (count, 3))
    world[:, 2] *= not flat
    return world


SQUARE = np.array([[-2, -2, 0], [2, -2, 0], [2, 2, 0], [-2, 2, 0.0]])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("world", [SQUARE, SQUARE + np.array([0, 0, 1.5]), box(4, 1), box(40)], ids=len)
def test_the_pose_of_a_known_camera_is_found_exactly(make_camera, seed, world) -> None:  # type: ignore[no-untyped-def]
    truth = make_camera(seed)
    elsewhere = Camera(truth.K, np.eye(3), np.zeros(3), truth.distortion, *SIZE)
    solved = pose_from_points(world, truth.project(world), SIZE, elsewhere)
    assert solved.solved == "pose" and solved.outliers == () and solved.notes == ()
    np.testing.assert_allclose(solved.camera.centre, truth.centre, atol=1e-5)
    np.testing.assert_allclose(solved.camera.R, truth.R, atol=1e-6)
    assert (solved.camera.K == truth.K).all() and solved.residuals_px.max() < 1e-4


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "flat"), [(6, False), (7, False), (7, True)])
def test_six_points_give_the_focal_length_too(make_camera, seed, count, flat) -> None:  # type: ignore[no-untyped-def]
    truth = plain(make_camera, seed)
    world = box(count, 3, flat)
    solved = pose_from_points(world, truth.project(world), SIZE)
    assert solved.solved == "focal"
    assert solved.camera.K[0, 0] == pytest.approx(truth.K[0, 0], rel=1e-5)
    np.testing.assert_allclose(solved.camera.centre, truth.centre, atol=1e-3)


@pytest.mark.parametrize("k1", [-0.35, -0.1, 0.1])
@pytest.mark.parametrize(("count", "flat"), [(8, False), (16, True)])
def test_eight_points_give_the_lens_too(make_camera, k1, count, flat) -> None:  # type: ignore[no-untyped-def]
    truth = plain(make_camera, 2, k1)
    world = box(60, 3, flat) * (1.4, 1.4, 1.0)
    pixels = truth.project(world)
    chosen = np.flatnonzero(truth.inside(pixels))[:count]
    solved = pose_from_points(world[chosen], pixels[chosen], SIZE)
    assert solved.solved == "focal+k1"
    assert solved.camera.distortion[0] == pytest.approx(k1, abs=1e-4)
    assert solved.camera.K[0, 0] == pytest.approx(truth.K[0, 0], rel=1e-4)


@pytest.mark.parametrize("known", [True, False])
def test_noise_moves_the_camera_about_as_far_as_it_says(make_camera, known) -> None:  # type: ignore[no-untyped-def]
    truth = plain(make_camera, 1)
    world = box(12, 5)
    rng = np.random.default_rng(0)
    off, told = [], []
    for _ in range(20):
        noisy = truth.project(world) + rng.normal(0, 1, (12, 2))
        solved = pose_from_points(world, noisy, SIZE, truth if known else None)
        off.append(np.linalg.norm(solved.camera.centre - truth.centre))
        told.append(solved.position_deviation_m)
    # Twenty draws tell a standard deviation to 16 %; twice is more than four of those.
    assert 0.5 < np.sqrt(np.mean(np.square(off))) / np.mean(told) < 2


@pytest.mark.parametrize("off_px", [(25, -10), (0, 200)])
@pytest.mark.parametrize(("count", "known"), [(6, True), (9, True), (30, True), (10, False), (30, False)])
def test_a_wrong_pair_is_left_out_and_named(make_camera, count, known, off_px) -> None:  # type: ignore[no-untyped-def]
    truth = plain(make_camera, 3)
    world = box(count, 2)
    pixels = truth.project(world) + np.random.default_rng(1).normal(0, 0.5, (count, 2))
    pixels[2] += off_px
    names = [f"p{number}" for number in range(count)]
    solved = pose_from_points(world, pixels, SIZE, truth if known else None, names)
    assert solved.outliers == ("p2",)
    assert np.linalg.norm(solved.camera.centre - truth.centre) < 5 * solved.position_deviation_m
    assert solved.residuals_px[2] == pytest.approx(np.hypot(*off_px), rel=0.3)


def test_two_pixels_swapped_are_both_named(make_camera) -> None:  # type: ignore[no-untyped-def]
    truth = make_camera(0)
    world = box(20, 4)
    pixels = truth.project(world)
    pixels[[4, 11]] = pixels[[11, 4]]
    assert pose_from_points(world, pixels, SIZE, truth).outliers == ("4", "11")


def test_with_five_points_the_rivals_of_the_wrong_one_are_told(make_camera) -> None:  # type: ignore[no-untyped-def]
    truth = make_camera(0)
    world = np.vstack([SQUARE, (0.5, 0.3, 0)])
    pixels = truth.project(world)
    pixels[3] += (0, 30)
    solved = pose_from_points(world, pixels, SIZE, truth, list("abcde"))
    assert len(solved.outliers) == 1
    assert "d" in solved.outliers or any("d" in note.split() for note in solved.notes)


@pytest.mark.parametrize(
    ("world", "known", "says"),
    [
        (SQUARE[:3], True, "3 point(s) are too few"),
        (SQUARE, False, "4 point(s) are too few"),
        (np.linspace((0, 0, 0), (2, 1, 0), 7), True, "on a line in the world"),
        (np.vstack([SQUARE] * 2), False, "only 4 different places"),
    ],
)
def test_what_cannot_be_solved_is_refused(make_camera, world, known, says) -> None:  # type: ignore[no-untyped-def]
    truth = make_camera(0)
    with pytest.raises(CalibError, match=says.replace("(", r"\(").replace(")", r"\)")) as caught:
        pose_from_points(world, truth.project(world), SIZE, truth if known else None)
    assert "\n" not in str(caught.value)


def test_points_seen_flat_from_the_front_leave_the_focal_length_open() -> None:
    R = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
    above = Camera([[700, 0, 383.5], [0, 700, 287.5], [0, 0, 1]], R, (0, 0, 9), np.zeros(5), *SIZE)
    world = box(7, 0, flat=True)
    with pytest.raises(CalibError, match="leave the focal length open"):
        pose_from_points(world, above.project(world), SIZE)
    assert pose_from_points(world, above.project(world), SIZE, above).camera.centre[2] == pytest.approx(9)


def test_a_mirrored_world_is_noticed(make_camera) -> None:  # type: ignore[no-untyped-def]
    truth = make_camera(0)
    flat, solid = box(8, 0, flat=True), box(20, 0)
    (note,) = pose_from_points(flat * (1, -1, 1), truth.project(flat), SIZE, truth).notes
    assert "below the ground" in note
    with pytest.raises(CalibError, match=r"agree with any one camera|right-handed"):
        pose_from_points(solid * (1, -1, 1), truth.project(solid), SIZE, truth)


def test_pixels_that_belong_to_no_camera_are_refused(make_camera) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    with pytest.raises(CalibError, match="agree with any one camera"):
        pose_from_points(box(20), rng.uniform((0, 0), SIZE, (20, 2)), SIZE, make_camera(0))


def test_intrinsics_of_another_image_size_are_refused(make_camera) -> None:  # type: ignore[no-untyped-def]
    camera = make_camera(0)
    with pytest.raises(CalibError, match=r"768x576.*1536x1152"):
        pose_from_points(SQUARE, camera.project(SQUARE), (1536, 1152), camera)


def test_pets2009_cameras_come_back_from_their_own_ground(data: Path) -> None:
    """A real lens with all five coefficients, of which an unknown camera is given one."""
    from calib.formats.pets2009 import load_camera

    truth = load_camera(data / "pets2009" / "calibration" / "View_001.xml")
    ground = np.stack(np.meshgrid(np.linspace(-12, 6, 7), np.linspace(-16, 4, 7), [0.0, 1.7]), -1).reshape(
        -1, 3
    )
    ground = ground[truth.inside(truth.project(ground))]
    assert len(ground) > 30
    solved = pose_from_points(ground, truth.project(ground), (truth.width, truth.height), truth)
    np.testing.assert_allclose(solved.camera.centre, truth.centre, atol=1e-4)
