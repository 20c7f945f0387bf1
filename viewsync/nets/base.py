"""What is around a synchroniser: a base model of shape encode → project → fuse → decode, as types.

A base model is four parts. What a camera sends is made by `Encodes`; where the views meet, `Gathers` makes
features of a view's grid out of it, `Grounds` projects them (P), and `Heads` fuse and decode (U, D). A
synchroniser stands before `Grounds` (`synchronisers.CameraLevel`) or after it (`synchronisers.SceneLevel`)
and knows none of the four.

Shape letters: N pictures, B batch, V views (slot 0 the reference), C channels, H W image, h w features, Z
heights, Hg Wg ground, D channels on the ground, Hm Wm their grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from viewsync.nets.config import ModelConfig
from viewsync.nets.encoder import Encoder
from viewsync.nets.heads import FusionHead
from viewsync.nets.mvms import PlaneProjection, PyramidEncoder, PyramidHead, ScaleSelection, ViewEncoders
from viewsync.nets.projection import GroundEncoder, OnGround
from viewsync.nets.synchronisers import Columns, Synchronised, Timing


class Encodes(Protocol):
    """Pictures (N, 3, H, W) in 0..1 to what crosses the wire (N, S, h, w), in 0..1, not yet quantised."""

    def __call__(self, image: Tensor) -> Tensor: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def train(self, mode: bool = True) -> object: ...

    def requires_grad_(self, requires_grad: bool = True) -> object: ...


class Gathers(Protocol):
    """What every view sent (B, V, S, h, w), and the distance (B, V, h, w) of its places where it is asked
    for, to features F (B, V, C, h, w).
    """

    needs_distance: bool

    def __call__(self, sent: Tensor, distance_m: Tensor | None) -> Tensor: ...


class Grounds(Protocol):
    """P. Ground features have the ground grid's resolution divided by `times`."""

    times: int

    def project(self, features: Tensor, view_from_ground: Tensor, there: Tensor) -> OnGround:
        """Features (B, V, C, h, w), grids (B, V, Z, Hg, Wg, 2), there (B, V, 1, 1, 1) as 0 or 1."""

    def held(self, columns: Columns) -> Tensor:
        """Ground features (B, V, D, Hm, Wm) of columns of any views, by the weights of P as they are: who
        learns from it is whoever made the columns.
        """


class Heads(Protocol):
    """U and D: ground features to people per cell (B, Hg, Wg); None fuses the reference alone."""

    def __call__(
        self, reference: Tensor, synchronised: Synchronised | None, looks: Tensor, timing: Timing
    ) -> Tensor: ...


class Everything(nn.Module):
    """`Gathers` of a base model that sends its features as they are."""

    needs_distance = False

    def forward(self, sent: Tensor, distance_m: Tensor | None) -> Tensor:
        return sent


@dataclass(frozen=True, slots=True)
class Base:
    """The parts of a base model; `head` makes a `Heads`. width: channels D of its ground features."""

    encoder: Encodes
    gather: Gathers
    ground: Grounds
    head: Callable[[], nn.Module]
    width: int


def ours(config: ModelConfig) -> Base:
    """The project's own: one encoder, columns of several heights, matching and decoding on halved ground."""
    views = len(config.views) if config.fusion == "concat" else 0
    return Base(
        Encoder(config.channels),
        Everything(),
        GroundEncoder(config.channels, config.heights, config.width),
        lambda: FusionHead(config.width, views),
        config.width,
    )


def mvms(config: ModelConfig) -> Base:
    """The paper's (Zhang & Chan, CVPR 2019): `viewsync.nets.mvms`."""
    views = len(config.views) if config.fusion == "concat" else 0
    by_view = len(config.views) if config.encoders == "view" else 0
    encoder = ViewEncoders(config.channels, by_view) if by_view else PyramidEncoder(config.channels)
    return Base(
        encoder,
        ScaleSelection(config.channels, config.grid, by_view or 1),
        PlaneProjection(config.plane),
        lambda: PyramidHead(config.channels, views),
        config.channels,
    )


def base_of(config: ModelConfig) -> Base:
    """The base model that a configuration names."""
    return mvms(config) if config.base == "mvms" else ours(config)
