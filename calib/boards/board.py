"""Calibration boards: what they look like, and where their corners are in a picture.

ChArUco boards and grids of ArUco markers tell which corner is which, even when partly hidden. A chessboard
does not: it must be seen whole, and looks the same from behind its back, so it ties no two cameras together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibError

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]
Kind = Literal["charuco", "chessboard", "aruco"]

DICTIONARIES = tuple(
    sorted(name for name in dir(cv2.aruco) if name.startswith("DICT_") and name.upper() == name)
)
# Fewer corners than this say little about a view, and can lie on a line.
FEWEST_CORNERS = 6
_LARGEST_SIDE = 50
# A chessboard is first looked for in a picture no larger than this: without it, one that is not there takes
# seconds.
_QUICK_SIDE_PX = 1000
_THINNEST = 0.05


@dataclass(frozen=True, slots=True)
class Board:
    """A flat board. columns, rows: squares of a ChArUco board, inner corners of a chessboard, markers of an
    ArUco grid. square_m: side of a square; of an ArUco grid, from one marker's edge to the next one's same
    edge. marker_m: side of a marker. inverted: white on black; legacy: made by OpenCV before 4.6.
    """

    kind: Kind
    columns: int
    rows: int
    square_m: float
    marker_m: float | None = None
    dictionary: str = "DICT_4X4_50"
    inverted: bool = False
    legacy: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise CalibError(f"board kind is {self.kind!r}: give one of {', '.join(get_args(Kind))}")
        least = 1 if self.kind == "aruco" else 3
        for name in ("columns", "rows"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST_SIDE:
                raise CalibError(f"board {name} is {value!r}: give {least} to {_LARGEST_SIDE}")
        if not (np.isfinite(self.square_m) and 0.001 <= self.square_m <= 10):
            raise CalibError(f"board square is {self.square_m} m: give its side in metres, 0.001 to 10")
        if self.kind == "chessboard":
            return
        if self.marker_m is None:
            raise CalibError(f"a {self.kind} board needs the side of its markers: give it (--marker-m)")
        if not 0 < self.marker_m < self.square_m:
            raise CalibError(
                f"board marker is {self.marker_m} m, its square {self.square_m} m: the marker is the smaller"
            )
        if self.dictionary not in DICTIONARIES:
            raise CalibError(f"dictionary is {self.dictionary!r}: give one of {', '.join(DICTIONARIES)}")

    def __str__(self) -> str:
        what = {"charuco": "squares", "chessboard": "inner corners", "aruco": "markers"}[self.kind]
        kind = {"charuco": "ChArUco board", "chessboard": "chessboard", "aruco": "ArUco grid"}[self.kind]
        marked = "" if self.kind == "chessboard" else f", {self.dictionary}"
        ways = (", inverted" if self.inverted else "") + (", legacy" if self.legacy else "")
        return f"{kind} of {self.columns}x{self.rows} {what}{marked}{ways}"

    @property
    def corners(self) -> Floats:
        """(K, 3) every corner that can be found, by its number, metres on the board, z = 0."""
        if self.kind == "chessboard":
            x, y = np.meshgrid(np.arange(self.columns), np.arange(self.rows))
            places = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1).astype(np.float64)
            return np.asarray(places * float(self.square_m), dtype=np.float64)
        if self.kind == "charuco":
            return np.array(self._charuco().getChessboardCorners(), dtype=np.float64)
        return np.array(self._grid().getObjPoints(), dtype=np.float64).reshape(-1, 3)

    def _charuco(self) -> cv2.aruco.CharucoBoard:
        board = cv2.aruco.CharucoBoard(
            (self.columns, self.rows), float(self.square_m), float(self.marker_m or 0), self._dictionary()
        )
        board.setLegacyPattern(self.legacy)
        return board

    def _grid(self) -> cv2.aruco.GridBoard:
        marker = float(self.marker_m or 0)
        return cv2.aruco.GridBoard(
            (self.columns, self.rows), marker, float(self.square_m) - marker, self._dictionary()
        )

    def _dictionary(self) -> cv2.aruco.Dictionary:
        return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))

    def picture(self, pixels_per_square: int = 80) -> Image:
        """(H, W) the board to print, with half a square of white (black if inverted) around it."""
        if self.kind == "chessboard":
            x, y = np.meshgrid(np.arange(self.columns + 1), np.arange(self.rows + 1))
            squares = np.where((x + y) % 2, 255, 0).astype(np.uint8)
            image = np.kron(squares, np.ones((pixels_per_square, pixels_per_square), np.uint8))
            image = np.pad(image, pixels_per_square // 2, constant_values=255)
        else:
            board = self._charuco() if self.kind == "charuco" else self._grid()
            gap = 0.0 if self.kind == "charuco" else 1 - float(self.marker_m or 0) / self.square_m
            size = (
                round((self.columns - gap) * pixels_per_square),
                round((self.rows - gap) * pixels_per_square),
            )
            image = np.pad(
                np.asarray(board.generateImage(size), dtype=np.uint8),
                pixels_per_square // 2,
                constant_values=255,
            )
        return np.asarray(255 - image if self.inverted else image, dtype=np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """A board in one picture. name: of the picture; ids: (N,) corners by number; pixels: (N, 2); corners:
    (N, 3) metres on the board; size: (width, height) of the picture. time_s: when, where that is known.
    """

    name: str
    ids: NDArray[np.intp]
    pixels: Floats
    corners: Floats
    size: tuple[int, int]
    time_s: float | None = None


class BoardFinder:
    """Finds one board in pictures."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._corners = board.corners
        if board.kind == "charuco":
            self._charuco = cv2.aruco.CharucoDetector(board._charuco())
        elif board.kind == "aruco":
            parameters = cv2.aruco.DetectorParameters()
            parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
            self._aruco = cv2.aruco.ArucoDetector(board._dictionary(), parameters)

    def find(self, image: Image, name: str, time_s: float | None = None) -> Sighting | None:
        """The board in an RGB (H, W, 3) or grey (H, W) picture; None where too little of it is seen."""
        grey = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        if self.board.inverted:
            grey = np.asarray(255 - grey, dtype=np.uint8)
        found = {"charuco": self._find_charuco, "aruco": self._find_markers}.get(
            self.board.kind, self._find_chessboard
        )(grey)
        if found is None or len(found[0]) < FEWEST_CORNERS:
            return None
        ids, pixels = found
        extent = np.linalg.svd(self._corners[ids] - self._corners[ids].mean(axis=0), compute_uv=False)
        if extent[1] <= _THINNEST * extent[0]:
            return None
        size = (grey.shape[1], grey.shape[0])
        return Sighting(name, ids, pixels, self._corners[ids], size, time_s)

    def _find_charuco(self, grey: Image) -> tuple[NDArray[np.intp], Floats] | None:
        # OpenCV's types promise arrays; where there is no board there are none.
        found = cast(tuple[Any, ...], self._charuco.detectBoard(grey))
        pixels, ids = found[:2]
        if ids is None or pixels is None:
            return None
        return np.ravel(ids).astype(np.intp), np.reshape(pixels, (-1, 2)).astype(np.float64)

    def _find_markers(self, grey: Image) -> tuple[NDArray[np.intp], Floats] | None:
        # As above: None where there is no marker.
        quads, ids = cast(tuple[Any, ...], self._aruco.detectMarkers(grey))[:2]
        if ids is None:
            return None
        count = self.board.columns * self.board.rows
        rows = [
            (int(number), quad) for number, quad in zip(np.ravel(ids), quads, strict=True) if number < count
        ]
        # A number seen twice is a copy, or a mistake: neither can be told from the other.
        once = [row for row in rows if sum(other[0] == row[0] for other in rows) == 1]
        if not once:
            return None
        numbers = np.concatenate([4 * number + np.arange(4) for number, _ in once])
        return numbers.astype(np.intp), np.concatenate([np.reshape(quad, (4, 2)) for _, quad in once]).astype(
            np.float64
        )

    def _find_chessboard(self, grey: Image) -> tuple[NDArray[np.intp], Floats] | None:
        size = (self.board.columns, self.board.rows)
        pixels = find_chessboard(grey, size)
        return None if pixels is None else (np.arange(len(pixels)), pixels)


def find_chessboard(grey: Image, size: tuple[int, int]) -> Floats | None:
    """(columns · rows, 2) inner corners of a chessboard that is seen whole, to a part of a pixel."""
    shrink = min(1.0, _QUICK_SIDE_PX / max(grey.shape))
    small = np.asarray(cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8)
    quick = cv2.CALIB_CB_ADAPTIVE_THRESH + cv2.CALIB_CB_NORMALIZE_IMAGE
    found, corners = cv2.findChessboardCorners(small, size, flags=quick)
    if found:
        corners = (np.reshape(corners, (-1, 2)) + 0.5) / shrink - 0.5
    else:
        # Two programs of OpenCV, each of which finds boards that the other misses.
        found, corners = cv2.findChessboardCornersSB(small, size, flags=cv2.CALIB_CB_NORMALIZE_IMAGE)
        if found:
            corners = (np.reshape(corners, (-1, 2)) + 0.5) / shrink - 0.5
        elif shrink < 1:
            found, corners = cv2.findChessboardCorners(grey, size, flags=quick + cv2.CALIB_CB_FAST_CHECK)
    if not found:
        return None
    pixels = np.reshape(corners, (size[1], size[0], 2)).astype(np.float32)
    # The window for the exact place must not reach the next corner.
    steps = [np.linalg.norm(np.diff(pixels, axis=axis), axis=2).min() for axis in (0, 1)]
    half = int(np.clip(min(steps) / 3, 2, 11))
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 40, 0.001)
    exact = cv2.cornerSubPix(grey, pixels.reshape(-1, 1, 2), (half, half), (-1, -1), criteria)
    return np.reshape(exact, (-1, 2)).astype(np.float64)


def why_not_found(board: Board, images: Sequence[Image]) -> str:
    """What to do where `board` is in none of these pictures: which other board is, if one is."""
    greys = [
        image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        for image in images
    ]
    nearby = _other_ways(board)
    for other, advice in nearby:
        finder = BoardFinder(other)
        if any(finder.find(grey, "") is not None for grey in greys):
            return f"{other} is: {advice}"
    counts = {name: _markers(name, greys) for name in DICTIONARIES if name != board.dictionary}
    best = max(counts, key=lambda name: counts[name])
    if board.kind != "chessboard" and counts[best] >= 3 * len(greys) // 2 + 1:
        return f"markers of {best} are: give --dictionary {best}"
    if board.kind != "chessboard" and _markers(board.dictionary, greys):
        return "markers of that dictionary are: check --size, --legacy, and that the board is not half hidden"
    if board.kind == "chessboard" and counts[best] >= 3 * len(greys) // 2 + 1:
        return f"markers of {best} are: is it a ChArUco board? give --board charuco --dictionary {best}"
    if board.kind != "chessboard" and not any(counts.values()):
        return "nor is any other marker: is it a chessboard? give --board chessboard and its inner corners"
    return "check --board and --size, and that the board is sharp, lit, and wholly in the picture"


def _other_ways(board: Board) -> list[tuple[Board, str]]:
    """Boards that are easily taken for this one, with what to do where it is one of them."""
    columns, rows = board.columns, board.rows
    inverted = Board(
        board.kind, columns, rows, board.square_m, board.marker_m, board.dictionary, not board.inverted
    )
    ways = [(inverted, "give --inverted" if inverted.inverted else "leave --inverted out")]
    if board.kind == "chessboard":
        for wide, high in ((columns - 1, rows - 1), (columns + 1, rows + 1)):
            if min(wide, high) >= 3:
                other = Board("chessboard", wide, high, board.square_m)
                ways.append((other, f"give --size {wide}x{high}, where inner corners meet, not squares"))
        return [way for way in ways if not way[0].inverted]
    if board.kind == "charuco":
        for legacy in (False, True):
            for flip in (False, True):
                for wide, high in ((columns, rows), (rows, columns)):
                    other = Board(
                        "charuco",
                        *(wide, high, board.square_m, board.marker_m, board.dictionary),
                        inverted=flip,
                        legacy=legacy,
                    )
                    flags = (" --inverted" if flip else "") + (" --legacy" if legacy else "")
                    ways.append((other, f"give --size {wide}x{high}{flags}"))
    return [way for way in ways if way[0] != board]


def _markers(dictionary: str, greys: Sequence[Image]) -> int:
    finder = cv2.aruco.ArucoDetector(
        cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, dictionary)), cv2.aruco.DetectorParameters()
    )
    both = [grey for one in greys for grey in (one, np.asarray(255 - one, dtype=np.uint8))]
    return sum(0 if ids is None else len(ids) for ids in (finder.detectMarkers(grey)[1] for grey in both))
