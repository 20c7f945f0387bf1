"""PETS2009 and CityStreet as the paper's authors distribute them: grey frames, density maps of every view and
of the ground, in HDF5 files.

A file of a view has `images` and `density_maps`, one of the ground `density_maps`, each (T, rows, columns,
1); density maps are four times finer than what models predict, and a map's sum is its count. Nothing of the
sets is part of the project; `problems` says exactly which file is missing or damaged, and where to get them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from calib.ground import GroundGrid
from viewsync.errors import SourceError, UserError

Floats = NDArray[np.float32]

WHERE = (
    "the authors' download, about 15 GB, is linked in the README of "
    "https://github.com/zqyq/Unsynchronized-Multi-Camera-Surveillance---IEEE-TNNLS"
)
# Density maps in the files are finer by this than those that models predict.
FINER = 4


@dataclass(frozen=True, slots=True)
class Recording:
    """One sequence: files of the views (the reference first) and of the ground, below the data folder."""

    name: str
    use: str
    views: tuple[str, ...]
    ground: str


@dataclass(frozen=True, slots=True)
class AuthorsSet:
    """What there should be. image: rows and columns of a frame; map: of a ground map as predicted; fps: of
    the recordings; kappa_s: the paper's largest random latency, tau_s: its constant latency of each view.

    ground: the cells of the maps in our world, with an even number of rows (`laid` fills them up); where
    flipped, rows of the maps run against our y axis. Which part of a cell the authors' fine cells round to is
    not told, so it is known to about a quarter of a cell (0.1 m).
    """

    name: str
    folder: str
    image: tuple[int, int]
    map: tuple[int, int]
    fps: float
    kappa_s: float
    tau_s: tuple[float, ...]
    recordings: tuple[Recording, ...]
    ground: GroundGrid
    flipped: bool

    def laid(self, density: NDArray[np.floating]) -> Floats:
        """A map (rows, columns) as predicted, on the cells of `ground`."""
        rows = density[::-1] if self.flipped else density
        more = self.ground.rows - len(rows)
        return np.pad(rows, ((0, more), (0, 0))).astype(np.float32)


def _pets(use: str, name: str, folder: str, inner: str = "") -> Recording:
    base = f"dmaps/{folder}"
    views = tuple(f"{base}/train_test/{inner}PETS_{name}_view{v}_train_test_10.h5" for v in (1, 2, 3))
    return Recording(name, use, views, f"{base}/GP_maps/PETS_{name}_groundplane_dmaps_10.h5")


def _street(use: str) -> Recording:
    views = tuple(f"dmaps/{use}/Street_view{v}_dmap_10.h5" for v in (1, 2, 3))
    return Recording(f"street-{use}", use, views, f"GP_dmaps/{use}/Street_groundplane_{use}_dmaps_10.h5")


AUTHORS: Mapping[str, AuthorsSet] = {
    "pets2009": AuthorsSet(
        "pets2009",
        "PETS_2009",
        (288, 384),
        (177, 152),
        7.0,
        5.0,
        (0.0, 5.0, -5.0),
        (
            _pets("train", "S1L3_1", "S1L3/14_17"),
            _pets("train", "S1L3_2", "S1L3/14_33"),
            _pets("train", "S2L2_1", "S2L2/14_55", "10_10/"),
            _pets("train", "S2L3_1", "S2L3/14_41", "10_10/"),
            _pets("test", "S1L1_1", "S1L1/13_57"),
            _pets("test", "S1L1_2", "S1L1/13_59"),
            _pets("test", "S1L2_1", "S1L2/14_06"),
            _pets("test", "S1L2_2", "S1L2/14_31"),
        ),
        GroundGrid(-30.65, -44.65, 0.4, columns=152, rows=178),
        False,
    ),
    "citystreet": AuthorsSet(
        "citystreet",
        "Street",
        (380, 676),
        (192, 160),
        1.0,
        3.0,
        (0.0, 3.0, -3.0),
        (_street("train"), _street("test")),
        # Cells of 4 × 76.25 mm; the files' y points the other way than ours.
        GroundGrid(-21.434, -26.756, 0.305, columns=160, rows=192),
        True,
    ),
}


@dataclass(frozen=True, slots=True)
class Unsynchronised:
    """One frame per view, the reference in slot 0: images (V, H, W) uint8 grey; offset_s (V,); density (rows,
    columns) on the ground in people per cell, at the reference's time.
    """

    images: NDArray[np.uint8]
    offset_s: Floats
    density: Floats


def problems(authors: AuthorsSet, root: Path) -> list[str]:
    """One line for each file that is missing, damaged, or does not fit its fellows: which, and what is wrong.
    root: the folder that has `PETS_2009` or `Street`. Empty: the set is whole.
    """
    base = root / authors.folder
    found = []
    for recording in authors.recordings:
        frames: dict[str, int] = {}
        for name in (*recording.views, recording.ground):
            try:
                frames[name] = _frames(authors, base / name, name != recording.ground)
            except SourceError as error:
                found.append(str(error))
        if len(set(frames.values())) > 1:
            counts = ", ".join(f"{Path(name).name} {count}" for name, count in frames.items())
            found.append(f"{base}: {recording.name}: files differ in their number of frames ({counts})")
    return found


def _frames(authors: AuthorsSet, path: Path, of_a_view: bool) -> int:
    """How many frames the file has. Raises SourceError."""
    if not path.exists():
        raise SourceError(f"{path}: is missing")
    try:
        with h5py.File(path, "r") as file:
            shapes = {key: file[key].shape for key in file if isinstance(file[key], h5py.Dataset)}
            for key in shapes:
                file[key][-1:]  # the end is what a broken download lacks
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path}: is no whole HDF5 file ({' '.join(str(error).split())}): get it again"
        ) from error
    wanted = ("images", "density_maps") if of_a_view else ("density_maps",)
    for key in wanted:
        if key not in shapes:
            raise SourceError(f"{path}: has no {key}; it has {', '.join(sorted(shapes)) or 'nothing'}")
        if len(shapes[key]) != 4 or shapes[key][3] != 1 or not shapes[key][0]:
            raise SourceError(f"{path}: {key} is {shapes[key]}, not (frames, rows, columns, 1)")
    if of_a_view and shapes["images"][1:3] != authors.image:
        rows, columns = shapes["images"][1:3]
        raise SourceError(f"{path}: frames are {columns}x{rows}, not {authors.image[1]}x{authors.image[0]}")
    rows, columns = (side // FINER for side in shapes["density_maps"][1:3])
    if not of_a_view and (rows, columns) != authors.map:
        raise SourceError(
            f"{path}: maps are {columns}x{rows} cells, not {authors.map[1]}x{authors.map[0]} ({FINER}x finer)"
        )
    if len({shapes[key][0] for key in wanted}) > 1:
        counts = ", ".join(f"{shapes[key][0]} {key}" for key in wanted)
        raise SourceError(f"{path}: has {counts}: get it again")
    return int(shapes["density_maps"][0])


class AuthorsFrames:
    """The frames of a whole set for one use, `train` or `test`. Raises UserError, with the first problem and
    where to get the set, where it is not whole.
    """

    def __init__(self, authors: AuthorsSet, root: Path, use: str) -> None:
        wrong = problems(authors, root)
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise UserError(f"{wrong[0]}{more}; {WHERE}")
        self.authors = authors
        self.recordings = tuple(r for r in authors.recordings if r.use == use)
        self._base = root / authors.folder

    def unsynchronised(
        self, kappa_s: float | None = None, tau_s: Sequence[float] | None = None, seed: int = 0
    ) -> Iterator[Unsynchronised]:
        """Every frame of the reference that has partners, in order (paper, Section IV): the other views' are
        off by tau_s, a constant for each view, or by up to ±kappa_s, drawn for each frame and view.

        Raises UserError where a recording is too short for them.
        """
        if (kappa_s is None) == (tau_s is None):
            raise ValueError("give kappa_s or tau_s")
        fps = self.authors.fps
        offsets = [round((t - (tau_s or (0.0,))[0]) * fps) for t in tau_s or ()]
        reach = max(map(abs, offsets), default=0) if tau_s is not None else round((kappa_s or 0.0) * fps)
        for number, recording in enumerate(self.recordings):
            rng = np.random.default_rng([seed, number])
            with h5py.File(self._base / recording.ground, "r") as ground:
                maps = ground["density_maps"]
                count = len(maps)
                if count <= 2 * reach:
                    raise UserError(
                        f"{recording.name} has {count} frames at {fps:g} per second, too few for offsets of "
                        f"±{reach / fps:g} s; choose smaller ones"
                    )
                for frame in range(reach, count - reach):
                    shift = np.array(
                        offsets or [0, *rng.integers(-reach, reach + 1, len(recording.views) - 1)]
                    )
                    images = [
                        self._image(name, frame + int(s))
                        for name, s in zip(recording.views, shift, strict=True)
                    ]
                    yield Unsynchronised(
                        np.stack(images), (shift / fps).astype(np.float32), coarser(maps[frame, :, :, 0])
                    )

    def count(self, recording: Recording) -> int:
        """How many frames every file of a recording has."""
        with h5py.File(self._base / recording.ground, "r") as file:
            return len(file["density_maps"])

    def image(self, recording: Recording, view: int, frame: int) -> NDArray[np.uint8]:
        """A view's frame (H, W), grey."""
        return self._image(recording.views[view], frame)

    def view_map(self, recording: Recording, view: int, frame: int) -> Floats:
        """A view's density map, as it is in the file."""
        return self._map(recording.views[view], frame)

    def ground_map(self, recording: Recording, frame: int) -> Floats:
        """The ground's density map (rows, columns) as predicted."""
        return coarser(self._map(recording.ground, frame))

    def _map(self, name: str, frame: int) -> Floats:
        with h5py.File(self._base / name, "r") as file:
            found: Floats = np.asarray(file["density_maps"][frame, :, :, 0], np.float32)
        return found

    def _image(self, name: str, frame: int) -> NDArray[np.uint8]:
        with h5py.File(self._base / name, "r") as file:
            image = file["images"][frame, :, :, 0]
        # Stored as 0..255 or as 0..1.
        scale = 255.0 if np.issubdtype(image.dtype, np.floating) and image.max() <= 1.0 else 1.0
        grey: NDArray[np.uint8] = np.clip(np.rint(image * scale), 0, 255).astype(np.uint8)
        return grey


def coarser(density: NDArray[np.floating], by: int = FINER) -> Floats:
    """Sums of by × by cells of a map (rows, columns); what does not fill a block goes to the last one, so
    that the count stays.
    """
    rows, columns = (np.arange(side // by) * by for side in density.shape)
    summed = np.add.reduceat(np.add.reduceat(density.astype(np.float64), rows, axis=0), columns, axis=1)
    return summed.astype(np.float32)
