"""What one training run is: every setting, with its unit and its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from viewsync.config import Section
from viewsync.nets.model import METHODS

Crowds = Annotated[tuple[int, int], Field(description="first crowd, one past the last")]


class TrainConfig(Section):
    """One training run."""

    scene: str = Field("plaza", description="`plaza` or the path of a scene.yaml")
    data: Path = Field(description="folder of crowds made by `viewsync sim dataset`")
    methods: tuple[str, ...] = Field(METHODS, description="heads trained over one encoder")
    train_seeds: Crowds = Field((0, 400), description="crowds trained on")
    validation_seeds: Crowds = Field((400, 420), description="crowds that choose the best checkpoint")
    steps: int = Field(3000, gt=0)
    first_stage: float = Field(0.25, ge=0, le=1, description="share of the steps given to stage one")
    batch: int = Field(4, gt=0, description="snapshots per step; a snapshot has a frame of each view")
    learning_rate: float = Field(2e-3, gt=0, description="peak; warms up over 100 steps, then half a cosine")
    weight_decay: float = Field(1e-4, ge=0)
    partner: float = Field(0.2, ge=0, description="weight of the matcher's own loss")
    sparsity: float = Field(
        0.02, ge=0, description="weight of the mean feature value: fewer bytes on the wire"
    )
    kappa_s: float = Field(3.0, gt=0, description="offsets are drawn from ±κ seconds")
    validate_every: int = Field(250, gt=0, description="steps between validations and checkpoints")
    validation_snapshots: int = Field(60, gt=0)
    start_from: Path | None = Field(None, description="checkpoint whose weights to start from")
    threads: int = Field(2, gt=0, description="CPU threads for torch; one more thread draws snapshots")
    seed: int = Field(0, ge=0)

    @field_validator("methods")
    @classmethod
    def _known(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [m for m in methods if m not in METHODS]
        if unknown or not methods or len(set(methods)) < len(methods):
            what = f"does not know {', '.join(unknown)}" if unknown else "needs at least one, each once"
            raise ValueError(f"{what}; choose from {', '.join(METHODS)}")
        return methods

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
