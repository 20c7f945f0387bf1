"""Sizes of a model: what its weights fix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from viewsync.nets.scales import sent_channels

# The offset that stands for "unknown"; anything beyond ±UNKNOWN_FROM_S is read as unknown.
UNKNOWN_OFFSET_S = 1000.0
UNKNOWN_FROM_S = 500.0
METHODS = ("column", "none", "reference-only")
# The paper's: CLS before projection, SLS after it.
CAMERA_LEVEL = ("cls-cat", "cls-cor", "cls-epi")
SCENE_LEVEL = ("sls",)
# Ours before projection: one network for all pairs, whatever the size of the features.
PLANE_LEVEL = ("cls-plane",)
# What needs the truth: measured beside the others, never exported.
BOUNDS = ("perfect-matching", "perfect-flow")
# Needs each view's frame before, too.
TWO_FRAMES = ("column-2",)
ALL_METHODS = (*METHODS, *TWO_FRAMES, *SCENE_LEVEL, *CAMERA_LEVEL, *PLANE_LEVEL, *BOUNDS)
# What `column` can have beyond the plain one; each changes one thing.
COLUMN_PARTS = (
    *("end-to-end", "coarse-to-fine", "iterated", "shared", "everybody", "speed-limit"),
    *("mutual", "sharp", "subcell"),
)
# Those of the matcher and its descriptors, which `column-2` has, too.
MATCHER_PARTS = ("mutual", "sharp", "subcell")
FUSIONS = ("masked", "concat")
FLOW_NETS = ("shared", "pair")
BASES = ("ours", "mvms")
ENCODERS = ("shared", "view")
# What matches columns of several heights has none on MVMS's one plane.
OVER_MVMS = ("none", "reference-only", *SCENE_LEVEL, *CAMERA_LEVEL)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a model. `methods` names the heads trained over the shared encoder; `levels` the values on the
    wire.

    views: names of the slots where the reference never changes, it first; else empty. fusion `concat` needs
    them. grid: rows and columns of the features, for methods whose networks fix them. flow_strides: the grids
    that the paper's camera-level methods estimate flow on, coarse to fine, in strides of the feature grid.
    flow_nets: one network for all pairs of views (`shared`), or one for each (`pair`, which needs views).
    sigma_px: σ of the paper's epipolar weight, in places of the feature grid. base: the model around the
    synchroniser, of which `mvms` has one encoder for all views (`shared`) or one for each (`view`, which
    needs views), `channels` at each of its scales, and plane, the number of the height it projects onto.
    column_parts: of COLUMN_PARTS.
    """

    methods: tuple[str, ...] = METHODS
    channels: int = 16
    levels: int = 16
    heights: int = 6
    width: int = 48
    cell_m: float = 0.2
    fusion: str = "masked"
    views: tuple[str, ...] = ()
    grid: tuple[int, int] = (0, 0)
    flow_strides: tuple[int, ...] = (4, 2)
    flow_nets: str = "shared"
    sigma_px: float = 16.0
    base: str = "ours"
    encoders: str = "shared"
    plane: int = 0
    column_parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [m for m in self.methods if m not in ALL_METHODS]
        if unknown or not self.methods:
            raise ValueError(
                f"unknown method {', '.join(unknown) or '(none given)'}: choose from {', '.join(ALL_METHODS)}"
            )
        if self.fusion not in FUSIONS or self.flow_nets not in FLOW_NETS:
            raise ValueError(
                f"fusion is one of {', '.join(FUSIONS)} and flow_nets one of {', '.join(FLOW_NETS)}, "
                f"not {self.fusion} and {self.flow_nets}"
            )
        if self.fusion == "concat" and not self.views:
            raise ValueError("concat fusion needs the names of its views, the reference first")
        if self.fusion == "concat" and self.two_frames:
            raise ValueError("column-2 needs masked fusion: it goes by capture times, which concat ignores")
        if self.by_pair and not self.views:
            raise ValueError("a flow network for each pair of views needs fixed views: fusion concat")
        if self.camera_level and min(self.grid) < 1:
            raise ValueError(f"{', '.join(self.camera_level)}: needs the rows and columns of the features")
        if not sound_strides(self.flow_strides):
            raise ValueError(f"flow_strides {self.flow_strides}: powers of two, coarse to fine, such as 4, 2")
        if not self.sigma_px > 0:
            raise ValueError(f"sigma_px {self.sigma_px}: give a positive number of places")
        if why := refused_parts(self.column_parts, self.methods):
            raise ValueError(why)
        self._check_base()

    def _check_base(self) -> None:
        if self.base not in BASES or self.encoders not in ENCODERS:
            raise ValueError(
                f"base is one of {', '.join(BASES)} and encoders one of {', '.join(ENCODERS)}, "
                f"not {self.base} and {self.encoders}"
            )
        if self.encoders == "view" and (self.base != "mvms" or not self.views):
            raise ValueError("encoders for each view are of base mvms and need fixed views: give a reference")
        if self.base == "mvms":
            if why := refused_over_mvms(self.methods):
                raise ValueError(why)
            if min(self.grid) < 1 or not 0 <= self.plane < self.heights:
                raise ValueError("mvms needs the rows and columns of the features and one of the heights")

    @property
    def camera_level(self) -> tuple[str, ...]:
        """Its methods that move features before projection."""
        return tuple(m for m in self.methods if m in CAMERA_LEVEL)

    @property
    def two_frames(self) -> bool:
        """Whether a method of it looks at each view's frame before, too."""
        return any(m in TWO_FRAMES for m in self.methods)

    @property
    def by_pair(self) -> bool:
        """Whether a flow network belongs to one pair of views."""
        return self.flow_nets == "pair" and any(m in (*CAMERA_LEVEL, *SCENE_LEVEL) for m in self.methods)

    @property
    def complete(self) -> bool:
        """Whether it answers only with all of `views` in their places."""
        return self.fusion == "concat" or self.by_pair

    @property
    def sent_channels(self) -> int:
        """Channels of a view's features on the wire: `mvms` sends all its scales."""
        return sent_channels(self.channels, self.grid) if self.base == "mvms" else self.channels

    @property
    def networks(self) -> int:
        """How many flow networks a method has."""
        return len(self.views) - 1 if self.by_pair else 1

    def as_dict(self) -> dict[str, object]:
        """Plain values, for checkpoints and manifests; what came later is left out where it is as before."""
        out: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _ALWAYS or value != field.default:
                out[field.name] = list(value) if isinstance(value, tuple) else value
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """What `as_dict` gave."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


def refused_parts(parts: tuple[str, ...], methods: tuple[str, ...]) -> str:
    """Why `column` cannot have these parts, in one line; "" if it can."""
    unknown = [part for part in parts if part not in COLUMN_PARTS]
    if unknown or len(set(parts)) < len(parts):
        what = f"do not know {', '.join(unknown)}" if unknown else "are named once each"
        return f"column_parts {what}; choose from {', '.join(COLUMN_PARTS)}"
    if parts and not {"column", *TWO_FRAMES} & set(methods):
        return "column_parts are of the methods column and column-2; methods has neither"
    if "column-2" in methods and (unfit := [part for part in parts if part not in MATCHER_PARTS]):
        return (
            f"column-2 has not {', '.join(unfit)}, and shares its matcher with column; "
            f"choose from {', '.join(MATCHER_PARTS)}, or train them apart"
        )
    return ""


def refused_over_mvms(methods: tuple[str, ...]) -> str:
    """Why MVMS cannot be the base of these methods, in one line; "" if it can."""
    unfit = [m for m in methods if m not in OVER_MVMS]
    if not unfit:
        return ""
    return f"{', '.join(unfit)} is not for base mvms; choose from {', '.join(OVER_MVMS)}"


_ALWAYS = frozenset({"methods", "channels", "levels", "heights", "width", "cell_m"})


def sound_strides(strides: tuple[int, ...]) -> bool:
    """Whether these are powers of two, each less than the one before."""
    powers = all(stride > 0 and stride & (stride - 1) == 0 for stride in strides)
    return bool(strides) and powers and list(strides) == sorted(set(strides), reverse=True)
