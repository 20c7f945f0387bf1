"""Cameras with real-looking lenses, made from a seed."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from calib.boards.board import Board
from calib.camera import Camera, nearest_rotation

MakeCamera = Callable[..., Camera]


def looking_at(centre: tuple[float, float, float], target: tuple[float, float, float]) -> np.ndarray:
    """Rotation of a level camera at `centre` whose optical axis meets `target`."""
    forward = np.subtract(target, centre) / np.linalg.norm(np.subtract(target, centre))
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


@pytest.fixture
def make_camera() -> MakeCamera:
    def make(
        seed: int = 0,
        distortion: tuple[float, ...] = (-0.28, 0.09, 0.0012, -0.0008, -0.012),
        size: tuple[int, int] = (768, 576),
    ) -> Camera:
        rng = np.random.default_rng(seed)
        angle = rng.uniform(0, 2 * np.pi)
        centre = (12 * np.cos(angle), 12 * np.sin(angle), rng.uniform(3, 7))
        rotation = looking_at(centre, (*rng.uniform(-2, 2, 2), 1.0))
        roll = rng.uniform(-0.05, 0.05)
        turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        rotation = nearest_rotation(turn @ rotation)
        width, height = size
        focal = 0.9 * width * rng.uniform(0.9, 1.2)
        K = [
            [focal, 0, width * rng.uniform(0.45, 0.55)],
            [0, focal * 1.03, height * rng.uniform(0.45, 0.55)],
            [0, 0, 1],
        ]
        return Camera(K, rotation, -rotation @ centre, distortion, width, height)

    return make


Photograph = Callable[[Board, Camera, np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(scope="session")
def photograph() -> Photograph:
    """A board at pose (R, t) in a camera's frame, as the camera's lens draws it: RGB (H, W, 3)."""

    known: dict[Camera, np.ndarray] = {}

    def rays_of(lens: Camera) -> np.ndarray:
        if lens not in known:
            x, y = np.meshgrid(np.arange(lens.width, dtype=float), np.arange(lens.height, dtype=float))
            known[lens] = lens.rays(np.stack([x, y], axis=-1))
        return known[lens]

    def take(board: Board, camera: Camera, R: np.ndarray, t: np.ndarray) -> np.ndarray:
        per_square, finer = 60, 2
        here = Camera(camera.K, np.eye(3), np.zeros(3), camera.distortion, camera.width, camera.height)
        rays = rays_of(here.resized(finer * camera.width, finer * camera.height))
        distance = (t @ R[:, 2]) / (rays @ R[:, 2])
        on_board = (rays * distance[..., None] - t) @ R[:, :2] / board.square_m
        if board.kind == "chessboard":  # its first corner is one square from the edge
            on_board += 1
        places = np.nan_to_num(on_board * per_square + per_square / 2 - 0.5, nan=-1e4).astype(np.float32)
        image = cv2.remap(
            board.picture(per_square), places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderValue=128
        )
        small = cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        return np.repeat(small[..., None], 3, axis=2)

    return take


@pytest.fixture
def data() -> Path:
    """The folder of real data."""
    folder = os.environ.get("VIEWSYNC_DATA")
    if not folder:
        pytest.skip("VIEWSYNC_DATA is not set: real data is needed")
    return Path(folder)
