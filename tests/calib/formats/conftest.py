"""A rig to write down in every format: three upright cameras around a square, one with a real lens."""

import numpy as np
import pytest

from calib.camera import Camera
from calib.rig import Rig

CENTRES = {"north": (0.5, 9.0, 3.2), "south-east": (7.5, -6.0, 2.8), "cam_3": (-8.0, -5.0, 4.1)}


def looking_at(centre, target=(0.0, 0.0, 1.0)):
    forward = np.subtract(target, centre) / np.linalg.norm(np.subtract(target, centre))
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


@pytest.fixture
def rig():
    lenses = [(-0.21, 0.09, 0.001, -0.0007, -0.02), (0.05, -0.03, 0.0, 0.0, 0.0), (0.0,) * 5]
    cameras = {}
    for (name, centre), lens, focal in zip(CENTRES.items(), lenses, (812.3, 640.0, 701.1), strict=True):
        R = looking_at(centre)
        K = [[focal, 0, 401.25], [0, focal * 1.01, 299.5], [0, 0, 1]]
        cameras[name] = Camera(K, R, -R @ np.array(centre), lens, 800, 600)
    return Rig(cameras)


@pytest.fixture
def people():
    """(60, 3) points where people's bodies are, metres."""
    return np.random.default_rng(5).uniform([-2.0, -2.0, 0.0], [2.0, 2.0, 1.9], (60, 3))
