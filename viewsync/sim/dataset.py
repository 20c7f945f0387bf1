"""Snapshots of simulated crowds on disk: frames that went through the video codec, and the truth about them.

One crowd is one pair of files, `<seed>.npy` (frames, uint8 [V, F, H, W, 3], RGB) and `<seed>.npz` (truth).
Each view has its own capture times, so training pairs frames at any offset. Making a set is resumable:
finished crowds are kept. `filming.json` says how `make_set` filmed what it made there.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from threading import Event

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.scene import Scene, load_scene, save_scene
from viewsync.errors import UserError
from viewsync.sim.codec import encode_decode
from viewsync.sim.crowd import Crowd
from viewsync.sim.render import Renderer
from viewsync.sim.scenes import SimScene, load

# Seeds of crowds by use. A demo draws its seed outside training and test: it shows what nobody has seen.
TRAIN_SEEDS = range(100_000)
TEST_SEEDS = range(100_000, 101_000)
DEMO_SEEDS = range(1_000_000, 2_000_000_000)

# A person counts as seen when a quarter of the silhouette and this many pixels of it reach the sensor.
SEEN_SHARE, SEEN_PIXELS = 0.25, 30
_FILMING = "filming.json"


@dataclass(frozen=True, slots=True)
class CrowdTruth:
    """Truth about one crowd's frames; `views` names the rows.

    times_s (V, F): capture times. xy (V, F, N, 2): places on the ground at those times, metres. seen
    (V, F, N): whether the person is seen in that frame.
    """

    views: tuple[str, ...]
    times_s: NDArray[np.float64]
    xy: NDArray[np.float64]
    seen: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Filming:
    """How the crowds of a folder are filmed: frames of each view, about `interval_s` apart with the view's
    own phase and jitter, or `together`, all views at the first one's times.
    """

    frames: int = 12
    interval_s: float = 1.0
    together: bool = False

    @property
    def flags(self) -> str:
        """As `viewsync sim dataset` takes them."""
        together = " --together" if self.together else ""
        return f"--frames {self.frames} --interval {self.interval_s:g}{together}"


def filming_of(folder: Path) -> Filming | None:
    """How a folder's crowds were filmed; None where it does not tell. Raises UserError for a damaged file."""
    path = folder / _FILMING
    try:
        return Filming(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); make the crowds again, elsewhere") from error


def film_alike(folder: Path, filming: Filming | None) -> Filming:
    """How further crowds of `folder` are to be filmed: as those that are there. It is kept beside them,
    unless there are crowds of which nobody knows.

    Raises UserError where they were filmed otherwise than `filming`.
    """
    before = filming_of(folder)
    if before is not None:
        if filming not in (None, before):
            raise UserError(
                f"{folder} holds crowds filmed with {before.flags}; choose another folder, or film these "
                "alike"
            )
        return before
    chosen = filming or Filming()
    if any(folder.glob("*.npz")):
        return chosen
    part = folder / f"{_FILMING}.part"
    part.write_text(json.dumps(asdict(chosen)) + "\n")
    os.replace(part, folder / _FILMING)
    return chosen


def seen(visible: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Who counts as seen (N,), from `Renderer.visible_pixels`."""
    return (visible >= SEEN_PIXELS) & (visible >= SEEN_SHARE * whole)


def crowd_size(seed: int, low: int = 15, high: int = 85) -> int:
    """How many people walk in the training or test crowd of this seed: uniform between `low` and `high`."""
    return int(np.random.default_rng([seed, 0x73697A65]).integers(low, high + 1))


def make_crowd(
    scene: SimScene,
    seed: int,
    filming: Filming,
    people: int | None = None,
) -> tuple[NDArray[np.uint8], CrowdTruth]:
    """Render one crowd.

    Returns frames (V, F, H, W, 3) uint8 RGB, each view's sent through one H.264 stream as a live camera would
    do, and the truth. Same scene and seed: same pixels.
    """
    frames, interval_s = filming.frames, filming.interval_s
    crowd = Crowd(scene.walk_area, people or crowd_size(seed), seed, scene.obstacles)
    rng = np.random.default_rng([seed, 0x74696D65])
    views = tuple(scene.scene.cameras)
    times = np.empty((len(views), frames))
    for v in range(len(views)):
        times[v] = rng.uniform(0, interval_s) + (np.arange(frames) + rng.uniform(0, 0.7, frames)) * interval_s
    if filming.together:
        times[:] = times[0]
    pictures = []
    xy = np.empty((len(views), frames, crowd.people, 2))
    visible = np.zeros((len(views), frames, crowd.people), bool)
    for v, view in enumerate(views):
        renderer = Renderer(scene, view, seed)
        shots = []
        for f in range(frames):
            state = crowd.state(float(times[v, f]))
            shots.append(renderer.render(state, crowd.appearance))
            xy[v, f] = state.xy
            visible[v, f] = seen(*renderer.visible_pixels(state, crowd.appearance))
        pictures.append(encode_decode(np.stack(shots)))
    return np.stack(pictures), CrowdTruth(views, times, xy, visible)


def save_crowd(folder: Path, seed: int, frames: NDArray[np.uint8], truth: CrowdTruth) -> None:
    """Write one crowd. The truth comes last and is moved into place: where it is, the crowd is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{seed:06d}.npy", frames)
    part = folder / f"{seed:06d}.part.npz"
    np.savez_compressed(
        part,
        views=np.array(truth.views),
        times_s=truth.times_s,
        xy=truth.xy.astype(np.float32),
        seen=truth.seen,
    )
    os.replace(part, folder / f"{seed:06d}.npz")


def load_truth(path: Path) -> CrowdTruth:
    """Read the truth of one crowd, as `save_crowd` wrote it."""
    with np.load(path, allow_pickle=False) as file:
        return CrowdTruth(
            tuple(str(v) for v in file["views"]), file["times_s"], file["xy"].astype(np.float64), file["seen"]
        )


def make_set(
    scene: str,
    folder: Path,
    seeds: Iterable[int],
    filming: Filming | None = None,
    workers: int = 2,
    done: Callable[[int], None] = lambda seed: None,
    stop: Event | None = None,
) -> None:
    """Make the crowds of `seeds` that `folder` lacks, on `workers` processes; `done(seed)` after each.
    filming: None: as those that are there.

    Once `stop` is set, the crowds in hand are finished and no new one is begun. Raises UserError where
    `folder` holds crowds of another scene, or filmed in another way.
    """
    claim(folder, load(scene).scene)
    task = partial(_make_one, scene, folder, film_alike(folder, filming))
    run_each(task, lacking(folder, seeds), workers, done, stop or Event())


def lacking(folder: Path, seeds: Iterable[int]) -> list[int]:
    """Those of `seeds` whose crowds are not in `folder`, or not whole."""
    return [seed for seed in seeds if not (folder / f"{seed:06d}.npz").exists()]


def claim(folder: Path, scene: Scene) -> None:
    """Keep `scene` beside its crowds, so that those of another scene never join them. Raises UserError."""
    path = folder / "scene.yaml"
    check_cameras(folder, scene)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_scene(scene, path)
    elif load_scene(path).ground != scene.ground:
        raise UserError(f"{folder} holds crowds of another ground (see {path}); choose another folder")


def check_cameras(folder: Path, scene: Scene) -> None:
    """Raise UserError where `folder` says that its frames are of other cameras than the scene's."""
    path = folder / "scene.yaml"
    if not path.exists():
        return
    # Up to another machine's rounding.
    there = load_scene(path).cameras
    same = list(there) == list(scene.cameras) and all(
        (a.width, a.height) == (b.width, b.height)
        and all(np.allclose(getattr(a, k), getattr(b, k)) for k in ("K", "R", "t", "distortion"))
        for a, b in zip(there.values(), scene.cameras.values(), strict=True)
    )
    if not same:
        raise UserError(f"{folder} holds crowds of another scene (see {path}); choose another folder")


def run_each(
    task: Callable[[int], None],
    seeds: Sequence[int],
    workers: int,
    done: Callable[[int], None],
    stop: Event,
) -> None:
    """`task(seed)` for all `seeds` on `workers` processes; `done(seed)` here, after each.

    Once `stop` is set, what has begun is finished and nothing else begins. What a task raises is raised.
    """
    if workers <= 1:
        for seed in seeds:
            if stop.is_set():
                return
            task(seed)
            done(seed)
        return
    # Fresh processes: a forked one would share our threads' locks and our signal handlers.
    with ProcessPoolExecutor(workers, get_context("spawn"), _ready_worker) as pool:
        tasks = {pool.submit(task, seed): seed for seed in seeds}
        try:
            for finished in as_completed(tasks):
                finished.result()
                done(tasks[finished])
                if stop.is_set():
                    break
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ready_worker() -> None:
    # Ctrl-C reaches the whole process group; the parent decides what is still finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _make_one(scene: str, folder: Path, filming: Filming, seed: int) -> None:
    save_crowd(folder, seed, *make_crowd(load(scene), seed, filming))
