"""Error against offset: every method on the same reference frames, the other views off by ±δ for δ from 0 to
2κ.

Where each view's frame lies, before the reference's or after it, is drawn once for each reference frame and
kept for every δ and method. What was measured is kept in one file and not measured again.

Shape letters: K offsets, T reference frames.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from viewsync.errors import UserError
from viewsync.training.evaluate import answer, score
from viewsync.training.runners import TorchRunner
from viewsync.training.snapshots import Snapshot, SnapshotSet

Floats = NDArray[np.float64]
# From 0 to 2κ in steps of κ / 4.
STEPS = 8
# Within so many seconds the same people are about: intervals are over stretches of this length.
STRETCH_S = 5.0
METRICS = ("mae", "density_mse")


@dataclass(frozen=True, slots=True)
class Place:
    """A reference frame of a crowd; for every other row whether its frame comes before (-1) or after (1)."""

    crowd: int
    row: int
    frame: int
    sign: Mapping[int, int]


def offsets_s(kappa_s: float) -> list[float]:
    """The grid of δ, seconds."""
    return [round(2 * kappa_s * k / STEPS, 4) for k in range(STEPS + 1)]


def places(shots: SnapshotSet, rows: Sequence[int], reach_s: float, count: int) -> list[Place]:
    """At most `count` reference frames of views `rows`, spread evenly over those from which every other view
    has a frame `reach_s` away on one side at least. Raises UserError where there is none.
    """
    found = []
    for crowd, truth in enumerate(shots.truth):
        times = truth.times_s
        slack = float(np.diff(times, axis=1).max()) / 2
        for row in rows:
            for frame in shots.possible(crowd, row):
                rng = np.random.default_rng([11, shots.seeds[crowd], row, int(frame)])
                sign: dict[int, int] = {}
                for other in range(len(times)):
                    first = int(rng.choice((-1, 1)))
                    for side in (first, -first):
                        there = times[row, frame] + side * reach_s
                        if other != row and times[other, 0] - slack <= there <= times[other, -1] + slack:
                            sign.setdefault(other, side)
                if len(sign) == len(times) - 1:
                    found.append(Place(crowd, row, int(frame), sign))
    if not found:
        raise UserError(
            f"the sequences last {shots.span_s:.1f} s: nowhere has every view a frame {reach_s:g} s away; "
            "choose a smaller --kappa, or longer sequences"
        )
    number = min(count, len(found))
    return [found[k * len(found) // number] for k in range(number)]


def draws(
    shots: SnapshotSet, chosen: Sequence[Place], grid_s: Sequence[float]
) -> Iterator[tuple[Snapshot, int]]:
    """For every place the snapshots of all offsets, and the stretch that they are of: T·K of them."""
    for place in chosen:
        times = shots.truth[place.crowd].times_s
        start = times[place.row, place.frame]
        for offset in grid_s:
            picks = [(place.row, place.frame)]
            for other, side in place.sign.items():
                picks.append((other, int(np.argmin(np.abs(times[other] - start - side * offset)))))
            yield shots.at(place.crowd, picks), place.crowd * 10_000 + int(start // STRETCH_S)


@dataclass(frozen=True, slots=True)
class Curve:
    """Errors (K, T) of one trained model: of the count, absolute, and of the density, squared and summed."""

    mae: Floats
    density_mse: Floats


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured under one `protocol`: offset_s (K,), how far the other views really were off, mean;
    group (T,), the stretch that a frame is of; curves, and the hash of the weights that each belongs to.
    """

    protocol: Mapping[str, Any]
    offset_s: list[float] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, protocol: Mapping[str, Any]) -> Self:
        """What `save` wrote, or nothing yet. Raises UserError for a file of another protocol, or damaged."""
        if not path.exists():
            return cls(protocol)
        try:
            kept = json.loads(path.read_text())
            before, curves = kept["protocol"], kept["curves"]
            rest = {k: Curve(*(np.array(c[m]) for m in METRICS)) for k, c in curves.items()}
            hashes = {k: c["weights"] for k, c in curves.items()}
            made = cls(protocol, kept["offset_s"], kept["group"], rest, hashes)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: cannot be read ({error!r}); remove it and measure again") from error
        for key, value in protocol.items():
            if before.get(key) != value:
                raise UserError(
                    f"{path} was measured with {key} {before.get(key)}, now it is {value}; remove it, or ask "
                    "for the same"
                )
        return made

    def save(self, path: Path) -> None:
        """Write the file whole, so that what is there is never half of two."""
        curves = {
            key: {"weights": self.weights[key], **{m: getattr(curve, m).tolist() for m in METRICS}}
            for key, curve in self.curves.items()
        }
        document = {
            "protocol": dict(self.protocol),
            "offset_s": self.offset_s,
            "group": self.group,
            "curves": curves,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(document))
        os.replace(part, path)


def measure(
    runner: TorchRunner,
    names: Mapping[str, str],
    shots: SnapshotSet,
    chosen: Sequence[Place],
    grid_s: Sequence[float],
    measured: Measured,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Add the curves of a checkpoint's graphs to `measured`; names: of each graph."""
    if all(measured.weights.get(name) == runner.weights_sha256 for name in names.values()):
        return
    steps = len(grid_s)
    answers = answer(runner, draws(shots, chosen, grid_s), len(chosen) * steps, progress)
    for graph, name in names.items():
        count, density = [], []
        for k in range(steps):
            scores = score(answers[k::steps], graph, runner.scene.ground, float("inf"))
            count.append(np.abs(scores.predicted - scores.true))
            density.append(scores.squared_error)
        measured.curves[name] = Curve(np.stack(count), np.stack(density))
        measured.weights[name] = runner.weights_sha256
    measured.group[:] = [a.group for a in answers[::steps]]
    measured.offset_s[:] = [
        round(float(np.mean([np.abs(a.shot.true_offset_s[1:]).mean() for a in answers[k::steps]])), 4)
        for k in range(steps)
    ]


def band(errors: Floats, group: Sequence[int], draws: int = 1000) -> tuple[Floats, Floats, Floats]:
    """Mean of errors (K, T) at every offset and its 95 % interval, (K,) each: bootstrap over stretches."""
    rng = np.random.default_rng(0)
    of = np.asarray(group)
    every = np.unique(of)
    total = np.stack([errors[:, of == g].sum(axis=1) for g in every], axis=1)
    number = np.array([(of == g).sum() for g in every], dtype=np.float64)
    index = rng.integers(len(every), size=(draws, len(every)))
    drawn = total[:, index].sum(axis=2) / number[index].sum(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=1)
    return errors.mean(axis=1), low, high
