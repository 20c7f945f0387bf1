"""Real walking people: PETS2009's CVML annotations as ground tracks that can be asked for at any instant.

The annotations box people in one view at a fixed rate, identities kept. The middle of a box's lower edge
stands on the ground, and the view's camera takes it there. A box jitters by a pixel or two, which is
decimetres far away, so each track is smoothed by a local line (Gaussian weights over time), whose slope is
the velocity; between frames a cubic (Hermite) joins positions and velocities, so that nobody ever jumps.
"""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from viewsync.errors import SourceError

Floats = NDArray[np.float64]

PETS2009_FPS = 7.0
# Longest time an identity may be away and still be taken to have walked straight on: people who leave the
# view and come back have been somewhere else.
_LONGEST_GAP_S = 2.0
_SMOOTHING_S = 0.3
_LARGEST_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """People on the ground at `fps`, identities kept; frame 0 is at time 0.

    ids (N,) as annotated; xy (frames, N, 2) metres and velocity (frames, N, 2) m/s on z = 0, NaN where
    someone is absent.
    """

    fps: float
    frames: int
    ids: NDArray[np.int64]
    xy: Floats
    velocity: Floats

    def __post_init__(self) -> None:
        shape = (self.frames, len(self.ids), 2)
        if self.fps <= 0 or self.frames < 1 or self.xy.shape != shape or self.velocity.shape != shape:
            raise ValueError(f"tracks need fps > 0 and xy, velocity of shape {shape}")
        if (np.isnan(self.xy) != np.isnan(self.velocity)).any():
            raise ValueError("tracks: whoever has a position has a velocity")
        for array in (self.ids, self.xy, self.velocity):
            array.setflags(write=False)

    @property
    def duration_s(self) -> float:
        """Time of the last frame, seconds."""
        return (self.frames - 1) / self.fps

    def positions(self, t_s: float) -> tuple[NDArray[np.int64], Floats, Floats]:
        """Who is where at `t_s` seconds: ids (N,), xy (N, 2) metres, velocity (N, 2) m/s.

        Someone is there at an instant if there at the frames before and after it; nobody is outside
        [0, duration_s]. Velocity is the derivative of position.
        """
        frame = t_s * self.fps
        # A time computed as frame / fps must mean that frame, whatever the rounding.
        if abs(frame - round(frame)) < 1e-9 * self.fps:
            frame = float(round(frame))
        if not 0 <= frame <= self.frames - 1:
            return self.ids[:0].copy(), np.empty((0, 2)), np.empty((0, 2))
        before = min(int(frame), max(self.frames - 2, 0))
        after = min(before + 1, self.frames - 1)
        u = frame - before
        if u == 0:
            after = before
        elif u == 1:
            before, u = after, 0.0
        there = ~(np.isnan(self.xy[before, :, 0]) | np.isnan(self.xy[after, :, 0]))
        p0, p1 = self.xy[before, there], self.xy[after, there]
        # Slopes per frame.
        m0, m1 = self.velocity[before, there] / self.fps, self.velocity[after, there] / self.fps
        a, b = 2 * (p0 - p1) + m0 + m1, 3 * (p1 - p0) - 2 * m0 - m1
        position = p0 + u * (m0 + u * (b + u * a))
        velocity = (m0 + u * (2 * b + u * 3 * a)) * self.fps
        return self.ids[there], position, velocity


def load_tracks(annotations: Path | str, camera: Camera, fps: float = PETS2009_FPS) -> Tracks:
    """Read a CVML file (.xml or .xml.gz) whose boxes are in the image of `camera` (PETS2009: View_001, 7
    fps).

    Boxes whose foot is not on the ground in front of the camera are left out. An identity missing for up to
    two seconds is bridged; for longer, it is absent. SourceError names the file, the place and what to do.
    """
    path = Path(annotations)
    feet_px, frames = _read_feet(path)
    ids = np.array(sorted(feet_px), dtype=np.int64)
    shape = (frames, len(ids), 2)
    xy, velocity = np.full(shape, np.nan), np.full(shape, np.nan)
    for column, identity in enumerate(ids):
        rows = feet_px[int(identity)]
        at = np.array(sorted(rows))
        ground = camera.back_project(np.array([rows[frame] for frame in at]))[:, :2]
        seen = ~np.isnan(ground[:, 0])
        at, ground = at[seen], ground[seen]
        breaks = np.flatnonzero(np.diff(at) > _LONGEST_GAP_S * fps) + 1
        for part, places in zip(np.split(at, breaks), np.split(ground, breaks), strict=True):
            if len(part):
                filled = np.arange(part[0], part[-1] + 1)
                smooth = _local_lines(part / fps, places, filled / fps)
                xy[filled, column], velocity[filled, column] = smooth
    return Tracks(fps, frames, ids, xy, velocity)


def thinned(tracks: Tracks, share: float, seed: int) -> Tracks:
    """Those of a share (0..1) of the people, drawn by `seed`; at least one."""
    people = len(tracks.ids)
    drawn = np.random.default_rng([seed, 0x7468696E]).permutation(people)
    who = np.sort(drawn[: max(1, round(share * people))])
    return Tracks(tracks.fps, tracks.frames, tracks.ids[who], tracks.xy[:, who], tracks.velocity[:, who])


def _local_lines(times: Floats, places: Floats, at: Floats) -> tuple[Floats, Floats]:
    """Gaussian-weighted straight lines through (times, places (n, 2)), evaluated `at` (m,): places and
    slopes (m, 2).
    """
    offsets = times - at[:, None]
    # In a gap, the width grows to reach both of its ends.
    width = np.maximum(_SMOOTHING_S, np.abs(offsets).min(axis=1, keepdims=True))
    weights = np.exp(-0.5 * (offsets / width) ** 2)
    s0, s1, s2 = weights.sum(axis=1), (weights * offsets).sum(axis=1), (weights * offsets**2).sum(axis=1)
    y0, y1 = weights @ places, (weights * offsets) @ places
    determinant = s0 * s2 - s1**2
    if len(times) == 1:
        return np.repeat(places, len(at), axis=0), np.zeros((len(at), 2))
    intercept = (s2[:, None] * y0 - s1[:, None] * y1) / determinant[:, None]
    slope = (s0[:, None] * y1 - s1[:, None] * y0) / determinant[:, None]
    return intercept, slope


def _read_feet(path: Path) -> tuple[dict[int, dict[int, tuple[float, float]]], int]:
    """Feet in pixels by identity and frame (counted from the first frame), and the number of frames."""
    root = _root(path)
    if root.tag != "dataset" or root.find("frame") is None:
        raise SourceError(f"{path}: has no <dataset><frame …>: give a CVML file such as PETS2009-S2L1.xml.gz")
    feet: dict[int, dict[int, tuple[float, float]]] = {}
    numbers: list[int] = []
    try:
        for frame in root.iter("frame"):
            numbers.append(int(frame.attrib["number"]))
            for person in frame.iter("object"):
                box = person.find("box")
                if box is None:
                    raise KeyError("box")
                x, y, height = (float(box.attrib[key]) for key in ("xc", "yc", "h"))
                if not np.isfinite([x, y, height]).all() or height <= 0:
                    raise ValueError("a box without a finite place and a positive height")
                track = feet.setdefault(int(person.attrib["id"]), {})
                if numbers[-1] in track:
                    raise ValueError(f"identity {person.attrib['id']} twice")
                track[numbers[-1]] = (x, y + height / 2)
    except (KeyError, ValueError) as error:
        where = f"frame {numbers[-1]}" if numbers else "its first frame"
        problem = f"no {error.args[0]!r}" if isinstance(error, KeyError) else error
        raise SourceError(f"{path}: {where} is not CVML ({problem}): get the file again") from error
    first, last = min(numbers), max(numbers)
    if len(set(numbers)) != len(numbers) or last - first + 1 > 1_000_000:
        raise SourceError(f"{path}: frame numbers repeat or leap: get the file again")
    shifted = {who: {frame - first: foot for frame, foot in track.items()} for who, track in feet.items()}
    return shifted, last - first + 1


def _root(path: Path) -> ElementTree.Element:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            data = stream.read(_LARGEST_FILE_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path}: is not a whole gzip file ({error}): get the file again") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
    if len(data) > _LARGEST_FILE_BYTES or b"<!ENTITY" in data:
        raise SourceError(f"{path}: is no plain CVML file (too large, or declares entities): check the path")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise SourceError(f"{path}: is not whole XML ({error}): get the file again") from error
