"""Laws of two views."""

import cv2
import numpy as np
import pytest

from calib.epipolar import distance_weights, epipolar_lines, epipolar_weights, fundamental_matrix, line_mask
from calib.errors import CalibError


def pair(make_camera, size=(768, 576)):
    return make_camera(0, (0,) * 5, size), make_camera(7, (0,) * 5, size)


def test_corresponding_points_satisfy_the_epipolar_constraint(make_camera):
    first, second = pair(make_camera)
    F = fundamental_matrix(first, second)
    points = np.random.default_rng(0).uniform((-5, -5, 0), (5, 5, 2), (500, 3))
    x1, x2 = (np.column_stack([camera.project(points), np.ones(500)]) for camera in (first, second))
    # Pixels up to 1000, F of norm 1: rounding leaves about 1e-16 · 1000².
    np.testing.assert_allclose(np.einsum("ni,ij,nj->n", x2, F, x1), 0, atol=1e-8)
    assert np.linalg.norm(F) == pytest.approx(1)
    assert abs(np.linalg.det(F)) < 1e-16
    lines = epipolar_lines(F, x1[:, :2])
    np.testing.assert_allclose(lines[:, 0] ** 2 + lines[:, 1] ** 2, 1)
    np.testing.assert_allclose((lines * x2).sum(axis=-1), 0, atol=1e-6)  # distance in pixels


def test_swapping_the_views_transposes_f(make_camera):
    first, second = pair(make_camera)
    forward, backward = fundamental_matrix(first, second), fundamental_matrix(second, first).T
    np.testing.assert_allclose(forward, backward * np.sign((forward * backward).sum()), atol=1e-12)


def test_the_epipole_is_the_other_camera_and_has_no_line(make_camera):
    first, second = pair(make_camera)
    F = fundamental_matrix(first, second)
    epipole = np.linalg.svd(F)[2][-1]
    np.testing.assert_allclose(
        epipole[:2] / epipole[2],
        (first.P @ np.append(second.centre, 1))[:2] / (first.P @ np.append(second.centre, 1))[2],
        rtol=1e-6,
    )
    flat = np.array(
        [[0.0, -1, 4], [1, 0, -3], [-4, 3, 0]]
    )  # skew: every point's line passes it; (3, 4) is its epipole
    assert np.isnan(epipolar_lines(flat, (3.0, 4.0))).all()
    assert (line_mask(epipolar_lines(flat, (3.0, 4.0)), (8, 8)) == 0).all()
    assert (distance_weights(flat, (8, 8), (8, 8), 2.0)[4 * 8 + 3] == 0).all()


def test_agrees_with_opencv_from_correspondences(make_camera):
    first, second = pair(make_camera)
    points = np.random.default_rng(1).uniform((-5, -5, 0), (5, 5, 3), (100, 3))
    theirs, _ = cv2.findFundamentalMat(first.project(points), second.project(points), cv2.FM_8POINT)
    theirs /= np.linalg.norm(theirs)
    ours = fundamental_matrix(first, second)
    # The eight-point algorithm on exact points: rounding only, magnified by the pixel range.
    np.testing.assert_allclose(ours * np.sign((ours * theirs).sum()), theirs, atol=1e-6)


def test_mask_is_one_pixel_wide_and_on_the_line():
    rng = np.random.default_rng(3)
    y, x = np.indices((30, 40))
    for _ in range(50):
        angle = rng.uniform(0, np.pi)
        a, b = np.cos(angle), np.sin(angle)
        line = np.array([a, b, -(a * rng.uniform(5, 35) + b * rng.uniform(5, 25))])
        mask = line_mask(line, (30, 40))
        distance = np.abs(a * x + b * y + line[2])
        assert distance[mask == 1].max() <= 0.5 * max(abs(a), abs(b)) + 1e-9
        steps = mask.sum(axis=0) if abs(b) >= abs(a) else mask.sum(axis=1)
        assert steps.max() == 1
        # Every place of the image closer than that is on the mask.
        assert (mask[distance < 0.5 * max(abs(a), abs(b)) - 1e-9] == 1).all()


def test_weights_are_the_mask_convolved_and_the_closed_form_agrees(make_camera):
    first, second = (camera.resized(48, 36) for camera in pair(make_camera))
    F = fundamental_matrix(first, second)
    sigma = 2.5
    weights = epipolar_weights(F, (36, 48), (36, 48), sigma)
    closed = distance_weights(F, (36, 48), (36, 48), sigma)
    assert weights.shape == closed.shape == (36 * 48, 36, 48) and weights.dtype == closed.dtype == np.float32
    x, y = np.meshgrid(np.arange(48.0), np.arange(36.0))
    lines = epipolar_lines(F, np.stack([x.ravel(), y.ravel()], axis=-1))
    steepness = np.abs(lines[:, :2]).max(axis=1)[:, None, None]
    margin = int(np.ceil(4 * sigma))
    core = (slice(None), slice(margin, -margin), slice(margin, -margin))
    assert closed[core].max() > 0.9
    # Away from the border the blurred mask is the Gaussian of the distance, times the share of a pixel each
    # one-pixel step covers. Rasterising shifts a line by up to half a pixel, along the whole blur where it
    # is almost level; the Gaussian changes by at most e^-½/σ per pixel. On average the shifts cancel.
    error = np.abs(weights[core] - (closed * steepness)[core])
    assert error.max() < 0.5 * np.exp(-0.5) / sigma
    assert error.mean() < 0.005


def test_weights_of_differently_sized_views_are_indexed_first_then_second(make_camera):
    first, second = pair(make_camera)[0].resized(32, 24), pair(make_camera)[1].resized(16, 12)
    weights = distance_weights(fundamental_matrix(first, second), (24, 32), (12, 16), 1.0)
    assert weights.shape == (24 * 32, 12, 16)
    points = np.random.default_rng(5).uniform((-4, -4, 0), (4, 4, 2), (300, 3))
    x1, x2 = np.rint(first.project(points)).astype(int), np.rint(second.project(points)).astype(int)
    ok = first.inside(x1) & second.inside(x2)
    assert ok.sum() > 50
    # Rounding to whole pixels leaves a true match within about a pixel of its line: exp(-½ 1.2²) = 0.49.
    assert weights[x1[ok, 1] * 32 + x1[ok, 0], x2[ok, 1], x2[ok, 0]].min() > 0.45


def test_bad_input(make_camera):
    first, second = pair(make_camera)
    with pytest.raises(CalibError, match="undistorted"):
        fundamental_matrix(make_camera(0), second)
    with pytest.raises(CalibError, match="same centre"):
        fundamental_matrix(first, first.resized(384, 288))
    with pytest.raises(CalibError, match="sigma_px"):
        distance_weights(np.eye(3), (4, 4), (4, 4), 0.0)
