"""Board corners that another program found in its videos: caliscope's xy.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calib.errors import CalibError
from viewsync.errors import ConfigError

if TYPE_CHECKING:
    from calib.boards.board import Sighting
    from calib.camera import Camera

_COLUMNS = (
    *("cam_id", "frame_index", "frame_time", "keypoint_id"),
    *("img_loc_x", "img_loc_y", "obj_loc_x", "obj_loc_y"),
)


def read_corners(path: Path, cameras: Mapping[str, Camera]) -> dict[str, list[Sighting]]:
    """By camera, in order of time, what it saw of the board. Its cameras 0, 1, … are cam_0, cam_1, … as in
    its own calibration file. Raises ConfigError, and CalibError where a camera is not known.
    """
    from calib.boards.board import FEWEST_CORNERS, Sighting

    pictures: dict[tuple[str, int], list[dict[str, float]]] = {}
    for line, row in enumerate(_rows(path), start=2):
        try:
            numbers = {name: float(row[name]) for name in _COLUMNS}
            if not all(map(math.isfinite, numbers.values())):
                raise ValueError
        except (ValueError, TypeError):
            raise ConfigError(f"{path}: line {line} holds no numbers: give a whole xy.csv") from None
        camera = f"cam_{row['cam_id'].strip()}"
        if camera not in cameras:
            raise CalibError(f"{path}: line {line}: there is no camera {camera}; known: {', '.join(cameras)}")
        pictures.setdefault((camera, int(numbers["frame_index"])), []).append(numbers)
    seen: dict[str, list[Sighting]] = {}
    for (camera, frame), found in sorted(pictures.items()):
        if len(found) < FEWEST_CORNERS:
            continue
        lens = cameras[camera]
        seen.setdefault(camera, []).append(
            Sighting(
                f"{camera} {frame}",
                np.array([corner["keypoint_id"] for corner in found], dtype=np.intp),
                np.array([[corner["img_loc_x"], corner["img_loc_y"]] for corner in found]),
                np.array([[corner["obj_loc_x"], corner["obj_loc_y"], 0.0] for corner in found]),
                (lens.width, lens.height),
                found[0]["frame_time"],
            )
        )
    if not seen:
        raise ConfigError(
            f"{path}: no picture in it has {FEWEST_CORNERS} corners or more: film the board nearer"
        )
    return seen


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: is no CSV file: give caliscope's xy.csv") from error
    missing = [name for name in _COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise ConfigError(f"{path}: lacks the column(s) {', '.join(missing)}: give caliscope's xy.csv")
    return rows
