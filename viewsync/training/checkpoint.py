"""Checkpoints: a folder with `model.safetensors`, `optimiser.safetensors` and `state.json`. Never pickle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from viewsync.errors import UserError
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.training.config import TrainConfig

# Settings that may differ when a run goes on: where its data lie now, and what computes it.
FREE = ("data", "threads", "accelerator", "devices", "nodes")


def save_checkpoint(
    folder: Path, model: CountingModel, optimiser: torch.optim.Optimizer | None, state: Mapping[str, Any]
) -> None:
    """Write a checkpoint; the folder is replaced whole, so that what is there is never half of two.

    Raises UserError where it cannot be written; the one that was there stays.
    """
    fresh, old = folder.with_name(folder.name + ".new"), _aside(folder)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, fresh / "model.safetensors")
        if optimiser is not None:
            save_file(_optimiser_tensors(model, optimiser), fresh / "optimiser.safetensors")
        (fresh / "state.json").write_text(json.dumps({**state, "model": model.config.as_dict()}, indent=1))
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise UserError(
            f"{folder}: the checkpoint cannot be written ({error}); free some space, then train on: "
            "the last one is kept"
        ) from error
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint in `folder`."""
    return (_present(folder) / "state.json").exists()


def load_state(folder: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint. Raises UserError, saying what to do, where there is none."""
    path = _present(folder) / "state.json"
    try:
        state: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no checkpoint here (state.json is missing); train one with: viewsync train"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); use another checkpoint or train again") from error
    return state


def load_model(folder: Path) -> CountingModel:
    """The model of a checkpoint, in evaluation mode on the CPU. Raises UserError."""
    model = CountingModel(ModelConfig.from_dict(load_state(folder)["model"]))
    model.load_state_dict(_read(_present(folder) / "model.safetensors"))
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
    model.load_state_dict(_read(_present(folder) / "model.safetensors"))
    moments = _read(_present(folder) / "optimiser.safetensors")
    for name, parameter in model.named_parameters():
        if f"{name}#step" in moments:
            optimiser.state[parameter] = {
                key: moments[f"{name}#{key}"].to(parameter.device)
                if key != "step"
                else moments[f"{name}#{key}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
    return state


def check_same_run(folder: Path, config: TrainConfig, elsewhere: str = "another --out folder") -> None:
    """Refuse, with a UserError that names a setting, to go on with a checkpoint of another configuration.
    What a checkpoint does not tell, since the setting came later, was as it is by default.
    """
    check_same_settings(folder, load_state(folder).get("config", {}), config, elsewhere)


def check_same_settings(
    folder: Path,
    before: Mapping[str, Any],
    config: TrainConfig,
    elsewhere: str,
    free: Collection[str] = FREE,
) -> None:
    """`check_same_run` of what is in `folder`, trained with the settings `before`, of which `free` may
    differ.
    """
    usual = TrainConfig.model_validate({"data": config.data}).model_dump(mode="json")
    for key, value in config.model_dump(mode="json").items():
        was = before.get(key, usual[key])
        if key not in free and was != value:
            raise UserError(
                f"{folder} was trained with {key} {was}, now it is {value}; "
                f"use {elsewhere}, or the same settings to go on"
            )


def check_fresh(out: Path) -> None:
    """Refuse, with a UserError, to begin a run in a folder that holds another one without a whole `last`."""
    there = [folder.name for folder in (out / "last", out / "best") if _present(folder).exists()]
    if there:
        raise UserError(
            f"{out}: there is {' and '.join(there)} of a run, but no last/state.json to go on from; "
            "use another --out folder, or move these away"
        )


def _optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            out[f"{name}#{key}"] = value.detach().cpu().contiguous()
    return out


def _aside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


def _present(folder: Path) -> Path:
    """The folder, or what it was before, if the machine stopped while it was replaced."""
    return folder if folder.exists() or not _aside(folder).exists() else _aside(folder)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); use another checkpoint or train again") from error
