"""The demo's screen: counts beside the truth, and how each view stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from viewsync.demo.score import NOT_SYNCHRONISED, REFERENCE_ONLY, Score
from viewsync.demo.truth import CameraPlan
from viewsync.prediction import Prediction, ViewReport

_LABELS = {NOT_SYNCHRONISED: "not synchronised", REFERENCE_ONLY: "reference only"}


@dataclass(frozen=True, slots=True)
class Heading:
    """What the first line says."""

    scene: str
    people: int
    seed: int


def label(graph: str) -> str:
    """How a graph is spoken of."""
    return _LABELS.get(graph, f"synchronised ({graph})" if graph else "synchronised")


def screen(
    heading: Heading,
    seconds: float,
    score: Score,
    plans: Mapping[str, CameraPlan],
    restarts: Mapping[str, int],
    note: str,
) -> RenderableType:
    """Everything as one rich renderable."""
    minutes, rest = divmod(int(seconds), 60)
    latency = score.latency_ms(50)
    first = Text.assemble(
        ("viewsync demo", "bold"),
        f"  {heading.scene}, {heading.people} people around, seed {heading.seed}, {minutes:02d}:{rest:02d}, ",
        f"{score.predictions} predictions",
        "" if latency is None else f", latency {latency / 1000:.1f} s",
    )
    parts: list[RenderableType] = [first, _counts(score), _views(score.last, plans)]
    died = ", ".join(f"{name} {times}×" for name, times in restarts.items() if times)
    if died:
        parts.append(Text(f"started again: {died}", "yellow"))
    parts.append(Text(note or "Ctrl-C stops.", "dim"))
    return Group(*parts)


def _counts(score: Score) -> Table:
    table = Table(expand=False)
    table.add_column("people in the region", min_width=22)
    table.add_column("now", justify="right", min_width=7)
    table.add_column("mean error", justify="right")
    truth = "…" if score.last_truth is None else str(score.last_truth)
    table.add_row(Text("truth", "bold"), Text(truth, "bold"), "")
    for graph in score.graphs:
        count = score.last.counts.get(graph) if score.last else None
        mae = score.mae(graph)
        table.add_row(
            label(graph), "…" if count is None else f"{count:.1f}", "…" if mae is None else f"{mae:.2f}"
        )
    return table


def _views(prediction: Prediction | None, plans: Mapping[str, CameraPlan]) -> Table:
    table = Table(expand=False)
    table.add_column("view")
    for name in ("fps", "its clock is off", "offset", "age", "mean warp"):
        table.add_column(name, justify="right")
    table.add_column("used")
    reports = {report.view: report for report in prediction.views} if prediction else {}
    for view, plan in plans.items():
        report = reports.get(view)
        used = "…" if report is None else "yes" if report.used else report.reason
        offset = _offset(report)
        if prediction is not None and view == prediction.reference:
            used, offset = "reference", ""
        table.add_row(
            view,
            f"{plan.schedule.fps:g}",
            f"{plan.clock.offset_s:+.1f} s",
            offset,
            "" if report is None or report.age_ns is None else f"{report.age_ns * 1e-9:.1f} s",
            "" if report is None or report.mean_warp_m is None else f"{report.mean_warp_m:.2f} m",
            used,
        )
    return table


def _offset(report: ViewReport | None) -> str:
    if report is None or report.offset_ns is None:
        return ""
    uncertainty = "" if not report.uncertainty_ns else f" ±{report.uncertainty_ns * 1e-9:.2f}"
    return f"{report.offset_ns * 1e-9:+.2f}{uncertainty} s"


def line(seconds: float, prediction: Prediction, truth: int | None) -> str:
    """One prediction on one line, where there is no terminal to draw on."""
    counts = ", ".join(f"{label(graph)} {count:.1f}" for graph, count in prediction.counts.items())
    views = "; ".join(
        f"{report.view} reference"
        if report.view == prediction.reference
        else f"{report.view} {_offset(report) if report.used else report.reason}"
        for report in prediction.views
    )
    there = "unknown" if truth is None else str(truth)
    return f"{seconds:6.1f} s  truth {there}  {counts}  [{views}]"
