"""A small scene and small crowds, so that what is trained and measured in tests takes seconds."""

from pathlib import Path

from calib.ground import GroundGrid
from calib.scene import Scene, save_scene
from viewsync.sim.scenes import COLUMN_HEIGHTS_M, look_at

WIDTH, HEIGHT = 96, 72


def small_scene() -> Scene:
    """Three views of 8 × 6 m; rows, columns, width and height all differ, so that nothing transposed fits."""
    lens = (-0.1, 0.02, 0.0, 0.0, 0.0)
    cameras = {
        "left": look_at((-3.0, -3.0, 4.0), (3.6, 2.6, 0.0), 75.0, (WIDTH, HEIGHT), lens),
        "right": look_at((11.0, -2.5, 4.2), (4.4, 2.8, 0.0), 75.0, (WIDTH, HEIGHT), lens),
        "far": look_at((4.5, 10.0, 4.6), (4.0, 3.2, 0.0), 72.0, (WIDTH, HEIGHT), lens),
    }
    ground = GroundGrid(origin_x_m=0.0, origin_y_m=0.0, cell_m=0.5, columns=16, rows=12)
    return Scene("small", cameras, ground, COLUMN_HEIGHTS_M, {})


def write_small_scene(folder: Path) -> Path:
    """`scene.yaml` of the small scene in `folder`."""
    path = folder / "scene.yaml"
    save_scene(small_scene(), path)
    return path
