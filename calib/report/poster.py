"""The report as one picture: what fits on a page of a document or into a chat."""

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.look.walker import Walk
from calib.points import residuals
from calib.report import Looked
from calib.report.drawing import BAD, FAIR, GOOD, draw_view
from calib.report.plan import maps, png_bytes

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

_WIDTH, _GAP = 1600, 16
_PAPER: Colour = (20, 22, 27)
_INK: Colour = (232, 234, 240)
_DIM: Colour = (164, 172, 187)
_PEOPLE = 6
_MOST_COLUMNS = 3
_LINE = 24
_LETTERS = 128  # that fit on a line


def png_report(looked: Looked) -> bytes:
    """The picture as PNG: findings, views with several people on their round, and both plans."""
    scene = looked.scene
    found = residuals(scene.cameras, looked.points).overall
    off = f", {found.rms_px:.2f} px RMS of {found.count} clicks" if found.count else ""
    parts = [_text(f"{scene.name}: {len(scene.cameras)} views{off}", _INK, 0.8)]
    parts += [
        _text(line, BAD if finding.severity == "error" else FAIR)
        for finding in looked.checked.findings
        for line in _folded(str(finding))
    ] or [_text("nothing suspicious", GOOD)]
    walk = Walk.over(scene.ground, scene.region)
    people = [walk.at((number + 0.3) / _PEOPLE) for number in range(_PEOPLE)]
    columns = min(_MOST_COLUMNS, len(scene.cameras))
    width = (_WIDTH - (columns + 1) * _GAP) // columns
    tiles = [
        _under(draw_view(scene, view, looked.pictures.get(view), looked.points, people, width), view)
        for view in scene.cameras
    ]
    parts += [_beside(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    half = (_WIDTH - 3 * _GAP) // 2
    grid = scene.ground
    extent = (
        f"x {grid.origin_x_m:g} to {grid.origin_x_m + grid.cell_m * grid.columns:g} m (right), y "
        f"{grid.origin_y_m:g} to {grid.origin_y_m + grid.cell_m * grid.rows:g} m (up)"
    )
    plans = []
    for title, image, legend in maps(looked.checked.coverage):
        scale = min(half / image.shape[1], 520 / image.shape[0])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        enlarged = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)
        plans.append(_under(_padded(enlarged, half), title, [(words, colour) for _, colour, words in legend]))
    return png_bytes(np.concatenate([*parts, _beside(plans), _text(f"ground plan: {extent}", _DIM)]))


def _blank(height: int, width: int) -> Image:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _put(image: Image, words: str, at: tuple[int, int], colour: Colour, size: float) -> int:
    """Where the words end. The letters of OpenCV's own font are ASCII."""
    plain = words.replace("×", "x").replace("°", " deg").encode("ascii", "replace").decode()
    cv2.putText(image, plain, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
    (wide, _), _ = cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    return at[0] + int(wide)


def _folded(words: str) -> list[str]:
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) > _LETTERS:
            lines.append("   ")
        lines[-1] += f"{word} "
    return lines


def _text(words: str, colour: Colour, size: float = 0.55) -> Image:
    line = _blank(round(_LINE * size / 0.55), _WIDTH)
    _put(line, words, (_GAP, line.shape[0] - 7), colour, size)
    return line


def _under(image: Image, words: str, legend: list[tuple[str, Colour]] | None = None) -> Image:
    caption = _blank(_LINE, image.shape[1])
    at = _put(caption, words, (2, 17), _INK, 0.5) + 18
    for text, colour in legend or []:
        cv2.rectangle(caption, (at, 6), (at + 12, 18), colour, -1)
        at = _put(caption, text, (at + 17, 17), _DIM, 0.42) + 14
    return np.concatenate([image, caption])


def _padded(image: Image, width: int) -> Image:
    left = (width - image.shape[1]) // 2
    right = width - image.shape[1] - left
    return np.concatenate([_blank(image.shape[0], left), image, _blank(image.shape[0], right)], axis=1)


def _beside(tiles: list[Image]) -> Image:
    height = max(tile.shape[0] for tile in tiles)
    row = _blank(height + _GAP, _WIDTH)
    left = _GAP
    for tile in tiles:
        row[_GAP : _GAP + tile.shape[0], left : left + tile.shape[1]] = tile
        left += tile.shape[1] + _GAP
    return row
