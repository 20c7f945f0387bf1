"""Who answers snapshots: a bundle (`evaluate.BundleRunner`) or a checkpoint in torch, behind one face."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from calib.scene import Scene
from viewsync.errors import UserError
from viewsync.nets.config import TWO_FRAMES, ModelConfig
from viewsync.nets.fit import misfit
from viewsync.nets.two_frames import Before
from viewsync.sim.rigs import RIGS
from viewsync.sim.scenes import load
from viewsync.training.checkpoint import load_model, load_state
from viewsync.training.geometry import scene_grids
from viewsync.training.inputs import distances, fundamentals, plane_maps, true_people
from viewsync.training.snapshots import Sampling, Snapshot

Floats = NDArray[np.float32]


class Runner(Protocol):
    """Frames to features to densities. `graphs` are the ways it answers."""

    @property
    def scene(self) -> Scene:
        """Cameras and ground."""

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the answers."""

    @property
    def reference(self) -> str | None:
        """The one view that it answers for; None: any."""

    def encode(self, image: NDArray[np.uint8], view: int = 0) -> NDArray[Any]:
        """One pinhole image (H, W, 3) to features (C, h, w). view: its row in the scene, which matters where
        every view has an encoder.
        """

    @property
    def config(self) -> Mapping[str, Any]:
        """What it was trained with."""

    @property
    def before_s(self) -> float | None:
        """How far back the frames before lay that it learned from, seconds; None: it looks at none."""

    def fuse(
        self, features: NDArray[Any], shot: Snapshot, earlier: NDArray[Any] | None = None
    ) -> Mapping[str, Mapping[str, Floats]]:
        """Features (V, C, h, w) of a snapshot, and of its frames before where it comes with them, to every
        graph's outputs, `density` (Hg, Wg) among them.
        """


@dataclass(frozen=True, slots=True)
class Asked:
    """How a runner is asked. known: whether it is told offsets; before_s: how far back its frames before lie,
    seconds; None: it comes without.
    """

    known: bool
    before_s: float | None

    def of(self, sampling: Sampling) -> Sampling:
        """The same sampling, asked so."""
        back = () if self.before_s is None else (self.before_s,)
        return replace(sampling, unknown=0.0 if self.known else 1.0, before_s=back)


def as_trained(runner: Runner, offsets: str | None = None, before_s: float | None = None) -> Asked:
    """As it was trained, but for what is given: offsets `known` or `unknown`; before_s, for who takes one."""
    offsets = offsets or str(runner.config.get("offsets"))
    return Asked(offsets != "unknown", runner.before_s and (before_s or runner.before_s))


def refuse_other_slots(slots: Sequence[str], shot: Snapshot, views: Sequence[str], who: str) -> None:
    """Raise UserError unless the snapshot has all views there, in their `slots`; `views`: the scene's."""
    given = [views[int(v)] for v in shot.view]
    if given != list(slots) or not shot.present.all():
        there = [view for view, present in zip(given, shot.present, strict=True) if present]
        raise UserError(
            f"{who} answers for reference {slots[0]} with {', '.join(slots[1:])}, in this order, not for "
            f"{' with '.join((there[0], ', '.join(there[1:]) or 'nothing else'))}"
        )


def fitting(config: ModelConfig, scene: Scene, folder: Path) -> Scene:
    """The scene, its ground in cells as large as the model's. Raises UserError where the model of the
    checkpoint in `folder` cannot answer for it.
    """
    ground = scene.ground
    if abs(ground.cell_m - config.cell_m) > 1e-6 or ground.rows % 2 or ground.columns % 2:
        scene = replace(scene, ground=ground.with_cells(config.cell_m))
    problem = misfit(config, scene)
    if problem:
        raise UserError(f"{folder} cannot answer for scene {scene.name}: {problem}")
    return scene


class TorchRunner:
    """A checkpoint in torch: for baselines with an encoder of their own, which are never shipped."""

    def __init__(self, folder: Path, threads: int = 2, scene: Scene | None = None) -> None:
        torch.set_num_threads(threads)
        self.config: Mapping[str, Any] = load_state(folder)["config"]
        self._model = load_model(folder)
        weights = (folder / "model.safetensors").read_bytes()
        self.weights_sha256 = hashlib.sha256(weights).hexdigest()
        trained_on = str(self.config["scene"])
        if scene is None and trained_on == RIGS:
            raise UserError(f"{folder} was trained on random rigs: say for which scene with --scene")
        self.scene = fitting(self._model.config, scene or load(trained_on).scene, folder)
        self.graphs = self._model.config.methods
        camera = next(iter(self.scene.cameras.values()))
        self._grids = torch.from_numpy(scene_grids(self.scene, camera.width, camera.height))
        self._slots = self._model.config.views if self._model.config.complete else ()
        self.reference = next(iter(self._model.config.views), None)
        self.before_s = self.config["before_s"][0] if self._model.config.two_frames else None
        self._name = folder.name

    def encode(self, image: NDArray[np.uint8], view: int = 0) -> Floats:
        """One pinhole image (H, W, 3) to features (C, h, w), quantised as on the wire."""
        name = tuple(self.scene.cameras)[view]
        slot = self._model.config.views.index(name) if self._model.config.views else 0
        with torch.inference_mode():
            frame = torch.from_numpy(image).permute(2, 0, 1).float() / 255.0
            features: Floats = self._model.encode(frame[None, None], (slot,))[0, 0].numpy()
        return features

    def fuse(
        self, features: NDArray[Any], shot: Snapshot, earlier: NDArray[Any] | None = None
    ) -> dict[str, dict[str, Floats]]:
        """Features (V, C, h, w) of a snapshot, and of its frames before, to the density of every method, and
        the flow and match of one that matches columns.
        """
        if self._slots:
            refuse_other_slots(self._slots, shot, tuple(self.scene.cameras), self._name)
        before = None
        if earlier is not None and shot.earlier is not None:
            there, offset = (
                torch.from_numpy(part)[None] for part in (shot.earlier.present, shot.earlier.offset_s)
            )
            before = Before(torch.from_numpy(earlier)[None], there, -offset)
        with torch.inference_mode():
            answer = self._model.fuse(
                torch.from_numpy(features)[None],
                self._grids[torch.from_numpy(shot.view)][None],
                torch.from_numpy(shot.present)[None],
                torch.from_numpy(shot.offset_s)[None],
                self.graphs,
                fundamentals(self._model, [shot], self.scene),
                distances(self._model, [shot], self.scene),
                people=true_people(self._model, [shot], self.scene),
                before=before,
                planes=plane_maps(self._model, [shot], self.scene),
            )
        out = {method: {"density": density[0].numpy()} for method, density in answer.density.items()}
        found = answer.synchronised
        moving = [method for method in out if method in ("column", *TWO_FRAMES)]
        if found is not None and len(moving) == 1:
            match = found.evidence[0, :, 0].numpy()
            out[moving[0]] |= {"flow_m": _of_reference(found.flow_m[0].numpy(), 0.0)}
            out[moving[0]] |= {"match": _of_reference(match, 1.0)}
        return out


def _of_reference(others: Floats, value: float) -> Floats:
    """What is known of the other views (V − 1, …) after the reference's `value`, as graphs have it."""
    return np.concatenate([np.full_like(others[:1], value), others])
