"""Graphs over a base model that chooses scales by distance (`viewsync.nets.mvms`): as those of
`export.graphs`, and each takes distance_m [V, h, w] besides, the distance of every place of the features
from its camera.

Shape letters: V views (slot 0 the reference), S channels sent, h w features, Z heights, Hg Wg ground grid.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Answers(Protocol):
    """`export.graphs.MaskedGraph`: density and what comes with it, from all that a graph may be given."""

    def answer(
        self,
        features: Tensor,
        present: Tensor,
        offset_s: Tensor,
        view_from_ground: Tensor,
        fundamental: Tensor | None,
        distance_m: Tensor | None = None,
    ) -> tuple[Tensor, ...]: ...


class PyramidGraph(nn.Module):
    """Another face of a `MaskedGraph`."""

    def __init__(self, whole: Answers) -> None:
        super().__init__()
        self.whole: Any = whole

    def answer(self, *given: Tensor | None) -> tuple[Tensor, ...]:
        """What the `MaskedGraph` answers to all that it takes."""
        density: tuple[Tensor, ...] = self.whole.answer(*given)
        return density


class PyramidMasked(PyramidGraph):
    """features [V, S, h, w], present [V], offset_s [V], view_from_ground [V, Z, Hg, Wg, 2], distance_m."""

    def forward(
        self,
        features: Tensor,
        present: Tensor,
        offset_s: Tensor,
        view_from_ground: Tensor,
        distance_m: Tensor,
    ) -> tuple[Tensor, ...]:
        return self.answer(features, present, offset_s, view_from_ground, None, distance_m)


class PyramidMaskedEpipolar(PyramidGraph):
    """A `PyramidMasked` that takes fundamental [V, 3, 3], too."""

    def forward(
        self,
        features: Tensor,
        present: Tensor,
        offset_s: Tensor,
        view_from_ground: Tensor,
        fundamental: Tensor,
        distance_m: Tensor,
    ) -> tuple[Tensor, ...]:
        return self.answer(features, present, offset_s, view_from_ground, fundamental, distance_m)


class PyramidConcat(PyramidGraph):
    """All views in their places."""

    def forward(self, features: Tensor, view_from_ground: Tensor, distance_m: Tensor) -> tuple[Tensor, ...]:
        there = torch.ones(features.shape[0])
        return self.answer(features, there, there * 0.0, view_from_ground, None, distance_m)


class PyramidConcatEpipolar(PyramidGraph):
    """A `PyramidConcat` that takes fundamental [V, 3, 3], too."""

    def forward(
        self, features: Tensor, view_from_ground: Tensor, fundamental: Tensor, distance_m: Tensor
    ) -> tuple[Tensor, ...]:
        there = torch.ones(features.shape[0])
        return self.answer(features, there, there * 0.0, view_from_ground, fundamental, distance_m)


class PyramidReference(PyramidGraph):
    """Density [Hg, Wg] of slot 0 alone."""

    def forward(self, features: Tensor, view_from_ground: Tensor, distance_m: Tensor) -> tuple[Tensor, ...]:
        one = torch.ones(1)
        return self.answer(features[:1], one, one * 0.0, view_from_ground[:1], None, distance_m[:1])


def pyramid_graph(whole: Answers, method: str, concat: bool) -> PyramidGraph:
    """The graph of a method in one kind of fusion."""
    if method == "reference-only":
        return PyramidReference(whole)
    if method == "cls-epi":
        return (PyramidConcatEpipolar if concat else PyramidMaskedEpipolar)(whole)
    return (PyramidConcat if concat else PyramidMasked)(whole)
