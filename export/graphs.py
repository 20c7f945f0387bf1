"""Torch modules shaped like the bundle's graphs, and their way to ONNX.

Shape letters: V views (slot 0 the reference), C channels, H W image, h w features, Z heights, Hg Wg ground
grid, Hm Wm matching grid.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping

import onnx
import torch
from torch import Tensor, nn

from viewsync.nets.model import CountingModel

OPSET = 20


class EncoderGraph(nn.Module):
    """image uint8 [1, H, W, 3] RGB -> features uint8 [1, C, h, w], values 0 … levels − 1."""

    def __init__(self, model: CountingModel) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.steps = float(model.config.levels - 1)

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        return torch.round(self.encoder(x) * self.steps).to(torch.uint8)


class MaskedGraph(nn.Module):
    """features [V, C, h, w], present [V], offset_s [V], view_from_ground [V, Z, Hg, Wg, 2] -> density [Hg,
    Wg] and, for a method that moves anything, flow_m [V, Hm, Wm, 2] and match [V, Hm, Wm] (slot 0: zero and
    one).
    """

    def __init__(self, model: CountingModel, method: str) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(
        self, features: Tensor, present: Tensor, offset_s: Tensor, view_from_ground: Tensor
    ) -> tuple[Tensor, ...]:
        answer = self.model.fuse(
            features.unsqueeze(0),
            view_from_ground.unsqueeze(0),
            present.unsqueeze(0),
            offset_s.unsqueeze(0),
            (self.method,),
        )
        density = answer.density[self.method][0]
        if answer.synchronised is None:
            return (density,)
        flow, match = answer.synchronised.flow_m[0], answer.synchronised.evidence[0, :, 0]
        still, sure = flow[:1] * 0.0, match[:1] * 0.0 + 1.0
        return density, torch.cat([still, flow]), torch.cat([sure, match])


class ReferenceGraph(nn.Module):
    """features [V, C, h, w], view_from_ground [V, Z, Hg, Wg, 2] -> density [Hg, Wg] of slot 0 alone."""

    def __init__(self, model: CountingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, view_from_ground: Tensor) -> tuple[Tensor, ...]:
        one = features[:1].unsqueeze(0)
        there = torch.ones(1, 1)
        answer = self.model.fuse(
            one, view_from_ground[:1].unsqueeze(0), there, there * 0.0, ("reference-only",)
        )
        return (answer.density["reference-only"][0],)


def encoder_onnx(model: CountingModel, height: int, width: int) -> bytes:
    """encoder.onnx for images of `height` × `width` pixels."""
    return _export(
        EncoderGraph(model).eval(),
        {"image": torch.zeros(1, height, width, 3, dtype=torch.uint8)},
        ("features",),
        {},
    )


def fusion_onnx(
    model: CountingModel, method: str, inputs: Mapping[str, Tensor]
) -> tuple[bytes, tuple[str, ...]]:
    """A fusion graph and the names of its outputs; `inputs` are examples of what it takes, with V dynamic."""
    graph = ReferenceGraph(model) if method == "reference-only" else MaskedGraph(model, method)
    outputs = ("density", "flow_m", "match") if method == "column" else ("density",)
    views = torch.export.Dim("V", min=3, max=64)
    return _export(graph.eval(), dict(inputs), outputs, {name: {0: views} for name in inputs}), outputs


def _export(
    module: nn.Module,
    inputs: dict[str, Tensor],
    outputs: tuple[str, ...],
    dynamic: dict[str, dict[int, object]],
) -> bytes:
    for chatty in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            kwargs=inputs,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic or None,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _forget_sources(proto.graph)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _forget_sources(graph: onnx.GraphProto) -> None:
    """Drop what the exporter notes at every node: our modules' names, lines of code, this machine's paths."""
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
