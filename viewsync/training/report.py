"""What an evaluation found, as plain values for JSON and the manifest, and as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from viewsync.training.evaluate import Evaluation
from viewsync.training.metrics import LOCATE_M, Scores

_COLUMNS = {
    "mae": ("MAE", 2),
    "nae": ("NAE", 3),
    "density_mse": ("density MSE", 3),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "f1": ("F1", 3),
}


def document(
    evaluation: Evaluation,
    default: str,
    protocol: Mapping[str, Any],
    measured: Mapping[str, Any],
    draws: int = 1000,
) -> dict[str, Any]:
    """Everything worth keeping of an evaluation, as JSON values.

    default: the graph whose differences to every other one are told (its value minus theirs, same snapshots).
    protocol: how it was measured; measured: what (hashes of the files).
    """
    some: Scores = next(iter(evaluation.scores.values()))
    return {
        "protocol": {
            **protocol,
            **({} if evaluation.grouped == "crowds" else {"grouped": evaluation.grouped}),
            "snapshots": len(some.true),
            "crowds": len(np.unique(some.crowd)),
            "mean_people": round(float(some.true.mean()), 2),
            "mean_offset_s": round(float(np.abs(evaluation.offsets_s).mean()), 2),
            "located_within_m": LOCATE_M,
            "intervals": f"95 %, bootstrap over {evaluation.grouped}",
        },
        "graphs": evaluation.table(draws),
        "differences": {default: evaluation.differences(default, draws)},
        "thresholds": {graph: round(value, 5) for graph, value in evaluation.thresholds.items()},
        "measured": dict(measured),
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The document as a Markdown table, its differences and one line about how it was measured."""
    names = [name for name, _ in _COLUMNS.values()]
    rows = [f"| graph | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for graph, values in found["graphs"].items():
        cells = (interval(values[key], digits) for key, (_, digits) in _COLUMNS.items())
        rows.append(f"| {graph} | {' | '.join(cells)} |")
    rows.append("")
    for ours, others in found["differences"].items():
        for theirs, values in others.items():
            cells = (_named(key, value, sign="+") for key, value in values.items())
            rows.append(f"- {ours} − {theirs}: {', '.join(cells)}")
    how = found["protocol"]
    rows += [
        "",
        f"{how['snapshots']} snapshots of {how['crowds']} unseen {how.get('grouped', 'crowds')}, "
        f"{how['mean_people']:.0f} people on average, other views off by {how['mean_offset_s']:.1f} s on "
        f"average (up to {how['kappa_s']:g} s); "
        f"in brackets: {how['intervals']}; located within {how['located_within_m']} m.",
    ]
    return "\n".join(rows)


def text(found: Mapping[str, Any]) -> str:
    """The document as lines for a terminal."""
    width = max(len(graph) for graph in found["graphs"])
    lines = []
    for graph, values in found["graphs"].items():
        cells = (_named(key, values[key]) for key in ("mae", "nae", "density_mse", "f1"))
        lines.append(f"{graph:{width}}  {'  '.join(cells)}")
    return "\n".join(lines)


def _named(key: str, value: Mapping[str, float], sign: str = "") -> str:
    return f"{_COLUMNS[key][0]} {interval(value, _COLUMNS[key][1], sign)}"


def interval(value: Mapping[str, float], digits: int, sign: str = "") -> str:
    """A value with its 95 % interval, such as 1.23 [1.10, 1.36]; sign "+" shows it always."""
    middle, low, high = (f"{value[part]:{sign}.{digits}f}" for part in ("value", "low", "high"))
    return f"{middle} [{low}, {high}]"
