"""Data sets of real cameras and real people's paths with rendered people: `pets2009-sim`, `citystreet-sim`,
`wildtrack-sim`, and a `-hard` variant of each.

Calibration and paths are read from the folder that VIEWSYNC_DATA names; nothing of them is part of the
project. A set consists of pieces, in the format of `viewsync.sim.dataset`: a stretch of a sequence, in
clothes and light of its own, all views at the same instants, so that any desynchronisation can be drawn from
it.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from calib.formats import read_rig
from calib.ground import GroundGrid
from calib.scene import Scene
from viewsync.errors import ConfigError, SourceError, UserError
from viewsync.sim import pets2009
from viewsync.sim.codec import encode_decode
from viewsync.sim.dataset import CrowdTruth, claim, lacking, load_truth, run_each, save_crowd, seen
from viewsync.sim.hard import JoinedCrowd, in_the_union, occluders, people_beyond
from viewsync.sim.linking import link
from viewsync.sim.render import Renderer
from viewsync.sim.scenes import COLUMN_HEIGHTS_M, SimScene, from_scene
from viewsync.sim.track_crowd import TrackCrowd
from viewsync.sim.tracks import Tracks, thinned

USES = ("train", "validation", "test")
_FIRST = {"train": 0, "validation": 50_000, "test": 100_000}


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames first … first + frames − 1 of a sequence at its own rate; all from `first` on where None."""

    sequence: str
    first: int = 0
    frames: int | None = None


@dataclass(frozen=True, slots=True)
class RealSet:
    """What a set is: the paper's reference view (the first), latencies (Section IV), and which stretches are
    for what.

    interval_s: between instants; castings: how often each stretch is played, in other clothes and light;
    kept: which share of the people on paths each of these castings keeps, everybody where nothing is said.
    """

    name: str
    views: tuple[str, ...]
    kappa_s: float
    tau_s: Mapping[str, float]
    interval_s: float
    stretches: Mapping[str, tuple[Stretch, ...]]
    castings: Mapping[str, int]
    kept: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    hard: bool = False

    @property
    def source(self) -> str:
        """pets2009, citystreet or wildtrack."""
        return self.name.split("-")[0]

    def __post_init__(self) -> None:
        if any(len(shares) != self.castings.get(use, 0) for use, shares in self.kept.items()):
            raise ValueError(f"{self.name}: kept has a share for every casting, or for none")

    def pieces(self, use: str) -> range:
        """Numbers of the pieces for `use`."""
        count = self.castings.get(use, 0) * len(self.stretches.get(use, ()))
        return range(_FIRST[use], _FIRST[use] + count)

    def stretch(self, piece: int) -> Stretch:
        """What is played in this piece."""
        use = _use(piece)
        stretches = self.stretches[use]
        return stretches[(piece - _FIRST[use]) % len(stretches)]

    def share(self, piece: int) -> float:
        """Which share of the people on the stretch's paths are about in this piece, in 0..1."""
        use = _use(piece)
        casting = (piece - _FIRST[use]) // len(self.stretches[use])
        return self.kept[use][casting] if use in self.kept else 1.0


def _use(piece: int) -> str:
    return next(use for use in reversed(USES) if piece >= _FIRST[use])


_PETS_TRAIN = (Stretch("S1L2-1"), Stretch("S2L2"))
# 300 annotated frames: 200, a gap of 2κ = 6 s, 94.
_CITY_TRAIN, _CITY_TEST = Stretch("street", 0, 200), Stretch("street", 206, 94)
_EASY = (
    RealSet(
        "pets2009-sim",
        pets2009.VIEWS,
        5.0,
        {"view2": 5.0, "view3": -5.0},
        0.5,
        {
            "train": _PETS_TRAIN,
            "validation": _PETS_TRAIN,
            "test": (Stretch("S1L1-1"), Stretch("S2L1")),
        },
        {"train": 4, "validation": 1, "test": 1},
    ),
    RealSet(
        "citystreet-sim",
        ("view1", "view2", "view3"),
        3.0,
        {"view2": 3.0, "view3": -3.0},
        1.0,
        {"train": (_CITY_TRAIN,), "validation": (_CITY_TRAIN,), "test": (_CITY_TEST,)},
        {"train": 3, "validation": 1, "test": 2},
    ),
    RealSet(
        "wildtrack-sim",
        ("CVLab1", "CVLab2", "CVLab3", "CVLab4", "IDIAP1", "IDIAP2", "IDIAP3"),
        3.0,
        {},
        0.5,
        {"test": (Stretch("plaza"),)},
        {"test": 1},
    ),
)
# S1L2-1 and S2L2 are crowded, four fifths of what is tested is not: who has only learned from crowds takes
# everybody for one in a crowd, and counts people who are not there.
_KEPT = {"pets2009-sim": {"train": (1.0, 0.7, 0.45, 0.25), "validation": (0.6,)}}
SETS: Mapping[str, RealSet] = {
    one.name: one
    for easy in _EASY
    for one in (
        easy,
        replace(easy, name=f"{easy.name}-hard", kept=_KEPT.get(easy.name, {}), hard=True),
    )
}

_GROUNDS = {
    "pets2009-sim": pets2009.GROUND,
    # Further to where views 2 and 3 look alone.
    "pets2009-sim-hard": GroundGrid(-18.0, -14.0, 0.25, columns=88, rows=104),
    # The paper's 160 × 192 cells of 4 × 76.25 mm.
    "citystreet-sim": GroundGrid(-21.472, -26.352, 0.305, columns=160, rows=192),
    "citystreet-sim-hard": GroundGrid(-33.672, -26.352, 0.305, columns=200, rows=192),
    "wildtrack-sim": GroundGrid(-3.0, -9.0, 0.25, columns=48, rows=144),
    "wildtrack-sim-hard": GroundGrid(-3.0, -9.0, 0.25, columns=48, rows=144),
}
# Every street has things in the same places, whoever plays on it.
_OCCLUDER_SEED = 1


def named(name: str) -> RealSet:
    """The set of this name. Raises ConfigError, naming those there are."""
    if name not in SETS:
        raise ConfigError(f"there is no data set {name!r}; choose from {', '.join(SETS)}")
    return SETS[name]


def scene(real: RealSet, data: Path) -> Scene:
    """Cameras and ground of the set. data: the folder with `pets2009/`, `citystreet-3cam/` and
    `wildtrack-7cam/`. Raises CalibError, naming the file, where a calibration cannot be read.
    """
    if real.source == "pets2009":
        cameras = dict(pets2009.scene(data).cameras)
    elif real.source == "citystreet":
        rig = read_rig([data / "citystreet-3cam" / "cameras.json"])
        cameras = {name: camera.resized(676, 380) for name, camera in rig.cameras.items()}
    else:
        folder = data / "wildtrack-7cam" / "calibrations"
        rig = read_rig([folder / "intrinsic_zero", folder / "extrinsic"])
        cameras = {name: camera.resized(384, 216) for name, camera in rig.cameras.items()}
    return Scene(real.name, cameras, _GROUNDS[real.name], COLUMN_HEIGHTS_M, {})


def tracks(real: RealSet, data: Path, stretch: Stretch) -> Tracks:
    """People's paths in a stretch; those without identities are linked within it. Raises SourceError."""
    if real.source == "pets2009":
        return pets2009.tracks(data, stretch.sequence)
    if real.source == "citystreet":
        path, fps = data / "citystreet-3cam" / "people.csv.gz", 1.0
        # Frame numbers count by two; people's z points up, the cameras' down: y turns over (see its README).
        columns, unit, every = ("orig_x_mm", "orig_y_mm"), np.array([0.001, -0.001]), 2
    else:
        path, fps = data / "wildtrack-7cam" / "ground_truth.csv", 2.0
        columns, unit, every = ("x_cm", "y_cm"), np.array([0.01, 0.01]), 1
    places = _positions(path, columns, every)
    last = len(places) if stretch.frames is None else stretch.first + stretch.frames
    if last > len(places):
        raise SourceError(f"{path}: has {len(places)} frames, {last} are needed: get the whole file")
    return link([rows * unit for rows in places[stretch.first : last]], fps)


def _positions(path: Path, columns: tuple[str, str], every: int) -> list[NDArray[np.float64]]:
    """Positions (N, 2) of every frame, in the file's unit."""
    rows: dict[int, list[tuple[float, float]]] = {}
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for row in csv.DictReader(file):
                rows.setdefault(int(row["frame"]), []).append(
                    (float(row[columns[0]]), float(row[columns[1]]))
                )
    except (OSError, EOFError, KeyError, ValueError, TypeError) as error:
        raise SourceError(f"{path}: cannot be read ({error!r}): get the file again") from error
    if not rows:
        raise SourceError(f"{path}: has nobody in it: get the file again")
    numbers = range(min(rows), max(rows) + 1, every)
    return [np.array(rows.get(number, []), dtype=np.float64).reshape(-1, 2) for number in numbers]


def place(real: RealSet, data: Path) -> SimScene:
    """The set's scene to render; of a hard one with what stands in the way, which is where nobody walked."""
    return _place(real.name, data)


@lru_cache(2)
def _place(name: str, data: Path) -> SimScene:
    real = named(name)
    bare = from_scene(scene(real, data))
    if not real.hard:
        return bare
    stretches = dict.fromkeys(s for some in real.stretches.values() for s in some)
    xy = np.concatenate([tracks(real, data, stretch).xy.reshape(-1, 2) for stretch in stretches])
    walked = xy[~np.isnan(xy[:, 0])]
    return replace(bare, props=occluders(bare.scene, walked, _OCCLUDER_SEED))


def make_piece(
    real: RealSet, data: Path, piece: int, instants: int | None = None
) -> tuple[NDArray[np.uint8], CrowdTruth]:
    """Render a piece: frames (V, F, H, W, 3) uint8 RGB that went through the video codec, and the truth;
    instants: only the first so many. Same set and piece: same pixels.
    """
    where = place(real, data)
    crowd, duration_s = _crowd(real, data, piece)
    times = np.arange(int(duration_s / real.interval_s + 1e-6) + 1)[:instants] * real.interval_s
    renderers = [Renderer(where, view, piece) for view in real.views]
    camera = renderers[0].camera
    frames = np.empty((len(renderers), len(times), camera.height, camera.width, 3), np.uint8)
    xy = np.empty((len(times), crowd.people, 2))
    visible = np.zeros((len(renderers), len(times), crowd.people), bool)
    for f, t_s in enumerate(times.tolist()):
        state = crowd.state(t_s)
        xy[f] = state.xy
        for v, renderer in enumerate(renderers):
            frames[v, f] = renderer.render(state, crowd.appearance)
            visible[v, f] = seen(*renderer.visible_pixels(state, crowd.appearance))
    if real.hard:
        xy[~in_the_union(where.scene, xy)] = np.nan
    for v in range(len(renderers)):
        frames[v] = encode_decode(frames[v], 1 / real.interval_s)
    rows = len(renderers)
    return frames, CrowdTruth(real.views, np.tile(times, (rows, 1)), np.tile(xy, (rows, 1, 1, 1)), visible)


def _crowd(real: RealSet, data: Path, piece: int) -> tuple[TrackCrowd | JoinedCrowd, float]:
    """Who is about in a piece, and for how long, seconds."""
    walks = thinned(tracks(real, data, real.stretch(piece)), real.share(piece), piece)
    crowd = TrackCrowd(walks, piece)
    if real.hard and (beyond := people_beyond(place(real, data), real.views[0], piece)) is not None:
        return JoinedCrowd(crowd, beyond), walks.duration_s
    return crowd, walks.duration_s


def make(
    real: RealSet,
    data: Path,
    folder: Path,
    pieces: Sequence[int],
    workers: int = 2,
    done: Callable[[int], None] = lambda piece: None,
    stop: Event | None = None,
    instants: int | None = None,
) -> None:
    """Make those of `pieces` that `folder` lacks, on `workers` processes; `done(piece)` after each.

    Once `stop` is set, the pieces in hand are finished and no new one is begun. Raises UserError where
    `folder` holds another scene, or pieces of an earlier version, whose crowds were not thinned.
    """
    claim(folder, scene(real, data))
    for piece in (p for p in pieces if real.share(p) < 1 and (folder / f"{p:06d}.npz").exists()):
        there, due = load_truth(folder / f"{piece:06d}.npz").xy.shape[2], _crowd(real, data, piece)[0].people
        if there != due:
            raise UserError(
                f"{folder}: piece {piece} has {there} people where {real.name} has {due}: an earlier version "
                "made it, with others; remove the folder, or choose another --out"
            )
    task = partial(_make_one, real.name, data, folder, instants)
    run_each(task, lacking(folder, pieces), workers, done, stop or Event())


def _make_one(name: str, data: Path, folder: Path, instants: int | None, piece: int) -> None:
    save_crowd(folder, piece, *make_piece(named(name), data, piece, instants))
