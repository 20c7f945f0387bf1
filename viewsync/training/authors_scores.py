"""Errors of the count on the authors' test sequences, where positions are in no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from viewsync.training.authors_shots import AuthorsShots
from viewsync.training.evaluate import Evaluation, answer
from viewsync.training.metrics import Scores
from viewsync.training.report import document, interval
from viewsync.training.runners import Runner

# What needs positions.
LOCATING = ("precision", "recall", "f1")
NOT_LOCATED = "F1 is not available: the authors' files have density maps, no positions"


def evaluate_authors(
    runner: Runner,
    shots: AuthorsShots,
    frames: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Scores of every answer on up to `frames` snapshots; nobody is located, and groups are stretches."""
    total = min(frames, len(shots))
    answers = answer(runner, shots.spread(frames), total, progress)
    scores = {}
    for graph in runner.graphs:
        rows = []
        for a in answers:
            assert a.shot.maps is not None
            density, true = a.density[graph], a.shot.maps.ground
            error = float(((density - true) ** 2).sum())
            rows.append((float(density.sum()), float(true.sum()), error, 0.0, 0.0, a.group))
        predicted, count, squared, matched, located, group = np.array(rows, dtype=np.float64).T
        scores[graph] = Scores(predicted, count, squared, matched, located, group.astype(np.int64))
    offsets = np.concatenate([a.shot.true_offset_s[1:] for a in answers]).astype(np.float64)
    return Evaluation(scores, {}, offsets)


def authors_document(
    evaluation: Evaluation, default: str, protocol: Mapping[str, Any], measured: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything worth keeping, as JSON values; what needs positions is left out."""
    found = document(evaluation, default, {**protocol, "locating": NOT_LOCATED}, measured)
    del found["protocol"]["located_within_m"]
    found["protocol"]["intervals"] = "95 %, bootstrap over stretches of the sequences"
    tables = (*found["graphs"].values(), *(d for o in found["differences"].values() for d in o.values()))
    for values in tables:
        for name in LOCATING:
            values.pop(name, None)
    return found


def authors_text(found: Mapping[str, Any]) -> str:
    """The document as lines for a terminal."""
    width = max(len(graph) for graph in found["graphs"])
    names = (("mae", "MAE", 2), ("nae", "NAE", 3), ("density_mse", "density MSE", 3))
    lines = []
    for graph, values in found["graphs"].items():
        cells = (f"{name} {interval(values[key], digits)}" for key, name, digits in names)
        lines.append(f"{graph:{width}}  {'  '.join(cells)}")
    return "\n".join([*lines, NOT_LOCATED])
