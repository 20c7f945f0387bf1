"""Parity end to end: what edge and hub will compute, against the model in torch, on snapshots held out.

Stored frames went through H.264. From there one side goes through the exported encoder, real wire bytes and
the exported fusion graphs; the other through the torch model in fp32 with the wire's quantisation in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from viewsync.errors import BundleError, InternalError
from viewsync.nets.model import CountingModel
from viewsync.training.evaluate import BundleRunner
from viewsync.training.geometry import scene_grids
from viewsync.training.inputs import before_of, distances, fundamentals, pictures, plane_maps, tensors
from viewsync.training.snapshots import Snapshot, SnapshotSet
from viewsync.wire import FeatureMessage, Tensor, decode, encode

LIMIT_PERCENT = 2.0
SNAPSHOTS = 200
# The stream of snapshots that parity is measured on: views missing and offsets unknown as in training.
_STREAM = 4


@dataclass(frozen=True, slots=True)
class Parity:
    """Count differences of one graph to torch, in percent of the count (of 1, where there are fewer), and the
    greatest difference of any cell of any density map, in people.
    """

    count_p50_percent: float
    count_p95_percent: float
    count_max_percent: float
    density_max: float


def measure(
    model: CountingModel,
    runner: BundleRunner,
    shots: SnapshotSet,
    count: int = SNAPSHOTS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Parity]:
    """Parity of every graph of the bundle on `count` snapshots spread evenly over the crowds."""
    scene, size = runner.bundle.scene, runner.bundle.manifest.preprocessing
    grids = torch.from_numpy(scene_grids(scene, size.width, size.height))
    percent: dict[str, list[float]] = {g: [] for g in runner.graphs}
    cells: dict[str, list[float]] = {g: [] for g in runner.graphs}
    for number in range(count):
        shot = shots.draw(_STREAM, number, crowd=number * len(shots.seeds) // count)
        earlier = None if shot.earlier is None else over_the_wire(runner, shot.earlier)
        exported = runner.fuse(over_the_wire(runner, shot), shot, earlier)
        with torch.inference_mode():
            answer = model(
                pictures([shot.images]),
                *tensors([shot], grids),
                fundamentals(model, [shot], scene),
                distances(model, [shot], scene),
                before=before_of(model, [shot]),
                planes=plane_maps(model, [shot], scene),
            )
        for graph in runner.graphs:
            ours, theirs = exported[graph]["density"], answer.density[graph][0].numpy()
            difference = abs(float(ours.sum(dtype=np.float64)) - float(theirs.sum(dtype=np.float64)))
            percent[graph].append(100.0 * difference / max(float(theirs.sum()), 1.0))
            cells[graph].append(float(np.abs(ours - theirs).max()))
        progress(number + 1, count)
    out: dict[str, Parity] = {}
    for graph in runner.graphs:
        p50, p95, most = (round(float(q), 6) for q in np.percentile(percent[graph], (50, 95, 100)))
        out[graph] = Parity(p50, p95, most, round(max(cells[graph]), 6))
    return out


def over_the_wire(runner: BundleRunner, shot: Snapshot) -> NDArray[np.uint8]:
    """Features (V, C, h, w) as the hub has them: made into message bytes and read back; absent: 0."""
    bundle = runner.bundle
    views = bundle.manifest.views
    received = []
    for slot, image in enumerate(shot.images):
        features = runner.encode(image)
        if not shot.present[slot]:
            received.append(np.zeros_like(features))
            continue
        view = views[int(shot.view[slot])]
        message = FeatureMessage(
            site="parity",
            scene=bundle.scene.name,
            view=view,
            session=1,
            seq=0,
            capture_ns=0,
            clock="file",
            arrival_ns=0,
            sent_ns=0,
            camera_offset=None,
            hub_offset=None,
            features_hash=bundle.features_hash(view),
            tensors=(Tensor("features", features),),
        )
        arrived = decode(encode(message))
        if not isinstance(arrived, FeatureMessage):
            raise InternalError(f"a features message came back as {type(arrived).__name__}")
        received.append(arrived.tensor("features"))
    return np.stack(received)


def refuse_beyond_limit(found: Mapping[str, Parity]) -> None:
    """Raise BundleError where any graph's count differs by more than LIMIT_PERCENT at the 95th percentile."""
    for graph, parity in found.items():
        if not parity.count_p95_percent <= LIMIT_PERCENT:
            raise BundleError(
                f"the exported {graph} graph does not say what the model says: counts differ by "
                f"{parity.count_p95_percent:.2f} % at the 95th percentile, {LIMIT_PERCENT:g} % is allowed; "
                "nothing was written; compare the versions of torch and onnxruntime with constraints.txt"
            )


def as_manifest(found: Mapping[str, Parity], snapshots: int, crowds: range) -> dict[str, object]:
    """Parity as the manifest records it."""
    return {
        "snapshots": snapshots,
        "crowds": [crowds.start, crowds.stop],
        "limit_p95_percent": LIMIT_PERCENT,
        "graphs": {graph: asdict(parity) for graph, parity in found.items()},
    }
