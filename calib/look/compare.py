"""How far two calibrations of the same cameras are apart, whatever worlds they use: by focal lengths, and by
where cameras stand as seen from each other.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from calib.camera import Camera
from calib.errors import CalibError
from calib.projection import degrees_between


@dataclass(frozen=True, slots=True)
class LensDifference:
    """One camera's intrinsics against another's: focal lengths in x and y, percent; principal point, px."""

    camera: str
    focal_x_percent: float
    focal_y_percent: float
    centre_px: float


@dataclass(frozen=True, slots=True)
class PairDifference:
    """Where `second` stands in the frame of `first`: turn between the two answers, degrees; distance between
    them, metres; and how far the cameras are apart, metres (in the second calibration).
    """

    first: str
    second: str
    turn_deg: float
    shift_m: float
    apart_m: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """scale: the first calibration's distances over the second's, median over the pairs; shifts are as they
    are, without correcting for it.
    """

    lenses: tuple[LensDifference, ...]
    pairs: tuple[PairDifference, ...]
    scale: float


def compare(ours: Mapping[str, Camera], theirs: Mapping[str, Camera]) -> Comparison:
    """Cameras of the same names. CalibError if none is in both."""
    names = [name for name in ours if name in theirs]
    if not names:
        raise CalibError(
            f"no camera is in both: one has {', '.join(ours)}, the other {', '.join(theirs)}; rename them"
        )
    lenses = []
    for name in names:
        one, other = ours[name], theirs[name]
        if (one.width, one.height) != (other.width, other.height):
            other = other.resized(one.width, one.height)
        share = one.K / np.where(other.K == 0, 1, other.K) - 1
        lenses.append(
            LensDifference(
                name,
                float(100 * share[0, 0]),
                float(100 * share[1, 1]),
                float(np.linalg.norm(one.K[:2, 2] - other.K[:2, 2])),
            )
        )
    pairs = []
    scales = []
    for first, second in itertools.combinations(names, 2):
        turn, place = _relative(ours[first], ours[second])
        other_turn, other_place = _relative(theirs[first], theirs[second])
        apart = float(np.linalg.norm(other_place))
        if apart > 0:
            scales.append(float(np.linalg.norm(place)) / apart)
        pairs.append(
            PairDifference(
                first,
                second,
                degrees_between(turn, other_turn),
                float(np.linalg.norm(place - other_place)),
                apart,
            )
        )
    return Comparison(tuple(lenses), tuple(pairs), float(np.median(scales)) if scales else float("nan"))


def _relative(first: Camera, second: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) from the first camera's frame to the second's, and the second's centre in the first's
    frame (3,).
    """
    return second.R @ first.R.T, first.R @ second.centre + first.t
