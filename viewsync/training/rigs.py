"""Snapshots of many rigs: each is of one rig, and a batch mixes rigs of different numbers of views.

All rigs appear as one scene: its cameras are those of all rigs, one after another, and their ground is the
same. So a snapshot's `view` leads to its own rig's cameras and sampling grids, and nothing that takes a scene
needs to know. A snapshot has only the slots of its own rig's views that are present.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.scene import Scene, load_scene
from viewsync.errors import UserError
from viewsync.sim.rigs import MOST_CROWDS, RIGS, crowds_of, rig_folder
from viewsync.training.snapshots import Sampling, Snapshot, SnapshotSet


def rigs_scene(folder: Path, numbers: Sequence[int]) -> Scene:
    """The cameras of all these rigs, named `<rig>.<view>`, over the ground that they have in common. Raises
    UserError where a rig is missing, naming the command that makes it, or of another ground or size.
    """
    missing = [n for n in numbers if not _crowds(folder, n)]
    if missing or not numbers:
        raise UserError(
            f"{folder}: {len(missing)} of {len(numbers)} rigs are missing, the first is {missing[:1]}; "
            f"make them with: viewsync sim rigs --out {folder} "
            f"--rigs {min(numbers, default=0)}:{max(numbers, default=0) + 1}"
        )
    scenes = {n: load_scene(rig_folder(folder, n) / "scene.yaml") for n in numbers}
    first = scenes[numbers[0]]
    size = _size(first)
    for number, scene in scenes.items():
        if scene.ground != first.ground or scene.heights_m != first.heights_m or _size(scene) != size:
            raise UserError(
                f"{rig_folder(folder, number)}: its ground, its heights or the size of its pictures is not "
                f"that of {rig_folder(folder, numbers[0])}; choose a folder of rigs made by one version"
            )
    cameras = {f"{n}.{view}": camera for n, scene in scenes.items() for view, camera in scene.cameras.items()}
    return Scene(RIGS, cameras, first.ground, first.heights_m, {})


class RigShots:
    """The crowds of rigs `numbers` in a folder of rigs, as `SnapshotSet` has those of one scene; `scene` is
    of `rigs_scene`, of these and maybe other rigs. Raises UserError like it.
    """

    def __init__(
        self, scene: Scene, folder: Path, numbers: Sequence[int], sampling: Sampling | None = None
    ) -> None:
        rows = {name: row for row, name in enumerate(scene.cameras)}
        self.seeds = tuple(numbers)
        self._sets: list[SnapshotSet] = []
        self._first: list[int] = []
        for number in numbers:
            where = rig_folder(folder, number)
            rig = load_scene(where / "scene.yaml")
            self._sets.append(SnapshotSet(rig, where, _crowds(folder, number), sampling))
            self._first.append(rows[f"{number}.{next(iter(rig.cameras))}"])

    @property
    def span_s(self) -> float:
        """How long the shortest crowd lasts, seconds."""
        return min(one.span_s for one in self._sets)

    @property
    def instants(self) -> int:
        """As `SnapshotSet.instants`, of all rigs."""
        return sum(one.instants for one in self._sets)

    def encode_once(self, encode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> None:
        """From now on snapshots come with features instead of images, as `SnapshotSet.encode_once`."""
        for one in self._sets:
            one.encode_once(encode)

    def draw(self, seed: int, index: int, crowd: int | None = None, plain: bool = False) -> Snapshot:
        """Snapshot number `index` of the stream `seed`; crowd: of which rig, as its place in `seeds`."""
        rng = np.random.default_rng([seed, index, 0x726967])
        rig = int(rng.integers(len(self._sets))) if crowd is None else crowd
        shot = self._sets[rig].draw(seed, index, plain=plain)
        return only_present(_of_rig(shot, self._first[rig]))


def only_present(shot: Snapshot) -> Snapshot:
    """The snapshot without its absent slots, at most one of which stays so that there are two: what is not
    there changes no answer, and is not worth encoding.
    """
    slots = np.flatnonzero(shot.present > 0)
    if len(slots) < 2:
        slots = np.arange(min(2, len(shot.view)))
    return _these(shot, slots)


def _these(shot: Snapshot, slots: NDArray[np.int64]) -> Snapshot:
    """The snapshot with these slots only."""
    return replace(
        shot,
        images=shot.images[slots] if len(shot.images) else shot.images,
        view=shot.view[slots],
        present=shot.present[slots],
        true_offset_s=shot.true_offset_s[slots],
        offset_s=shot.offset_s[slots],
        xy=shot.xy[slots],
        seen=shot.seen[slots],
        features=None if shot.features is None else shot.features[slots],
        earlier=None if shot.earlier is None else _these(shot.earlier, slots),
    )


def _of_rig(shot: Snapshot, first: int) -> Snapshot:
    """The snapshot of a rig whose views are the scene's from row `first` on."""
    earlier = None if shot.earlier is None else _of_rig(shot.earlier, first)
    return replace(shot, view=shot.view + first, earlier=earlier)


def padded(batch: Sequence[Snapshot]) -> list[Snapshot]:
    """The snapshots with as many slots each: those that lack some get absent ones behind, without a frame,
    of nobody, whose `view` is that of the reference.
    """
    most = max(len(shot.view) for shot in batch)
    return [_with_slots(shot, most) for shot in batch]


def _with_slots(shot: Snapshot, most: int) -> Snapshot:
    more = most - len(shot.view)
    if not more:
        return shot
    zeros = np.zeros(more, np.float32)
    return replace(
        shot,
        view=np.concatenate([shot.view, np.repeat(shot.view[:1], more)]),
        present=np.concatenate([shot.present, zeros]),
        true_offset_s=np.concatenate([shot.true_offset_s, zeros]),
        offset_s=np.concatenate([shot.offset_s, zeros]),
        xy=np.concatenate([shot.xy, np.full((more, *shot.xy.shape[1:]), np.nan)]),
        seen=np.concatenate([shot.seen, np.zeros((more, shot.seen.shape[1]), bool)]),
        earlier=None if shot.earlier is None else _with_slots(shot.earlier, most),
    )


def _crowds(folder: Path, number: int) -> list[int]:
    """Numbers of the rig's crowds that are there."""
    every = crowds_of(number, MOST_CROWDS)
    found = (int(path.stem) for path in rig_folder(folder, number).glob("*.npz") if path.stem.isdigit())
    return sorted(seed for seed in found if seed in every)


def _size(scene: Scene) -> set[tuple[int, int]]:
    return {(camera.width, camera.height) for camera in scene.cameras.values()}
