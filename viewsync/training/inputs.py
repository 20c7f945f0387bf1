"""What a model is given of snapshots: frames or kept features, geometry, times, and the truth told to bounds.

Shape letters: B batch, V views (slot 0 the reference), Z heights, H W image, Hg Wg ground grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calib.scene import Scene
from viewsync.nets.config import BOUNDS
from viewsync.nets.encoder import STRIDE
from viewsync.nets.model import CountingModel
from viewsync.nets.perfect import People
from viewsync.nets.two_frames import Before
from viewsync.training.geometry import scene_distances, scene_fundamentals, scene_planes
from viewsync.training.snapshots import Maps, Snapshot


def tensors(batch: Sequence[Snapshot], grids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """grids (B, V, Z, Hg, Wg, 2), present (B, V), offsets as told (B, V), all where the grids are."""
    device = grids.device
    geometry = torch.stack([grids[torch.from_numpy(s.view).to(device)] for s in batch])
    present = torch.from_numpy(np.stack([s.present for s in batch])).to(device)
    return geometry, present, torch.from_numpy(np.stack([s.offset_s for s in batch])).to(device)


def pictures(images: Sequence[NDArray[np.uint8]], device: torch.device | None = None) -> Tensor:
    """Images (V, H, W, 3) of B snapshots as (B, V, 3, H, W) in 0..1, on the CPU unless told."""
    # They travel as bytes.
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 1, 4, 2, 3).float() / 255.0


def device_of(model: CountingModel) -> torch.device:
    """Where a model's weights are."""
    return next(model.parameters()).device


def encode(model: CountingModel, batch: Sequence[Snapshot]) -> Tensor:
    """Features (B, V, C, h, w) of the snapshots' frames: kept ones, or those of their images; zero in slots
    without a frame.
    """
    kept = [shot.features for shot in batch if shot.features is not None]
    frames = kept or [shot.images for shot in batch]
    counts = [len(some) for some in frames]
    if len(set(counts)) == 1:
        return from_levels(model, kept) if kept else model.encode(pictures(frames, device_of(model)))
    # Only frames there are: one made up would shift the normalisation of all others.
    every = [np.concatenate(frames)]
    flat = from_levels(model, every) if kept else model.encode(pictures(every, device_of(model)))
    return torch.nn.utils.rnn.pad_sequence(list(flat[0].split(counts)), batch_first=True)


def before_of(model: CountingModel, batch: Sequence[Snapshot]) -> Before | None:
    """The frames before of the snapshots, encoded; None where they come without."""
    earlier = [shot.earlier for shot in batch if shot.earlier is not None]
    return _before(encode(model, earlier), earlier) if earlier else None


def encode_all(
    model: CountingModel, batch: Sequence[Snapshot], synchronous: bool
) -> tuple[Tensor, Tensor | None, Before | None]:
    """`encode_with_synchronous` and the frames before, which go through the encoder together with the newest
    ones where there are no synchronous ones.
    """
    earlier = [shot.earlier for shot in batch if shot.earlier is not None]
    first = batch[0]
    together = first.synchronous is not None or first.synchronous_features is not None
    if not earlier or (synchronous and together):
        return (*encode_with_synchronous(model, batch, synchronous), before_of(model, batch))
    features, others = encode(model, [*batch, *earlier]).split(len(batch))
    return features, None, _before(others, earlier)


def _before(features: Tensor, earlier: Sequence[Snapshot]) -> Before:
    present, offset_s = (
        torch.from_numpy(np.stack(part)).to(features.device)
        for part in ([shot.present for shot in earlier], [shot.offset_s for shot in earlier])
    )
    return Before(features, present, -offset_s)


def from_levels(model: CountingModel, kept: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Features (V, C, h, w) of B snapshots, kept as levels on the wire, as (B, V, C, h, w) in 0..1."""
    return torch.from_numpy(np.stack(kept)).to(device_of(model)).float() / float(model.config.levels - 1)


def encode_with_synchronous(
    model: CountingModel, batch: Sequence[Snapshot], synchronous: bool
) -> tuple[Tensor, Tensor | None]:
    """Features (B, V, C, h, w) and, where the snapshots come with them and they are wanted, of every view at
    the reference's instant.

    All go through the encoder together: its normalisation is over the batch, so that what is the same in two
    pictures would come out different in two batches.
    """
    frames = [shot.synchronous[1:] for shot in batch if shot.synchronous is not None]
    kept = [shot.synchronous_features[1:] for shot in batch if shot.synchronous_features is not None]
    if not synchronous or not (frames or kept):
        return encode(model, batch), None
    if kept:
        features, others = encode(model, batch), from_levels(model, kept)
    else:
        shown, device = [shot.images for shot in batch], device_of(model)
        every = torch.cat([pictures(shown, device), pictures(frames, device)], dim=1)
        views = len(batch[0].view)
        both = model.encode(every, (*range(views), *range(1, views)))
        features, others = both.split([views, views - 1], dim=1)
    return features, torch.cat([features[:, :1], others], dim=1)


def fundamentals(model: CountingModel, batch: Sequence[Snapshot], scene: Scene) -> Tensor | None:
    """F (B, V, 3, 3) between places of the features, from each snapshot's reference to its views, as
    `scene_fundamentals`; None for a model that does not look at it.
    """
    if not {"cls-epi", "cls-plane"} & {*model.config.methods}:
        return None
    every = scene_fundamentals(_of_these(batch, scene), *_feature_size(model, scene))
    return _between(every, batch).to(device_of(model))


def true_people(model: CountingModel, batch: Sequence[Snapshot], scene: Scene) -> People | None:
    """The simulator's truth of each snapshot; None for a model that is not told. Crowds of different size are
    filled up with people whom nobody sees.
    """
    if not set(BOUNDS) & set(model.config.methods):
        return None
    most = max(1, *(shot.xy.shape[1] for shot in batch))
    shape = (len(batch), len(batch[0].view), most)
    place, seen = np.full((*shape, 2), np.nan, np.float32), np.zeros(shape, np.bool_)
    for b, shot in enumerate(batch):
        place[b, :, : shot.xy.shape[1]] = shot.xy - (scene.ground.origin_x_m, scene.ground.origin_y_m)
        seen[b, :, : shot.xy.shape[1]] = shot.seen
    device = device_of(model)
    return People(torch.from_numpy(place).to(device), torch.from_numpy(seen).to(device))


def distances(model: CountingModel, batch: Sequence[Snapshot], scene: Scene) -> Tensor | None:
    """Distance (B, V, h, w) of every place of the features, as `scene_distances`; None for a model that does
    not look at it.
    """
    if not model.gather.needs_distance:
        return None
    rows, columns = model.config.grid
    wanted = sorted({int(view) for shot in batch for view in shot.view})
    known = dict(zip(wanted, scene_distances(scene, columns, rows, wanted), strict=True))
    every = np.stack([[known[int(view)] for view in shot.view] for shot in batch])
    return torch.from_numpy(every).to(device_of(model))


def plane_maps(model: CountingModel, batch: Sequence[Snapshot], scene: Scene) -> Tensor | None:
    """Plane maps (B, V, Z, 4, 3) between places of the features, from each snapshot's views to its reference,
    as `scene_planes`; None for a model that does not look at them.
    """
    if "cls-plane" not in model.config.methods:
        return None
    every = scene_planes(_of_these(batch, scene), *_feature_size(model, scene))
    return _between(every, batch).to(device_of(model))


def _of_these(batch: Sequence[Snapshot], scene: Scene) -> Scene:
    """The scene with the cameras of these snapshots only: random rigs together have hundreds."""
    cameras = list(scene.cameras.items())
    kept = np.unique([int(v) for shot in batch for v in shot.view])
    return replace(scene, cameras=dict(cameras[v] for v in kept), occluders={})


def _between(every: NDArray[np.float32], batch: Sequence[Snapshot]) -> Tensor:
    """(B, V, …) of each snapshot's reference and its views, from `every` (V, V, …) of `_of_these` cameras."""
    kept = np.unique([int(v) for shot in batch for v in shot.view])
    slots = [np.searchsorted(kept, shot.view) for shot in batch]
    return torch.from_numpy(np.stack([every[at[0]][at] for at in slots]))


def _feature_size(model: CountingModel, scene: Scene) -> tuple[int, int]:
    """Columns and rows of the features of the scene's pictures."""
    if min(model.config.grid) > 0:
        rows, columns = model.config.grid
        return columns, rows
    camera = next(iter(scene.cameras.values()))
    return -(-camera.width // STRIDE), -(-camera.height // STRIDE)


def single_frames(shot: Snapshot) -> list[Snapshot]:
    """Every frame of a snapshot as a snapshot of its own, with that frame as the reference and nothing else.

    A model that looks at the reference alone would throw away all frames but one: it learns from all of them.
    """
    alone, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    return [
        replace(
            shot,
            images=shot.images[v : v + 1],
            features=None if shot.features is None else shot.features[v : v + 1],
            view=shot.view[v : v + 1],
            present=alone,
            true_offset_s=zero,
            offset_s=zero,
            xy=shot.xy[v : v + 1],
            seen=shot.seen[v : v + 1],
            synchronous=None,
            synchronous_features=None,
            maps=None if shot.maps is None else Maps(shot.maps.ground, shot.maps.views[:1]),
            earlier=None,
        )
        # Density maps of the ground are known at the reference's instant only.
        for v in range(len(shot.view) if shot.maps is None else 1)
    ]
