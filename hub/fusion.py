"""From the frames of a snapshot to a density map: geometry of the scene, dequantised features, ONNX Runtime.

The graphs hold no geometry. What a graph declares of it (`hub.geometry`) is computed from the scene once per
reference and stays where the graph runs; what it takes of a snapshot is made by `hub.inputs`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hub.buffer import Snapshot
from hub.geometry import GEOMETRY
from hub.inputs import BEFORE, NEWEST, SnapshotInputs, takes_before
from hub.zones import zone_weights
from viewsync.bundle import Bundle
from viewsync.errors import BundleError, InternalError
from viewsync.manifest import Fusion as FusionSpec
from viewsync.ort import Provider, check_signature, open_session, running_on

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class FusionOutputs:
    """What the graphs said of one snapshot.

    density: float32 (Hg, Wg) people per cell, of the main graph; counts: by graph; skipped: compared graphs
    that could not answer, and why; slots: the view in each slot of `flow_m` (V, Hm, Wm, 2), metres on the
    ground from a reference cell to the place in that view, and `match` (V, Hm, Wm), where the main graph
    has them. before_ns: how much earlier the frame before was captured of each view where the main graph
    looked at one. fuse_ns: in the main graph; elapsed_ns: all graphs with the preparation of their inputs.
    """

    density: Floats
    counts: Mapping[str, float]
    skipped: tuple[str, ...]
    slots: tuple[str, ...]
    flow_m: Floats | None
    match: Floats | None
    fuse_ns: int
    elapsed_ns: int
    before_ns: Mapping[str, int] = field(default_factory=dict)

    def mean_warp_m(self, view: str) -> float | None:
        """How far this view's people were moved, metres: mean length of its flow, weighted with the people
        of each cell and with the match where the graph gives one. None for the reference, without flow, and
        where nobody is.
        """
        slot = self.slots.index(view)
        if self.flow_m is None or slot == 0:
            return None
        lengths = np.linalg.norm(self.flow_m[slot], axis=-1)
        weights = _pooled(np.clip(self.density, 0.0, None), lengths.shape)
        if self.match is not None:
            weights = weights * np.clip(self.match[slot], 0.0, None)
        total = float(weights.sum())
        return float((lengths * weights).sum()) / total if total > 0 else None


@dataclass(slots=True)
class _Graph:
    """One loaded graph; `fixed` keeps its geometry by reference, on the device that it runs on."""

    name: str
    session: ort.InferenceSession
    spec: FusionSpec
    fixed: dict[tuple[str, str], Any] = field(default_factory=dict)


class Fusion:
    """The chosen graphs of a bundle. `graphs`: the first one answers, the others are compared with it.

    timer: nanoseconds, for fuse_ns and elapsed_ns; a simulator in virtual time gives its own. Raises
    BundleError, or UserError where the provider cannot run a graph.
    """

    def __init__(
        self,
        bundle: Bundle,
        graphs: Sequence[str] = (),
        provider: Provider = "cpu",
        threads: int = 1,
        allow_cpu_fallback: bool = False,
        timer: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        names = tuple(dict.fromkeys(graphs or (bundle.manifest.default,)))
        self.bundle = bundle
        self.views = bundle.manifest.views
        self.zones = zone_weights(bundle.scene.ground, bundle.scene.zones)
        self._timer = timer
        self._provider = provider
        self._graphs = [self._load(name, provider, threads, allow_cpu_fallback) for name in names]
        self._inputs = SnapshotInputs(bundle)
        self._looks_back = any(takes_before(graph.spec) for graph in self._graphs)

    @property
    def synchroniser(self) -> str:
        """Name of the graph that answers."""
        return self._graphs[0].name

    @property
    def on_cpu_against_wish(self) -> bool:
        """CUDA was asked for and the configuration allowed to go on without."""
        return any(running_on(graph.session) != self._provider for graph in self._graphs)

    @property
    def looks_back(self) -> bool:
        """Whether a graph looks at each view's frame before, too."""
        return self._looks_back

    def objection(self, used: Sequence[str]) -> str:
        """Why the main graph cannot answer with these views (the reference first), naming what is missing;
        "" if it can.
        """
        return self._objection(self._graphs[0], used)

    def slots(self, reference: str) -> tuple[str, ...]:
        """All views, the reference first, the others in the bundle's order."""
        return (reference, *(view for view in self.views if view != reference))

    def predict(self, snapshot: Snapshot, used: Sequence[str], unknown: Sequence[str] = ()) -> FusionOutputs:
        """Run all graphs on the `used` frames of a snapshot, the reference first.

        unknown: views whose offset is too uncertain to be told to the model. Raises InternalError where a
        graph breaks its promise (a density that is not finite or of another shape).
        """
        started_ns = self._timer()
        slots = self.slots(used[0])
        inputs = self._inputs.newest(snapshot, slots, frozenset(used), frozenset(unknown))
        before_ns = self._inputs.ages(snapshot, used) if self._looks_back else {}
        if self._looks_back:
            inputs |= self._inputs.before(snapshot, slots, before_ns)
        main, fuse_ns = self._run(self._graphs[0], inputs, slots)
        counts = {self._graphs[0].name: _count(main["density"])}
        objections = {graph.name: self._objection(graph, used) for graph in self._graphs[1:]}
        for graph in self._graphs[1:]:
            if not objections[graph.name]:
                counts[graph.name] = _count(self._run(graph, inputs, slots)[0]["density"])
        return FusionOutputs(
            density=main["density"],
            counts=counts,
            skipped=tuple(why for why in objections.values() if why),
            slots=slots,
            flow_m=main.get("flow_m"),
            match=main.get("match"),
            fuse_ns=fuse_ns,
            elapsed_ns=self._timer() - started_ns,
            before_ns=before_ns if takes_before(self._graphs[0].spec) else {},
        )

    def warm_up(self) -> None:
        """Run every graph once for every reference, on nothing: the first real answer is as fast as the
        later ones.

        Raises BundleError where a graph does not run: that is seen here, not at the first frame.
        """
        for reference in self.bundle.manifest.references:
            slots = self.slots(reference)
            inputs = self._inputs.nothing(slots)
            for graph in self._graphs:
                try:
                    self._run(graph, inputs, slots)
                except InternalError as error:
                    raise BundleError(f"{self.bundle.path}: {error}; export the bundle again") from error

    def _load(self, name: str, provider: Provider, threads: int, allow_cpu_fallback: bool) -> _Graph:
        model = self.bundle.fusion_bytes(name)
        spec = self.bundle.manifest.fusion[name]
        unknown = set(spec.inputs) - NEWEST - BEFORE - set(GEOMETRY)
        if unknown:
            raise BundleError(
                f"{self.bundle.path}: graph {name} takes {', '.join(sorted(unknown))}, which this hub cannot"
                " give; install a newer viewsync or choose another graph"
            )
        session = open_session(model, provider, threads, allow_cpu_fallback)
        check_signature(f"{self.bundle.path}: {spec.file}", session, spec.inputs, spec.outputs)
        return _Graph(name, session, spec)

    def _objection(self, graph: _Graph, used: Sequence[str]) -> str:
        # Only `concat` graphs object: they were trained for all views in fixed places, behind one reference.
        if graph.spec.fusion == "masked":
            return ""
        missing = [view for view in self.views if view not in used]
        if missing:
            return f"graph {graph.name} needs all views; missing: {', '.join(missing)}"
        first = self.bundle.manifest.references[0]
        return "" if used[0] == first else f"graph {graph.name} needs reference {first}, not {used[0]}"

    def _run(
        self, graph: _Graph, inputs: Mapping[str, Floats], slots: tuple[str, ...]
    ) -> tuple[dict[str, Floats], int]:
        feeds = {name: self._feed(graph, name, inputs, slots) for name in graph.spec.inputs}
        names = list(graph.spec.outputs)
        started_ns = self._timer()
        try:
            values = graph.session.run_with_ort_values(names, feeds)
        except Exception as error:  # onnxruntime's exceptions share no class below Exception
            raise InternalError(f"graph {graph.name} failed: {' '.join(str(error).split())[:300]}") from error
        outputs = {
            name: value.numpy().astype(np.float32, copy=False)
            for name, value in zip(names, values, strict=True)
        }
        fuse_ns = self._timer() - started_ns
        density, shape = outputs["density"], self.bundle.scene.ground.shape
        if density.shape != shape or not np.isfinite(density).all():
            raise InternalError(
                f"graph {graph.name} gave a density {density.shape} that is not a finite {shape}"
            )
        return outputs, fuse_ns

    def _feed(self, graph: _Graph, name: str, inputs: Mapping[str, Floats], slots: tuple[str, ...]) -> Any:
        spec = graph.spec.inputs[name]
        # A graph that says 1 where others say V takes the reference alone.
        first = spec.shape[0] if spec.shape else len(slots)
        taken = first if isinstance(first, int) else len(slots)
        if name in inputs:
            return ort.OrtValue.ortvalue_from_numpy(
                np.ascontiguousarray(inputs[name][:taken], dtype=spec.dtype)
            )
        key = (name, slots[0])
        if key not in graph.fixed:
            value = np.ascontiguousarray(GEOMETRY[name](self.bundle, slots)[:taken], dtype=spec.dtype)
            graph.fixed[key] = ort.OrtValue.ortvalue_from_numpy(value, running_on(graph.session), 0)
        return graph.fixed[key]


def _pooled(density: Floats, shape: tuple[int, ...]) -> Floats:
    """People per coarser cell; ones where `shape` does not divide the density's."""
    rows, columns = density.shape[0] // shape[0], density.shape[1] // shape[1]
    if (rows * shape[0], columns * shape[1]) != density.shape:
        return np.ones(shape, np.float32)
    pooled: Floats = density.reshape(shape[0], rows, shape[1], columns).sum(axis=(1, 3))
    return pooled


def _count(density: Floats) -> float:
    return float(density.sum(dtype=np.float64))
