"""What the manifest records of training and accuracy, and whether the two are of the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from calib.scene import Scene
from viewsync.errors import UserError
from viewsync.sim.rigs import RIGS


def training_record(state: Mapping[str, Any], scene: Scene) -> dict[str, Any]:
    """How a checkpoint (its `state.json`) came about, for `manifest.training`: commands, settings, step.

    Only names of folders are kept, not where they were on somebody's machine.
    """
    config = _plain_config(state["config"])
    first = min(config["train_seeds"][0], config["validation_seeds"][0])
    end = max(config["train_seeds"][1], config["validation_seeds"][1])
    made = f"viewsync sim dataset --scene {config['scene']} --out {config['data']} --crowds {first}:{end}"
    if state.get("filmed"):
        made += f" {state['filmed']}"
    place = config["scene"]
    if config["scene"] == RIGS:
        made, place = f"viewsync sim rigs --out {config['data']} --rigs {first}:{end}", scene.name
    if config.get("layout", "crowds") != "crowds":
        made = f"viewsync data check {config['layout'].removeprefix('authors-')} {config['data']}"
    return {
        "scene": scene.name,
        "commands": [
            made,
            "viewsync train --config CONFIG --out RUN, each of `before` in order, then CONFIG",
            f"viewsync export --checkpoint RUN/best --scene {place} --out BUNDLE",
        ],
        "before": [{**run, "config": _plain_config(run["config"])} for run in state.get("before", [])],
        "config": config,
        "model": dict(state["model"]),
        "seeds": {
            "train": config["train_seeds"],
            "validation": config["validation_seeds"],
            "weights_and_snapshots": config["seed"],
        },
        "steps": config["steps"],
        "best_step": state["step"],
        "validation": state["validation"],
    }


def check_measured(document: Mapping[str, Any], files: Mapping[str, str], where: str) -> None:
    """Raise UserError where a document of accuracy is of other ONNX files than `files` (name → SHA-256)."""
    for name, digest in document["measured"].get("files", {}).items():
        if files.get(name) != digest:
            raise UserError(
                f"{where} was measured on another {name} than this export's; "
                "measure this export again with: viewsync evaluate --bundle"
            )


def _plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in config.items()}


def _plain(value: Any) -> Any:
    """An absolute path by its name; everything else as it is."""
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return value
