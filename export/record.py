"""What the manifest records of training and accuracy, and whether the two are of the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calib.scene import Scene
from viewsync.errors import UserError
from viewsync.sim.rigs import RIGS
from viewsync.training.config import without_places


def training_record(state: Mapping[str, Any], scene: Scene) -> dict[str, Any]:
    """How a checkpoint (its `state.json`) came about, for `manifest.training`: commands, settings, step.

    Only names of folders are kept, not where they were on somebody's machine.
    """
    runs = [*state.get("before", []), state]
    plain = [{**run, "config": without_places(run["config"])} for run in runs]
    config = plain[-1]["config"]
    place = scene.name if config["scene"] == RIGS else config["scene"]
    return {
        "scene": scene.name,
        "commands": [
            *dict.fromkeys(_made(run) for run in plain),
            "viewsync train --config CONFIG --out RUN, each of `before` in order, then CONFIG",
            f"viewsync export --checkpoint RUN/best --scene {place} --out BUNDLE",
        ],
        "before": plain[:-1],
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


def _made(run: Mapping[str, Any]) -> str:
    """The command that makes what a run learned from."""
    config = run["config"]
    first = min(config["train_seeds"][0], config["validation_seeds"][0])
    end = max(config["train_seeds"][1], config["validation_seeds"][1])
    if config["scene"] == RIGS:
        return f"viewsync sim rigs --out {config['data']} --rigs {first}:{end}"
    if config.get("layout", "crowds") != "crowds":
        return f"viewsync data check {config['layout'].removeprefix('authors-')} {config['data']}"
    made = f"viewsync sim dataset --scene {config['scene']} --out {config['data']} --crowds {first}:{end}"
    return f"{made} {run['filmed']}" if run.get("filmed") else made
