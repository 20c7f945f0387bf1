"""Draws a crowd as one camera sees it: ground, shadows, props and people in depth order, then the camera's
own looks.

Everything static is drawn once when the renderer is made. People are articulated figures
(`viewsync.sim.body`) drawn at twice the resolution and averaged down. Same scene, view and seed: same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from viewsync.sim.body import Joint, joints
from viewsync.sim.crowd import Appearance, CrowdState
from viewsync.sim.figure import Canvas, draw_person
from viewsync.sim.scenes import Box, SimScene
from viewsync.sim.texture import ground_texture

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]
SUPERSAMPLE = 2
_NOISE_POOL = 4


@dataclass(frozen=True, slots=True)
class CameraLook:
    """What a cheap camera does to light: gain per channel, contrast exponent, blur and noise in pixels and
    grey levels.
    """

    gain: tuple[float, float, float]
    gamma: float
    blur_px: float
    noise: float

    @classmethod
    def draw(cls, seed: int, view: str) -> CameraLook:
        """The looks of one camera; different for every view and seed."""
        rng = np.random.default_rng([seed, *view.encode()])
        exposure = float(np.exp(rng.uniform(-0.32, 0.32)))
        red, blue = np.exp(rng.uniform(-0.13, 0.13, 2))
        return cls(
            gain=(exposure * float(red), exposure, exposure * float(blue)),
            gamma=float(rng.uniform(0.85, 1.2)),
            blur_px=float(rng.uniform(0.25, 0.8)),
            noise=float(rng.uniform(1.5, 4.5)),
        )

    def table(self) -> Image:
        """Lookup table (256, 1, 3) uint8 of exposure, white balance and contrast."""
        level = (np.arange(256) / 255.0) ** self.gamma
        table: Image = np.clip(255.0 * level[:, None, None] * np.array(self.gain), 0, 255).astype(np.uint8)
        return table


@dataclass(frozen=True, slots=True)
class _Layer:
    """A prop drawn once: its place on the canvas, pixels, mask, and its distance for the depth order."""

    depth: float
    window: tuple[slice, slice]
    pixels: Image
    mask: Image
    shadow: NDArray[np.int32]


class Renderer:
    """Renders one view of a simulated scene. `seed` chooses ground texture detail, lighting and the camera's
    looks.
    """

    def __init__(self, scene: SimScene, view: str, seed: int) -> None:
        camera = scene.scene.cameras[view]
        self.camera = camera
        self._big = camera.resized(camera.width * SUPERSAMPLE, camera.height * SUPERSAMPLE)
        self._sun = np.array(scene.sun)
        self.look = CameraLook.draw(seed, view)
        ground = ground_texture(self._big, seed)
        self._layers = [self._prop_layer(box, ground.shape[:2]) for box in scene.props]
        self._static_mask = np.zeros(ground.shape[:2], np.uint8)
        for layer in self._layers:
            cv2.fillPoly(self._static_mask, [layer.shadow], 255)
        self._ground = ground
        self._dark = (ground * 0.62).astype(np.uint8)
        rng = np.random.default_rng([seed, 7, *view.encode()])
        shape = (_NOISE_POOL, camera.height, camera.width, 3)
        self._noise = np.clip(np.round(rng.normal(0.0, self.look.noise, shape)), -127, 127).astype(np.int16)
        self._table = self.look.table()
        self._noise_seed = seed

    def render(self, state: CrowdState, looks: Appearance) -> Image:
        """The picture (height, width, 3) uint8 RGB of `state`; one value of (scene, view, seed, state) is one
        picture.
        """
        body = joints(state, looks)
        pixels, depth = self._big.project(body), self._big.depth(body)
        shown = _in_front(pixels, depth, self._big)
        canvas = self._ground.copy()
        mask = self._static_mask.copy()
        self._draw_shadows(mask, body, shown, depth)
        cv2.copyTo(self._dark, mask, canvas)
        self._draw_all(canvas, pixels, depth, shown, looks, None)
        small = cv2.resize(canvas, (self.camera.width, self.camera.height), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), self.look.blur_px)
        small = cv2.LUT(small, self._table)
        pick = np.random.default_rng([self._noise_seed, int(state.t_s * 1000)]).integers(0, 1 << 30, 3)
        noise = self._noise[pick[0] % _NOISE_POOL]
        noise = np.roll(noise, (int(pick[1]) % noise.shape[0], int(pick[2]) % noise.shape[1]), (0, 1))
        return cv2.add(small, noise, dtype=cv2.CV_8U).astype(np.uint8, copy=False)  # saturating

    def labels(self, state: CrowdState, looks: Appearance) -> NDArray[np.uint16]:
        """Who is seen where: (height, width), person i as i + 1, 0 where nobody is."""
        camera = self.camera
        body = joints(state, looks)
        pixels, depth = camera.project(body), camera.depth(body)
        labels = np.zeros((camera.height, camera.width), np.uint16)
        shown = _in_front(pixels, depth, camera)
        self._draw_all(labels, pixels, depth, shown, looks, np.arange(1, len(body) + 1))
        return labels

    def visible_pixels(
        self, state: CrowdState, looks: Appearance
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Per person (N,): silhouette pixels that reach the sensor, and the whole silhouette's pixels had
        nothing hidden it and the sensor been large enough. Both at output resolution.
        """
        camera = self.camera
        body = joints(state, looks)
        pixels, depth = camera.project(body), camera.depth(body)
        shown = _in_front(pixels, depth, camera)
        labels = self.labels(state, looks)
        count = np.bincount(labels.ravel(), minlength=len(body) + 2)[1 : len(body) + 1]
        whole = np.zeros(len(body), np.int64)
        for i in np.flatnonzero(shown).tolist():
            corner = np.floor(pixels[i].min(axis=0)) - 12
            extent = np.ceil(pixels[i].max(axis=0) - corner).astype(int) + 24
            if extent.max() > 1200:
                continue
            alone = np.zeros((extent[1], extent[0]), np.uint8)
            scale = camera.K[1, 1] / max(float(depth[i, Joint.PELVIS]), 0.3)
            draw_person(alone, pixels[i] - corner, scale, looks, i, 1)
            whole[i] = cv2.countNonZero(alone)
        return count, np.maximum(whole, count)

    def _draw_all(
        self,
        canvas: Canvas,
        pixels: Floats,
        depth: Floats,
        shown: NDArray[np.bool_],
        looks: Appearance,
        labels: NDArray[np.int64] | None,
    ) -> None:
        """Painter's algorithm over people and props, far to near. With `labels`, person i is painted as
        labels[i].
        """
        far = depth[:, Joint.PELVIS]
        order: list[tuple[float, int]] = [(float(far[i]), int(i)) for i in np.flatnonzero(shown)]
        order += [(layer.depth, -1 - k) for k, layer in enumerate(self._layers)]
        focal = float(self._big.K[1, 1] if labels is None else self.camera.K[1, 1])
        for distance, index in sorted(order, reverse=True):
            if index >= 0:
                flat = None if labels is None else int(labels[index])
                draw_person(canvas, pixels[index], focal / max(distance, 0.3), looks, index, flat)
                continue
            layer = self._layers[-1 - index]
            if labels is None:
                cv2.copyTo(layer.pixels, layer.mask, canvas[layer.window])
            else:
                rows, columns = layer.window
                coarse = layer.mask[(-rows.start) % 2 :: 2, (-columns.start) % 2 :: 2]
                top, left = (rows.start + 1) // 2, (columns.start + 1) // 2
                place = canvas[top : top + coarse.shape[0], left : left + coarse.shape[1]]
                place[coarse[: place.shape[0], : place.shape[1]] > 0] = 0

    def _draw_shadows(self, mask: Image, body: Floats, shown: NDArray[np.bool_], depth: Floats) -> None:
        on_ground = body - body[..., 2:] / self._sun[2] * self._sun
        on_ground[..., 2] = 0.0
        places = self._big.project(on_ground)
        with np.errstate(invalid="ignore"):
            fine = shown & np.isfinite(places).all(axis=(1, 2)) & (np.abs(places).max(axis=(1, 2)) < 4000)
        width = self._big.K[1, 1] / np.maximum(depth[:, Joint.PELVIS], 0.3)
        whole = np.round(np.where(fine[:, None, None], places, 0.0)).astype(int)
        for i in np.flatnonzero(fine):
            p, w = whole[i].tolist(), float(width[i])
            cv2.line(mask, p[Joint.NECK], p[Joint.PELVIS], 255, max(1, int(0.30 * w)))
            cv2.line(mask, p[Joint.PELVIS], p[Joint.LEFT_ANKLE], 255, max(1, int(0.13 * w)))
            cv2.line(mask, p[Joint.PELVIS], p[Joint.RIGHT_ANKLE], 255, max(1, int(0.13 * w)))
            cv2.circle(mask, p[Joint.HEAD], max(1, int(0.11 * w)), 255, -1)

    def _prop_layer(self, box: Box, shape: tuple[int, ...]) -> _Layer:
        corners = _box_corners(box)
        camera = self._big
        pixels = camera.project(corners)
        full = np.zeros((*shape[:2], 3), np.uint8)
        mask = np.zeros(shape[:2], np.uint8)
        faces = ((0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7), (4, 5, 6, 7))
        centre = np.array([box.x, box.y, box.base_m + box.height / 2])
        for face in faces:
            middle = corners[list(face)].mean(axis=0)
            normal = (middle - centre) / np.linalg.norm(middle - centre)
            if normal @ (camera.centre - middle) <= 0 or not np.isfinite(pixels[list(face)]).all():
                continue
            light = 0.72 + 0.28 * max(0.0, float(normal @ -self._sun))
            outline = np.round(pixels[list(face)]).astype(np.int32)
            cv2.fillConvexPoly(full, outline, [int(c * light) for c in box.colour])
            cv2.fillConvexPoly(mask, outline, 255)
            for part in (0.3, 0.62):  # two darker bands, so that a wall is not one flat colour
                low = np.round(
                    pixels[list(face)][[0, 1]] * (1 - part) + pixels[list(face)][[3, 2]] * part
                ).astype(int)
                cv2.line(
                    full, low[0].tolist(), low[1].tolist(), [int(c * light * 0.8) for c in box.colour], 3
                )
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        window = (
            (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            if len(rows)
            else (slice(0, 1), slice(0, 1))
        )
        shadow = corners[4:] - corners[4:, 2:] / self._sun[2] * self._sun
        touched = np.clip(camera.project(np.concatenate([corners[:4], shadow])), -4000, 4000)
        # Behind the camera it touches nothing.
        ahead = np.isfinite(touched).all(axis=1)
        touched = touched[ahead] if ahead.any() else np.full((1, 2), -9.0)
        hull = cv2.convexHull(np.round(touched).astype(np.int32)).astype(np.int32, copy=False)
        base = np.array([box.x, box.y, 0.9])
        return _Layer(
            float(camera.depth(base)),
            window,
            full[window].copy(),
            mask[window].copy(),
            hull.reshape(-1, 2),
        )


def _box_corners(box: Box) -> Floats:
    """The eight corners (8, 3) in metres: four at the bottom, anticlockwise, then four at the top."""
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (box.length / 2, box.width / 2)
    cos, sin = np.cos(box.yaw_rad), np.sin(box.yaw_rad)
    flat = half @ np.array([[cos, sin], [-sin, cos]]) + (box.x, box.y)
    low = np.column_stack([flat, np.full(4, box.base_m)])
    return np.concatenate([low, low + np.array([0.0, 0.0, box.height])])


def _in_front(pixels: Floats, depth: Floats, camera: Camera) -> NDArray[np.bool_]:
    """Who can touch the picture at all: every joint in front of the camera and the bounding box near the
    sensor.
    """
    with np.errstate(invalid="ignore"):
        low, high = pixels.min(axis=1), pixels.max(axis=1)
        near = (high > -40).all(axis=1) & (low[:, 0] < camera.width + 40) & (low[:, 1] < camera.height + 40)
        ahead: NDArray[np.bool_] = near & (depth.min(axis=1) > 0.6) & np.isfinite(pixels).all(axis=(1, 2))
        return ahead
