"""Snapshots of the authors' files to train on and to measure with: frames and density maps, no positions.

The paper's latencies are drawn on these sequences (Section IV): random, U(−κ, κ) for each frame and view, or
a constant for each view; maps of the ground are those of the reference's instant. Shape letters: V views
(slot 0 the reference), H W image, h w features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.scene import Scene
from viewsync.errors import UserError
from viewsync.nets.encoder import STRIDE
from viewsync.nets.model import UNKNOWN_OFFSET_S
from viewsync.training.authors import AUTHORS, AuthorsFrames, AuthorsSet, coarser
from viewsync.training.snapshots import Maps, Sampling, Snapshot

Floats = NDArray[np.float32]
Part = Literal["taught", "checked", "all"]

# What `layout` says, and the set.
LAYOUTS: Mapping[str, AuthorsSet] = {f"authors-{name}": authors for name, authors in AUTHORS.items()}
# Every recording's last frames choose the checkpoint.
_CHECKED_SHARE = 0.1
# Snapshots of one stretch of a recording show the same people.
STRETCH_S = 5.0


class AuthorsShots:
    """The recordings for one use, `train` or `test`, before the cameras of `scene`, behind the face of
    `Shots`.

    part: of every recording's frames that can be the reference's, the first nine tenths are `taught`, the
    rest is `checked`. Raises UserError where the set is not whole, does not fit the scene, or is too short.
    """

    def __init__(
        self, authors: AuthorsSet, root: Path, use: str, scene: Scene, sampling: Sampling, part: Part = "all"
    ) -> None:
        _check_scene(authors, scene)
        self.authors = authors
        self.sampling = sampling
        self._frames = AuthorsFrames(authors, root, use)
        self._counts = [self._frames.count(recording) for recording in self._frames.recordings]
        self.seeds = tuple(range(len(self._counts)))
        self._cameras = list(scene.cameras.values())
        self._maps = [camera.remap_to(camera.undistorted()) for camera in self._cameras]
        self._features: list[NDArray[np.uint8]] = []
        before, after = self._reach()
        self._starts: list[tuple[int, int]] = []
        for number, (recording, count) in enumerate(zip(self._frames.recordings, self._counts, strict=True)):
            starts = range(before, count - after)
            if len(starts) < (1 if part == "all" else 2):
                raise UserError(
                    f"{root}: {recording.name} has {count} frames at {authors.fps:g} per second, too few for "
                    f"offsets of ±{max(before, after) / authors.fps:g} s; choose a smaller kappa_s or tau_s"
                )
            cut = len(starts) - max(1, round(_CHECKED_SHARE * len(starts)))
            chosen = {"taught": starts[:cut], "checked": starts[cut:], "all": starts}[part]
            self._starts += [(number, frame) for frame in chosen]

    @property
    def span_s(self) -> float:
        """How long the shortest recording lasts, seconds."""
        return (min(self._counts) - 1) / self.authors.fps

    def draw(self, seed: int, index: int, crowd: int | None = None, plain: bool = False) -> Snapshot:
        """Snapshot number `index` of the stream `seed`; `plain`: all views present, and all offsets
        known unless they never are.
        """
        rng = np.random.default_rng([seed, index])
        starts = [start for start in self._starts if crowd in (None, start[0])]
        shot = self._shot(*starts[int(rng.integers(len(starts)))], rng)
        if plain:
            return shot
        present, told = shot.present.copy(), shot.offset_s.copy()
        present[1:] = rng.random(len(present) - 1) >= self.sampling.drop
        if rng.random() < self.sampling.unknown:
            told[1:] = UNKNOWN_OFFSET_S
        return replace(shot, present=present, offset_s=told)

    def spread(self, most: int, seed: int = 0) -> Iterator[tuple[Snapshot, int]]:
        """Up to `most` snapshots, their reference frames spread evenly over all that there are, and the
        stretch that each is from; every view is present, every offset known unless they never are.
        """
        number = min(most, len(self._starts))
        for k in range(number):
            recording, frame = self._starts[k * len(self._starts) // number]
            stretch = int(frame / self.authors.fps // STRETCH_S)
            rng = np.random.default_rng([seed, recording, frame])
            yield self._shot(recording, frame, rng), 10_000 * recording + stretch

    def __len__(self) -> int:
        """How many frames can be the reference's."""
        return len(self._starts)

    @property
    def instants(self) -> int:
        """How many instants there are, all views of each: what `encode_once` asks for."""
        return sum(self._counts)

    def encode_once(self, encode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> None:
        """From now on snapshots come with features instead of images."""
        views = range(len(self._cameras))
        self._features = [
            np.stack([encode(self._images(number, [(v, f) for v in views])) for f in range(count)], axis=1)
            for number, count in enumerate(self._counts)
        ]

    def _reach(self) -> tuple[int, int]:
        """How many frames before and after the reference's there have to be."""
        tau, fps, first = self.sampling.tau_s, self.authors.fps, self.sampling.reference
        if tau is None:
            return round(self.sampling.kappa_s * fps), round(self.sampling.kappa_s * fps)
        zeros = tau if first is None else (tau[first],)
        shifts = [round((late - zero) * fps) for zero in zeros for late in tau]
        return -min(shifts), max(shifts)

    def _shot(self, recording: int, frame: int, rng: np.random.Generator) -> Snapshot:
        """The snapshot whose reference frame this is, with every view present and every offset
        known unless they never are.
        """
        views, fps = len(self._cameras), self.authors.fps
        first = self.sampling.reference
        order = [int(v) for v in rng.permutation(views)]
        if first is not None:
            order = [first, *(v for v in range(views) if v != first)]
        tau = self.sampling.tau_s
        if tau is None:
            reach, _ = self._reach()
            shift = [0, *(int(s) for s in rng.integers(-reach, reach + 1, views - 1))]
        else:
            shift = [round((tau[v] - tau[order[0]]) * fps) for v in order]
        picks = [(v, frame + s) for v, s in zip(order, shift, strict=True)]
        together = [(v, frame) for v in order] if self.sampling.synchronous else []
        offset = (np.array(shift) / fps).astype(np.float32)
        told = offset.copy()
        if self.sampling.unknown >= 1:
            told[1:] = UNKNOWN_OFFSET_S
        which = self._frames.recordings[recording]
        shot = Snapshot(
            images=self._images(recording, () if self._features else picks),
            view=np.array(order),
            present=np.ones(views, np.float32),
            true_offset_s=offset,
            offset_s=told,
            xy=np.zeros((views, 0, 2)),
            seen=np.zeros((views, 0), np.bool_),
            start_s=frame / fps,
            maps=Maps(
                self.authors.laid(self._frames.ground_map(which, frame)),
                np.stack([self._view_map(recording, v, f) for v, f in picks]),
            ),
        )
        if not self._features:
            return replace(shot, synchronous=self._images(recording, together) if together else None)
        known = self._features[recording]
        return replace(
            shot,
            features=np.stack([known[pick] for pick in picks]),
            synchronous_features=np.stack([known[pick] for pick in together]) if together else None,
        )

    def _images(self, recording: int, chosen: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
        """Pinhole images (N, H, W, 3) of frames (view, number of the frame), all three colours alike."""
        if not chosen:
            return np.zeros((0, 0, 0, 3), np.uint8)
        which = self._frames.recordings[recording]
        grey = [
            cv2.remap(self._frames.image(which, v, f), *self._maps[v], cv2.INTER_LINEAR) for v, f in chosen
        ]
        return np.repeat(np.stack(grey)[..., None], 3, axis=3)

    def _view_map(self, recording: int, view: int, frame: int) -> Floats:
        """People per place of the features (h, w) in a view's pinhole picture. Raises UserError where the map
        is neither of the picture's size nor of the features'.
        """
        which, camera = self._frames.recordings[recording], self._cameras[view]
        found = self._frames.view_map(which, view, frame)
        small = (-(-camera.height // STRIDE), -(-camera.width // STRIDE))
        if found.shape not in ((camera.height, camera.width), small):
            raise UserError(
                f"{which.views[view]}: density maps are {found.shape[1]}x{found.shape[0]}, not "
                f"{camera.width}x{camera.height} or {small[1]}x{small[0]}"
            )
        straight = straightened(found, camera.resized(found.shape[1], found.shape[0]))
        return straight if found.shape == small else coarser(straight, STRIDE)


def straightened(density: Floats, camera: Camera) -> Floats:
    """A density map (H, W) of a camera's picture as it is in the picture of its pinhole camera: what moves
    closer together gets denser, so that nobody is lost but beyond the border.
    """
    x, y = camera.remap_to(camera.undistorted())
    (x_down, x_along), (y_down, y_along) = np.gradient(x), np.gradient(y)
    stretch = np.abs(x_along * y_down - x_down * y_along)
    moved: Floats = cv2.remap(density, x, y, cv2.INTER_LINEAR) * stretch
    return moved.astype(np.float32)


def _check_scene(authors: AuthorsSet, scene: Scene) -> None:
    """Raise UserError, saying what to write into scene.yaml, unless the set's maps and views are its own."""
    ours, theirs = scene.ground, authors.ground
    near = max(abs(ours.origin_x_m - theirs.origin_x_m), abs(ours.origin_y_m - theirs.origin_y_m))
    if ours.shape != theirs.shape or abs(ours.cell_m - theirs.cell_m) > 1e-6 or near > theirs.cell_m / 4:
        raise UserError(
            f"scene {scene.name}: its ground is not that of {authors.name}'s density maps; under ground "
            f"write origin_m: [{theirs.origin_x_m:g}, {theirs.origin_y_m:g}], cell_m: {theirs.cell_m:g}, "
            f"columns: {theirs.columns}, rows: {theirs.rows}"
        )
    views = len(authors.recordings[0].views)
    rows, columns = authors.image
    sizes = {(camera.width, camera.height) for camera in scene.cameras.values()}
    if len(scene.cameras) != views or sizes != {(columns, rows)}:
        found = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise UserError(
            f"scene {scene.name} has {len(scene.cameras)} cameras of {found}; {authors.name} has {views} of "
            f"{columns}x{rows}, in the order of its files: write those"
        )
