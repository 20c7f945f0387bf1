"""A view with everything drawn into it, as pixels: ground net, shapes, marked points, walking people."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.look.check_points import WORST_PX
from calib.look.overlay import closed, ground_lines, image_lines
from calib.look.walker import Walker, WalkerPixels, seen_walker
from calib.points import MarkedPoint
from calib.scene import Scene

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]
Colour = tuple[int, int, int]

NET, BORDER, PERSON = (125, 211, 252), (160, 225, 255), (255, 180, 84)
ZONE, REGION, OCCLUDER = (79, 209, 197), (243, 224, 75), (255, 123, 114)
AXES: tuple[Colour, ...] = ((255, 107, 107), (126, 231, 135), (121, 168, 255))
GOOD, FAIR, BAD = (99, 210, 151), (243, 192, 75), (255, 90, 80)
_EMPTY = 36
_PERSON_SHARE = 0.7
_SHIFT = 4  # lines are drawn with places on 1/16 of a pixel
_FURTHEST_PX = 1 << 14


def grade(error_px: float) -> Colour:
    """Green up to 1 px, amber up to 3, red beyond."""
    return GOOD if error_px <= 1 else FAIR if error_px <= WORST_PX else BAD


class Canvas:
    """A picture `width` pixels wide of one view, to be drawn on in the view's own pixels."""

    def __init__(self, camera: Camera, picture: Image | None, width: int) -> None:
        self.scale = width / camera.width
        size = (width, max(1, round(camera.height * self.scale)))
        if picture is None:
            self.image: Image = np.full((size[1], size[0], 3), _EMPTY, np.uint8)
        else:
            self.image = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)

    def _places(self, line: Floats) -> NDArray[np.int32]:
        scaled = np.clip((line + 0.5) * self.scale - 0.5, -_FURTHEST_PX, _FURTHEST_PX)
        return np.round(scaled * (1 << _SHIFT)).astype(np.int32)

    def lines(self, parts: Iterable[Floats], colour: Colour, width: int = 1) -> None:
        places = [self._places(part) for part in parts]
        cv2.polylines(self.image, places, False, colour, width, cv2.LINE_AA, _SHIFT)

    def fill(self, polygon: Floats, colour: Colour, share: float = 0.3) -> None:
        painted = self.image.copy()
        cv2.fillPoly(painted, [self._places(polygon)], colour, cv2.LINE_AA, _SHIFT)
        self.image[:] = cv2.addWeighted(painted, share, self.image, 1 - share, 0)

    def ring(self, at: Floats, radius: float, colour: Colour, width: int = 1) -> None:
        centre = self._places(at[None])[0]
        cv2.circle(
            self.image, centre.tolist(), round(radius * (1 << _SHIFT)), colour, width, cv2.LINE_AA, _SHIFT
        )

    def cross(self, at: Floats, colour: Colour) -> None:
        arm = 5 / self.scale
        for axis in np.eye(2):
            self.lines([np.stack([at - arm * axis, at + arm * axis])], colour)

    def person(self, seen: WalkerPixels) -> None:
        """Translucent: whoever really stands there must be seen too."""
        before = self.image.copy()
        width = max(1, round(0.07 * seen.height_px * self.scale))
        for colour, wide in (((0, 0, 0), width + 2), (PERSON, width)):
            self.lines(seen.limbs, colour, wide)
            radius = seen.head_radius_px * self.scale + (wide - width) / 2
            self.ring(seen.head, max(1.5, radius), colour, -1)
        self.image[:] = cv2.addWeighted(self.image, _PERSON_SHARE, before, 1 - _PERSON_SHARE, 0)


def draw_view(
    scene: Scene,
    view: str,
    picture: Image | None,
    points: Sequence[MarkedPoint],
    people: Sequence[Walker],
    width: int,
) -> Image:
    """RGB (H, width, 3) of one view of the scene. A circle is where a point projects, a cross its click."""
    camera = scene.cameras[view]
    canvas = Canvas(camera, picture, width)
    ground = ground_lines(camera, scene.ground)
    canvas.lines(ground.net, NET)
    canvas.lines(ground.border, BORDER, 2)
    for parts, colour in zip(ground.axes, AXES, strict=True):
        canvas.lines(parts, colour, 3)
    if scene.region is not None:
        canvas.lines(image_lines(camera, closed(scene.region), 240), REGION, 2)
    for polygon in scene.zones.values():
        canvas.lines(image_lines(camera, closed(polygon), 240), ZONE, 2)
    for polygon in scene.occluders.get(view, {}).values():
        canvas.fill(polygon, OCCLUDER)
        canvas.lines([np.concatenate([polygon, polygon[:1]])], OCCLUDER)
    for walking in people:
        seen = seen_walker(camera, walking)
        if seen is not None:
            canvas.person(seen)
    for point in points:
        if view in point.pixels:
            _draw_point(canvas, camera, point, point.pixels[view])
    return canvas.image


def _draw_point(canvas: Canvas, camera: Camera, point: MarkedPoint, click: Floats) -> None:
    if point.world is None:
        canvas.cross(click, (255, 255, 255))
        return
    place = camera.project(point.world)
    if not np.isfinite(place).all():
        canvas.cross(click, BAD)
        return
    colour = grade(float(np.linalg.norm(place - click)))
    canvas.lines([np.stack([click, place])], colour, 2)
    canvas.cross(click, colour)
    canvas.ring(place, 6, colour)
