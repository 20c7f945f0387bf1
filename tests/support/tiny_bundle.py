"""A bundle small enough for any test, made of real ONNX graphs without torch.

Scene "tiny": three cameras (north, south, west) at 5 m height look at 8 × 6 m of ground. The encoder
averages 4 × 4 pixels and appends a brightness channel, so features are what the picture shows: [R, G, B,
brightness] in [0, 1]. The fusion graphs add up what the views see of each ground cell: density = 0.01
people per cell and unit of brightness.

    none            mean over present views
    reference-only  slot 0, whatever else is there
    column          mean over present views, weighted by exp(−|δ| / 3 s); flow 0.5 m/s along x times δ;
    match = that weight
    before          like none, of each view's frame before where it has one
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calib.camera import Camera
from calib.ground import GroundGrid
from calib.scene import Scene
from viewsync.bundle import Bundle
from viewsync.bundle_writing import write_bundle

VIEWS = ("north", "south", "west")
WIDTH, HEIGHT, STRIDE, CHANNELS = 96, 72, 4, 4
FRAME_WIDTH, FRAME_HEIGHT = 192, 144
UNKNOWN_S = 1000.0
DENSITY_PER_BRIGHTNESS = 0.01
FLOW_X_M_PER_S = 0.5
FADE_S = 3.0
_OPSET = 17


def tiny_scene() -> Scene:
    """Three cameras around 8 × 6 m of ground in 0.5 m cells, heights 0 and 1 m, one zone on the left half."""
    cameras = {
        "north": _looking_at((4.0, 12.0, 5.0), (4.0, 3.0, 0.0), distortion=(-0.05, 0.01, 0.0, 0.0, 0.0)),
        "south": _looking_at((4.0, -6.0, 5.0), (4.0, 3.0, 0.0)),
        "west": _looking_at((-6.0, 3.0, 5.0), (4.0, 3.0, 0.0)),
    }
    zones = {"left": np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 6.0], [0.0, 6.0]])}
    return Scene("tiny", cameras, GroundGrid(0.0, 0.0, 0.5, 16, 12), (0.0, 1.0), zones)


def write_tiny_bundle(
    path: Path,
    graphs: Sequence[str] = ("column", "none", "reference-only"),
    scene: Scene | None = None,
    trained_s: float = 3.0,
) -> Bundle:
    """Write the bundle to `path` (a new folder, or a .zip) with these fusion graphs; the first is the
    default. `scene`: another one, of cameras with the same aspect ratio; trained_s: the range of offsets that
    it says it knows.
    """
    scene = scene or tiny_scene()
    sizes = {"C": CHANNELS, "h": HEIGHT // STRIDE, "w": WIDTH // STRIDE, "Z": len(scene.heights_m)}
    sizes |= {"Hg": scene.ground.rows, "Wg": scene.ground.columns}
    sizes |= {"Hm": scene.ground.rows // 2, "Wm": scene.ground.columns // 2}
    facts = {
        "name": "tiny",
        "task": "count",
        "views": list(scene.cameras),
        "references": list(scene.cameras),
        "encoder": {
            "input": {"name": "image", "shape": [1, HEIGHT, WIDTH, 3], "dtype": "uint8"},
            "output": {"name": "features", "shape": [1, CHANNELS, sizes["h"], sizes["w"]], "dtype": "uint8"},
        },
        "preprocessing": {"width": WIDTH, "height": HEIGHT, "colour": "rgb"},
        "features": {
            "channels": CHANNELS,
            "height": sizes["h"],
            "width": sizes["w"],
            "stride": STRIDE,
            "levels": 256,
            "low": 0.0,
            "high": 1.0,
        },
        "fusion": {
            graph: {
                "fusion": "masked",
                "synchroniser": graph,
                "inputs": _specs(_INPUTS[graph], sizes),
                "outputs": _specs(_OUTPUTS[graph], sizes),
            }
            for graph in graphs
        },
        "default": graphs[0],
        "offset": {"trained_s": trained_s, "unknown_s": UNKNOWN_S},
        "training": {"how": "not at all: made by hand for tests"},
        "accuracy": {},
    }
    return write_bundle(path, facts, scene, _encoder(), {graph: _fusion(graph, sizes) for graph in graphs})


def _looking_at(
    centre: Sequence[float], target: Sequence[float], distortion: Sequence[float] = (0.0,) * 5
) -> Camera:
    forward = np.subtract(target, centre)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right = right / np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    focal = 0.9 * FRAME_WIDTH
    intrinsics = [[focal, 0.0, (FRAME_WIDTH - 1) / 2], [0.0, focal, (FRAME_HEIGHT - 1) / 2], [0.0, 0.0, 1.0]]
    return Camera(
        np.array(intrinsics),
        rotation,
        -rotation @ np.array(centre),
        np.array(distortion),
        FRAME_WIDTH,
        FRAME_HEIGHT,
    )


# --- graphs -----------------------------------------------------------------------------------------------

_DIMENSIONS: dict[str, tuple[str | int, ...]] = {
    "features": ("V", "C", "h", "w"),
    "present": ("V",),
    "offset_s": ("V",),
    "features_before": ("V", "C", "h", "w"),
    "present_before": ("V",),
    "before_s": ("V",),
    "view_from_ground": ("V", "Z", "Hg", "Wg", 2),
    "density": ("Hg", "Wg"),
    "flow_m": ("V", "Hm", "Wm", 2),
    "match": ("V", "Hm", "Wm"),
}
_INPUTS = {
    "none": ("features", "present", "view_from_ground"),
    "reference-only": ("features", "view_from_ground"),
    "column": ("features", "present", "offset_s", "view_from_ground"),
    "before": (
        *("features", "present", "features_before", "present_before", "before_s"),
        "view_from_ground",
    ),
}
_OUTPUTS = {
    "none": ("density",),
    "reference-only": ("density",),
    "column": ("density", "flow_m", "match"),
    "before": ("density",),
}


def _shape(name: str, sizes: dict[str, int]) -> list[int | str]:
    return [sizes.get(side, side) if isinstance(side, str) else side for side in _DIMENSIONS[name]]


def _specs(names: Sequence[str], sizes: dict[str, int]) -> dict[str, dict[str, Any]]:
    return {name: {"shape": _shape(name, sizes), "dtype": "float32"} for name in names}


def _constant(name: str, value: Any, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def _model(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _encoder() -> bytes:
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["planes"], ["colour"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2
        ),
        helper.make_node("ReduceMean", ["colour"], ["brightness"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["colour", "brightness"], ["values"], axis=1),
        helper.make_node("Round", ["values"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["features"], to=TensorProto.UINT8),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])
    out = [1, CHANNELS, HEIGHT // STRIDE, WIDTH // STRIDE]
    features = helper.make_tensor_value_info("features", TensorProto.UINT8, out)
    return _model(helper.make_graph(nodes, "encoder", [image], [features]))


def _fusion(graph: str, sizes: dict[str, int]) -> bytes:
    """Each view's brightness sampled at every ground cell and height; mean over heights, then over views."""
    rows, columns = sizes["Hg"], sizes["Wg"]
    constants = [
        _constant("zero", 0.0),
        _constant("to_people", DENSITY_PER_BRIGHTNESS),
        _constant("flat", [-1, sizes["Z"] * rows, columns, 2], np.int64),
        _constant("tall", [-1, sizes["Z"], rows, columns], np.int64),
        _constant("per_cell", [-1, 1, 1], np.int64),
        _constant("views", [0], np.int64),
        _constant("first", [0], np.int64),
        _constant("second", [1], np.int64),
        _constant("brightness_channel", [CHANNELS - 1], np.int64),
        _constant("channels", [CHANNELS], np.int64),
        _constant("channel_axis", [1], np.int64),
    ]
    shown = "features"
    nodes = []
    if graph == "before":
        shown = "earlier"
        constants.append(_constant("per_value", [-1, 1, 1, 1], np.int64))
        nodes += [
            helper.make_node("Reshape", ["present_before", "per_value"], ["before_per_value"]),
            helper.make_node("Greater", ["before_per_value", "zero"], ["there"]),
            helper.make_node("Where", ["there", "features_before", "features"], ["earlier"]),
        ]
    nodes += [
        helper.make_node("Slice", [shown, "brightness_channel", "channels", "channel_axis"], ["brightness"]),
        helper.make_node("Reshape", ["view_from_ground", "flat"], ["grid"]),
        helper.make_node(
            "GridSample",
            ["brightness", "grid"],
            ["sampled"],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=0,
        ),
        helper.make_node("Reshape", ["sampled", "tall"], ["columns"]),
        helper.make_node("ReduceMean", ["columns"], ["seen"], axes=[1], keepdims=0),  # [V, Hg, Wg]
    ]
    if graph == "reference-only":
        nodes += [
            helper.make_node("Slice", ["seen", "first", "second", "views"], ["reference"]),
            helper.make_node("ReduceMean", ["reference"], ["mean"], axes=[0], keepdims=0),
        ]
    else:
        weight = "present"
        if graph == "column":
            constants.append(_constant("minus_rate", -1.0 / FADE_S))
            nodes += [
                helper.make_node("Abs", ["offset_s"], ["distance_s"]),
                helper.make_node("Mul", ["distance_s", "minus_rate"], ["exponent"]),
                helper.make_node("Exp", ["exponent"], ["fade"]),
                helper.make_node("Mul", ["fade", "present"], ["weight"]),
            ]
            weight = "weight"
        nodes += [
            helper.make_node("Reshape", [weight, "per_cell"], ["weight_per_cell"]),
            helper.make_node("Greater", ["weight_per_cell", "zero"], ["counts"]),
            helper.make_node("Where", ["counts", "seen", "zero"], ["clean"]),  # rubbish, NaN too, ends here
            helper.make_node("Mul", ["clean", "weight_per_cell"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "views"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", [weight], ["total"], keepdims=0),
            helper.make_node("Div", ["sum", "total"], ["mean"]),
        ]
    nodes.append(helper.make_node("Mul", ["mean", "to_people"], ["density"]))
    if graph == "column":
        cells = (sizes["Hm"], sizes["Wm"])
        constants += [
            _constant("per_place", [-1, 1, 1, 1], np.int64),
            _constant("velocity", np.broadcast_to([FLOW_X_M_PER_S, 0.0], (1, *cells, 2))),
            _constant("ones", np.ones((1, *cells))),
        ]
        nodes += [
            helper.make_node("Reshape", ["offset_s", "per_place"], ["offset_per_place"]),
            helper.make_node("Mul", ["velocity", "offset_per_place"], ["flow_m"]),
            helper.make_node("Mul", ["ones", "weight_per_cell"], ["match"]),
        ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, _shape(n, sizes)) for n in _INPUTS[graph]]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, _shape(n, sizes)) for n in _OUTPUTS[graph]]
    used = {name for node in nodes for name in node.input}
    return _model(helper.make_graph(nodes, graph, inputs, outputs, [c for c in constants if c.name in used]))
