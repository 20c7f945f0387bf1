"""Articulated walkers: joint positions of N people from their place, heading, speed and gait phase.

Proportions follow Drillis & Contini (1966) segment lengths as shares of the body height.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from viewsync.sim.crowd import Appearance, CrowdState

Floats = NDArray[np.float64]


class Joint(IntEnum):
    """Row of each joint in `joints()`."""

    HEAD = 0
    NECK = 1
    LEFT_SHOULDER = 2
    RIGHT_SHOULDER = 3
    LEFT_ELBOW = 4
    RIGHT_ELBOW = 5
    LEFT_HAND = 6
    RIGHT_HAND = 7
    PELVIS = 8
    LEFT_HIP = 9
    RIGHT_HIP = 10
    LEFT_KNEE = 11
    RIGHT_KNEE = 12
    LEFT_ANKLE = 13
    RIGHT_ANKLE = 14
    LEFT_TOE = 15
    RIGHT_TOE = 16


def joints(state: CrowdState, looks: Appearance) -> Floats:
    """World positions (N, 17, 3) in metres of every joint in `Joint`; feet stand on z = 0.

    Left and right legs swing in opposite phase, arms against the legs; the swing grows with the speed.
    """
    height, girth = looks.height_m, looks.girth
    n = len(height)
    swing = 0.42 * np.clip(state.speed / 1.2, 0.0, 1.25)
    local = np.zeros((n, len(Joint), 3))  # forward, left, up

    def put(joint: Joint, forward: Floats | float, left: Floats | float, up: Floats | float) -> None:
        local[:, joint, 0], local[:, joint, 1], local[:, joint, 2] = forward, left, up

    pelvis = 0.52 * height
    put(Joint.PELVIS, 0.0, 0.0, pelvis)
    put(Joint.NECK, 0.03 * height * swing, 0.0, 0.845 * height)
    put(Joint.HEAD, 0.04 * height * swing, 0.0, 0.93 * height)
    for side, shoulder, elbow, hand, hip, knee, ankle, toe in (
        (1.0, Joint.LEFT_SHOULDER, Joint.LEFT_ELBOW, Joint.LEFT_HAND, Joint.LEFT_HIP, Joint.LEFT_KNEE,
         Joint.LEFT_ANKLE, Joint.LEFT_TOE),
        (-1.0, Joint.RIGHT_SHOULDER, Joint.RIGHT_ELBOW, Joint.RIGHT_HAND, Joint.RIGHT_HIP, Joint.RIGHT_KNEE,
         Joint.RIGHT_ANKLE, Joint.RIGHT_TOE),
    ):  # fmt: skip
        leg = swing * np.sin(state.phase) * side
        bend = swing * np.maximum(0.0, np.cos(state.phase) * side) * 0.9
        arm = -0.8 * leg
        put(hip, 0.0, side * 0.055 * height * girth, pelvis)
        put(
            knee,
            0.245 * height * np.sin(leg + 0.5 * bend),
            side * 0.055 * height,
            pelvis - 0.245 * height * np.cos(leg),
        )
        foot_up = 0.04 * height + 0.12 * height * bend
        put(ankle, 0.47 * height * np.sin(leg) - 0.1 * height * bend, side * 0.055 * height, foot_up)
        put(
            toe,
            0.47 * height * np.sin(leg) - 0.1 * height * bend + 0.1 * height,
            side * 0.06 * height,
            foot_up * 0.5,
        )
        across = side * 0.115 * height * girth
        put(shoulder, 0.02 * height * swing, across, 0.815 * height)
        put(elbow, 0.17 * height * np.sin(arm), across * 1.18, 0.815 * height - 0.17 * height * np.cos(arm))
        put(
            hand,
            0.32 * height * np.sin(arm + 0.25),
            across * 1.15,
            0.815 * height - 0.32 * height * np.cos(arm + 0.1),
        )
    cos, sin = np.cos(state.heading)[:, None], np.sin(state.heading)[:, None]
    world = np.empty_like(local)
    world[..., 0] = state.xy[:, :1] + cos * local[..., 0] - sin * local[..., 1]
    world[..., 1] = state.xy[:, 1:] + sin * local[..., 0] + cos * local[..., 1]
    world[..., 2] = local[..., 2]
    return world
