"""The ground and what lies beyond it, seen once per camera: paving with joints, stains and wear; a wall and
sky behind.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera

Image = NDArray[np.uint8]
_LATTICE = 256


def ground_texture(camera: Camera, seed: int) -> Image:
    """The empty ground (height, width, 3) uint8 RGB as `camera` sees it: 0.6 m paving stones near, asphalt
    far off.

    The same seed gives the same ground to every camera, so that views agree on what is painted on it.
    """
    rng = np.random.default_rng([seed, 0x67726E64])
    column, row = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    world = camera.back_project(np.stack([column, row], axis=-1).astype(np.float64))
    x, y = np.nan_to_num(world[..., 0], nan=1e4), np.nan_to_num(world[..., 1], nan=1e4)
    stone = rng.normal(0.0, 7.0, (_LATTICE, _LATTICE))
    stain = cv2.GaussianBlur(rng.normal(0.0, 1.0, (_LATTICE, _LATTICE)), (0, 0), 3.0).astype(np.float64)
    stain *= 11.0 / stain.std()
    base = rng.uniform(112.0, 150.0) * np.array([1.0, rng.uniform(0.97, 1.0), rng.uniform(0.92, 0.99)])
    column_i, row_i = np.floor(x / 0.6).astype(int) % _LATTICE, np.floor(y / 0.6).astype(int) % _LATTICE
    shade = stone[row_i, column_i] + _smooth(stain, x / 0.35, y / 0.35)
    joint = (np.abs((x / 0.6) % 1.0 - 0.5) > 0.47) | (np.abs((y / 0.6) % 1.0 - 0.5) > 0.47)
    distance = np.hypot(x - camera.centre[0], y - camera.centre[1])
    shade -= np.where(joint & (distance < 18.0), 16.0, 0.0)
    paved = (x > -4.0) & (x < 24.0) & (y > -4.0) & (y < 19.0)
    shade -= np.where(paved, 0.0, 34.0)
    picture = base + shade[..., None]
    beyond = ~np.isfinite(world[..., 0]) | (distance > 45.0)
    wall = np.array([118.0, 114.0, 110.0]) + 9.0 * np.sin(column * 0.05)[..., None] - 0.06 * row[..., None]
    picture = np.where(beyond[..., None], wall, picture)
    fine = rng.normal(0.0, 3.0, picture.shape[:2])[..., None]
    ground: Image = np.clip(picture + fine, 0, 255).astype(np.uint8)
    return ground


def _smooth(
    lattice: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bilinear, wrapped look-up of a square lattice at (x, y) in lattice units."""
    size = len(lattice)
    map_x, map_y = (np.mod(x, size - 1)).astype(np.float32), (np.mod(y, size - 1)).astype(np.float32)
    return cv2.remap(lattice.astype(np.float32), map_x, map_y, cv2.INTER_LINEAR).astype(np.float64)
