"""ONNX Runtime beside torch, on the same graphs: the bundle's architecture with weights drawn by chance.

A bundle holds no torch model, so its shape is built once more and exported here; time does not depend on the
weights.
"""

from __future__ import annotations

import importlib.util
import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.compute import HUB_THREADS
from bench.rows import Row
from bench.timing import Case, take_turns, torch_threads
from calib.ground import view_from_ground
from viewsync.bundle import Bundle
from viewsync.ort import open_session

if TYPE_CHECKING:
    import torch

_NEEDED = ("torch", "onnx", "onnxscript")


def runtime_rows(bundle: Bundle, rounds: int) -> list[Row]:
    """One row for the encoder (one thread) and one for the default graph (as many as a hub's)."""
    default = bundle.manifest.default
    titles = {
        "torch.encoder": "runtime: encoder in ONNX Runtime, one thread",
        "torch.fusion": f"runtime: {default} in ONNX Runtime, {HUB_THREADS} threads",
    }
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        why = f"{', '.join(missing)} not installed; run: pip install -c constraints.txt -e '.[train]'"
        return [Row(name=name, what=what, unit="ms", skipped=why) for name, what in titles.items()]

    import torch

    from export.graphs import EncoderGraph, encoder_onnx, fusion_graph, fusion_onnx, inputs_of
    from viewsync.nets.config import TWO_FRAMES
    from viewsync.nets.model import METHODS, CountingModel, ModelConfig

    known = (*METHODS, *TWO_FRAMES)
    if default not in known:
        why = f"the graph {default} is none of this viewsync's models ({', '.join(known)})"
        return [Row(name=name, what=what, unit="ms", skipped=why) for name, what in titles.items()]
    for chatty in ("onnxscript", "onnx_ir"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    manifest, scene = bundle.manifest, bundle.scene
    torch.manual_seed(0)
    parts = manifest.training.get("model", {}).get("column_parts", ())
    model = CountingModel(
        ModelConfig(
            methods=(default,),
            column_parts=tuple(parts) if default in ("column", *TWO_FRAMES) else (),
            channels=manifest.features.channels,
            levels=manifest.features.levels,
            heights=len(scene.heights_m),
            cell_m=scene.ground.cell_m,
        )
    ).eval()
    # Where weights begin as zeros and ones, the exporter would leave operations out of the graph.
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.05)
    size = manifest.preprocessing
    image = {"image": torch.randint(0, 256, (1, size.height, size.width, 3), dtype=torch.uint8)}
    every = _fusion_inputs(bundle)
    fusion = {name: every[name] for name in inputs_of(model, default)}
    decoder = fusion_graph(model, default)
    compared = (
        ("torch.encoder", 1, EncoderGraph(model).eval(), image, encoder_onnx(model, size.height, size.width)),
        ("torch.fusion", HUB_THREADS, decoder.eval(), fusion, fusion_onnx(model, default, fusion)[0]),
    )
    shipped = {"torch.encoder": bundle.encoder_bytes, "torch.fusion": bundle.fusion_bytes(default)}
    return [
        _row(name, titles[name], threads, module, inputs, data, rounds, shipped[name])
        for name, threads, module, inputs, data in compared
    ]


def _row(
    name: str,
    what: str,
    threads: int,
    module: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    data: bytes,
    rounds: int,
    shipped: bytes,
) -> Row:
    import torch

    session = open_session(data, "cpu", threads)
    feeds = {each.name: inputs[each.name].numpy() for each in session.get_inputs()}
    outputs = [each.name for each in session.get_outputs()]

    def in_torch(number: int) -> Any:
        with torch.inference_mode():
            return module(**inputs)

    def in_onnx(number: int) -> Any:
        return session.run(outputs, feeds)

    with torch_threads(threads):
        spent = take_turns({"onnx": Case(in_onnx), "torch": Case(in_torch)}, rounds)
        differences = dict(zip(outputs, _differences(in_onnx, in_torch), strict=True))
    ours, theirs = spent["onnx"], spent["torch"]
    return Row(
        name=name,
        what=what,
        unit="ms",
        figure=ours.median_ms,
        processor=float(np.median(ours.processor_ms)),
        beside=f"torch {torch.__version__.partition('+')[0]}",
        # By the wall: torch's threads spin while they wait, which is processor time without work.
        ratio=float(np.median(ours.wall_ms / theirs.wall_ms)),
        samples=rounds,
        facts={
            **ours.facts(),
            "torch_ms": theirs.median_ms,
            "ratio_by_processor_time": ours.ratio_to(theirs),
            "largest_difference": max(differences.values()),
            "differences": differences,
            "same_operators_as_bundle": _operators(data) == _operators(shipped),
        },
    )


def _differences(in_onnx: Callable[[int], Any], in_torch: Callable[[int], Any]) -> list[float]:
    """Largest difference of every output: that both computed the same is part of the comparison."""
    theirs = in_torch(0)
    pairs = zip(in_onnx(0), theirs if isinstance(theirs, tuple) else (theirs,), strict=True)
    return [float(np.abs(ours.astype(np.float64) - other.numpy()).max()) for ours, other in pairs]


def _operators(data: bytes) -> Counter[str]:
    import onnx

    return Counter(node.op_type for node in onnx.load_model_from_string(data).graph.node)


def _fusion_inputs(bundle: Bundle) -> dict[str, torch.Tensor]:
    """All views present, half a second apart, a frame of each a second before, random features, and the
    scene's geometry.
    """
    import torch

    spec, scene, views = bundle.manifest.features, bundle.scene, bundle.manifest.views
    grids = [view_from_ground(bundle.pinhole(view), scene.ground, scene.heights_m) for view in views]
    features = torch.rand(2, len(views), spec.channels, spec.height, spec.width)
    return {
        "features": features[0],
        "present": torch.ones(len(views)),
        "features_before": features[1],
        "present_before": torch.ones(len(views)),
        "before_s": torch.ones(len(views)),
        "offset_s": 0.5 * torch.arange(len(views), dtype=torch.float32),
        "view_from_ground": torch.from_numpy(np.stack(grids)),
    }
