"""Scenes to simulate: calibrated cameras, the ground people are counted on, and what stands in the way.

`plaza` is the project's own scene. Any `scene.yaml` can be simulated too: its cameras are real, the ground
gets a neutral texture and there are no props.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calib.camera import Camera
from calib.ground import GroundGrid
from calib.scene import Scene, load_scene

# Heights above the ground at which columns are sampled, metres: ankle, knee, hip, chest, head, above it.
COLUMN_HEIGHTS_M = (0.1, 0.45, 0.85, 1.2, 1.5, 1.75)


@dataclass(frozen=True, slots=True)
class Box:
    """A static prop: a box with its centre at (x, y), sides in metres, turned by `yaw_rad`, standing on the
    ground or `base_m` above it.
    """

    name: str
    x: float
    y: float
    length: float
    width: float
    height: float
    yaw_rad: float
    colour: tuple[int, int, int]
    base_m: float = 0.0


@dataclass(frozen=True, slots=True)
class SimScene:
    """A `Scene` plus what only the simulator needs: props, the rectangle people walk in and the sun."""

    scene: Scene
    props: tuple[Box, ...]
    walk_area: tuple[float, float, float, float]
    sun: tuple[float, float, float] = (0.45, -0.35, -0.82)

    @property
    def obstacles(self) -> tuple[tuple[float, float, float], ...]:
        """Round stand-ins (x, y, radius) for the props, for the crowd's avoidance: long boxes become rows of
        circles.
        """
        circles: list[tuple[float, float, float]] = []
        for box in self.props:
            if box.base_m > 1.9:
                continue
            radius = box.width / 2 + 0.15
            count = max(1, int(np.ceil(box.length / max(box.width, 0.4))))
            for along in (np.arange(count) + 0.5) / count * box.length - box.length / 2:
                circles.append(
                    (
                        box.x + float(np.cos(box.yaw_rad) * along),
                        box.y + float(np.sin(box.yaw_rad) * along),
                        radius,
                    )
                )
        return tuple(circles)


def look_at(
    centre: tuple[float, float, float],
    target: tuple[float, float, float],
    focal_px: float,
    size: tuple[int, int],
    distortion: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0),
) -> Camera:
    """A level camera at `centre` whose optical axis meets `target` (world metres); principal point in the
    middle.
    """
    eye, aim = np.array(centre), np.array(target)
    forward = (aim - eye) / np.linalg.norm(aim - eye)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    width, height = size
    intrinsics = np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]])
    return Camera(
        K=intrinsics,
        R=rotation,
        t=-rotation @ eye,
        distortion=np.array(distortion),
        width=width,
        height=height,
    )


def plaza() -> SimScene:
    """Three cheap cameras around a 20 × 15 m plaza with a kiosk, a van, hedges, a board and pillars in the
    way.
    """
    size, lens = (384, 288), (-0.11, 0.02, 0.0, 0.0, 0.0)
    cameras = {
        "north": look_at((6.2, 19.6, 4.9), (9.8, 9.0, 0.0), 285.0, size, lens),
        "east": look_at((24.0, 1.0, 4.8), (12.6, 6.6, 0.0), 300.0, size, lens),
        "south": look_at((0.0, -4.2, 4.5), (7.0, 5.0, 0.0), 290.0, size, lens),
    }
    props = (
        Box("kiosk", 8.8, 8.6, 2.4, 2.2, 2.6, 0.3, (112, 120, 116)),
        Box("van", 13.4, 4.6, 4.6, 1.9, 2.1, 0.5, (188, 188, 184)),
        Box("board", 4.6, 5.2, 2.6, 0.25, 2.2, 1.1, (70, 76, 92)),
        Box("hedge", 14.6, 10.6, 1.5, 0.8, 1.5, -0.6, (58, 78, 48)),
        Box("hedge", 15.9, 9.7, 1.5, 0.8, 1.5, -0.6, (60, 82, 50)),
        Box("hedge", 6.0, 1.9, 1.5, 0.8, 1.4, 0.1, (56, 76, 46)),
        Box("hedge", 7.6, 2.05, 1.5, 0.8, 1.4, 0.1, (62, 84, 52)),
        Box("pillar", 11.2, 12.6, 0.6, 0.6, 3.2, 0.0, (140, 134, 126)),
        Box("pillar", 17.6, 6.4, 0.6, 0.6, 3.2, 0.0, (138, 132, 124)),
        Box("pillar", 2.6, 9.6, 0.6, 0.6, 3.2, 0.0, (142, 136, 128)),
        Box("stall", 17.2, 13.4, 2.0, 1.3, 2.3, 0.5, (128, 84, 66)),
    )
    scene = Scene(
        name="plaza",
        cameras=cameras,
        ground=GroundGrid(origin_x_m=0.0, origin_y_m=0.0, cell_m=0.2, columns=100, rows=76),
        heights_m=COLUMN_HEIGHTS_M,
        zones={},
    )
    return SimScene(scene, props, walk_area=(-1.8, -1.8, 21.8, 17.0))


def from_scene(scene: Scene, margin_m: float = 1.8) -> SimScene:
    """Simulate any calibrated scene: people walk over its ground grid and `margin_m` beyond."""
    grid = scene.ground
    return SimScene(
        scene,
        (),
        (
            grid.origin_x_m - margin_m,
            grid.origin_y_m - margin_m,
            grid.origin_x_m + grid.columns * grid.cell_m + margin_m,
            grid.origin_y_m + grid.rows * grid.cell_m + margin_m,
        ),
    )


def load(name_or_path: str) -> SimScene:
    """`plaza`, or the path of a `scene.yaml`. Raises `calib.errors.CalibError` where it cannot be read."""
    return plaza() if name_or_path == "plaza" else from_scene(load_scene(Path(name_or_path)))
