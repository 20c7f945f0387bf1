"""Rotations and the angle between them, against each other and against OpenCV."""

import cv2
import numpy as np
import pytest

from calib.projection import degrees_between, rotations


@pytest.mark.parametrize("degrees", [0.0, 0.02, 5.0, 90.0, 179.0, 180.0])
def test_the_angle_between_two_rotations_is_what_one_was_turned_by(degrees: float) -> None:
    rng = np.random.default_rng(4)
    start, axis = rotations(rng.normal(size=(1, 3)))[0], rng.normal(size=3)
    turn = rotations(np.deg2rad(degrees) * (axis / np.linalg.norm(axis))[None])[0]
    assert degrees_between(turn @ start, start) == pytest.approx(degrees, abs=1e-5)
    assert degrees_between(start, turn @ start) == pytest.approx(degrees, abs=1e-5)


def test_rotation_vectors_mean_what_they_mean_to_opencv() -> None:
    vectors = np.random.default_rng(5).normal(size=(20, 3)) * 2
    expected = np.array([cv2.Rodrigues(vector)[0] for vector in vectors])
    np.testing.assert_allclose(rotations(vectors), expected, atol=1e-12)
