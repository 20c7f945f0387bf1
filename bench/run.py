"""All rows in order, and the machine that they were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from bench.compute import extraction, hub_steps, message_bytes
from bench.frames import render, rendering_row
from bench.links import link_rows
from bench.memory import memory_rows
from bench.methods import method_rows
from bench.page import page_row
from bench.path import path_row
from bench.rows import GROUPS, Row
from bench.runtimes import runtime_rows
from bench.training import training_rows
from bench.wildtrack import wildtrack_rows
from viewsync.bundle import Bundle
from viewsync.ort import Provider


@dataclass(frozen=True, slots=True)
class Settings:
    """frames: rendered, of all views together; answers: of the hub to a subscriber; seconds: that the demo
    whose memory is measured goes on; groups: of `rows.GROUPS`, those to measure.
    """

    bundle: Path
    provider: Provider = "cpu"
    frames: int = 102
    answers: int = 60
    seconds: float = 10.0
    groups: Collection[str] = GROUPS


def measure(settings: Settings, say: Callable[[str], None]) -> list[Row]:
    """One run. `say` is told what is being measured. Raises UserError, BundleError, InternalError."""
    cv2.setNumThreads(1)  # "one core" means one; what runs on two says so itself
    bundle = Bundle.load(settings.bundle)
    rows: list[Row] = []
    wanted = set(settings.groups)
    say("rendering frames")
    frames = render(bundle.scene, bundle.manifest.views, settings.frames)
    if wanted & {"edge", "hub", "bytes"}:
        say("extraction")
        row, tensors = extraction(bundle, frames.seen)
        if "edge" in wanted:
            rows.append(row)
        if "bytes" in wanted:
            rows.append(message_bytes(bundle, frames.seen, tensors))
        if "hub" in wanted:
            say("answers of the hub")
            rows += hub_steps(bundle, tensors, settings.provider)
    if "path" in wanted:
        say("the way from a frame to a subscriber")
        rows.append(path_row(bundle, frames.seen, settings.answers))
    if "memory" in wanted:
        say("memory of agents and hub")
        rows += memory_rows(bundle, settings.seconds)
    if "torch" in wanted:
        say("ONNX Runtime beside torch")
        rows += runtime_rows(bundle, settings.frames // len(frames.seen))
    if "method" in wanted:
        say("methods of synchronisation")
        rows += method_rows(max(3, min(5, settings.answers)))
    if "train" in wanted:
        say("a training step with each method")
        cuda = settings.provider == "cuda"
        rows += training_rows(bundle.scene, settings.frames, min(3, settings.answers), cuda)
    if "sim" in wanted:
        rows.append(rendering_row(frames))
    if "link" in wanted:
        say("the laboratory's user-space link")
        rows += link_rows(min(settings.seconds, 5.0))
    if "page" in wanted:
        say("the calibration page's reaction to a click")
        rows.append(page_row(bundle.scene, frames.seen, settings.answers))
    if "refine" in wanted:
        say("refining WILDTRACK's cameras")
        rows += wildtrack_rows(min(3, settings.answers))
    return rows


def machine(bundle: Path) -> dict[str, Any]:
    """What the figures depend on. load: programs that wanted a core in the last minute, on average."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "onnxruntime": _version("onnxruntime-gpu", "onnxruntime"),
        "torch": _version("torch"),
        "bundle": Bundle.load(bundle).hash[:12],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(*names: str) -> str | None:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
