"""Scores of a bundle on the real tracks of PETS2009, for every sequence and each view as the reference.

The protocol is the paper's random latency (Section IV): every other view's frame is off by up to κ = 5 s,
drawn anew for each frame of the reference. Cameras and people's paths are real, what the frames show is
rendered (`viewsync.demo.recording`). Nothing is chosen on these sequences: thresholds come from simulated
crowds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from viewsync.errors import UserError
from viewsync.training.evaluate import BundleRunner, Evaluation, answer, score, tune
from viewsync.training.snapshots import Sampling, Snapshot, SnapshotSet

KAPPA_S = 5.0
# Intervals are over stretches of a sequence: within so many seconds the same people are about.
STRETCH_S = 5.0


def evaluate_sequences(
    runner: BundleRunner,
    folder: Path,
    tuning: SnapshotSet,
    frames: int = 220,
    kappa_s: float = KAPPA_S,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, Evaluation]]:
    """sequence → reference view → scores of every graph, over the sequences in `folder`, all castings
    together.

    frames: snapshots per sequence and reference view, spread evenly (fewer where there are fewer frames);
    tuning: simulated crowds that choose the thresholds. Raises UserError, with the command to run, where
    `folder` has no sequences.
    """
    grid = runner.bundle.scene.ground
    sequences = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not sequences:
        raise UserError(
            f"{folder}: no sequences here; make them with: viewsync sim pets2009 sequences --out {folder}"
        )
    few = 120
    tuned = ((tuning.draw(3, k, crowd=k * len(tuning.seeds) // few, plain=True), 0) for k in range(few))
    thresholds = tune(answer(runner, tuned, few), grid)
    out: dict[str, dict[str, Evaluation]] = {}
    for sequence in sequences:
        castings = sorted(int(path.stem) for path in (folder / sequence).glob("*.npz"))
        shots = SnapshotSet(runner.bundle.scene, folder / sequence, castings, Sampling(kappa_s))
        out[sequence] = {}
        for row, view in enumerate(shots.views):
            count = min(frames, len(castings) * shots.truth[0].times_s.shape[1])
            answers = answer(runner, latencies(shots, row, count, kappa_s), count, progress)
            scores = {g: score(answers, g, grid, thresholds[g]) for g in runner.graphs}
            offsets = np.concatenate([a.shot.true_offset_s[1:] for a in answers]).astype(np.float64)
            out[sequence][view] = Evaluation(scores, thresholds, offsets)
    return out


def latencies(
    shots: SnapshotSet, reference: int, count: int, kappa_s: float
) -> Iterator[tuple[Snapshot, int]]:
    """`count` snapshots with the reference's frames spread evenly over all castings, and the stretch each
    is from.

    The other views' frames are those nearest to instants drawn uniformly from what the sequence has within
    ±κ of the reference's.
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
    found: Mapping[str, Mapping[str, Evaluation]], metrics: Sequence[str] = ("mae", "nae", "f1")
) -> dict[str, dict[str, dict[str, object]]]:
    """Plain values for JSON: sequence → reference view → snapshots, mean number of people and offset, every
    graph's metrics and the first graph's differences to the others, all with 95 % intervals.
    """
    out: dict[str, dict[str, dict[str, object]]] = {}
    for sequence, references in found.items():
        out[sequence] = {}
        for view, evaluation in references.items():
            values = evaluation.table()
            first = next(iter(values))
            some = next(iter(evaluation.scores.values()))
            out[sequence][view] = {
                "snapshots": len(some.true),
                "mean_people": round(float(some.true.mean()), 2),
                "mean_offset_s": round(float(np.abs(evaluation.offsets_s).mean()), 2),
                "graphs": {g: {m: values[g][m] for m in metrics} for g in values},
                "differences": {first: evaluation.differences(first)},
            }
    return out


def table(numbers: Mapping[str, Mapping[str, Mapping[str, object]]]) -> str:
    """The summary as a Markdown table, a row for each sequence, reference view and graph."""
    rows = [
        "| sequence | people | reference | graph | MAE | NAE | F1 at 0.5 m |",
        "| --- | ---: | --- | --- | --- | --- | --- |",
    ]
    for sequence, references in numbers.items():
        for view, entry in references.items():
            graphs = entry["graphs"]
            assert isinstance(graphs, Mapping)
            for graph, values in graphs.items():
                cells = [
                    _with_interval(values["mae"], 2),
                    _with_interval(values["nae"], 3),
                    _with_interval(values["f1"], 3),
                ]
                rows.append(
                    f"| {sequence} | {entry['mean_people']} | {view} | {graph} | {' | '.join(cells)} |"
                )
    return "\n".join(rows)


def _with_interval(value: Mapping[str, float], digits: int) -> str:
    return f"{value['value']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
