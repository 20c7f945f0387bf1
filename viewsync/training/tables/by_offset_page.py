"""Error against offset as Markdown and as a picture, a line and its band for each method, and the
difference of each to the one that fuses frames as they are, frame by frame.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure as Picture

from viewsync.training.tables.by_offset import Floats, Measured, band

_TITLES = {"density_mse": "density MSE", "mae": "count MAE, people"}
_STYLES = ("-", "--", ":", "-.")

# Name of a method -> the curves of its runs, one for each seed; or why there are none.
Methods = Mapping[str, list[str] | str]


def markdown(measured: Measured, methods: Methods) -> str:
    """A table for density MSE and one for the count, a row for each method and a column for each offset; then
    the differences to the base.
    """
    lines = []
    for metric, title in _TITLES.items():
        heads = " | ".join(f"{offset:.2f} s" for offset in measured.offset_s)
        lines += [f"| {title}, others off by | {heads} |", "| --- " * (1 + len(measured.offset_s)) + "|"]
        for name, keys in methods.items():
            if isinstance(keys, str):
                cells = [keys] * len(measured.offset_s)
            else:
                values, low, high = _curve(measured, keys, metric)
                cells = [f"{v:.3g} [{a:.3g}, {b:.3g}]" for v, a, b in zip(values, low, high, strict=True)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        base = _base(methods)
        for name, keys in methods.items():
            if base and name != base and not isinstance(keys, str):
                values, low, high = _curve(measured, keys, metric, methods[base])
                cells = [f"{v:+.2g} [{a:+.2g}, {b:+.2g}]" for v, a, b in zip(values, low, high, strict=True)]
                lines.append(f"| {name} − {base} | {' | '.join(cells)} |")
        lines.append("")
    frames = f"{len(measured.group)} frames of the reference, the same for all"
    lines.append(f"{frames}; in brackets: 95 %, bootstrap over stretches of the sequences.")
    return "\n".join(lines)


def picture(measured: Measured, methods: Methods, kappa_s: float) -> bytes:
    """Both errors over the offset, from 0 to 2κ, with κ marked, and below their differences to the base."""
    base = _base(methods)
    shown = [(name, keys) for name, keys in methods.items() if not isinstance(keys, str)]
    figure = Picture(figsize=(12, 8.4), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).ravel()
    panels = [(metric, title, to) for to in ("", base) for metric, title in _TITLES.items()]
    for axis, (metric, title, to) in zip(axes, panels, strict=True):
        for number, (name, keys) in enumerate(shown):
            values, low, high = _curve(measured, keys, metric, methods[to] if to else "")
            colour, style, mark = f"C{number % 10}", _STYLES[number // 10 % len(_STYLES)], "o"
            if measured.of.get(keys[0], {}).get("synchronised"):  # asked no offset at all: a bound, flat
                colour, style, mark = "black", "--", ""
            axis.plot(measured.offset_s, values, style, marker=mark, ms=3, color=colour, label=name)
            axis.fill_between(measured.offset_s, low, high, color=colour, alpha=0.12, lw=0)
        axis.axvline(kappa_s, color="#777777", lw=0.8, ls=":")
        axis.text(kappa_s, 1.0, " κ", transform=axis.get_xaxis_transform(), va="top", color="#777777")
        axis.set_xlabel("other views off by ±δ, seconds")
        axis.set_ylabel(f"{title}, less that of {to}" if to else title)
        if not to:
            axis.set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _base(methods: Methods) -> str:
    """The method that others are held against, which fuses frames as they are; the first where it lacks."""
    there = [name for name, keys in methods.items() if not isinstance(keys, str)]
    plain = [name for name in there if name.startswith(("BaseU", "none"))]
    return next(iter([*plain, *there]), "")


def _curve(
    measured: Measured, keys: list[str], metric: str, less: list[str] | str = ""
) -> tuple[Floats, Floats, Floats]:
    """A method's error, mean over its seeds, and its band; of `less` the error on each frame is taken off."""
    errors = np.mean([getattr(measured.curves[key], metric) for key in keys], axis=0)
    if less and not isinstance(less, str):
        errors = errors - np.mean([getattr(measured.curves[key], metric) for key in less], axis=0)
    return band(errors, measured.group)
