"""`report.html`: everything a sweep found on one page that needs no other file; and CSV and PNG beside it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from viewsync.lab import pictures
from viewsync.lab.agreement import Check
from viewsync.lab.gate import METRICS, MIN_OFFSET_S, Verdict
from viewsync.lab.record import write_answers
from viewsync.lab.summary import Row, curve_differences, differences, rows, write_points, write_rows
from viewsync.lab.sweep import Settings, Sweep
from viewsync.statistics import Interval

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1150px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 0.8em 0; font-size: 13px }
th, td { padding: 3px 8px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th { border-bottom: 2px solid #888 } td.name, th.name { text-align: left }
img { max-width: 100%; height: auto } .wide { overflow-x: auto }
.good { color: #00704f } .bad { color: #b03000 } .note { color: #666; font-size: 13px }
"""


def write(
    folder: Path,
    sweep: Sweep,
    settings: Settings,
    verdicts: dict[str, Verdict],
    how: dict[str, Any],
    checks: Sequence[Check] = (),
) -> Path:
    """Write the report and its files to `folder`; how: what to say of how it was run; checks: of virtual time
    against live runs, where there were some. Returns the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = rows(sweep)
    write_answers(folder / "answers.csv", sweep.runs, sweep.views)
    write_rows(folder / "summary.csv", table)
    parts = [*_head(sweep, how), *_verdicts(verdicts)]
    for bundle in sweep.methods:
        if sweep.points:
            write_points(folder / "curve.csv", sweep.points)
            parts += [*_curve(folder, sweep, bundle)]
        parts += [*_differences(sweep, bundle)]
    parts += [
        *_table(table),
        *_clocks(sweep),
        *_live(checks),
        *_runs(folder, sweep),
        *_speed(table, settings),
    ]
    page = folder / "report.html"
    page.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>viewsync: latency</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n",
        encoding="utf-8",
    )
    return page


def _head(sweep: Sweep, how: dict[str, Any]) -> Iterable[str]:
    yield "<h1>Error against latency</h1>"
    bundles = ", ".join(f"{name} ({digest[:12]})" for name, digest in sweep.hashes.items())
    yield f"<p>Bundles: {_text(bundles)}. Views: {_text(', '.join(sweep.views))}.</p>"
    yield f'<p class="note">{_text(json.dumps(how))}</p>'


def _verdicts(verdicts: dict[str, Verdict]) -> Iterable[str]:
    yield f"<h2>Does synchronising help at offsets of {MIN_OFFSET_S:g} s and more?</h2>"
    yield (
        '<p class="note">Over all answers whose farthest view is that far from the reference; differences on '
        "the same frames, 95 % intervals over crowds. Below zero: synchronising is better.</p>"
    )
    for bundle, verdict in verdicts.items():
        lines = "".join(
            f'<li class="{"good" if claim.holds else "bad"}">{_text(str(claim))}</li>'
            for claim in verdict.claims
        )
        yield f"<p>Bundle {_text(bundle)}</p><ul>{lines}</ul>"


def _curve(folder: Path, sweep: Sweep, bundle: str) -> Iterable[str]:
    yield f"<h2>Error against offset: {_text(bundle)}</h2>"
    yield _picture(folder / f"curve-{bundle}.png", pictures.curves(sweep, bundle))
    method = sweep.methods[bundle][0]
    found = {metric: curve_differences(sweep.points, bundle, method, metric) for metric in METRICS}
    offsets = list(next(iter(found.values())))
    yield _grid(
        ["offset, s", *(f"{METRICS[m]}, {method} − none" for m in found)],
        [[f"{offset_s:g}", *(_interval(found[m][offset_s], "+") for m in found)] for offset_s in offsets],
    )


def _differences(sweep: Sweep, bundle: str) -> Iterable[str]:
    method, *rivals = sweep.methods[bundle]
    policies = dict.fromkeys(run.key.policy for run in sweep.runs)
    for policy in policies:
        yield f"<h2>{_text(method)} less the others: {_text(bundle)}, policy {_text(policy)}</h2>"
        found = {metric: differences(sweep, policy, bundle, metric) for metric in METRICS}
        head = ["profile", *(f"{METRICS[metric]}, − {rival}" for metric in METRICS for rival in rivals)]
        body = [
            [
                profile,
                *(_interval(found[metric][profile][rival], "+") for metric in METRICS for rival in rivals),
            ]
            for profile in next(iter(found.values()))
        ]
        yield _grid(head, body)


def _table(table: Sequence[Row]) -> Iterable[str]:
    yield "<h2>Profiles</h2>"
    yield (
        '<p class="note">Count error and density error: against the truth at the instant that the answer '
        "speaks of; “now”: against the truth when it was published. Offset: of the farthest view used. "
        "CPU is this machine's.</p>"
    )
    head = [
        "profile", "policy", "method", "answers/s", "count error", "now", "density error", "1 - F1",
        "age p50/p95, s", "offset p50/p95, s", "views", "degraded", "silences", "kbit/s", "replaced",
        "refused", "CPU, ms",
    ]  # fmt: skip
    yield _grid(head, [_row_cells(row) for row in table])


def _row_cells(row: Row) -> list[str]:
    return [
        row.profile,
        row.policy,
        row.method,
        f"{row.rate_hz:.2f}",
        _interval(row.count_error),
        f"{row.now_error.value:.2f}",
        _interval(row.density_error),
        _interval(row.places_error),
        f"{row.age_p50_s:.2f} / {row.age_p95_s:.2f}",
        f"{row.offset_p50_s:.2f} / {row.offset_p95_s:.2f}",
        f"{row.used:.2f}",
        f"{100 * row.degraded:.0f} %",
        str(row.silences),
        f"{row.kbit_s:.0f}",
        str(row.replaced),
        str(row.refused),
        f"{row.cpu_ms:.0f}",
    ]


def _clocks(sweep: Sweep) -> Iterable[str]:
    yield "<h2>Clocks</h2>"
    yield "<p>The worst error of a capture time at the hub, and what the hub was told it may be.</p>"
    body = [
        [
            profile,
            f"{1000 * error_s:.0f} ms",
            f"{1000 * bound_s:.0f} ms",
            "yes" if error_s <= bound_s else "NO",
        ]
        for profile, (error_s, bound_s) in sweep.clocks.items()
    ]
    yield _grid(["profile", "error", "stated", "within"], body)


def _live(checks: Sequence[Check]) -> Iterable[str]:
    if not checks:
        return
    yield "<h2>Live against virtual time</h2>"
    head = ["profile", "policy", "method", "figure", "live", "virtual", "from", "to", "agrees"]
    yield _grid(
        head,
        [
            [
                *(one.profile, one.policy, one.method, one.name),
                *(f"{number:.3g}" for number in (one.live, one.virtual, one.low, one.high)),
                "yes" if one.holds else "NO",
            ]
            for one in checks
        ],
    )


def _runs(folder: Path, sweep: Sweep) -> Iterable[str]:
    yield "<h2>Through time</h2>"
    for bundle in sweep.methods:
        cells = dict.fromkeys((r.key.profile, r.key.policy) for r in sweep.runs if r.key.bundle == bundle)
        for profile, policy in cells:
            data = pictures.through_time(sweep, bundle, policy, profile)
            image = _picture(folder / f"time-{bundle}-{profile}-{policy}.png", data)
            opened = " open" if sweep.offs[profile] else ""
            title = _text(f"{profile}, {policy}, {bundle}")
            yield f"<details{opened}><summary>{title}</summary>{image}</details>"


def _speed(table: Sequence[Row], settings: Settings) -> Iterable[str]:
    yield "<h2>Speed</h2>"
    yield (
        '<p class="note">Seconds of a profile per second that one process took to answer it again from what '
        f"is kept, under the first policy; {settings.workers} ran side by side. By processor time: without "
        "what other programs took.</p>"
    )
    first: dict[tuple[str, str, str], Row] = {}
    for row in table:
        first.setdefault((row.profile, row.bundle, row.method), row)
    body = [
        [
            row.profile,
            row.bundle,
            row.method,
            f"{row.times_real:.1f} ×",
            f"{row.times_cpu:.1f} ×",
            f"{row.rate_hz:.2f}",
        ]
        for row in first.values()
    ]
    yield _grid(["profile", "bundle", "method", "times real", "by processor time", "answers/s"], body)


def _picture(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    coded = base64.b64encode(data).decode()
    return f'<p><img alt="{_text(path.stem)}" src="data:image/png;base64,{coded}"></p>'


def _grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=name' if not cell[:1].isdigit() and place < 3 else ''}>{_text(cell)}</{tag}>"
            for place, cell in enumerate(cells)
        )

    lines = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in body)
    return f'<div class="wide"><table><tr>{line(head, "th")}</tr>{lines}</table></div>'


def _interval(value: Interval, sign: str = "") -> str:
    if value.number == 0:
        return "–"
    return f"{value.value:{sign}.3f} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"


def _text(value: str) -> str:
    return html.escape(value)
