"""Whether a model fits cameras and ground: what its weights fix must be so there, the rest is free."""

from __future__ import annotations

from calib.ground import person_plane
from calib.scene import Scene
from viewsync.nets.config import ModelConfig
from viewsync.nets.encoder import STRIDE


def misfit(config: ModelConfig, scene: Scene) -> str:
    """Why a model of these sizes cannot answer for `scene`, as the rest of a sentence; empty where it can."""
    ground = scene.ground
    sizes = {(camera.width, camera.height) for camera in scene.cameras.values()}
    slots = sorted(scene.cameras, key=lambda view: view != next(iter(config.views), None))
    if config.views and tuple(slots) != config.views:
        return f"its views are {', '.join(slots)}, the model was trained for {', '.join(config.views)}"
    if config.grid != (0, 0) and any(
        (-(-side[1] // STRIDE), -(-side[0] // STRIDE)) != config.grid for side in sizes
    ):
        return f"its pictures do not make features of {config.grid[0]} rows and {config.grid[1]} columns"
    if config.base == "mvms" and person_plane(scene.heights_m) != config.plane:
        return f"another of its heights is a person's than number {config.plane + 1}, as in training"
    if len(scene.heights_m) != config.heights:
        return f"it has {len(scene.heights_m)} heights, the model was trained with {config.heights}"
    if abs(ground.cell_m - config.cell_m) > 1e-6:
        return f"its ground cells are {ground.cell_m} m, the model was trained with {config.cell_m} m"
    if ground.rows % 2 or ground.columns % 2:
        return "its ground has an odd number of rows or columns"
    return ""
