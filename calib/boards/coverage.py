"""What part of an image, and which tilts, the chosen views of a board cover; and what is too thin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.boards.board import Sighting

Floats = NDArray[np.float64]

COLUMNS, ROWS = 8, 6
_FEW_VIEWS = 10
_THIN_SHARE = 0.6
_THIN_REACH = 0.75
_FLAT_DEG = 20.0
_THIRDS = (
    ("top left", "top", "top right"),
    ("left", "centre", "right"),
    ("bottom left", "bottom", "bottom right"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """views: how many; cells: (ROWS, COLUMNS) how many corners lie in each part of the image; reach: the
    corner farthest from the image's centre, as a share of half its diagonal; steepest_deg, flattest_deg: tilt
    of the board against the image plane.
    """

    views: int
    cells: NDArray[np.intp]
    reach: float
    steepest_deg: float
    flattest_deg: float

    @property
    def share(self) -> float:
        """Of the image's parts, those with a corner in them."""
        return float((self.cells > 0).mean())

    @property
    def empty(self) -> list[str]:
        """Ninths of the image without any corner, in words."""
        rows = np.array_split(self.cells, 3, axis=0)
        ninths = [np.array_split(row, 3, axis=1) for row in rows]
        return [
            _THIRDS[row][column] for row in range(3) for column in range(3) if not ninths[row][column].any()
        ]

    def drawing(self) -> str:
        """Lines of text, one character per part: how many corners, . for none and + for more than 9."""
        return "\n".join(
            " ".join("." if count == 0 else str(count) if count < 10 else "+" for count in row)
            for row in self.cells.tolist()
        )


def coverage_of(views: Sequence[Sighting], tilts_deg: Sequence[float]) -> Coverage:
    """Of views of one image size, with the tilt of each."""
    width, height = views[0].size
    pixels = np.concatenate([view.pixels for view in views])
    x = np.clip((pixels[:, 0] + 0.5) * COLUMNS / width, 0, COLUMNS - 1).astype(np.intp)
    y = np.clip((pixels[:, 1] + 0.5) * ROWS / height, 0, ROWS - 1).astype(np.intp)
    cells = np.zeros((ROWS, COLUMNS), dtype=np.intp)
    np.add.at(cells, (y, x), 1)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    reach = float(np.linalg.norm(pixels - middle, axis=1).max() / np.linalg.norm(middle))
    return Coverage(len(views), cells, reach, max(tilts_deg), min(tilts_deg))


def weaknesses(coverage: Coverage) -> list[str]:
    """What is too thin to be trusted, one line each, with what to do."""
    notes = []
    if coverage.views < _FEW_VIEWS:
        notes.append(f"coverage is thin: {coverage.views} views are few; take 15 or more that differ")
    if coverage.share < _THIN_SHARE:
        empty = f", such as {', '.join(coverage.empty)}" if coverage.empty else ""
        notes.append(
            f"coverage is thin: corners in {100 * coverage.share:.0f} % of the image; hold the board where "
            f"none is{empty}"
        )
    elif coverage.reach < _THIN_REACH:
        notes.append(
            f"coverage is thin: no corner farther out than {100 * coverage.reach:.0f} % of the way to the "
            "image's corners, where the lens bends most; hold the board there"
        )
    if coverage.steepest_deg < _FLAT_DEG:
        notes.append(
            f"coverage is thin: the board is never tilted by more than {coverage.steepest_deg:.0f} degrees, "
            "which leaves focal length and distance apart from each other open; tilt it by 30 to 45"
        )
    return notes
