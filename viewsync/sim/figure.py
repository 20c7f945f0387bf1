"""One person as strokes and discs between the joints of `viewsync.sim.body`, painted far limbs first."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from viewsync.sim.body import Joint
from viewsync.sim.crowd import Appearance

Floats = NDArray[np.float64]
# A colour picture (H, W, 3) uint8, or a label image (H, W) of any integers.
Canvas = NDArray[np.integer[Any]]


def draw_person(
    canvas: Canvas,
    joint_px: Floats,
    scale: float,
    looks: Appearance,
    index: int,
    flat: int | None,
) -> None:
    """Paint person `index` on `canvas`: joint pixels (17, 2), `scale` pixels per metre where the person is.

    `flat` paints the whole figure in that one value, for silhouettes and label images.
    """
    p = np.round(joint_px).astype(int).tolist()

    def paint(colour: Floats, shade: float = 1.0) -> tuple[int, ...]:
        return (flat,) if flat is not None else tuple(min(255, int(c * shade)) for c in colour)

    def thick(metres: float) -> int:
        return max(1, round(metres * scale))

    trousers, shoes, top, skin = looks.bottom[index], looks.shoes[index], looks.top[index], looks.skin[index]
    girth = float(looks.girth[index])
    left_first = joint_px[Joint.LEFT_HIP, 1] < joint_px[Joint.RIGHT_HIP, 1]
    legs = (
        (Joint.LEFT_HIP, Joint.LEFT_KNEE, Joint.LEFT_ANKLE, Joint.LEFT_TOE),
        (Joint.RIGHT_HIP, Joint.RIGHT_KNEE, Joint.RIGHT_ANKLE, Joint.RIGHT_TOE),
    )
    arms = (
        (Joint.LEFT_SHOULDER, Joint.LEFT_ELBOW, Joint.LEFT_HAND),
        (Joint.RIGHT_SHOULDER, Joint.RIGHT_ELBOW, Joint.RIGHT_HAND),
    )
    for n, (hip, knee, ankle, toe) in enumerate(legs if left_first else legs[::-1]):
        tone = paint(trousers, 0.85 + 0.2 * n)
        cv2.line(canvas, p[hip], p[knee], tone, thick(0.165 * girth))
        cv2.line(canvas, p[knee], p[ankle], tone, thick(0.12 * girth))
        cv2.line(canvas, p[ankle], p[toe], paint(shoes), thick(0.09))
    far, near = arms if left_first else arms[::-1]
    _draw_arm(canvas, p, far, paint(top, 0.8), paint(skin, 0.9), thick(0.095 * girth))
    torso = np.array(
        [p[Joint.LEFT_SHOULDER], p[Joint.RIGHT_SHOULDER], p[Joint.RIGHT_HIP], p[Joint.LEFT_HIP]], np.int32
    )
    cv2.line(canvas, p[Joint.NECK], p[Joint.PELVIS], paint(top), thick(0.24 * girth))
    cv2.fillConvexPoly(canvas, cv2.convexHull(torso), paint(top, 1.05))
    if looks.coat[index]:
        hem = (
            (joint_px[Joint.LEFT_KNEE] + joint_px[Joint.RIGHT_KNEE]) / 2 * 0.6 + joint_px[Joint.PELVIS] * 0.4
        ).round()
        cv2.line(canvas, p[Joint.PELVIS], hem.astype(int).tolist(), paint(top, 0.95), thick(0.3 * girth))
    if looks.bag[index]:
        cv2.circle(canvas, p[Joint.LEFT_HIP], thick(0.14), paint(looks.bag_colour[index]), -1)
    _draw_arm(canvas, p, near, paint(top, 0.92), paint(skin), thick(0.095 * girth))
    cv2.line(canvas, p[Joint.NECK], p[Joint.HEAD], paint(skin, 0.9), thick(0.1))
    cv2.circle(canvas, p[Joint.HEAD], thick(0.105), paint(skin), -1)
    crown = (joint_px[Joint.HEAD] - (0.0, 0.045 * scale)).round().astype(int).tolist()
    cv2.circle(canvas, crown, thick(0.09), paint(looks.hair[index]), -1)


def _draw_arm(
    canvas: Canvas,
    p: list[list[int]],
    arm: tuple[Joint, Joint, Joint],
    sleeve: tuple[int, ...],
    skin: tuple[int, ...],
    thickness: int,
) -> None:
    shoulder, elbow, hand = arm
    cv2.line(canvas, p[shoulder], p[elbow], sleeve, thickness)
    cv2.line(canvas, p[elbow], p[hand], sleeve, max(1, int(thickness * 0.85)))
    cv2.circle(canvas, p[hand], max(1, thickness // 2), skin, -1)
