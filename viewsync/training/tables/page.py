"""A table as Markdown and as a picture, beside the paper's own numbers.

A cell is a number only where its run is finished, measured, and its learning curve has flattened; else it
says `not run` or `not converged`.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Patch

from viewsync.sim.real_sets import named
from viewsync.training.metrics import METRICS, Scores, count_error, mae, nae
from viewsync.training.tables.cell import Result
from viewsync.training.tables.closure import CLOSURE_METRICS, Figure, Runs, figures, gain, gap, prize
from viewsync.training.tables.grid import LATENCIES, SETS, TABLES, Cell, Row, Table

NOT_RUN, NOT_CONVERGED = "not run", "not converged"
_PAPER, _HERE = "#bbbbbb", "#0072b2"
_PANELS_ACROSS = 4
_METRIC_NAMES = {"mae": "MAE", "density_mse": "density MSE", "f1": "F1"}
_DIGITS = {"mae": 2, "density_mse": 3, "f1": 3}

Results = Mapping[str, Sequence[Result]]  # folder of a cell -> what there is, a result for each seed begun


def runs_of(results: Results, cell: Cell) -> Runs | str:
    """The scores of every seed of a cell, or why there is no number."""
    there = results.get(cell.folder, ())
    if not there:
        return NOT_RUN
    scores = [r.scores for r in there if r.converged and r.scores is not None]
    return scores if len(scores) == len(there) else NOT_CONVERGED


def number(results: Results, cell: Cell) -> str:
    """MAE / NAE of a cell, mean over its seeds, ± the standard deviation where there are several."""
    runs = runs_of(results, cell)
    if isinstance(runs, str):
        return runs
    cells = []
    for metric, digits in ((mae, 2), (nae, 3)):
        values = [metric(scores) for scores in runs]
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.{digits}f}{spread}")
    return " / ".join(cells)


def markdown(table: Table, results: Results, sets: Sequence[str] = SETS) -> str:
    """The table, then for each set and latency what each method errs by and gains over BaseU, the prize, and
    how much of the gap each method closes.
    """
    columns = [(data_set, latency) for data_set in sets for latency in LATENCIES]
    heads = [f"{data_set} {latency} | paper" if _has_paper(data_set) else f"{data_set} {latency}"
             for data_set, latency in columns]  # fmt: skip
    lines = [f"| method | trained with | {' | '.join(heads)} |"]
    lines.append("| --- " * (2 + sum(1 + _has_paper(s) for s, _ in columns)) + "|")
    for row in TABLES[table]:
        cells = []
        for data_set, latency in columns:
            cells.append(number(results, Cell(table, data_set, latency, row)))
            if _has_paper(data_set):
                cells.append(_paper(row, data_set, latency))
        lines.append(f"| {row.name} | {row.loss} | {' | '.join(cells)} |")
    lines += ["", *_trained_with(table, results, columns)]
    lines += ["", "MAE / NAE of the count; the paper's are of real pictures."]
    measured = {where: _on_same_frames(_measured(table, results, *where)) for where in columns}
    for (data_set, latency), (found, others) in measured.items():
        if found:
            lines += ["", f"{data_set}, {latency}:", "", *_beside(found)]
        if others:
            lines += ["", f"Measured on other frames (--frames), and not compared: {', '.join(others)}."]
    if any(found for found, _ in measured.values()):
        lines += [
            "",
            "Count − truth: mean ± standard deviation over snapshots. [ ]: 95 %, over stretches and seeds.",
        ]
    unknown = []
    for (data_set, latency), (found, _) in measured.items():
        if "reference-only (bound)" in found and "synchronised" in found:
            lines += ["", f"{data_set}, {latency}, prize and gap closure:", "", *_worth(found)]
        else:
            unknown.append(f"{data_set} {latency}")
    if unknown:
        lines += ["", f"The prize is {NOT_RUN}: {', '.join(unknown)}."]
    return "\n".join(_wrapped(lines))


def _wrapped(lines: Sequence[str]) -> list[str]:
    """Lines of prose that are no longer than a page is wide; tables as they are."""
    out: list[str] = []
    for line in lines:
        out += [line] if not line or line.startswith("|") else textwrap.wrap(
            line, 150, subsequent_indent="  " if line.startswith("- ") else "", break_on_hyphens=False
        )  # fmt: skip
    return out


def _on_same_frames(found: Mapping[str, Runs]) -> tuple[dict[str, Runs], list[str]]:
    """Those that answered the first one's frames, and the names of the rest."""

    def same(scores: Scores) -> bool:
        first = next(iter(found.values()))[0]
        return np.array_equal(scores.crowd, first.crowd) and np.array_equal(scores.true, first.true)

    alike = {name: runs for name, runs in found.items() if all(same(scores) for scores in runs)}
    return alike, [name for name in found if name not in alike]


def _measured(table: Table, results: Results, data_set: str, latency: str) -> dict[str, Runs]:
    """The runs of all rows that are numbers, of this table, and of BaseU and the bounds of Table III."""
    found: dict[str, Runs] = {}
    for number_of, rows in TABLES.items():
        for row in rows:
            runs = runs_of(results, Cell(number_of, data_set, latency, row))
            if not isinstance(runs, str) and (
                number_of == table or row.loss == "bound" or row.name == "BaseU"
            ):
                found[row.name if row.name in ("BaseU", "synchronised") else f"{row.name} ({row.loss})"] = (
                    runs
                )
    return found


def _beside(found: Mapping[str, Runs]) -> list[str]:
    """What each method errs by: the count's mean error and its deviation, density and places, and what it
    gains over BaseU on the same snapshots.
    """
    heads = ["count − truth", *(_METRIC_NAMES[m] for m in CLOSURE_METRICS)]
    gains = [f"gain over BaseU: {_METRIC_NAMES[m]}" for m in CLOSURE_METRICS]
    lines = [f"| method | {' | '.join([*heads, *gains])} |", "| --- " * (1 + len(heads) + len(gains)) + "|"]
    for name, runs in found.items():
        off, spread = np.mean([count_error(scores) for scores in runs], axis=0)
        cells = [f"{off:+.2f} ± {spread:.2f}"]
        for metric in CLOSURE_METRICS:
            cells.append(f"{np.mean([METRICS[metric](scores) for scores in runs]):.{_DIGITS[metric]}f}")
        for metric in CLOSURE_METRICS:
            figure = None if name == "BaseU" or "BaseU" not in found else gain(found["BaseU"], runs, metric)
            cells.append("" if figure is None else _interval(figure, _DIGITS[metric]))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _trained_with(table: Table, results: Results, columns: Sequence[tuple[str, str]]) -> list[str]:
    """What the numbers of each column were trained with, and with how many seeds."""
    lines = []
    for data_set, latency in columns:
        rows: dict[str, list[str]] = {}
        for row in TABLES[table]:
            cell = Cell(table, data_set, latency, row)
            if not isinstance(runs_of(results, cell), str):
                there = results[cell.folder]
                words = f"{' or '.join(sorted({r.trained_with for r in there}))}, {len(there)} seeds"
                rows.setdefault(words, []).append(f"{row.name} ({row.loss})")
        lines += [f"- {data_set}, {latency}: {', '.join(names)}: {words}" for words, names in rows.items()]
    return lines


def _has_paper(data_set: str) -> bool:
    return not named(data_set).hard


def _paper(row: Row, data_set: str, latency: str) -> str:
    numbers = row.paper_number(data_set, latency)
    return f"{numbers[0]:.2f} / {numbers[1]:.3f}" if numbers else "–"


def _worth(measured: Mapping[str, Runs]) -> list[str]:
    """What there is to gain, and a table of who gains it. Bounds are rows of Table III."""
    found = dict(measured)
    alone, bound = found["reference-only (bound)"], found["synchronised"]
    worth = {m: prize(alone, bound, m) for m in CLOSURE_METRICS}
    noise = [_METRIC_NAMES[m] for m, f in worth.items() if not f.clear]
    too_small = f"; within noise, so that it cannot rank methods: {', '.join(noise)}" if noise else ""
    lines = [f"- prize (reference-only − synchronised): {_each(worth)}{too_small}"]
    if "BaseU" not in found:
        return lines
    gaps = {m: gap(found["BaseU"], bound, m) for m in CLOSURE_METRICS}
    lines += [f"- gap (BaseU − synchronised): {_each(gaps)}", ""]
    perfect = {name: found.pop(f"perfect-{name} (bound)", None) for name in ("matching", "flow")}
    bounds = {f"of perfect {what}'s gain": reached for what, reached in perfect.items() if reached}
    shares = {"gap closed": figures(measured)}
    shares |= {head: figures({**found, "synchronised": reached}) for head, reached in bounds.items()}
    heads = [f"{head}: {_METRIC_NAMES[m]}" for head in shares for m in CLOSURE_METRICS]
    lines += [f"| method | {' | '.join(heads)} |", "| --- " * (1 + len(heads)) + "|"]
    for name in shares["gap closed"]:
        cells = []
        for head, by_method in shares.items():
            none = "no gap" if head == "gap closed" else "no gain"
            closed = by_method.get(name)
            for metric in CLOSURE_METRICS:
                figure = closed[metric] if closed else None
                cells.append("" if closed is None else _interval(figure) if figure else none)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _each(found: Mapping[str, Figure]) -> str:
    return ", ".join(f"{_METRIC_NAMES[m]} {_interval(f)}" for m, f in found.items())


def _interval(figure: Figure, digits: int = 2) -> str:
    return f"{figure.value:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def picture(table: Table, results: Results, sets: Sequence[str] = SETS) -> bytes:
    """MAE of every row as bars, ours beside the paper's, a panel for each set and latency that has either;
    PNG.
    """
    rows = TABLES[table]
    columns = [
        (data_set, latency)
        for data_set in sets
        for latency in LATENCIES
        if sum(row.paper_number(data_set, latency) is not None for row in rows) > 1
        or not all(isinstance(runs_of(results, Cell(table, data_set, latency, r)), str) for r in rows)
    ]
    across = min(len(columns), _PANELS_ACROSS) or 1
    down = -(-len(columns) // across) or 1
    figure = Picture(figsize=(2 + 2.9 * across, (0.32 * len(rows) + 1.2) * down), layout="constrained")
    axes = figure.subplots(down, across, sharey=True, squeeze=False)
    at = np.arange(len(rows))
    for axis in axes.ravel()[len(columns) :]:
        axis.set_visible(False)
    for axis, (data_set, latency) in zip(axes.ravel(), columns, strict=False):
        paper = [row.paper_number(data_set, latency) for row in rows]
        axis.barh(at - 0.2, [p[0] if p else 0.0 for p in paper], 0.36, color=_PAPER)
        within = axis.get_yaxis_transform()  # across in shares of the panel, down in rows
        for k, row in enumerate(rows):
            runs = runs_of(results, Cell(table, data_set, latency, row))
            if isinstance(runs, str):
                axis.text(0.02, k + 0.2, runs, transform=within, va="center", fontsize=7, color="#777777")
                continue
            values = [mae(scores) for scores in runs]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            axis.barh(k + 0.2, np.mean(values), 0.36, xerr=spread, color=_HERE)
            axis.text(np.mean(values) + spread, k + 0.2, f" {np.mean(values):.2f}", va="center", fontsize=7)
        axis.set_title(f"{data_set}, {latency}", fontsize=9)
        axis.set_xlabel("MAE, people", fontsize=8)
        axis.margins(x=0.15)
        axis.set_xlim(left=0)
    for first in axes[:, 0]:
        first.set_yticks(at, [f"{row.name} ({row.loss})" for row in rows], fontsize=8)
    axes[0, 0].invert_yaxis()
    handles = [Patch(color=_PAPER, label="paper, real pictures"), Patch(color=_HERE, label="here")]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
