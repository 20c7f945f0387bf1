"""The rows as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bench.rows import Row


def table(rows: Sequence[Row], machine: Mapping[str, Any]) -> Table:
    """Figure, promise and whether it holds; times by the wall clock, processor time beside them."""
    loads = f"load {machine['load']} before, {machine['load_after']} after"
    made = Table(
        title=f"{machine['processor']}, {machine['cores']} cores, {loads}; medians of one run",
        caption=f"bundle {machine['bundle']}, onnxruntime {machine['onnxruntime']}, torch {machine['torch']}",
        box=box.MARKDOWN,
    )
    made.add_column("measured", overflow="fold")
    for heading in ("figure", "processor time", "promise"):
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("holds", no_wrap=True)
    made.add_column("beside, in turn", overflow="fold")
    made.add_column("samples", justify="right")
    for row in rows:
        made.add_row(
            row.what,
            "skipped" if row.figure is None else _figure(row),
            "" if row.processor is None else f"{_number(row.processor)} {row.unit}",
            "" if row.promise is None else f"{row.promise} {row.unit}",
            _holds(row),
            row.skipped or ("" if row.ratio is None else f"{row.ratio:.2f} × {row.beside}"),
            str(row.samples) if row.samples else "",
        )
    return made


def _figure(row: Row) -> str:
    assert row.figure is not None
    p99 = row.facts.get("p99_ms")
    tail = "" if p99 is None else f" (p99 {_number(float(p99))})"
    return f"{_number(row.figure)} {row.unit}{tail}"


def _holds(row: Row) -> Text:
    if row.holds is None:
        return Text("")
    if row.holds:
        return Text("yes", "green")
    return Text("by processor time", "yellow") if row.holds_by_processor else Text("NO", "bold red")


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
