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

from export.pyramid_graphs import pyramid_graph
from viewsync.nets.config import CAMERA_LEVEL, PLANE_LEVEL, SCENE_LEVEL, TWO_FRAMES
from viewsync.nets.model import CountingModel, MotionBefore
from viewsync.nets.two_frames import Before

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
    Wg] and, for a method that moves anything, its flow: flow_m [V, Hm, Wm, 2] on the ground (of `column` with
    match [V, Hm, Wm]), or flow_px [V, hj, wj, 2] in the pictures, at the finest scale that it has. In slot 0
    there is no flow, and match is one.
    """

    def __init__(self, model: CountingModel, method: str) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(
        self, features: Tensor, present: Tensor, offset_s: Tensor, view_from_ground: Tensor
    ) -> tuple[Tensor, ...]:
        return self.answer(features, present, offset_s, view_from_ground, None)

    def answer(
        self,
        features: Tensor,
        present: Tensor,
        offset_s: Tensor,
        view_from_ground: Tensor,
        fundamental: Tensor | None,
        distance_m: Tensor | None = None,
        before: Before | None = None,
        planes: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Density, then what `outputs_of` names."""
        answer = self.model.fuse(
            features.unsqueeze(0),
            view_from_ground.unsqueeze(0),
            present.unsqueeze(0),
            offset_s.unsqueeze(0),
            (self.method,),
            None if fundamental is None else fundamental.unsqueeze(0),
            None if distance_m is None else distance_m.unsqueeze(0),
            before=before,
            planes=None if planes is None else planes.unsqueeze(0),
        )
        density = answer.density[self.method][0]
        if answer.synchronised is not None:
            flow, match = answer.synchronised.flow_m[0], answer.synchronised.evidence[0, :, 0]
            still, sure = flow[:1] * 0.0, match[:1] * 0.0 + 1.0
            return density, torch.cat([still, flow]), torch.cat([sure, match])
        if self.method not in answer.motion:
            return (density,)
        motion = answer.motion[self.method]
        if isinstance(motion, MotionBefore):
            flow = motion.moved.flow_px[-1][0]
        else:
            flow = motion.synchronised.flow_m[0]
        return density, torch.cat([flow[:1] * 0.0, flow])


class MaskedEpipolarGraph(MaskedGraph):
    """A `MaskedGraph` that takes fundamental [V, 3, 3], too."""

    def forward(  # type: ignore[override]
        self,
        features: Tensor,
        present: Tensor,
        offset_s: Tensor,
        view_from_ground: Tensor,
        fundamental: Tensor,
    ) -> tuple[Tensor, ...]:
        return self.answer(features, present, offset_s, view_from_ground, fundamental)


class TwoFrameGraph(MaskedGraph):
    """A `MaskedGraph` that takes every view's frame before, too: features_before [V, C, h, w], present_before
    [V] as 0 or 1, and before_s [V], how much earlier than the view's newest frame, seconds.
    """

    def forward(  # type: ignore[override]
        self,
        features: Tensor,
        present: Tensor,
        offset_s: Tensor,
        features_before: Tensor,
        present_before: Tensor,
        before_s: Tensor,
        view_from_ground: Tensor,
    ) -> tuple[Tensor, ...]:
        earlier = (part.unsqueeze(0) for part in (features_before, present_before, before_s))
        return self.answer(features, present, offset_s, view_from_ground, None, before=Before(*earlier))


class MaskedPlaneGraph(MaskedGraph):
    """A `MaskedGraph` that takes fundamental [V, 3, 3] and planes [V, Z, 4, 3], too."""

    def forward(  # type: ignore[override]
        self,
        features: Tensor,
        present: Tensor,
        offset_s: Tensor,
        view_from_ground: Tensor,
        fundamental: Tensor,
        planes: Tensor,
    ) -> tuple[Tensor, ...]:
        return self.answer(features, present, offset_s, view_from_ground, fundamental, planes=planes)


class ConcatGraph(MaskedGraph):
    """features [V, C, h, w] and view_from_ground [V, Z, Hg, Wg, 2] of all views in their places -> as a
    `MaskedGraph`. Offsets are not looked at.
    """

    def forward(self, features: Tensor, view_from_ground: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        there = torch.ones(features.shape[0])
        return self.answer(features, there, there * 0.0, view_from_ground, None)


class ConcatEpipolarGraph(MaskedGraph):
    """A `ConcatGraph` that takes fundamental [V, 3, 3], too."""

    def forward(  # type: ignore[override]
        self, features: Tensor, view_from_ground: Tensor, fundamental: Tensor
    ) -> tuple[Tensor, ...]:
        there = torch.ones(features.shape[0])
        return self.answer(features, there, there * 0.0, view_from_ground, fundamental)


class ConcatPlaneGraph(MaskedGraph):
    """A `ConcatGraph` that takes offset_s [V], fundamental [V, 3, 3] and planes [V, Z, 4, 3], too."""

    def forward(  # type: ignore[override]
        self,
        features: Tensor,
        offset_s: Tensor,
        view_from_ground: Tensor,
        fundamental: Tensor,
        planes: Tensor,
    ) -> tuple[Tensor, ...]:
        there = torch.ones(features.shape[0])
        return self.answer(features, there, offset_s, view_from_ground, fundamental, planes=planes)


# Those whose graph takes more geometry than others.
_MASKED = {"cls-epi": MaskedEpipolarGraph, "cls-plane": MaskedPlaneGraph}
_CONCAT = {"cls-epi": ConcatEpipolarGraph, "cls-plane": ConcatPlaneGraph}


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


def fusion_kind(model: CountingModel, method: str) -> str:
    """`masked` or `concat`: a method that looks at the reference alone needs no other view in its place."""
    return "concat" if model.config.complete and method != "reference-only" else "masked"


def inputs_of(model: CountingModel, method: str) -> tuple[str, ...]:
    """What a graph takes, in the order of its forward()."""
    places = ("distance_m",) if model.gather.needs_distance else ()
    if method == "reference-only":
        return ("features", "view_from_ground", *places)
    more = {"cls-epi": ("fundamental",), "cls-plane": ("fundamental", "planes")}.get(method, ())
    geometry = ("view_from_ground", *more, *places)
    if fusion_kind(model, method) == "concat":
        # The paper's methods look at no offset.
        return ("features", "offset_s", *geometry) if method in PLANE_LEVEL else ("features", *geometry)
    before = ("features_before", "present_before", "before_s") if method in TWO_FRAMES else ()
    return ("features", "present", "offset_s", *before, *geometry)


def outputs_of(method: str) -> tuple[str, ...]:
    """What a graph gives, in order."""
    if method in ("column", *TWO_FRAMES):
        return ("density", "flow_m", "match")
    if method in SCENE_LEVEL:
        return ("density", "flow_m")
    return ("density", "flow_px") if method in (*CAMERA_LEVEL, *PLANE_LEVEL) else ("density",)


def fusion_onnx(
    model: CountingModel, method: str, inputs: Mapping[str, Tensor]
) -> tuple[bytes, tuple[str, ...]]:
    """A fusion graph and the names of its outputs; `inputs` are examples of what it takes, with V dynamic
    unless fusion is `concat`.
    """
    outputs = outputs_of(method)
    views = torch.export.Dim("V", min=3, max=64)
    fixed = fusion_kind(model, method) == "concat"
    sides: dict[str, dict[int, object]] = {} if fixed else {name: {0: views} for name in inputs}
    return _export(fusion_graph(model, method).eval(), dict(inputs), outputs, sides), outputs


def fusion_graph(model: CountingModel, method: str) -> nn.Module:
    """A method's graph in torch: what it takes is `inputs_of`, what it gives `outputs_of`."""
    concat = fusion_kind(model, method) == "concat"
    if model.gather.needs_distance:
        return pyramid_graph(MaskedGraph(model, method), method, concat)
    if method == "reference-only":
        return ReferenceGraph(model)
    if method in TWO_FRAMES:
        return TwoFrameGraph(model, method)
    kinds = _CONCAT if concat else _MASKED
    return kinds.get(method, ConcatGraph if concat else MaskedGraph)(model, method)


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
