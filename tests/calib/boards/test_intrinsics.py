"""Lenses from board views: recovered, judged by what the views can tell, mistakes left out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calib.boards.board import Board, Sighting
from calib.boards.intrinsics import choose_views, outline, solve_intrinsics
from calib.boards.lens_file import load_lens, save_lens
from calib.camera import Camera
from calib.errors import CalibError
from calib.projection import rotations

BOARD = Board("charuco", 8, 6, 0.05, 0.035)
LENS = Camera(
    [[900, 0, 655], [0, 900, 350], [0, 0, 1]], np.eye(3), np.zeros(3), [-0.3, 0.1, 0, 0, 0], 1280, 720
)
See = Callable[..., list[Sighting]]


def views(
    count: int, noise_px: float = 0.1, tilt: float = 0.5, seed: int = 0, camera: Camera = LENS
) -> list[Sighting]:
    """A board held into all parts of the image, by exact projection."""
    rng = np.random.default_rng(seed)
    found: list[Sighting] = []
    while len(found) < count:
        depth = rng.uniform(0.4, 1.0)
        centre = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.35, 0.35), 1.0]) * depth
        R = rotations(rng.normal(0, tilt, (1, 3)))[0]
        places = (BOARD.corners - BOARD.corners.mean(axis=0)) @ R.T + centre
        pixels = camera.project(places)
        inside = camera.inside(pixels)
        ids = np.flatnonzero(inside)
        if len(ids) > 12:
            noisy = pixels[ids] + rng.normal(0, noise_px, (len(ids), 2))
            found.append(Sighting(f"v{len(found)}", ids, noisy, BOARD.corners[ids], (1280, 720)))
    return found


def test_a_lens_comes_back_with_its_uncertainty() -> None:
    found = solve_intrinsics(views(20))
    assert found.camera.K[0, 0] == pytest.approx(900, abs=4 * found.focal_deviation_px)
    assert found.focal_deviation_px < 3 and found.rms_px == pytest.approx(0.14, rel=0.2)
    np.testing.assert_allclose(found.camera.K[:2, 2], (655, 350), atol=3)
    np.testing.assert_allclose(found.camera.distortion[:2], (-0.3, 0.1), atol=0.03)
    assert found.camera.K[0, 0] == found.camera.K[1, 1]  # square, as the views do not say otherwise
    assert all(view.used for view in found.views) and found.notes == ()


def test_pixels_that_are_not_square_are_noticed() -> None:
    K = LENS.K * np.array([[1, 1, 1], [1, 1.05, 1], [1, 1, 1]])
    camera = Camera(K, LENS.R, LENS.t, LENS.distortion, 1280, 720)
    found = solve_intrinsics(views(20, camera=camera))
    assert found.camera.K[1, 1] / found.camera.K[0, 0] == pytest.approx(1.05, abs=0.005)


def test_only_what_the_views_tell_is_fitted() -> None:
    plain = Camera(LENS.K, LENS.R, LENS.t, [-0.1, 0, 0, 0, 0], 1280, 720)
    assert solve_intrinsics(views(12, 0.3, camera=plain)).model == "k1"
    strong = Camera(LENS.K, LENS.R, LENS.t, [-0.25, 0.2, 0, 0, -0.06], 1280, 720)
    assert solve_intrinsics(views(40, 0.02, camera=strong)).model == "brown"
    assert (solve_intrinsics(views(12), "none").camera.distortion == 0).all()


def test_views_that_do_not_fit_are_left_out() -> None:
    seen = views(16)
    rng = np.random.default_rng(1)
    seen[5] = replace(seen[5], pixels=seen[5].pixels + rng.normal(0, 6, seen[5].pixels.shape))
    found = solve_intrinsics(seen)
    assert [view.name for view in found.views if not view.used] == ["v5"]
    assert found.camera.K[0, 0] == pytest.approx(900, abs=5)


def test_views_are_chosen_for_being_different() -> None:
    seen = views(12)
    again = [replace(view, name=f"{view.name} again", pixels=view.pixels + 0.2) for view in seen]
    chosen = choose_views([one for pair in zip(seen, again, strict=True) for one in pair])
    assert len(chosen) == 12 and len({one.name.split()[0] for one in chosen}) == 12
    few = choose_views(seen, 4)
    apart = [np.abs(outline(one) - outline(other)).max() for one in few for other in few if one is not other]
    assert len(few) == 4 and min(apart) > 0.1


def test_a_board_at_rest_is_chosen_before_one_in_motion() -> None:
    still, moving = views(2)
    film = [
        replace(still, name="still 1", time_s=0.0),
        replace(still, name="still 2", time_s=0.1),
        replace(moving, name="moving 1", time_s=5.0),
        replace(moving, name="moving 2", pixels=moving.pixels + 60, time_s=5.1),
    ]
    assert choose_views(film, 1)[0].name.startswith("still")


def test_a_board_in_a_hurry_is_used_only_where_nothing_else_is() -> None:
    """Pictures ten a second apart; moved by 40 px of 1469 in between, 0.27 diagonals a second."""
    film = []
    for number, one in enumerate(views(18)):
        film.append(replace(one, name=f"slow {number}", time_s=5.0 * number))
        if number < 6:
            film.append(
                replace(views(1, seed=50 + number)[0], name=f"fast {number}", time_s=5.0 * number + 2)
            )
            film.append(replace(film[-1], pixels=film[-1].pixels + 40, time_s=5.0 * number + 2.1))
    assert {one.name.split()[0] for one in choose_views(film)} == {"slow"}
    few = film[:12]
    assert {one.name.split()[0] for one in choose_views(few)} == {"slow", "fast"}


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (lambda: views(5), "5 views are few"),
        (lambda: [one for one in views(60) if (one.pixels[:, 0] < 700).all()][:14], "right"),
        (lambda: views(14, tilt=0.02), "never tilted"),
    ],
    ids=["few", "one side", "flat"],
)
def test_thin_coverage_is_told(seen, says) -> None:  # type: ignore[no-untyped-def]
    notes = solve_intrinsics(seen(), "k1").notes
    assert any(says in note and note.startswith("coverage is thin") for note in notes), notes


def test_too_little_is_refused() -> None:
    with pytest.raises(CalibError, match="found in 2 picture"):
        solve_intrinsics(views(2))
    other = replace(views(1)[0], size=(640, 480))
    with pytest.raises(CalibError, match="1280x720"):
        solve_intrinsics([*views(3), other])
    with pytest.raises(CalibError, match="lens model"):
        solve_intrinsics(views(3), "fisheye")  # type: ignore[arg-type]


def test_a_lens_is_kept_in_a_file(tmp_path: Path) -> None:
    save_lens(LENS, tmp_path / "lens.yaml", "a test")
    assert load_lens(tmp_path / "lens.yaml", "any") == LENS
    text = (tmp_path / "lens.yaml").read_text()
    for broken, says in (
        (text.replace("schema: 1", "schema: 3"), "schema is 3"),
        (text.replace("width_px: 1280", "width_px: wide"), "lens.width_px"),
        (text.replace("  distortion", "  distorsion"), "distorsion"),
        (text[:120], "lens"),
    ):
        (tmp_path / "broken.yaml").write_text(broken)
        with pytest.raises(CalibError, match=says):
            load_lens(tmp_path / "broken.yaml", "any")
