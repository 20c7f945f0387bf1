"""What one training run is: every setting, with its unit and its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from calib.ground import person_plane
from calib.scene import Scene
from viewsync.config import Section
from viewsync.errors import UserError
from viewsync.nets.config import (
    ALL_METHODS,
    CAMERA_LEVEL,
    COLUMN_PARTS,
    METHODS,
    PLANE_LEVEL,
    SCENE_LEVEL,
    TWO_FRAMES,
    ModelConfig,
    refused_over_mvms,
    refused_parts,
    sound_strides,
)
from viewsync.nets.encoder import STRIDE
from viewsync.sim.rigs import RIGS
from viewsync.training.snapshots import Sampling

# Channels of the features, of mvms at each of its scales.
CHANNELS = {"ours": 16, "mvms": 32}
# Methods that learn from density maps alone.
WITHOUT_POSITIONS = ("none", "reference-only", *SCENE_LEVEL, "cls-cat", "cls-cor", "cls-epi")
# γ of the paper for counting, with each of the losses of the flow.
GAMMAS = {"none": 0.0, "warp": 1.0, "similarity": 1000.0}

Crowds = Annotated[tuple[int, int], Field(description="first crowd, one past the last")]


class TrainConfig(Section):
    """One training run."""

    scene: str = Field(
        "plaza", description="`plaza`, the path of a scene.yaml, or `rigs`: every number a rig"
    )
    layout: Literal["crowds", "authors-pets2009", "authors-citystreet"] = Field(
        "crowds", description="what data is: crowds, or a set of the paper as its authors distribute it"
    )
    data: Path = Field(description="folder of crowds made by `viewsync sim dataset`")
    methods: tuple[str, ...] = Field(METHODS, description="heads trained over one encoder")
    fusion: Literal["masked", "concat"] = Field(
        "masked", description="`concat`: the paper's, of all views in fixed places behind a fixed reference"
    )
    reference: str | None = Field(
        None, description="the view that always is the reference [any; with concat, the scene's first]"
    )
    base: Literal["ours", "mvms"] = Field(
        "ours", description="model around the synchroniser; mvms: the paper's"
    )
    encoders: Literal["shared", "view"] = Field(
        "shared", description="of mvms: one for all views or, where the reference is fixed, one for each"
    )
    flow_strides: tuple[int, ...] = Field(
        (4, 2),
        description="grids that cls-* estimate flow on, coarse to fine, in strides of the feature grid",
    )
    flow_nets: Literal["shared", "pair"] = Field(
        "shared", description="one flow network for all pairs of views or, with concat, one for each"
    )
    sigma_px: float = Field(16.0, gt=0, description="σ of cls-epi's weight, in places of the feature grid")
    column_parts: tuple[str, ...] = Field(
        (), description=f"what `column` is to have beyond the plain one: {', '.join(COLUMN_PARTS)}"
    )
    flow_loss: Literal["none", "warp", "similarity"] = Field(
        "none", description="ℓW, which needs synchronised frames, or ℓs, beside the task's loss"
    )
    gamma: float | None = Field(None, ge=0, description="weight of flow_loss [the paper's: 1 and 1000]")
    train_seeds: Crowds = Field((0, 400), description="crowds trained on")
    validation_seeds: Crowds = Field((400, 420), description="crowds that choose the best checkpoint")
    steps: int = Field(3000, gt=0)
    first_stage: float = Field(0.25, ge=0, le=1, description="share of the steps given to stage one")
    batch: int = Field(4, gt=0, description="snapshots per step; a snapshot has a frame of each view")
    learning_rate: float = Field(2e-3, gt=0, description="peak; warms up over 100 steps, then half a cosine")
    flow_rate: float = Field(
        0.1,
        gt=0,
        le=1,
        description="of learning_rate, what the flow networks of the paper's models get at most",
    )
    weight_decay: float = Field(1e-4, ge=0)
    partner: float = Field(0.2, ge=0, description="weight of the matcher's own loss")
    sparsity: float = Field(
        0.02, ge=0, description="weight of the mean feature value: fewer bytes on the wire"
    )
    kappa_s: float = Field(3.0, ge=0, description="offsets are drawn from ±κ seconds; 0: synchronised frames")
    tau_s: dict[str, float] | None = Field(
        None, description="constant offsets instead: seconds of each view, 0 for those not named"
    )
    offsets: Literal["sometimes", "known", "unknown"] = Field(
        "sometimes", description="whether the model is told them: `sometimes` withheld, always or never told"
    )
    before_s: tuple[float, ...] = Field(
        (1.0,),
        description="how far back column-2's frames before lie, seconds; one is drawn for each snapshot",
    )
    together_s: float = Field(0.05, gt=0, description="frames so near in time count as synchronised, seconds")
    validate_every: int = Field(250, gt=0, description="steps between validations and checkpoints")
    validation_snapshots: int = Field(60, gt=0)
    start_from: Path | None = Field(None, description="checkpoint whose weights to start from")
    encoder: Literal["trained", "frozen"] = Field(
        "trained",
        description="`frozen`: as in start_from; the features of every frame are computed once, at the start",
    )
    accelerator: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto`: a GPU where there is one"
    )
    devices: int = Field(1, gt=0, description="processes on each machine, one for each GPU")
    nodes: int = Field(1, gt=0, description="machines; under torchrun, its numbers of processes count")
    precision: Literal["auto", "32", "bf16"] = Field(
        "auto", description="of convolutions while they learn; `auto`: bf16 on a GPU"
    )
    threads: int = Field(2, gt=0, description="CPU threads of torch in a process; one more draws snapshots")
    seed: int = Field(0, ge=0)

    @field_validator("methods")
    @classmethod
    def _known(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [m for m in methods if m not in ALL_METHODS]
        if unknown or not methods or len(set(methods)) < len(methods):
            what = f"does not know {', '.join(unknown)}" if unknown else "needs at least one, each once"
            raise ValueError(f"{what}; choose from {', '.join(ALL_METHODS)}")
        return methods

    @field_validator("precision", mode="before")
    @classmethod
    def _bits(cls, precision: object) -> object:
        return str(precision) if precision == 32 else precision

    @field_validator("flow_strides")
    @classmethod
    def _sound(cls, strides: tuple[int, ...]) -> tuple[int, ...]:
        if not sound_strides(strides):
            raise ValueError("give powers of two, coarse to fine, such as [4, 2]")
        return strides

    @field_validator("before_s")
    @classmethod
    def _back(cls, before_s: tuple[float, ...]) -> tuple[float, ...]:
        if not before_s or min(before_s) <= 0:
            raise ValueError("give at least one positive number of seconds, such as [0.5, 1, 2]")
        return before_s

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.two_frames and self.fusion == "concat":
            raise ValueError("column-2 goes by capture times, which concat ignores; set fusion to masked")
        if self.flow_nets == "pair" and self.fusion != "concat":
            raise ValueError("flow_nets pair needs fixed views; set fusion to concat")
        if why := refused_parts(self.column_parts, self.methods):
            raise ValueError(why)
        if self.layout != "crowds" and (unfit := [m for m in self.methods if m not in WITHOUT_POSITIONS]):
            raise ValueError(
                f"{', '.join(unfit)} learns from positions, and {self.layout} has density maps only; "
                f"set methods, from {', '.join(WITHOUT_POSITIONS)}"
            )
        if self.mvms and (why := refused_over_mvms(self.methods)):
            raise ValueError(why)
        if self.encoders == "view" and (
            not self.mvms or (self.fusion == "masked" and self.reference is None)
        ):
            raise ValueError(
                "encoders view is for base mvms and fixed views; set reference, or fusion to concat"
            )
        if self.encoders == "view" and self.encoder == "frozen":
            raise ValueError("a frozen encoder is one for all views; set encoders to shared")
        moving = (*SCENE_LEVEL, *CAMERA_LEVEL, *PLANE_LEVEL)
        if self.flow_loss != "none" and not any(m in moving for m in self.methods):
            raise ValueError(
                f"flow_loss {self.flow_loss} is for {', '.join(moving)}; methods has none of them"
            )
        if self.gamma is not None and self.flow_loss == "none":
            raise ValueError("gamma is the weight of a flow_loss; set flow_loss to warp or similarity")
        if self.scene == RIGS and (
            self.fusion == "concat" or self.reference is not None or self.tau_s is not None
        ):
            raise ValueError("rigs have no views of fixed names: no fusion concat, reference or tau_s")
        if self.scene == RIGS and self.flow_loss == "warp":
            raise ValueError("flow_loss warp needs synchronised frames, which rigs have none of")
        if self.encoder == "frozen" and (self.start_from is None or self.no_answers):
            raise ValueError("a frozen encoder is one that start_from has, under answers: lower first_stage")
        return self

    @model_validator(mode="after")
    def _apart(self) -> Self:
        for name, (first, end) in (
            ("train_seeds", self.train_seeds),
            ("validation_seeds", self.validation_seeds),
        ):
            if not 0 <= first < end:
                raise ValueError(f"{name} must be first crowd and one past the last, such as [0, 400]")
        if max(self.train_seeds[0], self.validation_seeds[0]) < min(
            self.train_seeds[1], self.validation_seeds[1]
        ):
            raise ValueError("train_seeds and validation_seeds share crowds; a crowd is for one of them only")
        return self

    @property
    def no_answers(self) -> bool:
        """Stage one is all there is: an encoder and a matcher for other runs to start from."""
        return self.first_stage == 1

    @property
    def reference_alone(self) -> bool:
        """Only the reference view is ever looked at, so every frame of a snapshot can be one."""
        return self.methods == ("reference-only",)

    @property
    def two_frames(self) -> bool:
        """Whether each view's frame before is looked at, too."""
        return any(m in TWO_FRAMES for m in self.methods)

    @property
    def flow_weight(self) -> float:
        """γ (paper, Eq. 9, 21)."""
        return GAMMAS[self.flow_loss] if self.gamma is None else self.gamma

    @property
    def reach_s(self) -> float:
        """The largest offset from a reference in training, seconds; of synchronised frames `together_s`."""
        if self.tau_s is None:
            return self.kappa_s or self.together_s
        offsets = (*self.tau_s.values(), 0.0)
        return max(offsets) - min(offsets)

    def slots(self, views: Sequence[str]) -> tuple[str, ...]:
        """Which of a scene's `views` each slot holds, where the reference is fixed, else (). Raises UserError
        for a view that the scene has not.
        """
        named = [*(self.tau_s or {}), *([] if self.reference is None else [self.reference])]
        unknown = [view for view in named if view not in views]
        if unknown:
            raise UserError(f"scene {self.scene} has no view {unknown[0]}; it has {', '.join(views)}")
        if self.reference is None and self.fusion == "masked":
            return ()
        first = self.reference or views[0]
        return (first, *(view for view in views if view != first))

    def model(self, scene: Scene) -> ModelConfig:
        """Sizes of the model for `scene`."""
        views = tuple(scene.cameras)
        camera = scene.cameras[views[0]]
        return ModelConfig(
            methods=self.methods,
            heights=len(scene.heights_m),
            cell_m=scene.ground.cell_m,
            fusion=self.fusion,
            views=self.slots(views),
            grid=(-(-camera.height // STRIDE), -(-camera.width // STRIDE)) if self._fixes_grid else (0, 0),
            flow_strides=self.flow_strides,
            flow_nets=self.flow_nets,
            sigma_px=self.sigma_px,
            column_parts=self.column_parts,
            base=self.base,
            encoders=self.encoders,
            channels=CHANNELS[self.base],
            plane=person_plane(scene.heights_m) if self.mvms else 0,
        )

    def sampling(self, views: Sequence[str], labels: bool = True) -> Sampling:
        """How snapshots of a scene with these views are drawn; without `labels` they need no synchronised
        frames to learn from.
        """
        slots = self.slots(views)
        sampling = Sampling(
            self.kappa_s if labels else self.reach_s,
            tau_s=None if self.tau_s is None else tuple(self.tau_s.get(view, 0.0) for view in views),
            reference=list(views).index(slots[0]) if slots else None,
            synchronous=labels and self.flow_loss == "warp",
            together_s=self.together_s,
            before_s=self.before_s if self.two_frames else (),
        )
        concat = self.fusion == "concat"
        told = {"known": 0.0, "unknown": 1.0, "sometimes": 0.0 if concat else sampling.unknown}
        return replace(sampling, drop=0.0 if concat else sampling.drop, unknown=told[self.offsets])

    @property
    def mvms(self) -> bool:
        """Whether the base model is MVMS."""
        return self.base == "mvms"

    @property
    def _fixes_grid(self) -> bool:
        return self.mvms or any(m in CAMERA_LEVEL for m in self.methods)


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as `model_dump` gives them, to be read on other machines: of an absolute path its name."""
    return {
        key: PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
        for key, value in config.items()
    }
