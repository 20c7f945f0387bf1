"""Which intrinsics a refinement may change, and what it costs to."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibError

Floats = NDArray[np.float64]
Lens = Literal["keep", "focal", "focal+k1", "all"]

# How far an intrinsic may go for the price of one pixel: a share, a share of the width, a number.
_FOCAL_SHARE, _CENTRE_SHARE, _LENS = 0.1, 0.02, 0.2


def lens_asked(solve_intrinsics: bool | str) -> Lens:
    """False is "keep", True "all". CalibError for anything but these and the names."""
    if isinstance(solve_intrinsics, bool):
        return "all" if solve_intrinsics else "keep"
    for name in get_args(Lens):
        if solve_intrinsics == name:
            found: Lens = name
            return found
    raise CalibError(f"solve_intrinsics is {solve_intrinsics!r}: give one of {', '.join(get_args(Lens))}")


def lens_columns(lens: Lens, intrinsics: Floats, width: int) -> tuple[Floats, Floats]:
    """What each of L numbers adds to a camera's intrinsics (M, 9, L), and how far it may go for the price of
    a pixel (L,). intrinsics: (M, 9) at the start; width: of the widest image.
    """
    count = len(intrinsics)
    columns: list[Floats] = []
    costs: list[float] = []

    def add(intrinsic: int, deviation: float) -> None:
        column = np.zeros((count, 9))
        column[:, intrinsic] = 1.0
        columns.append(column)
        costs.append(deviation)

    if lens != "keep":
        # One factor for both: surveyed points on the ground alone do not tell heights from fy.
        focal = np.zeros((count, 9))
        focal[:, :2] = intrinsics[:, :2]
        columns.append(focal)
        costs.append(_FOCAL_SHARE)
    if lens in ("focal+k1", "all"):
        add(4, _LENS)
    if lens == "all":
        add(5, _LENS)
        add(2, _CENTRE_SHARE * width)
        add(3, _CENTRE_SHARE * width)
    stacked = np.stack(columns, axis=-1) if columns else np.zeros((count, 9, 0))
    return stacked, np.array(costs)
