"""Where snapshots come from: crowds of one scene or of many rigs, or the authors' files, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calib.scene import Scene
from viewsync.sim.rigs import RIGS
from viewsync.sim.scenes import load
from viewsync.training.authors_shots import LAYOUTS, AuthorsShots
from viewsync.training.config import TrainConfig
from viewsync.training.rigs import RigShots, rigs_scene
from viewsync.training.snapshots import Sampling, Snapshot, SnapshotSet


class Shots(Protocol):
    """What training and measuring ask of a `SnapshotSet`, `RigShots` or `AuthorsShots`."""

    seeds: tuple[int, ...]

    @property
    def span_s(self) -> float:
        """How long the shortest crowd lasts, seconds."""

    @property
    def instants(self) -> int:
        """How many times `encode_once` asks."""

    def draw(self, seed: int, index: int, crowd: int | None = None, plain: bool = False) -> Snapshot:
        """Snapshot number `index` of the stream `seed`; `plain`: all views present, all offsets known."""

    def encode_once(self, encode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> None:
        """From now on snapshots come with features instead of images."""


def place_of(name: str, folder: Path, numbers: Sequence[int]) -> Scene:
    """The scene of this name: `plaza`, a path, or `rigs`, the cameras of all rigs `numbers` in `folder`."""
    return rigs_scene(folder, numbers) if name == RIGS else load(name).scene


def open_shots(scene: Scene, folder: Path, numbers: Sequence[int], sampling: Sampling | None = None) -> Shots:
    """The crowds `numbers` of a scene, or of the rigs `numbers` where it is of `rigs`."""
    if scene.name == RIGS and not (folder / "scene.yaml").exists():
        return RigShots(scene, folder, numbers, sampling)
    return SnapshotSet(scene, folder, numbers, sampling)


def open_sources(config: TrainConfig, scene: Scene) -> tuple[Shots, Shots]:
    """What to train on, and what chooses the checkpoint. Raises UserError where either is not there."""
    views = tuple(scene.cameras)
    taught, checked = config.sampling(views), config.sampling(views, labels=False)
    if config.layout in LAYOUTS:
        authors, folder = LAYOUTS[config.layout], config.data
        return (
            AuthorsShots(authors, folder, "train", scene, taught, "taught"),
            AuthorsShots(authors, folder, "train", scene, checked, "checked"),
        )
    return (
        open_shots(scene, config.data, range(*config.train_seeds), taught),
        open_shots(scene, config.data, range(*config.validation_seeds), checked),
    )
