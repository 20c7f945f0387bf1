"""Views of boards that several cameras share, from pictures of boards at rest or from videos."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calib.errors import CalibError
from viewsync.errors import ConfigError

if TYPE_CHECKING:
    from calib.boards.board import BoardFinder, Sighting
    from calib.camera import Camera
    from calib.solve.refine_start import BoardView


def resting_views(
    finder: BoardFinder, folder: Path, cameras: Mapping[str, Camera]
) -> tuple[list[BoardView], list[str]]:
    """Views from a folder that holds a folder per placement of the board, with a picture of it at rest from
    each camera, named after the camera; and what to know about them.
    """
    from calib.solve.refine_start import BoardView
    from viewsync.cli.calib.pictures import STILLS, open_pictures

    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such folder; give one that holds a folder for each place of the board"
        )
    placements = sorted(path for path in folder.iterdir() if path.is_dir())
    if not placements:
        raise ConfigError(
            f"{folder}: holds no folders; make one for each place where the board rested, with pictures such "
            "as north.png in it"
        )
    views: list[BoardView] = []
    notes: list[str] = []
    for placement in placements:
        for path in sorted(placement.iterdir()):
            if path.suffix.lower() not in STILLS:
                continue
            if path.stem not in cameras:
                raise ConfigError(f"{path}: there is no camera {path.stem!r}; known: {', '.join(cameras)}")
            sighting = finder.find(open_pictures(path.stem, str(path)).grab(0.0), path.name)
            if sighting is None:
                notes.append(f"{placement.name}: no board found in {path.name}")
                continue
            _refuse_other_size(str(path), sighting, cameras[path.stem])
            views.append(BoardView(path.stem, placement.name, sighting.corners, sighting.pixels))
    _refuse_turned(finder, views)
    if not views:
        raise CalibError(f"{folder}: no {finder.board} is in any of its pictures: check --board and --size")
    return views, notes


def video_views(
    finder: BoardFinder,
    videos: Sequence[str],
    cameras: Mapping[str, Camera],
    times: Path | None,
    clock_error_s: float,
) -> tuple[list[BoardView], list[str]]:
    """Views from CAMERA=FILE each, videos of one board carried about; only what is valid for clocks that are
    `clock_error_s` apart ties cameras together.
    """
    from viewsync.cli.calib.board_pictures import pictures

    paths: dict[str, str] = {}
    for text in videos:
        camera, equals, file = text.partition("=")
        if not equals or camera not in cameras:
            raise ConfigError(f"--video {text}: write CAMERA=FILE with one of {', '.join(cameras)}")
        if camera in paths:
            raise ConfigError(f"--video {text}: {camera} has {paths[camera]} already; give one video each")
        paths[camera] = file
    by_frame = _times(times) if times is not None else None
    seen: dict[str, list[Sighting]] = {}
    for camera, file in paths.items():
        found: list[Sighting] = []
        for number, picture in enumerate(pictures([file], 10**9, 0.0)):
            time_s = picture.time_s
            if by_frame is not None:
                # caliscope numbers cameras in its table of times, and calls them cam_0 elsewhere.
                known = by_frame.get(camera, by_frame.get(camera.removeprefix("cam_"), []))
                if number >= len(known):
                    raise CalibError(
                        f"{times}: has {len(known)} times for {camera}, its video has more pictures: give "
                        "the times of these videos"
                    )
                time_s = known[number]
            sighting = finder.find(picture.image, picture.name, time_s)
            if sighting is not None:
                _refuse_other_size(file, sighting, cameras[camera])
                found.append(sighting)
        seen[camera] = found
    views, notes = joined_views(seen, clock_error_s)
    _refuse_turned(finder, views)
    return views, notes


def joined_views(
    seen: Mapping[str, Sequence[Sighting]], clock_error_s: float
) -> tuple[list[BoardView], list[str]]:
    """Views of what each camera saw of a board carried about, in order of time; and what to know about
    them.
    """
    from calib.solve.placements import join_sightings

    joined = join_sightings(seen, clock_error_s)
    counts = ", ".join(f"{name} {len(found)}" for name, found in seen.items())
    notes = [
        f"board seen in {counts} pictures; at {joined.shared} placements it stayed long enough for clocks "
        f"{clock_error_s:g} s apart to tie cameras together; {joined.alone} more views count for their own "
        "camera's lens only"
    ]
    return list(joined.views), notes


def _refuse_other_size(file: str, sighting: Sighting, camera: Camera) -> None:
    if sighting.size != (camera.width, camera.height):
        raise CalibError(
            "{}: is {}x{}, its camera was calibrated at {}x{}: give pictures of that size".format(
                file, *sighting.size, camera.width, camera.height
            )
        )


def _refuse_turned(finder: BoardFinder, views: list[BoardView]) -> None:
    """A chessboard turned by half a turn looks the same: cameras would agree on the wrong corners."""
    placements = [view.placement for view in views]
    if finder.board.kind == "chessboard" and len(set(placements)) < len(placements):
        raise CalibError(
            "a chessboard does not tell which corner is which, so it ties no cameras together: use a ChArUco "
            "board or an ArUco grid, or one folder per camera for each view"
        )


def _times(path: Path) -> dict[str, list[float]]:
    """By camera, seconds of its pictures in order, from a CSV with a heading: camera (or cam_id), frame (or
    frame_index) and time_s (or frame_time), all clocks the same.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = {
            wanted: next(name for name in choices if rows and name in rows[0])
            for wanted, choices in (
                ("camera", ("camera", "cam_id")),
                ("frame", ("frame", "frame_index", "sync_index")),
                ("time", ("time_s", "frame_time")),
            )
        }
        found: dict[str, list[tuple[int, float]]] = {}
        for row in rows:
            found.setdefault(row[names["camera"]], []).append(
                (int(row[names["frame"]]), float(row[names["time"]]))
            )
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    except (StopIteration, ValueError, TypeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: is not a table of times; write CSV with the heading camera,frame,time_s"
        ) from error
    return {camera: [time_s for _, time_s in sorted(times)] for camera, times in found.items()}
