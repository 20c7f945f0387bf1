"""Error against offset: every method on the same reference frames, the other views off by ±δ for δ from 0 to
2κ.

Who answers frames of one instant only, the bound `synchronised`, is asked them whatever δ: its line is flat.
Where each view's frame lies, before the reference's or after it, is drawn once for each reference frame and
kept for every δ and method. What was measured is kept in one file and not measured again.

Shape letters: K offsets, T reference frames.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from viewsync.errors import UserError
from viewsync.training.evaluate import answer, score
from viewsync.training.runners import Asked, TorchRunner
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


def of_data(folder: Path, seeds: Sequence[int]) -> dict[str, str]:
    """What says of which crowds something was measured: where they lie, and a hash of their truth."""
    digest = hashlib.sha256()
    for seed in seeds:
        digest.update((folder / f"{seed:06d}.npz").read_bytes())
    return {"data": str(folder.resolve()), "truth_sha256": digest.hexdigest()}


def _picks(shots: SnapshotSet, place: Place, offset_s: float) -> list[tuple[int, int]]:
    """(row, frame) of the reference, then of the others, off by `offset_s`."""
    times = shots.truth[place.crowd].times_s
    start = times[place.row, place.frame]
    aims = {other: start + side * offset_s for other, side in place.sign.items()}
    others = [(other, int(np.argmin(np.abs(times[other] - aim)))) for other, aim in aims.items()]
    return [(place.row, place.frame), *others]


def _stretch(shots: SnapshotSet, place: Place) -> int:
    start = shots.truth[place.crowd].times_s[place.row, place.frame]
    return place.crowd * 10_000 + int(start // STRETCH_S)


def draws(
    shots: SnapshotSet, chosen: Sequence[Place], grid_s: Sequence[float]
) -> Iterator[tuple[Snapshot, int]]:
    """For every place the snapshots of all offsets, and the stretch that they are of: T·K of them."""
    for place in chosen:
        for offset in grid_s:
            yield shots.at(place.crowd, _picks(shots, place, offset)), _stretch(shots, place)


def off_by_s(shots: SnapshotSet, chosen: Sequence[Place], offset_s: float) -> float:
    """How far off the other views' frames really are, seconds, mean."""
    apart = []
    for place in chosen:
        times = shots.truth[place.crowd].times_s
        first, *others = (times[pick] for pick in _picks(shots, place, offset_s))
        apart.append(np.abs(np.array(others) - first).mean())
    return round(float(np.mean(apart)), 4)


@dataclass(frozen=True, slots=True)
class Curve:
    """Errors (K, T) of one trained model: of the count, absolute, and of the density, squared and summed."""

    mae: Floats
    density_mse: Floats


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured under one `protocol`: offset_s (K,), how far the other views really were off, mean;
    group (T,), the stretch that a frame is of; curves, and what each is of (`identity`).
    """

    protocol: Mapping[str, Any]
    offset_s: list[float] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    of: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, protocol: Mapping[str, Any]) -> Self:
        """What `save` wrote, or nothing yet. Raises UserError for a file of another protocol, or damaged."""
        if not path.exists():
            return cls(protocol)
        try:
            kept = json.loads(path.read_text())
            before, curves = kept["protocol"], kept["curves"]
            rest = {k: Curve(*(np.array(c[m]) for m in METRICS)) for k, c in curves.items()}
            of = {k: {name: c[name] for name in c if name not in METRICS} for k, c in curves.items()}
            made = cls(protocol, kept["offset_s"], kept["group"], rest, of)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: cannot be read ({error!r}); remove it and measure again") from error
        for key, value in protocol.items():
            if before.get(key) != value:
                raise UserError(
                    f"{path} was measured with {key} {before.get(key, 'not told')}, now it is {value}; "
                    "remove it, or ask for the same"
                )
        return made

    def save(self, path: Path) -> None:
        """Write the file whole, so that what is there is never half of two."""
        curves = {
            key: {**self.of[key], **{m: getattr(curve, m).tolist() for m in METRICS}}
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


def identity(runner: TorchRunner, asked: Asked, synchronised: bool) -> dict[str, Any]:
    """What a curve is of: where any of it is another, it is measured anew."""
    return {"weights": runner.weights_sha256, **asdict(asked), "synchronised": synchronised}


def measure(
    runner: TorchRunner,
    names: Mapping[str, str],
    shots: SnapshotSet,
    chosen: Sequence[Place],
    grid_s: Sequence[float],
    measured: Measured,
    asked: Asked,
    synchronised: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Add the curves of a checkpoint's graphs to `measured`; names: of each graph. asked: as `shots` were
    sampled; synchronised: on frames of one instant at every offset.
    """
    of = identity(runner, asked, synchronised)
    if all(measured.of.get(name) == of for name in names.values()):
        return
    answered = [0.0] if synchronised else grid_s
    steps = len(answered)
    answers = answer(runner, draws(shots, chosen, answered), len(chosen) * steps, progress)
    for graph, name in names.items():
        count, density = [], []
        for k in range(steps):
            scores = score(answers[k::steps], graph, runner.scene.ground, float("inf"))
            count.append(np.abs(scores.predicted - scores.true))
            density.append(scores.squared_error)
        times = len(grid_s) // steps
        measured.curves[name] = Curve(np.stack(count * times), np.stack(density * times))
        measured.of[name] = of
    measured.group[:] = [_stretch(shots, place) for place in chosen]
    measured.offset_s[:] = [off_by_s(shots, chosen, offset) for offset in grid_s]


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
