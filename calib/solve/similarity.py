"""Similarities of the world, and comparing two calibrations of the same cameras whatever worlds they use."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera, nearest_rotation

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Similarity:
    """x' = scale · rotation x + shift, (3,) metres each."""

    scale: float
    rotation: Floats
    shift: Floats

    @classmethod
    def identity(cls) -> Self:
        """The one that changes nothing."""
        return cls(1.0, np.eye(3), np.zeros(3))

    def points(self, points: Floats) -> Floats:
        """(N, 3) -> (N, 3)."""
        return self.scale * points @ self.rotation.T + self.shift

    def camera(self, camera: Camera) -> Camera:
        """The camera that sees the moved world as this one saw it before: the same pixels."""
        rotation = nearest_rotation(camera.R @ self.rotation.T)
        translation = self.scale * camera.t - rotation @ self.shift
        return Camera(camera.K, rotation, translation, camera.distortion, camera.width, camera.height)


def similarity(source: Floats, target: Floats, *, scaled: bool = True) -> Similarity:
    """The one that brings points (N, 3) closest to others (N, 3), least squares. Umeyama (1991)."""
    middle, goal = source.mean(axis=0), target.mean(axis=0)
    left, values, right = np.linalg.svd((target - goal).T @ (source - middle))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * sign) @ right
    spread = float(np.sum((source - middle) ** 2))
    scale = float(values @ sign) / spread if scaled and spread > 0 else 1.0
    return Similarity(scale, rotation, goal - scale * rotation @ middle)


def similarity_of_cameras(
    source: Mapping[str, Camera], target: Mapping[str, Camera], *, scaled: bool
) -> Similarity:
    """The one that brings cameras closest to others of the same names: their centres, and points in front of
    them as far away as the cameras are from each other, so that directions count as well.
    """
    names = [name for name in source if name in target]
    centres = np.stack([source[name].centre for name in names])
    far = float(np.mean(np.linalg.norm(centres - centres.mean(axis=0), axis=1))) or 1.0
    other = np.stack([target[name].centre for name in names])
    # Points in front keep their distance in the target's scale.
    ratio = float(np.mean(np.linalg.norm(other - other.mean(axis=0), axis=1))) / far if scaled else 1.0
    ratio = ratio or 1.0
    axes = np.stack([source[name].R for name in names])
    other_axes = np.stack([target[name].R for name in names])
    ours = [centres, *(centres + far * axes[:, axis] for axis in range(3))]
    theirs = [other, *(other + ratio * far * other_axes[:, axis] for axis in range(3))]
    return similarity(np.concatenate(ours), np.concatenate(theirs), scaled=scaled)
