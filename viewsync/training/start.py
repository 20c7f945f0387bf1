"""The weights that a run starts from: those of another run's checkpoint, as far as they fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from viewsync.errors import UserError
from viewsync.nets.heads import with_extra_evidence
from viewsync.nets.model import CountingModel
from viewsync.nets.two_frames import EXTRA_EVIDENCE
from viewsync.training.checkpoint import load_model


def start_from(model: CountingModel, folder: Path, frozen: bool) -> None:
    """Every weight that `folder` has in the same shape; the rest keep their random start. A head of
    `column-2` that `folder` has not starts as its head of `column`, blind to the evidence that only two
    frames give.

    Raises UserError where the encoder is to stay as it is (`frozen`) and `folder` has none of this shape.
    """
    known, own = load_model(folder).state_dict(), model.state_dict()
    known = _head_of_column(known, own) | known
    fitting = {k: v for k, v in known.items() if k in own and own[k].shape == v.shape}
    lacks = [name for name in own if name.startswith("encoder.") and name not in fitting]
    if frozen and lacks:
        raise UserError(
            f"{folder} has no encoder of this shape ({lacks[0]} is missing or of another size), so there is "
            "none to freeze; start_from a run of the same base, or set encoder to trained"
        )
    model.load_state_dict({**own, **fitting})


def _head_of_column(known: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a head of `column-2` made of those of the head of `column`, {} where either has none."""
    out: dict[str, Tensor] = {}
    for name in own:
        if not name.startswith("heads.column-2."):
            continue
        weight = known.get(name.replace("column-2", "column", 1))
        if weight is not None and name.endswith("fusion.mix.0.weight"):
            weight = with_extra_evidence(weight, EXTRA_EVIDENCE)
        if weight is not None:
            out[name] = weight
    return out
