"""From the frames of a snapshot to a density map: geometry of the scene, dequantised features, ONNX Runtime.

The graphs hold no geometry. What a graph declares of it (see `_GEOMETRY`) is computed from the scene once
per reference, with the reference in slot 0 and the other views after it in the bundle's order, and stays
where the graph runs. All views have a slot, absent ones with present = 0: the shapes never change, so
nothing is planned anew when a camera drops out.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from calib.epipolar import fundamental_matrix
from calib.ground import person_plane, place_distances, view_from_ground
from calib.planes import plane_maps
from hub.buffer import Snapshot
from hub.zones import zone_weights
from viewsync.bundle import Bundle
from viewsync.errors import BundleError, InternalError
from viewsync.manifest import Fusion as FusionSpec
from viewsync.ort import Provider, check_signature, open_session, running_on
from viewsync.units import SECOND_NS

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
        self.unknown_s = bundle.manifest.offset.unknown_s
        self.zones = zone_weights(bundle.scene.ground, bundle.scene.zones)
        self._timer = timer
        self._provider = provider
        self._graphs = [self._load(name, provider, threads, allow_cpu_fallback) for name in names]
        spec = bundle.manifest.features
        # Every value of the wire, dequantised: a look-up is three times faster than arithmetic on the whole
        # tensor.
        self._values = np.linspace(spec.low, spec.high, spec.levels, dtype=np.float64).astype(np.float32)
        self._shape = (len(self.views), spec.channels, spec.height, spec.width)
        # A frame further back than offsets were trained for says nothing of how people walk now.
        self._longest_ns = round(bundle.manifest.offset.trained_s * SECOND_NS)
        # As in training: of what was trained, give or take half.
        config = bundle.manifest.training.get("config", {})
        backs_s = [float(back) for back in config.get("before_s", ())]
        self._backs_ns = [(round(b * SECOND_NS / 2), round(b * SECOND_NS * 3 / 2)) for b in backs_s]
        self._looks_back = any(takes_before(graph.spec) for graph in self._graphs)

    @property
    def synchroniser(self) -> str:
        """Name of the graph that answers."""
        return self._graphs[0].name

    @property
    def on_cpu_against_wish(self) -> bool:
        """CUDA was asked for and the configuration allowed to go on without."""
        return any(running_on(graph.session) != self._provider for graph in self._graphs)

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
        inputs = self._inputs(snapshot, slots, frozenset(used), frozenset(unknown))
        before_ns = self._ages(snapshot, used) if self._looks_back else {}
        if self._looks_back:
            inputs |= self._inputs_before(snapshot, slots, before_ns)
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
            present = np.zeros(len(slots), dtype=np.float32)
            present[0] = 1.0
            inputs = {
                "features": np.zeros(self._shape, np.float32),
                "present": present,
                "offset_s": np.zeros_like(present),
            }
            if self._looks_back:
                inputs |= self._inputs_before(Snapshot(0, {}), slots, {})
            for graph in self._graphs:
                try:
                    self._run(graph, inputs, slots)
                except InternalError as error:
                    raise BundleError(f"{self.bundle.path}: {error}; export the bundle again") from error

    def _load(self, name: str, provider: Provider, threads: int, allow_cpu_fallback: bool) -> _Graph:
        model = self.bundle.fusion_bytes(name)
        spec = self.bundle.manifest.fusion[name]
        unknown = set(spec.inputs) - _PER_SNAPSHOT - set(_GEOMETRY)
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

    def _inputs(
        self, snapshot: Snapshot, slots: tuple[str, ...], used: frozenset[str], unknown: frozenset[str]
    ) -> dict[str, Floats]:
        reference_ns = snapshot.entries[slots[0]].capture_ns
        features = np.zeros(self._shape, dtype=np.float32)
        present = np.zeros(len(slots), dtype=np.float32)
        offset_s = np.zeros(len(slots), dtype=np.float32)
        for slot, view in enumerate(slots):
            if view in used:
                entry = snapshot.entries[view]
                np.take(self._values, entry.features, out=features[slot], mode="clip")
                present[slot] = 1.0
                offset_s[slot] = (
                    self.unknown_s if view in unknown else (entry.capture_ns - reference_ns) / SECOND_NS
                )
        return {"features": features, "present": present, "offset_s": offset_s}

    def _ages(self, snapshot: Snapshot, used: Sequence[str]) -> dict[str, int]:
        """How much earlier each used view's frame before was captured, by its own camera's clock; views
        without one that tells anything are left out.
        """
        ages: dict[str, int] = {}
        for view in used:
            newest, before = snapshot.entries[view], snapshot.before.get(view)
            if before is None or (before.session, before.clock) != (newest.session, newest.clock):
                continue
            age_ns = newest.stamped_ns - before.stamped_ns
            if 0 < age_ns <= self._longest_ns and self._learned(age_ns):
                ages[view] = age_ns
        return ages

    def _learned(self, age_ns: int) -> bool:
        """Whether frames so much earlier were trained with; true where the bundle does not tell."""
        return not self._backs_ns or any(least <= age_ns <= most for least, most in self._backs_ns)

    def _inputs_before(
        self, snapshot: Snapshot, slots: tuple[str, ...], ages_ns: Mapping[str, int]
    ) -> dict[str, Floats]:
        features = np.zeros(self._shape, dtype=np.float32)
        present = np.zeros(len(slots), dtype=np.float32)
        before_s = np.zeros(len(slots), dtype=np.float32)
        for slot, view in enumerate(slots):
            if view in ages_ns:
                np.take(self._values, snapshot.before[view].features, out=features[slot], mode="clip")
                present[slot], before_s[slot] = 1.0, ages_ns[view] / SECOND_NS
        return {"features_before": features, "present_before": present, "before_s": before_s}

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
            value = np.ascontiguousarray(_GEOMETRY[name](self.bundle, slots)[:taken], dtype=spec.dtype)
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


def _view_from_ground(bundle: Bundle, slots: tuple[str, ...]) -> Floats:
    """(V, Z, Hg, Wg, 2): where each ground cell at each height is seen, `grid_sample` coordinates."""
    scene = bundle.scene
    return np.stack([view_from_ground(bundle.pinhole(view), scene.ground, scene.heights_m) for view in slots])


def _fundamental(bundle: Bundle, slots: tuple[str, ...]) -> Floats:
    """(V, 3, 3): x_viewᵀ F x_reference = 0 in feature pixels; zero for the reference itself."""
    spec = bundle.manifest.features
    cameras = [bundle.pinhole(view).resized(spec.width, spec.height) for view in slots]
    others = [fundamental_matrix(cameras[0], camera) for camera in cameras[1:]]
    return np.stack([np.zeros((3, 3)), *others]).astype(np.float32)


def _distance(bundle: Bundle, slots: tuple[str, ...]) -> Floats:
    """(V, h, w): how far the plane at a person's height is in each place of a view's features, metres."""
    spec, heights = bundle.manifest.features, bundle.scene.heights_m
    cameras = [bundle.pinhole(view).resized(spec.width, spec.height) for view in slots]
    return np.stack([place_distances(camera, heights[person_plane(heights)]) for camera in cameras])


def _planes(bundle: Bundle, slots: tuple[str, ...]) -> Floats:
    """(V, Z, 4, 3): over the plane at each height, from a view's feature pixels to the reference's."""
    spec = bundle.manifest.features
    cameras = [bundle.pinhole(view).resized(spec.width, spec.height) for view in slots]
    return np.stack([plane_maps(camera, cameras[0], bundle.scene.heights_m) for camera in cameras])


def takes_before(spec: FusionSpec) -> bool:
    """Whether a graph looks at the frame before of each view, too."""
    return "features_before" in spec.inputs


_PER_SNAPSHOT = frozenset(
    {"features", "present", "offset_s", "features_before", "present_before", "before_s"}
)

# What of the scene a graph may ask for; a further kind of geometry is one more line.
_GEOMETRY: dict[str, Callable[[Bundle, tuple[str, ...]], Floats]] = {
    "view_from_ground": _view_from_ground,
    "fundamental": _fundamental,
    "distance_m": _distance,
    "planes": _planes,
}
