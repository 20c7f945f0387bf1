"""PETS2009 as a scene to simulate: its real cameras 1, 2 and 3 and, for tests, its real tracks.

Calibration and tracks stay where they are, in the folder that VIEWSYNC_DATA names; nothing of them is part of
the project. A model for these cameras is trained on simulated crowds (`make_training_set`) and tested on the
real tracks, which it never saw (`viewsync.demo.recording`).
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np

from calib.formats.pets2009 import load_camera
from calib.ground import GroundGrid
from calib.scene import Scene
from viewsync.errors import ConfigError
from viewsync.sim.dataset import Filming, lacking, make_crowd, run_each, save_crowd
from viewsync.sim.scenes import COLUMN_HEIGHTS_M, SimScene, from_scene
from viewsync.sim.tracks import Tracks, load_tracks

VIEWS = ("view1", "view2", "view3")
WIDTH, HEIGHT = 384, 288
TEST_SEQUENCES = ("S2L1", "S1L1-1")
# Where the people of S1L2-1 and S2L2 walk (99.9 % and 92 % of their positions); those two are neither trained
# nor tested on. Two views or three see 93 % of it. 80 × 96 cells, so matching is on 40 × 48 of 0.5 m.
GROUND = GroundGrid(origin_x_m=-16.0, origin_y_m=-16.0, cell_m=0.25, columns=80, rows=96)

# A simulated crowd gathers in a part of the square, so that some are as packed as S1L1-1 and some as sparse
# as S2L1: sides of that part in metres, and people per square metre at most.
_SHORTEST_SIDE_M, _PEOPLE_PER_M2, _FEWEST, _MOST = 6.0, 0.7, 2, 60


def data_folder() -> Path:
    """The folder that the variable VIEWSYNC_DATA names. Raises ConfigError where it is not set."""
    root = os.environ.get("VIEWSYNC_DATA")
    if not root:
        raise ConfigError("PETS2009 is read from the data folder: set VIEWSYNC_DATA to where it is")
    return Path(root)


def scene(data: Path) -> Scene:
    """Views 1 to 3 at 384×288 with their Tsai distortion as Brown-Conrady, over `GROUND`.

    data: the folder that has `pets2009/`. Raises CalibError, naming the file, where a camera cannot be read.
    """
    folder = data / "pets2009" / "calibration"
    files = {view: folder / f"View_00{view[-1]}.xml" for view in VIEWS}
    cameras = {view: load_camera(path).resized(WIDTH, HEIGHT) for view, path in files.items()}
    return Scene("pets2009", cameras, GROUND, COLUMN_HEIGHTS_M, {})


def tracks(data: Path, sequence: str) -> Tracks:
    """The people of `sequence` (S1L1-1, S1L2-1, S2L1, S2L2) on the ground, from the boxes in view 1.

    Raises SourceError for a file that cannot be read, ConfigError for a sequence that is not there.
    """
    folder = data / "pets2009"
    path = folder / "annotations" / f"PETS2009-{sequence}.xml.gz"
    if not path.exists():
        known = sorted(p.name[9:-7] for p in path.parent.glob("PETS2009-*.xml.gz"))
        raise ConfigError(
            f"PETS2009 has no sequence {sequence!r} in {path.parent}: it has {', '.join(known)}"
        )
    return load_tracks(path, load_camera(folder / "calibration" / "View_001.xml"))


def training_crowd(place: SimScene, seed: int) -> tuple[SimScene, int]:
    """Where the simulated crowd of this seed gathers (`place` with a part of its walk area), and how many
    they are.
    """
    rng = np.random.default_rng([seed, 0x70657473])
    x0, y0, x1, y1 = place.walk_area
    width, depth = rng.uniform(_SHORTEST_SIDE_M, (x1 - x0, y1 - y0))
    left, near = rng.uniform((x0, y0), (x1 - width, y1 - depth))
    most = min(_MOST, int(_PEOPLE_PER_M2 * width * depth))
    people = int(rng.integers(_FEWEST, most + 1))
    return replace(place, walk_area=(left, near, left + width, near + depth)), people


def make_training_set(
    data: Path,
    folder: Path,
    seeds: Iterable[int],
    frames: int = 12,
    interval_s: float = 1.6,
    workers: int = 2,
    done: Callable[[int], None] = lambda seed: None,
    stop: Event | None = None,
) -> None:
    """Simulated crowds before the PETS2009 cameras in `folder`, in the format of `viewsync.sim.dataset`.

    Those of `seeds` that are there are kept; `done(seed)` after each that is made. Once `stop` is set, the
    crowds in hand are finished and no new one is begun. The frames of a view span about `frames` ·
    `interval_s` seconds.
    """
    task = partial(_make_training_crowd, from_scene(scene(data)), folder, frames, interval_s)
    run_each(task, lacking(folder, seeds), workers, done, stop or Event())


def _make_training_crowd(place: SimScene, folder: Path, frames: int, interval_s: float, seed: int) -> None:
    where, people = training_crowd(place, seed)
    save_crowd(folder, seed, *make_crowd(where, seed, Filming(frames, interval_s), people))
