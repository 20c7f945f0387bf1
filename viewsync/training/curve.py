"""`curve.png` of a training run, drawn from its `log.csv`: losses, and what validation found."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

_CHECK = "validation."
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
# Single batches say little: where the log has many, so many points of means over them are drawn of a loss.
_POINTS = 40

Points = list[tuple[int, float]]


def draw_curve(run: Path) -> Path | None:
    """Draw the folder's log; None where there is nothing in it yet."""
    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {name: _points(rows, name) for name in (rows[0] if rows else ()) if name != "step"}
    columns = {name: points for name, points in columns.items() if points}
    if not columns:
        return None
    picture = Picture(figsize=(12.0, 3.6), layout="constrained")
    losses, mse, mae = picture.subplots(1, 3)
    together = max(1, len(rows) // _POINTS)
    told = {n: _smooth(p, together) for n, p in columns.items() if not n.startswith(_CHECK)}
    _draw(losses, told, f"losses, means of {together} logged steps" if together > 1 else "losses", True)
    for axes, kind, title in (
        (mse, "density_mse", "validation: density, squared error"),
        (mae, "mae", "validation: count, MAE, people"),
    ):
        ends = f".{kind}"
        found = {n[len(_CHECK) : -len(ends)]: p for n, p in columns.items() if n.endswith(ends)}
        _draw(axes, found, title, False)
    path = run / "curve.png"
    picture.savefig(path, format="png", dpi=100)
    return path


def _draw(axes: Axes, lines: dict[str, Points], title: str, logarithmic: bool) -> None:
    styles = ("-", "--", ":")
    for number, (name, points) in enumerate(lines.items()):
        colour, style = _COLOURS[number % len(_COLOURS)], styles[number // len(_COLOURS) % len(styles)]
        mark = None if logarithmic else "o"
        axes.plot(*zip(*points, strict=True), style, color=colour, label=name, marker=mark, ms=3, lw=1.2)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.grid(alpha=0.3)
    if logarithmic and any(value > 0 for points in lines.values() for _, value in points):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    if lines:
        axes.legend(fontsize=7, frameon=False)
    else:
        axes.text(0.5, 0.5, "none yet", ha="center", transform=axes.transAxes, color="#777777")


def _points(rows: Sequence[dict[str, str]], name: str) -> Points:
    return [(int(row["step"]), float(row[name])) for row in rows if row[name]]


def _smooth(points: Points, together: int) -> Points:
    """Means over consecutive points, each at the last of its steps; the last one may be of fewer."""
    parts = [points[k : k + together] for k in range(0, len(points), together)]
    return [(part[-1][0], math.fsum(value for _, value in part) / len(part)) for part in parts]
