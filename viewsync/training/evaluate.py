"""`viewsync evaluate`: a bundle, as edge and hub would run it, on snapshots of crowds nobody has seen.

Frames pass the video codec (they were stored so), the exported encoder, and the exported fusion graphs;
nothing of torch is involved. Every graph answers the same snapshots, so differences between them are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.ground import GroundGrid
from calib.scene import Scene
from viewsync.bundle import Bundle
from viewsync.errors import UserError
from viewsync.ort import open_session
from viewsync.sim.rigs import RIGS
from viewsync.training.geometry import scene_distances, scene_fundamentals, scene_grids, scene_planes
from viewsync.training.metrics import METRICS, Scores, bootstrap, f1, hits, locate
from viewsync.training.runners import Runner, refuse_other_slots
from viewsync.training.snapshots import Sampling, Snapshot, density_map
from viewsync.training.source import Shots, open_shots

Floats = NDArray[np.float32]
Densities = dict[str, Floats]
# Candidate thresholds for locating people, in people per cell of 0.2 m (larger cells hold more); each graph
# gets the one best on the tuning crowds.
THRESHOLDS = (0.006, 0.009, 0.012, 0.016, 0.02, 0.025, 0.03)
_THRESHOLD_CELL_M = 0.2
# Crowds that last longer than the first are cut into stretches of the second, seconds: few people stay on a
# piece of ground for longer.
_LONG_S, _STRETCH_S = 60.0, 10.0
# Features kept while answering: a crowd's pictures come back in many snapshots. About 0.1 MB each.
_PICTURES_KNOWN = 1000


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Per graph: scores of every snapshot and the threshold its people were located with, in people per cell;
    offsets_s: those of the other views, all snapshots together; grouped: what intervals draw.
    """

    scores: Mapping[str, Scores]
    thresholds: Mapping[str, float]
    offsets_s: NDArray[np.float64]
    grouped: str = "crowds"

    def joined(self, other: Evaluation, names: Mapping[str, str]) -> Evaluation:
        """With the other's graphs under new `names`, all on the same snapshots. Raises ValueError."""
        theirs = {names[graph]: scores for graph, scores in other.scores.items()}
        if not np.array_equal(self.offsets_s, other.offsets_s) or theirs.keys() & self.scores.keys():
            raise ValueError(f"{', '.join(theirs)}: of other snapshots, or there already")
        thresholds = {names[graph]: value for graph, value in other.thresholds.items()}
        every = {**self.thresholds, **thresholds}
        return Evaluation({**self.scores, **theirs}, every, self.offsets_s, self.grouped)

    def table(self, draws: int = 1000) -> dict[str, dict[str, dict[str, float]]]:
        """graph → metric → {value, low, high}: 95 % bootstrap intervals over crowds."""
        out: dict[str, dict[str, dict[str, float]]] = {}
        for graph, scores in self.scores.items():
            out[graph] = {}
            for name, metric in METRICS.items():
                low, high = bootstrap(scores, metric, draws=draws)
                out[graph][name] = {
                    "value": round(metric(scores), 5),
                    "low": round(low, 5),
                    "high": round(high, 5),
                }
        return out

    def differences(self, graph: str, draws: int = 1000) -> dict[str, dict[str, dict[str, float]]]:
        """other graph → metric → {value, low, high} of `graph` minus the other, on the same snapshots."""
        out: dict[str, dict[str, dict[str, float]]] = {}
        ours = self.scores[graph]
        for other, theirs in self.scores.items():
            if other == graph:
                continue
            out[other] = {}
            for name in ("mae", "density_mse", "f1"):
                low, high = bootstrap(ours, METRICS[name], theirs, draws)
                value = METRICS[name](ours) - METRICS[name](theirs)
                out[other][name] = {"value": round(value, 5), "low": round(low, 5), "high": round(high, 5)}
        return out


class BundleRunner:
    """A bundle's encoder and fusion graphs, one thread count for all, frames to densities."""

    def __init__(self, bundle: Bundle, graphs: Sequence[str] | None = None, threads: int = 2) -> None:
        manifest = bundle.manifest
        self.bundle = bundle
        self.graphs = tuple(graphs or manifest.fusion)
        self._encoder = open_session(bundle.encoder_bytes, "cpu", threads)
        self._fusion = {g: open_session(bundle.fusion_bytes(g), "cpu", threads) for g in self.graphs}
        size = manifest.preprocessing
        self._grids = scene_grids(bundle.scene, size.width, size.height)
        spec = manifest.features
        self._fundamental = scene_fundamentals(bundle.scene, spec.width, spec.height)
        self._distance = scene_distances(bundle.scene, spec.width, spec.height)
        self._planes = scene_planes(bundle.scene, spec.width, spec.height)
        only = manifest.references[0]
        self._slots = (only, *(view for view in manifest.views if view != only))

    @property
    def scene(self) -> Scene:
        """Cameras and ground."""
        return self.bundle.scene

    @property
    def reference(self) -> str | None:
        """The one view that it answers for; None: any."""
        references = self.bundle.manifest.references
        return references[0] if len(references) == 1 else None

    def encode(self, image: NDArray[np.uint8], view: int = 0) -> NDArray[np.uint8]:
        """One pinhole image (H, W, 3) to features (C, h, w) as they cross the wire; all views have one
        encoder.
        """
        features: NDArray[np.uint8] = self._encoder.run(
            None, {self.bundle.manifest.encoder.input.name: image[None]}
        )[0][0]
        return features

    @property
    def config(self) -> Mapping[str, Any]:
        """What it was trained with; {} where the bundle does not say."""
        config: Mapping[str, Any] = self.bundle.manifest.training.get("config", {})
        return config

    @property
    def before_s(self) -> float | None:
        """How far back the frames before lay that it learned from, seconds; None: no graph takes one."""
        if all("features_before" not in self.bundle.manifest.fusion[g].inputs for g in self.graphs):
            return None
        if not self.bundle.manifest.before_s:
            raise UserError(
                f"{self.bundle.manifest.name}: its manifest does not tell how far back frames before lay in "
                "training (training.config.before_s); export it again"
            )
        return self.bundle.manifest.before_s[0]

    def fuse(
        self, features: NDArray[np.uint8], shot: Snapshot, earlier: NDArray[np.uint8] | None = None
    ) -> dict[str, dict[str, Floats]]:
        """Features (V, C, h, w) of a snapshot, and of its frames before, to the outputs of every graph."""
        spec = self.bundle.manifest.features

        def values(levels: NDArray[np.uint8]) -> Floats:
            return spec.low + levels.astype(np.float32) * ((spec.high - spec.low) / (spec.levels - 1))

        inputs = {
            "features": values(features),
            "present": shot.present,
            "offset_s": shot.offset_s,
            "view_from_ground": self._grids[shot.view],
            "fundamental": self._fundamental[shot.view[0]][shot.view],
            "distance_m": self._distance[shot.view],
            "planes": self._planes[shot.view[0]][shot.view],
        }
        if earlier is None or shot.earlier is None:
            nothing = np.zeros_like(shot.present)
            inputs |= {
                "features_before": np.zeros_like(inputs["features"]),
                "present_before": nothing,
                "before_s": nothing,
            }
        else:
            inputs |= {
                "features_before": values(earlier),
                "present_before": shot.earlier.present,
                "before_s": -shot.earlier.offset_s,
            }
        out: dict[str, dict[str, Floats]] = {}
        for graph, session in self._fusion.items():
            spec_of = self.bundle.manifest.fusion[graph]
            if spec_of.fusion == "concat":
                refuse_other_slots(self._slots, shot, tuple(self.scene.cameras), f"graph {graph}")
            names = list(spec_of.outputs)
            results = session.run(names, {k: inputs[k] for k in spec_of.inputs})
            out[graph] = dict(zip(names, results, strict=True))
        return out


def evaluate(
    runner: Runner,
    folder: Path,
    seeds: Sequence[int],
    tuning: Sequence[int],
    frames: int,
    kappa_s: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
    reference: str | None = None,
    tau_s: Mapping[str, float] | None = None,
    elsewhere: tuple[Runner, Path] | None = None,
    known: bool = True,
    before_s: float | None = None,
) -> Evaluation:
    """Score `frames` snapshots spread evenly over the crowds `seeds`; thresholds are chosen on the crowds
    `tuning`, where `elsewhere` is given those of its folder, answered by its runner.

    Every snapshot has all views present: offsets are drawn from ±κ (0: synchronised), or tau_s, a constant
    for each view, and told, unless not `known`. reference: the view that always is it; None: a random one.
    before_s: how far back each view's frame before lies; None: snapshots come without.
    """
    scene = runner.scene
    few = tuning_frames(frames)
    views = tuple(scene.cameras)
    sampling = Sampling(
        kappa_s,
        tau_s=None if tau_s is None else tuple(tau_s.get(view, 0.0) for view in views),
        reference=None if reference is None else views.index(reference),
        unknown=0.0 if known else 1.0,
        before_s=() if before_s is None else (before_s,),
    )
    if elsewhere is None:
        tuner, tuned = runner, open_shots(scene, folder, tuning, sampling)
    else:
        tuner = elsewhere[0]
        other = replace(sampling, tau_s=None, reference=None)
        tuned = open_shots(tuner.scene, elsewhere[1], tuning, other)
    thresholds = tune(answer(tuner, _draws(tuned, few), few, progress), tuner.scene.ground)
    shots = open_shots(scene, folder, seeds, sampling)
    answers = answer(runner, _draws(shots, frames), frames, progress)
    scores = {g: score(answers, g, scene.ground, thresholds[g]) for g in runner.graphs}
    offsets = np.concatenate([a.shot.true_offset_s[1:] for a in answers]).astype(np.float64)
    grouped = "rigs" if scene.name == RIGS else "crowds"
    if shots.span_s > _LONG_S:
        grouped = f"stretches of {_STRETCH_S:g} s"
    return Evaluation(scores, thresholds, offsets, grouped)


def tuning_frames(frames: int) -> int:
    """How many snapshots choose the thresholds for `frames` that are scored."""
    return max(40, frames // 10)


def _draws(shots: Shots, count: int) -> Iterator[tuple[Snapshot, int]]:
    for index in range(count):
        crowd = index * len(shots.seeds) // count
        shot = shots.draw(2, index, crowd=crowd, plain=True)
        stretch = int(shot.start_s // _STRETCH_S) if shots.span_s > _LONG_S else 0
        yield shot, crowd * 10_000 + stretch


@dataclass(frozen=True, slots=True)
class Answered:
    """What every graph said to a snapshot, which is kept without its pictures; snapshots of one `group` are
    not independent."""

    density: Densities
    shot: Snapshot
    group: int


def answer(
    runner: Runner,
    shots: Iterable[tuple[Snapshot, int]],
    count: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answered]:
    """The answers of every graph to `count` snapshots, each with its group; every picture is encoded once."""
    out = []
    known: dict[bytes, NDArray[Any]] = {}

    def features_of(images: NDArray[np.uint8], views: NDArray[np.int64]) -> NDArray[Any]:
        features = []
        for image, view in zip(images, views, strict=True):
            key = blake2b(image.tobytes(), salt=int(view).to_bytes(2)).digest()
            if key not in known:
                known[key] = runner.encode(image, int(view))
            features.append(known[key])
        return np.stack(features)

    for number, (shot, group) in enumerate(shots):
        if len(known) > _PICTURES_KNOWN:
            known.clear()
        earlier = None if shot.earlier is None else features_of(shot.earlier.images, shot.view)
        fused = runner.fuse(features_of(shot.images, shot.view), shot, earlier)
        slim = replace(shot, images=shot.images[:0], earlier=None)
        out.append(Answered({g: o["density"] for g, o in fused.items()}, slim, group))
        progress(number + 1, count)
    return out


def tune(answers: Sequence[Answered], grid: GroundGrid) -> dict[str, float]:
    """For every graph, the threshold in people per cell that locates people best (by F1) in `answers`."""
    area = (grid.cell_m / _THRESHOLD_CELL_M) ** 2
    return {
        graph: max((t * area for t in THRESHOLDS), key=lambda t: f1(score(answers, graph, grid, t)))
        for graph in answers[0].density
    }


def score(answers: Sequence[Answered], graph: str, grid: GroundGrid, threshold: float) -> Scores:
    """Scores of one graph, people located above `threshold` people per cell; `Scores.crowd` is the group."""
    rows = []
    for a in answers:
        density, everybody = a.density[graph], a.shot.xy[0]
        people = everybody[grid.contains(everybody)]
        found = locate(density, grid, threshold)
        error = float(((density - density_map(everybody, grid)) ** 2).sum())
        rows.append((float(density.sum()), len(people), error, hits(found, people), len(found), a.group))
    predicted, true, error, matched, located, group = np.array(rows, dtype=np.float64).T
    return Scores(predicted, true, error, matched, located, group.astype(np.int64))
