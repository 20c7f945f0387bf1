"""Real crowds without labels: MOHICANS' pairs of two static cameras, taken out of step on purpose.

cam0 of frame a stands beside cam1 of frame b. What the method should make of cam1's features is what cam1
itself shows in frame a. The geometry that is known is F, from matches of what stands still; `cls-plane` gets
a ground plane from those of them that lie on the ground, too.

Shape letters: V views (slot 0 the reference), C channels, h w rows and columns of the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viewsync.errors import UserError
from viewsync.nets.config import CAMERA_LEVEL, PLANE_LEVEL
from viewsync.nets.encoder import STRIDE
from viewsync.nets.flow import up_flow, warp
from viewsync.nets.model import CountingModel
from viewsync.nets.synchronisers import Moved, Timing
from viewsync.training.warp_error import moving, normalised_error, optical_flow, plain_error

FOLDER = "mohicans-2cam"
STEPS = (24, 48, 72)
# The source does not state the frame rate; 24 frames are about a second.
FRAMES_PER_S = 24.0
# The part of each camera's picture where both see the courtyard: left, top, width, height in its pixels.
WINDOWS = ((260, 300, 1000, 750), (240, 230, 1000, 750))
# Fewer moving places than this say nothing.
_LEAST_PLACES = 30
# A match farther from its epipolar line, or from the ground's homography, is none; pixels.
_TOLERANCE_PX = 2.0
# Below these rows both cameras see the ground only.
_GROUND_FROM_ROW = (420, 340)
# A man 1.75 m tall is so many pixels high where his feet are in that row, in either camera: by hand, of two.
_TALL = ((460.0, 65.0), (823.0, 104.0))


@dataclass(frozen=True, slots=True)
class Crowd:
    """Grey pictures (2, N, H, W) uint8 of both cameras at the frames `numbers`, and static matches (M, 4),
    x0 y0 x1 y1 pixels.
    """

    numbers: tuple[int, ...]
    pictures: NDArray[np.uint8]
    matches: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pair:
    """One unsynchronised pair: row of the reference's camera, its frame, and the frame of the other."""

    reference: int
    frame: int
    other_frame: int

    @property
    def step(self) -> int:
        """Frames that the other is late."""
        return self.other_frame - self.frame


@dataclass(frozen=True, slots=True)
class Row:
    """What one way to warp makes of one pair: error after over error before, of normalised and of plain
    features; and the moving places.
    """

    way: str
    pair: Pair
    ratio: float
    plain_ratio: float
    places: int


def load_crowd(folder: Path) -> Crowd:
    """The pairs in `folder` (`cam0/im<N>.png`, `cam1/…`, `matches.csv`). Raises UserError, naming a file."""
    again = "get the set again, or leave out --mohicans"
    numbers = sorted(int(p.stem.removeprefix("im")) for p in (folder / "cam0").glob("im*.png"))
    if not numbers:
        raise UserError(f"{folder}: no pictures cam0/im<N>.png are there; {again}")
    every = []
    for camera in ("cam0", "cam1"):
        for number in numbers:
            path = folder / camera / f"im{number}.png"
            picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if picture is None:
                raise UserError(f"{path}: missing, or no picture; {again}")
            every.append(picture)
    if len({p.shape for p in every}) > 1:
        raise UserError(f"{folder}: the pictures differ in size; {again}")
    try:
        matches = np.loadtxt(folder / "matches.csv", delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'matches.csv'}: cannot be read ({error}); {again}") from error
    if matches.shape[1] != 4 or len(matches) < 8:
        raise UserError(f"{folder / 'matches.csv'}: give x0, y0, x1, y1 of 8 matches or more; {again}")
    return Crowd(
        tuple(numbers), np.stack(every).astype(np.uint8).reshape(2, len(numbers), *every[0].shape), matches
    )


def pairs(numbers: Sequence[int], steps: Sequence[int] = STEPS) -> Iterator[Pair]:
    """Every pair that is one of ± `steps` frames apart, each camera the reference in turn."""
    for reference in (0, 1):
        for frame in numbers:
            for step in sorted({s * sign for s in steps for sign in (-1, 1)}):
                if frame + step in numbers:
                    yield Pair(reference, frame, frame + step)


def place_from_pixel(camera: int, size: tuple[int, int]) -> NDArray[np.float64]:
    """(3, 3) from a camera's pixels to places of its window's features, `size` rows and columns."""
    left, top, width, height = WINDOWS[camera]
    scale = np.array([size[1] / width, size[0] / height])
    shift = (0.5 - np.array([left, top])) * scale - 0.5
    return np.array([[scale[0], 0.0, shift[0]], [0.0, scale[1], shift[1]], [0.0, 0.0, 1.0]])


def fundamental_of(crowd: Crowd) -> NDArray[np.float64]:
    """F (3, 3) from cam0's pixels to lines in cam1, by RANSAC. Raises UserError where matches disagree."""
    first, second = crowd.matches[:, :2], crowd.matches[:, 2:]
    F, agree = cv2.findFundamentalMat(first, second, cv2.FM_RANSAC, _TOLERANCE_PX, 0.9999)
    if F is None or F.shape != (3, 3) or agree.mean() < 0.5:
        raise UserError("matches.csv: fewer than half of the matches agree with one fundamental matrix")
    found: NDArray[np.float64] = F / np.linalg.norm(F)
    return found


class Real:
    """A crowd as a model's encoder sees it: windows of `size` (rows, columns of features), and geometry."""

    def __init__(self, crowd: Crowd, size: tuple[int, int]) -> None:
        self.size = size
        width, height = size[1] * STRIDE, size[0] * STRIDE
        self.pictures = np.stack(
            [
                [
                    cv2.resize(p[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_AREA)
                    for p in all_
                ]
                for all_, (x, y, w, h) in zip(crowd.pictures, WINDOWS, strict=True)
            ]
        )
        self._at = {number: k for k, number in enumerate(crowd.numbers)}
        self._places = [place_from_pixel(camera, size) for camera in (0, 1)]
        F = fundamental_of(crowd)
        back = [np.linalg.inv(A) for A in self._places]
        self._F = (back[1].T @ F @ back[0], back[0].T @ F.T @ back[1])
        self._ground = _ground_homography(crowd)

    def picture(self, camera: int, frame: int) -> NDArray[np.uint8]:
        """One camera's window, grey (h·4, w·4)."""
        shown: NDArray[np.uint8] = self.pictures[camera, self._at[frame]]
        return shown

    def fundamental(self, reference: int) -> Tensor:
        """(1, 2, 3, 3) between places of the features, zero in slot 0."""
        return torch.from_numpy(np.stack([np.zeros((3, 3)), self._F[reference]]))[None].float()

    def planes(self, reference: int, heights: int) -> Tensor:
        """(1, 2, Z, 4, 3): the ground for every height, for no other plane is known here."""
        if self._ground is None:
            raise UserError("too few matches lie on the ground; cls-plane needs a homography of it")
        other = 1 - reference
        H = self._ground if reference == 1 else np.linalg.inv(self._ground)  # cam0 → cam1, or back
        here, there = self._places[reference], np.linalg.inv(self._places[other])
        mapped = here @ H @ there
        middle = np.array([self.size[1] / 2, self.size[0] / 2, 1.0])
        mapped /= mapped[2] @ middle  # positive in the picture
        (row, tall), (row_2, tall_2) = _TALL
        slope = (tall_2 - tall) / (row_2 - row)
        per_metre = np.array([0.0, slope, tall - slope * row]) / 1.75 * self._places[other][0, 0] @ there
        maps = np.tile(np.vstack([mapped, per_metre]), (heights, 1, 1))
        return torch.from_numpy(np.stack([maps * 0, maps]))[None].float()


def _ground_homography(crowd: Crowd) -> NDArray[np.float64] | None:
    """(3, 3) from cam0's pixels on the ground to cam1's; None where too few matches are sure to lie there."""
    low = (crowd.matches[:, 1] > _GROUND_FROM_ROW[0]) & (crowd.matches[:, 3] > _GROUND_FROM_ROW[1])
    if low.sum() < 8:
        return None
    H, agree = cv2.findHomography(
        crowd.matches[low, :2], crowd.matches[low, 2:], cv2.RANSAC, 2 * _TOLERANCE_PX
    )
    return np.asarray(H, np.float64) if H is not None and agree.sum() >= 8 else None


def size_of(model: CountingModel) -> tuple[int, int]:
    """Rows and columns of the features that a model's networks are for."""
    return model.config.grid if min(model.config.grid) > 0 else (72, 96)


def encode(model: CountingModel, *pictures: NDArray[np.uint8]) -> Tensor:
    """Grey pictures to features (1, V, C, h, w), as they cross the wire."""
    grey = torch.from_numpy(np.stack(pictures)).float().div(255.0)
    with torch.inference_mode():
        return model.encode(grey[None, :, None].expand(1, len(pictures), 3, *grey.shape[1:]))


def flow_of(model: CountingModel, method: str, features: Tensor, real: Real, pair: Pair) -> Moved:
    """What a method makes of features (1, 2, C, h, w) of a pair, or of others in their place."""
    lines = real.fundamental(pair.reference)
    offset = torch.tensor([[0.0, pair.step / FRAMES_PER_S]])
    timing = Timing(torch.ones(1, 2), offset, torch.ones(1, 2))
    with torch.inference_mode():
        if method in PLANE_LEVEL:
            planes = real.planes(pair.reference, model.config.heights)
            moved: Moved = model.over_planes[method](features, lines, planes, timing)
        else:
            moved = model.before[method](features, lines, timing)
    return moved


def methods_of(model: CountingModel) -> tuple[str, ...]:
    """The methods of a model whose geometry is there. Raises UserError where there is none."""
    found = tuple(m for m in model.config.methods if m in (*CAMERA_LEVEL, *PLANE_LEVEL))
    if not found or getattr(model.config, "base", "ours") != "ours":
        raise UserError(
            f"a checkpoint of {', '.join(model.config.methods)} has no flow between pictures; "
            f"--mohicans is for {', '.join((*CAMERA_LEVEL, *PLANE_LEVEL))} over our encoder"
        )
    return found


def measure(model: CountingModel, crowd: Crowd, steps: Sequence[int] = STEPS) -> list[Row]:
    """Every method of a model on every pair, beside zero flow, the flow of a shuffled frame, optical flow
    that knows the true frame, and the true frame. Raises UserError where nothing moves anywhere.
    """
    methods, real = methods_of(model), Real(crowd, size_of(model))
    rows: list[Row] = []
    for pair in pairs(crowd.numbers, steps):
        other = 1 - pair.reference
        wanted_picture, given_picture = (real.picture(other, n) for n in (pair.frame, pair.other_frame))
        where = moving(wanted_picture, given_picture, STRIDE)
        if where.sum() < _LEAST_PLACES:
            continue
        features = encode(model, real.picture(pair.reference, pair.frame), given_picture, wanted_picture)
        given, wanted = features[0, 1], features[0, 2]
        shuffled = torch.cat([shuffle(features[:, :1]), features[:, 1:2]], dim=1)
        size = (given.shape[-2], given.shape[-1])
        made = {"zero flow": given, "the true frame": wanted}
        made["optical flow of the true frame"] = warp(
            given[None], optical_flow(wanted_picture, given_picture, STRIDE)
        )[0]
        for method in methods:
            for name, shown in ((method, features[:, :2]), (f"{method}, shuffled frame", shuffled)):
                moved = flow_of(model, method, shown, real, pair)
                flow = moved.flow_px[-1][:, 0].permute(0, 3, 1, 2)
                made[name] = warp(given[None], up_flow(flow, size, moved.strides[-1]))[0]
        before = [error(given, wanted, where) for error in (normalised_error, plain_error)]
        for way, warped in made.items():
            after = [error(warped, wanted, where) for error in (normalised_error, plain_error)]
            ratio, plain_ratio = (a / b for a, b in zip(after, before, strict=True))
            rows.append(Row(way, pair, ratio, plain_ratio, int(where.sum())))
    if not rows:
        raise UserError("nothing moves in these pictures")
    return rows


def shuffle(features: Tensor, block: int = 8, seed: int = 0) -> Tensor:
    """Features (…, h, w) whose blocks of places have changed places; what is left over at the edges stays."""
    rows, columns = features.shape[-2] // block, features.shape[-1] // block
    order = np.random.default_rng(seed).permutation(rows * columns)
    out = features.clone()
    for to, source in enumerate(order):
        y, x, v, u = (block * int(n) for n in (*divmod(to, columns), *divmod(int(source), columns)))
        out[..., y : y + block, x : x + block] = features[..., v : v + block, u : u + block]
    return out


def summary(rows: Sequence[Row]) -> dict[str, dict[int, dict[str, float]]]:
    """way → |frames apart| → {ratio, sd, plain_ratio, pairs}: means over pairs, and the ratio's spread."""
    out: dict[str, dict[int, dict[str, float]]] = {}
    for way in dict.fromkeys(row.way for row in rows):
        out[way] = {}
        for step in sorted({abs(row.pair.step) for row in rows}):
            some = [row for row in rows if row.way == way and abs(row.pair.step) == step]
            ratio = np.array([row.ratio for row in some])
            out[way][step] = {
                "ratio": round(float(ratio.mean()), 4),
                "sd": round(float(ratio.std()), 4),
                "plain_ratio": round(float(np.mean([row.plain_ratio for row in some])), 4),
                "pairs": len(some),
            }
    return out


def table(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> str:
    """A summary as Markdown."""
    steps = list(next(iter(found.values())))
    head = "| flow | " + " | ".join(f"± {s} frames" for s in steps) + " |"
    lines = [head, "|---|" + "---:|" * len(steps)]
    for way, by_step in found.items():
        cells = (f"{v['ratio']:.3f} ± {v['sd']:.3f} ({v['plain_ratio']:.3f})" for v in by_step.values())
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
