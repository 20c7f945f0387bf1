"""Checkpoints: a folder with `model.safetensors`, `optimiser.safetensors` and `state.json`. Never pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from viewsync.errors import UserError
from viewsync.nets.model import CountingModel, ModelConfig


def save_checkpoint(
    folder: Path, model: CountingModel, optimiser: torch.optim.Optimizer | None, state: Mapping[str, Any]
) -> None:
    """Write a checkpoint; `state.json` is moved into place last, so a folder that has it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "model.safetensors", {k: v.contiguous() for k, v in model.state_dict().items()})
    if optimiser is not None:
        _replace(folder / "optimiser.safetensors", _optimiser_tensors(model, optimiser))
    part = folder / "state.json.part"
    part.write_text(json.dumps({**state, "model": model.config.as_dict()}, indent=1))
    os.replace(part, folder / "state.json")


def load_state(folder: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint. Raises UserError, saying what to do, where there is none."""
    path = folder / "state.json"
    if not path.exists():
        raise UserError(
            f"{folder}: no checkpoint here (state.json is missing); train one with: viewsync train"
        )
    state: dict[str, Any] = json.loads(path.read_text())
    return state


def load_model(folder: Path) -> CountingModel:
    """The model of a checkpoint, in evaluation mode on the CPU."""
    sizes = load_state(folder)["model"]
    model = CountingModel(ModelConfig(**{**sizes, "methods": tuple(sizes["methods"])}))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def load_into(folder: Path, model: CountingModel, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Resume: weights and optimiser moments of `folder` into place; returns the state.

    Raises UserError if the checkpoint was made by a model of another shape.
    """
    state = load_state(folder)
    if state["model"] != model.config.as_dict():
        raise UserError(
            f"{folder}: this checkpoint is of another model ({state['model']}); use another --out folder"
        )
    model.load_state_dict(load_file(folder / "model.safetensors"))
    moments = load_file(folder / "optimiser.safetensors")
    for name, parameter in model.named_parameters():
        if f"{name}#step" in moments:
            optimiser.state[parameter] = {
                key: moments[f"{name}#{key}"].to(parameter.device)
                if key != "step"
                else moments[f"{name}#{key}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
    return state


def _optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            out[f"{name}#{key}"] = value.detach().cpu().contiguous()
    return out


def _replace(path: Path, tensors: dict[str, Tensor]) -> None:
    part = path.with_suffix(".part")
    save_file(tensors, part)
    os.replace(part, path)
