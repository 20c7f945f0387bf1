"""Checkpoint + scene → bundle (`viewsync export`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from calib.scene import Scene
from export.graphs import encoder_onnx, fusion_kind, fusion_onnx, inputs_of
from viewsync.bundle import Bundle
from viewsync.bundle_writing import write_bundle
from viewsync.errors import BundleError
from viewsync.nets.config import BOUNDS
from viewsync.nets.encoder import STRIDE
from viewsync.nets.fit import misfit
from viewsync.nets.model import UNKNOWN_OFFSET_S, CountingModel


@dataclass(frozen=True, slots=True)
class Parts:
    """All that a bundle is made of but how it was trained and how well it does."""

    scene: Scene
    facts: Mapping[str, Any]
    encoder: bytes
    fusion: Mapping[str, bytes]

    def write(self, path: Path, training: Mapping[str, Any], accuracy: Mapping[str, Any]) -> Bundle:
        """Write the bundle to `path` (a new folder or .zip) and load it back; `training` and `accuracy` go
        into the manifest as they are. Raises BundleError where the path is taken.
        """
        facts = {**self.facts, "training": dict(training), "accuracy": dict(accuracy)}
        return write_bundle(path, facts, self.scene, self.encoder, self.fusion)


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
    """`bundle_parts` and `Parts.write` in one: no parity is measured."""
    return bundle_parts(model, scene, name, kappa_s, default).write(path, training, accuracy)


def bundle_parts(
    model: CountingModel, scene: Scene, name: str, kappa_s: float, default: str | None = None
) -> Parts:
    """Export `model`, trained with offsets up to `kappa_s`, for the cameras and ground of `scene`.

    default: the method whose graph answers; the model's first. Raises BundleError where model and scene do
    not fit together, or a method is a bound.
    """
    config = model.config
    for method in set(BOUNDS) & set(config.methods):
        raise BundleError(
            f"{method} is a bound: it needs the truth, which no camera gives; export a checkpoint without it"
        )
    _check_fit(model, scene)
    first = next(iter(scene.cameras.values()))
    height, width = -(-first.height // STRIDE), -(-first.width // STRIDE)
    ground, heights = scene.ground, len(scene.heights_m)
    sent = config.sent_channels
    stride, times = config.flow_strides[-1], model.ground.times
    sizes: dict[str, tuple[int | str, ...]] = {
        "features": ("V", sent, height, width),
        "present": ("V",),
        "offset_s": ("V",),
        "features_before": ("V", config.channels, height, width),
        "present_before": ("V",),
        "before_s": ("V",),
        "view_from_ground": ("V", heights, ground.rows, ground.columns, 2),
        "fundamental": ("V", 3, 3),
        "distance_m": ("V", height, width),
        "planes": ("V", heights, 4, 3),
        "density": (ground.rows, ground.columns),
        "flow_m": ("V", ground.rows // times, ground.columns // times, 2),
        "match": ("V", ground.rows // times, ground.columns // times),
        "flow_px": ("V", -(-height // stride), -(-width // stride), 2),
    }
    graphs: dict[str, bytes] = {}
    fusion: dict[str, Any] = {}
    for method in config.methods:
        names, kind = inputs_of(model, method), fusion_kind(model, method)
        # Examples with four views, so that nothing in the graph is frozen to the scene's number; in a
        # `concat` graph everything is.
        number = len(config.views) if kind == "concat" else 4
        examples = {n: torch.zeros([number if s == "V" else int(s) for s in sizes[n]]) for n in names}
        graphs[method], outputs = fusion_onnx(model, method, examples)
        fixed = {"V": number} if kind == "concat" else {}
        shapes = {n: [fixed.get(str(side), side) for side in sizes[n]] for n in (*names, *outputs)}
        fusion[method] = {
            "fusion": kind,
            "synchroniser": method,
            "inputs": {n: {"shape": shapes[n], "dtype": "float32"} for n in names},
            "outputs": {n: {"shape": shapes[n], "dtype": "float32"} for n in outputs},
        }
    facts = {
        "name": name,
        "task": "count",
        "views": list(scene.cameras),
        "references": [config.views[0]] if config.views else list(scene.cameras),
        "encoder": {
            "input": {"name": "image", "shape": [1, first.height, first.width, 3], "dtype": "uint8"},
            "output": {
                "name": "features",
                "shape": [1, sent, height, width],
                "dtype": "uint8",
            },
        },
        "preprocessing": {"width": first.width, "height": first.height, "colour": "rgb"},
        "features": {
            "channels": sent,
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
    }
    return Parts(scene, facts, encoder_onnx(model, first.height, first.width), graphs)


def _check_fit(model: CountingModel, scene: Scene) -> None:
    """What the weights fix must be so in the scene; the rest (cameras, size of the ground) is free."""
    problem = misfit(model.config, scene)
    sizes = {(camera.width, camera.height) for camera in scene.cameras.values()}
    if not problem and len(sizes) > 1:
        problem = "its cameras have different sizes; bring them to one"
    elif not problem and model.config.encoders == "view":
        problem = "a bundle has one encoder for all views; train with encoders: shared"
    elif not problem and any(side % STRIDE for size in sizes for side in size):
        problem = f"its pictures' sides must be multiples of {STRIDE} pixels"
    if problem:
        raise BundleError(f"scene {scene.name} does not fit the model: {problem}")
