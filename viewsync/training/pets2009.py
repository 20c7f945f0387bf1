"""Scores of a bundle on the real tracks of PETS2009, for every sequence and each view as the reference.

The protocol is the paper's random latency (Section IV): every other view's frame is off by up to κ = 5 s,
drawn anew for each frame of the reference. Cameras and people's paths are real, what the frames show is
rendered (`viewsync.demo.recording`). Nothing is chosen on these sequences: thresholds come from simulated
crowds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from viewsync.errors import UserError
from viewsync.sim.dataset import load_truth
from viewsync.training.evaluate import Evaluation, answer, score, tune
from viewsync.training.metrics import Scores
from viewsync.training.report import document, interval
from viewsync.training.runners import Runner
from viewsync.training.snapshots import Sampling, Snapshot, SnapshotSet

KAPPA_S = 5.0
# Intervals are over stretches of a sequence: within so many seconds the same people are about.
STRETCH_S = 5.0
_TUNING = 120
_COLUMNS = (("mae", 2), ("nae", 3), ("f1", 3))


def evaluate_sequences(
    runner: Runner,
    folder: Path,
    tuning: SnapshotSet,
    frames: int = 220,
    kappa_s: float = KAPPA_S,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, Evaluation]]:
    """sequence → reference view → scores of every graph, over the sequences in `folder`, all castings
    together; and under `any` all reference views together.

    frames: snapshots per sequence and reference view, spread evenly (fewer where there are fewer frames);
    tuning: simulated crowds that choose the thresholds; progress: called for each of `snapshots(…)`. Raises
    UserError, with the command to run, where `folder` has no sequences.
    """
    total, grid = snapshots(folder, frames), runner.scene.ground

    def one_more(done: int, of: int) -> None:
        progress(done, total)

    crowds = len(tuning.seeds)
    tuned = ((tuning.draw(3, k, crowd=k * crowds // _TUNING, plain=True), 0) for k in range(_TUNING))
    thresholds = tune(answer(runner, tuned, _TUNING, one_more), grid)
    out: dict[str, dict[str, Evaluation]] = {}
    for sequence, castings in _sequences(folder).items():
        back = () if runner.before_s is None else (runner.before_s,)
        shots = SnapshotSet(runner.scene, folder / sequence, castings, Sampling(kappa_s, before_s=back))
        found: dict[str, Evaluation] = {}
        for row, view in enumerate(shots.views):
            count = min(frames, len(castings) * shots.truth[0].times_s.shape[1])
            answers = answer(runner, latencies(shots, row, count, kappa_s), count, one_more)
            scores = {g: score(answers, g, grid, thresholds[g]) for g in runner.graphs}
            offsets = np.concatenate([a.shot.true_offset_s[1:] for a in answers]).astype(np.float64)
            found[view] = Evaluation(scores, thresholds, offsets)
        out[sequence] = {**found, "any": _pooled(list(found.values()))}
    return out


def snapshots(folder: Path, frames: int) -> int:
    """How many snapshots `evaluate_sequences` answers, those that choose the thresholds among them."""
    count = _TUNING
    for sequence, castings in _sequences(folder).items():
        views, each = load_truth(folder / sequence / f"{castings[0]:06d}.npz").times_s.shape
        count += views * min(frames, len(castings) * each)
    return count


def _sequences(folder: Path) -> dict[str, tuple[int, ...]]:
    """Castings of every sequence in `folder`."""
    found = {path.name: sorted(path.glob("*.npz")) for path in sorted(folder.glob("*/"))}
    sequences = {name: tuple(int(file.stem) for file in files) for name, files in found.items() if files}
    if not sequences:
        raise UserError(
            f"{folder}: no sequences here; make them with: viewsync sim pets2009 sequences --out {folder}"
        )
    return sequences


def _pooled(parts: Sequence[Evaluation]) -> Evaluation:
    names = [field.name for field in fields(Scores)]
    scores = {
        graph: Scores(*(np.concatenate([getattr(part.scores[graph], n) for part in parts]) for n in names))
        for graph in parts[0].scores
    }
    return Evaluation(scores, parts[0].thresholds, np.concatenate([part.offsets_s for part in parts]))


def latencies(
    shots: SnapshotSet, reference: int, count: int, kappa_s: float
) -> Iterator[tuple[Snapshot, int]]:
    """`count` snapshots with the reference's frames spread evenly over all castings, and the stretch each is
    from.

    The other views' frames are those nearest to instants drawn uniformly from what the sequence has within ±κ
    of the reference's.
    """
    frames = shots.truth[0].times_s.shape[1]
    for number in range(count):
        casting, frame = divmod(number * len(shots.truth) * frames // count, frames)
        rng = np.random.default_rng([5, casting, reference, frame])
        times: NDArray[np.float64] = shots.truth[casting].times_s
        start = times[reference, frame]
        picks = [(reference, frame)]
        for v in range(len(times)):
            if v == reference:
                continue
            within = np.flatnonzero(np.abs(times[v] - start) <= kappa_s)
            aim = rng.uniform(times[v, within[0]], times[v, within[-1]])
            picks.append((v, int(within[np.argmin(np.abs(times[v, within] - aim))])))
        yield shots.at(casting, picks), int(start // STRETCH_S)


def summary(
    found: Mapping[str, Mapping[str, Evaluation]], kappa_s: float, measured: Mapping[str, str]
) -> dict[str, Any]:
    """Everything worth keeping, as JSON values: sequence → reference view → a document of `report`, whose
    crowds are stretches. measured: hashes of what was measured.
    """
    protocol = {"command": "viewsync evaluate --sequences", "kappa_s": kappa_s, "stretch_s": STRETCH_S}
    return {
        sequence: {
            view: document(
                evaluation, next(iter(evaluation.scores)), {**protocol, "reference": view}, measured
            )
            for view, evaluation in references.items()
        }
        for sequence, references in found.items()
    }


def table(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """The summary as Markdown: a row for each sequence, reference view and graph; then, for all reference
    views together, the first graph's differences to the others.
    """
    rows = [
        "| sequence | people | reference | graph | MAE | NAE | F1 at 0.5 m |",
        "| --- | ---: | --- | --- | --- | --- | --- |",
    ]
    differences = [""]
    for sequence, references in documents.items():
        for view, found in references.items():
            people = found["protocol"]["mean_people"]
            for graph, values in found["graphs"].items():
                cells = (interval(values[name], digits) for name, digits in _COLUMNS)
                rows.append(f"| {sequence} | {people:.1f} | {view} | {graph} | {' | '.join(cells)} |")
        for ours, others in references["any"]["differences"].items():
            for theirs, values in others.items():
                mae, f1 = (interval(values[name], digits, "+") for name, digits in (("mae", 2), ("f1", 3)))
                differences.append(f"- {sequence}, {ours} − {theirs}: MAE {mae}, F1 {f1}")
    return "\n".join([*rows, *differences])
