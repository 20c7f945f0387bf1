"""Checkpoint + scene → bundle (`viewsync export`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from calib.scene import Scene
from export.graphs import encoder_onnx, fusion_onnx
from viewsync.bundle import Bundle, write_bundle
from viewsync.nets.encoder import STRIDE
from viewsync.nets.model import UNKNOWN_OFFSET_S, CountingModel

# What a graph takes, in the order of its forward().
_INPUTS = {"reference-only": ("features", "view_from_ground")}
_ALL = ("features", "present", "offset_s", "view_from_ground")


def export_bundle(
    model: CountingModel,
    scene: Scene,
    path: Path,
    name: str,
    kappa_s: float,
    training: Mapping[str, Any],
    accuracy: Mapping[str, Any],
    default: str | None = None,
) -> Bundle:
    """Write the bundle of `model` for `scene` to `path` (a new folder or .zip) and load it back.

    `training` and `accuracy` go into the manifest as they are. Raises BundleError where the path is taken.
    """
    first = next(iter(scene.cameras.values()))
    config = model.config
    height, width = first.height // STRIDE, first.width // STRIDE
    ground, heights = scene.ground, len(scene.heights_m)
    sizes: dict[str, tuple[int | str, ...]] = {
        "features": ("V", config.channels, height, width),
        "present": ("V",),
        "offset_s": ("V",),
        "view_from_ground": ("V", heights, ground.rows, ground.columns, 2),
        "density": (ground.rows, ground.columns),
        "flow_m": ("V", ground.rows // 2, ground.columns // 2, 2),
        "match": ("V", ground.rows // 2, ground.columns // 2),
    }
    graphs: dict[str, bytes] = {}
    fusion: dict[str, Any] = {}
    for method in config.methods:
        names = _INPUTS.get(method, _ALL)
        # Examples with four views, so that nothing in the graph is frozen to the scene's number.
        examples = {n: torch.zeros([4 if s == "V" else int(s) for s in sizes[n]]) for n in names}
        graphs[method], outputs = fusion_onnx(model, method, examples)
        fusion[method] = {
            "fusion": "masked",
            "synchroniser": method,
            "inputs": {n: {"shape": list(sizes[n]), "dtype": "float32"} for n in names},
            "outputs": {n: {"shape": list(sizes[n]), "dtype": "float32"} for n in outputs},
        }
    facts = {
        "name": name,
        "task": "count",
        "views": list(scene.cameras),
        "references": list(scene.cameras),
        "encoder": {
            "input": {"name": "image", "shape": [1, first.height, first.width, 3], "dtype": "uint8"},
            "output": {"name": "features", "shape": [1, config.channels, height, width], "dtype": "uint8"},
        },
        "preprocessing": {"width": first.width, "height": first.height, "colour": "rgb"},
        "features": {
            "channels": config.channels,
            "height": height,
            "width": width,
            "stride": STRIDE,
            "levels": config.levels,
            "low": 0.0,
            "high": 1.0,
        },
        "fusion": fusion,
        "default": default or config.methods[0],
        "offset": {"trained_s": kappa_s, "unknown_s": UNKNOWN_OFFSET_S},
        "training": dict(training),
        "accuracy": dict(accuracy),
    }
    return write_bundle(path, facts, scene, encoder_onnx(model, first.height, first.width), graphs)
