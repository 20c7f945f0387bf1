"""A person who walks over the ground, to look through: where in each view somebody of this height would be.

Drawn wrong, a calibration is seen at once: feet float, heads tilt, somebody is as tall as a house.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera
from calib.ground import GroundGrid

Floats = NDArray[np.float64]

HEIGHT_M = 1.75
STRIDE_M = 1.4
SPEED_M_PER_S = 1.3
# Of the body's height (Drillis & Contini 1966, rounded).
_HIP, _KNEE, _SHOULDER, _ELBOW, _HEAD = 0.53, 0.285, 0.82, 0.63, 0.93
_HALF_SHOULDERS, _HALF_HIPS, _HEAD_RADIUS = 0.115, 0.055, 0.065
_ARM, _FOREARM = 0.186, 0.17


@dataclass(frozen=True, slots=True, eq=False)
class Walker:
    """limbs: each (N, 3), joints in the world, metres: two legs, two arms, trunk; head: (3,) its middle;
    feet, top: (3,) the ground below it and the highest point of an upright body.
    """

    limbs: tuple[Floats, ...]
    head: Floats
    feet: Floats
    top: Floats


def walker(at: ArrayLike, heading_rad: float, phase: float, height_m: float = HEIGHT_M) -> Walker:
    """The body at ground point `at` (2,) metres, walking towards `heading_rad` (0 along x, anticlockwise).

    phase: of the stride, 0 to 1; at 0 and 0.5 a leg is furthest ahead.
    """
    x, y = np.asarray(at, dtype=np.float64)
    ahead = np.array([np.cos(heading_rad), np.sin(heading_rad), 0.0])
    left = np.array([-ahead[1], ahead[0], 0.0])
    up = np.array([0.0, 0.0, 1.0])
    feet = np.array([x, y, 0.0])
    swing = np.cos(2 * np.pi * phase)
    lift = np.sin(2 * np.pi * phase)

    def place(forward: float, sideways: float, high: float) -> Floats:
        result: Floats = feet + height_m * (forward * ahead + sideways * left + high * up)
        return result

    def leg(side: float, sign: float) -> Floats:
        # Thigh and shank swing about hip and knee; the leg that comes forward bends.
        bend = max(0.0, sign * lift)
        thigh = sign * 0.4 * swing + 0.25 * bend
        knee = (_HIP - _KNEE) * np.sin(thigh)
        shank = sign * 0.4 * swing - 0.5 * bend
        ankle = knee + _KNEE * np.sin(shank)
        knee_high = _HIP - (_HIP - _KNEE) * np.cos(thigh)
        ankle_high = max(0.0, knee_high - _KNEE * np.cos(shank))
        return np.stack(
            [
                place(0, side, _HIP),
                place(knee, side, knee_high),
                place(ankle, side, ankle_high),
                place(ankle + 0.08, side, max(0.0, ankle_high - 0.01)),
            ]
        )

    def arm(side: float, sign: float) -> Floats:
        angle = sign * 0.35 * swing
        elbow = _ARM * np.sin(angle)
        hand = elbow + _FOREARM * np.sin(angle + 0.25)
        high = _SHOULDER - _ARM * np.cos(angle)
        return np.stack(
            [
                place(0, side, _SHOULDER),
                place(elbow, 1.1 * side, high),
                place(hand, 1.1 * side, high - _FOREARM * np.cos(angle + 0.25)),
            ]
        )

    trunk = np.stack(
        [
            place(0, -_HALF_HIPS, _HIP),
            place(0, -_HALF_SHOULDERS, _SHOULDER),
            place(0, _HALF_SHOULDERS, _SHOULDER),
            place(0, _HALF_HIPS, _HIP),
            place(0, -_HALF_HIPS, _HIP),
        ]
    )
    limbs = (
        leg(_HALF_HIPS, 1),
        leg(-_HALF_HIPS, -1),
        arm(_HALF_SHOULDERS, -1),
        arm(-_HALF_SHOULDERS, 1),
        trunk,
    )
    return Walker(limbs, place(0, 0, _HEAD), feet, place(0, 0, 1))


@dataclass(frozen=True, slots=True)
class WalkerPixels:
    """One walker in one view, pixels. limbs: (N, 2) each; head (2,) and radius; height_px, feet to top."""

    limbs: tuple[Floats, ...]
    head: Floats
    head_radius_px: float
    height_px: float


def seen_walker(camera: Camera, person: Walker) -> WalkerPixels | None:
    """Where the view has the walker, or None where no part of it is in the picture."""
    limbs = tuple(camera.project(limb) for limb in person.limbs)
    joints = np.concatenate(limbs)
    feet, top = camera.project(np.stack([person.feet, person.top]))
    if not (np.isfinite(joints).all() and np.isfinite([feet, top]).all() and camera.inside(joints).any()):
        return None
    height = float(np.linalg.norm(top - feet))
    return WalkerPixels(limbs, camera.project(person.head), _HEAD_RADIUS * height, height)


@dataclass(frozen=True, slots=True)
class Walk:
    """A round over the ground: an ellipse in the grid, or in the box around the region of interest."""

    middle: tuple[float, float]
    radii: tuple[float, float]

    @classmethod
    def over(cls, grid: GroundGrid, region: Floats | None) -> "Walk":
        """The round of a scene; region: corners (N, 2), metres."""
        low = np.array([grid.origin_x_m, grid.origin_y_m])
        high = low + grid.cell_m * np.array([grid.columns, grid.rows])
        if region is not None:
            low, high = np.maximum(low, region.min(axis=0)), np.minimum(high, region.max(axis=0))
            if (high <= low).any():
                low, high = region.min(axis=0), region.max(axis=0)
        middle, radii = (low + high) / 2, 0.36 * (high - low)
        return cls((float(middle[0]), float(middle[1])), (float(radii[0]), float(radii[1])))

    @property
    def length_m(self) -> float:
        """Once round. Ramanujan's approximation."""
        a, b = self.radii
        return float(np.pi * (3 * (a + b) - np.sqrt((3 * a + b) * (a + 3 * b))))

    def at(self, share: float) -> Walker:
        """The walker after this share of the round, 0 to 1."""
        angle = 2 * np.pi * share
        a, b = self.radii
        place = (self.middle[0] + a * np.cos(angle), self.middle[1] + b * np.sin(angle))
        heading = float(np.arctan2(b * np.cos(angle), -a * np.sin(angle)))
        return walker(place, heading, (share * self.length_m / STRIDE_M) % 1.0)
