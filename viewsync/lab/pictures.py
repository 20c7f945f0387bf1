"""The laboratory's pictures: error against offset, and one run through time."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from viewsync.lab.gate import METRICS, NOT_SYNCHRONISED, REFERENCE_ONLY
from viewsync.lab.record import Run
from viewsync.lab.summary import curve_differences, curve_of
from viewsync.lab.sweep import Sweep, only
from viewsync.statistics import Interval

# Colours that the colour-blind tell apart (Okabe and Ito).
_COLOURS = {NOT_SYNCHRONISED: "#d55e00", REFERENCE_ONLY: "#009e73"}
_OTHERS = ("#0072b2", "#cc79a7", "#56b4e9", "#e69f00")
_VIEWS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_OFF = "#dddddd"
_BESIDE: dict[str, Any] = {"frameon": False, "loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "fontsize": 9}
_UNITS = {
    "density": "squared density error, summed over the ground",
    "places": "places missed or wrong, 1 - F1",
    "count": "mean count error, people",
}


def curves(sweep: Sweep, bundle: str) -> bytes:
    """Error against offset, a column per metric: errors above, and what synchronising changes below, on the
    same frames. Bands are 95 % intervals over crowds.
    """
    figure = Figure(figsize=(15, 7), layout="constrained")
    above, below = figure.subplots(2, len(METRICS), sharex=True, height_ratios=(2, 1))
    colours = _colours(sweep.methods[bundle])
    method = sweep.methods[bundle][0]
    for top, bottom, metric in zip(above, below, reversed(METRICS), strict=True):
        for name, colour in colours.items():
            _draw_band(top, curve_of(sweep.points, bundle, name, metric), colour, _label(name))
        for rival in sweep.methods[bundle][1:]:
            found = curve_differences(sweep.points, bundle, method, metric, rival)
            _draw_band(bottom, found, colours[rival], f"less {_label(rival)}")
        trained_s = sweep.trained_s[bundle]
        for axes in (top, bottom):
            axes.axvline(trained_s, color="black", lw=0.8, ls=":")
            axes.grid(alpha=0.3)
        bottom.axhline(0.0, color="black", lw=0.8)
        top.annotate(
            f"trained to {trained_s:g} s", (trained_s, 0.02), xycoords=("data", "axes fraction"),
            xytext=(4, 0), textcoords="offset points", fontsize=8,
        )  # fmt: skip
        bottom.set_xlabel("offset of every other view from the reference, s")
        top.set_ylabel(_UNITS[metric])
        top.set_ylim(bottom=0)
        bottom.set_ylabel("synchronised less others\n(below 0: it helps)")
    crowds = len({point.crowd for point in sweep.points})
    figure.legend(*above[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    figure.suptitle(f"Bundle {bundle}: error against offset, {crowds} crowds, bands: 95 %", fontsize=11)
    return _png(figure)


def _draw_band(axes: Any, found: Mapping[float, Interval], colour: str, label: str) -> None:
    """A line over offsets with its interval."""
    offsets, there = list(found), list(found.values())
    axes.plot(offsets, [one.value for one in there], "o-", ms=4, color=colour, label=label)
    low, high = [one.low for one in there], [one.high for one in there]
    axes.fill_between(offsets, low, high, color=colour, alpha=0.15, lw=0)


def through_time(sweep: Sweep, bundle: str, policy: str, profile: str) -> bytes:
    """Count beside the truth, age and offsets of one crowd's run; grey: a link or camera is off."""
    runs = {
        r.key.method: r for r in reversed(only(sweep.runs, profile=profile, policy=policy, bundle=bundle))
    }
    main = runs[sweep.methods[bundle][0]]
    figure = Figure(figsize=(12, 7), layout="constrained")
    counts, ages, offsets = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    for axes in (counts, ages, offsets):
        for _, from_s, to_s in sweep.offs[profile]:
            axes.axvspan(from_s, to_s, color=_OFF, lw=0)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    times, truth = zip(*sweep.truths[profile], strict=True)
    counts.plot(times, truth, color="black", lw=1.6, label="truth")
    for method, colour in _colours(sweep.methods[bundle]).items():
        at = [answer.at_s for answer in runs[method].answers]
        said = [answer.count for answer in runs[method].answers]
        counts.step(at, said, where="post", color=colour, lw=1.1, label=_label(method))
    counts.set_ylabel("people in the region")
    counts.legend(**_BESIDE)
    _draw_ages(ages, main)
    for view, colour in zip(sweep.views, _VIEWS, strict=False):
        there = [(a.at_s, a.offsets_s[view]) for a in main.answers if view in a.offsets_s]
        offsets.plot(*_columns(there), ".", ms=5, color=colour, label=view)
    offsets.set_ylabel("true offset of the\nviews used, s")
    offsets.set_xlabel("time, s")
    offsets.legend(**_BESIDE)
    offsets.set_xlim(0, main.end_s)
    off = ", ".join(f"{view} {from_s:g} to {to_s:g} s" for view, from_s, to_s in sweep.offs[profile])
    figure.suptitle(
        f"Profile {profile}, policy {policy}, bundle {bundle}, crowd {main.key.crowd}"
        + (f"; off: {off}" if off else ""),
        fontsize=11,
    )
    return _png(figure)


def _draw_ages(axes: Any, run: Run) -> None:
    """The age of what a subscriber last heard: it grows until the next answer."""
    times: list[float] = []
    ages: list[float] = []
    ends = [answer.at_s for answer in run.answers[1:]] + [run.end_s]
    for answer, until_s in zip(run.answers, ends, strict=True):
        times += [answer.at_s, until_s]
        ages += [answer.age_s, until_s - answer.instant_s]
    axes.plot(times, ages, color="black", lw=1.0)
    axes.set_ylabel("age of the\nnewest answer, s")
    axes.set_ylim(bottom=0)


def _colours(methods: Sequence[str]) -> Mapping[str, str]:
    others = iter(_OTHERS)
    return {method: _COLOURS.get(method) or next(others, "#555555") for method in methods}


def _label(method: str) -> str:
    return {NOT_SYNCHRONISED: "not synchronised", REFERENCE_ONLY: "reference view only"}.get(
        method, f"synchronised ({method})"
    )


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    return data.getvalue()
