"""What `manifest.yaml` of a bundle says, schema 1: the contract between export, edge and hub, as types.

Frozen and strict: an unknown key is an error. The file's text form and the hashes over it are bundle.py's
business.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

import pydantic
from pydantic import ConfigDict, Field

SCHEMA: Final = 1

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
FileName = Name  # plain: no folder, no leading dot, so that nothing outside the bundle can be named
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=1, le=65_536)]


class _Part(pydantic.BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class TensorSpec(_Part):
    """One tensor of a graph. A side is a number, or the name of a dynamic one (`V`)."""

    shape: Annotated[tuple[Side | Name, ...], Field(strict=False)]
    dtype: Literal["uint8", "float16", "float32", "int64"]


class NamedTensor(TensorSpec):
    name: Name


class Encoder(_Part):
    """`encoder.onnx`: image uint8 [1, H, W, 3] RGB to features uint8 [1, C, h, w] with values 0 … levels − 1.

    Normalising and quantising happen inside the graph.
    """

    file: FileName
    input: NamedTensor
    output: NamedTensor


class Preprocessing(_Part):
    """What the agent makes of a decoded frame: the view's pinhole camera at this size, undistorted, RGB."""

    width: Side
    height: Side
    colour: Literal["rgb"] = "rgb"


class Features(_Part):
    """One view's features on the wire; the hub reads value q as low + q·(high − low) / (levels − 1)."""

    channels: Side
    height: Side
    width: Side
    stride: Annotated[int, Field(ge=1, le=64)]
    levels: Annotated[int, Field(ge=2, le=256)]
    low: float
    high: float

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class Fusion(_Part):
    """One fusion graph. `masked`: any reference, any subset of views. `concat`: the manifest's views, all,
    in order.

    `synchroniser` names the method for people ("column", "none", "reference-only", ...). `inputs` are those
    the graph takes, of features, present, offset_s, view_from_ground, fundamental, ...; `outputs` has at
    least density.
    """

    file: FileName
    fusion: Literal["masked", "concat"]
    synchroniser: Name
    inputs: dict[Name, TensorSpec]
    outputs: dict[Name, TensorSpec]

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Self:
        if "features" not in self.inputs:
            raise ValueError("inputs must have features")
        if "density" not in self.outputs:
            raise ValueError("outputs must have density")
        return self


class Offset(_Part):
    """Capture-time offsets from the reference that training covered (± trained_s), and the value for "not
    known".
    """

    trained_s: Annotated[float, Field(gt=0)]
    unknown_s: float


class Hashes(_Part):
    """SHA-256 of every file beside the manifest, of each view's features (travels in messages), of
    everything.
    """

    files: dict[FileName, Sha256]
    features: dict[Name, Sha256]
    bundle: Sha256


class Manifest(_Part):
    """The whole of manifest.yaml."""

    manifest_schema: Literal[1] = Field(alias="schema")
    wire: Literal[1]
    name: Name
    task: Literal["count"]
    views: Annotated[tuple[Name, ...], Field(strict=False, min_length=1, max_length=64)]
    references: Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
    encoder: Encoder
    preprocessing: Preprocessing
    features: Features
    fusion: Annotated[dict[Name, Fusion], Field(min_length=1)]
    default: Name
    offset: Offset
    training: dict[str, Any]
    accuracy: dict[str, Any]
    hashes: Hashes

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.views)) != len(self.views):
            raise ValueError("views names a view twice")
        unknown = [view for view in self.references if view not in self.views]
        if unknown:
            raise ValueError(f"references has {', '.join(unknown)}, which views has not")
        if self.default not in self.fusion:
            raise ValueError(f"default is {self.default}, fusion has {', '.join(self.fusion)}")
        image = (1, self.preprocessing.height, self.preprocessing.width, 3)
        features = (1, self.features.channels, self.features.height, self.features.width)
        for what, tensor, shape in (
            ("input", self.encoder.input, image),
            ("output", self.encoder.output, features),
        ):
            if (tensor.shape, tensor.dtype) != (shape, "uint8"):
                raise ValueError(
                    f"encoder.{what} must be uint8 {list(shape)}, as preprocessing and features say"
                )
        stride = self.features.stride
        sides = (-(-self.preprocessing.height // stride), -(-self.preprocessing.width // stride))
        if sides != features[2:]:
            raise ValueError(f"features must be {sides[0]} rows by {sides[1]} columns at stride {stride}")
        if set(self.hashes.features) != set(self.views):
            raise ValueError("hashes.features must have exactly the views")
        try:
            sound = all(back > 0 for back in self.before_s)
        except (AttributeError, TypeError, ValueError):
            sound = False
        if not sound:
            raise ValueError("training.config.before_s must be a list of seconds, each above 0")
        return self

    @property
    def before_s(self) -> tuple[float, ...]:
        """How far back the frames before lay in training, seconds; () where that is not told."""
        return tuple(map(float, self.training.get("config", {}).get("before_s", ())))
