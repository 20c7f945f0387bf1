"""Calibrations in other programs' and data sets' formats: `read_rig`, `write_rig`; one module per format.

A format is recognised by what is in the files, never by their names. Each module has `read(sources, wishes)`,
which declines with `NotThis` and the reason, or returns the cameras as the files have them; `foreign.settle`
makes them ours. Those that are written too have `texts(rig, path)`. docs/calibration.md lists all of them.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from calib.errors import CalibError
from calib.formats import (
    aniposelib,
    campus,
    citystreet,
    colmap,
    epfl,
    human36m,
    kalibr,
    opencv,
    panoptic,
    pets2009,
    qualisys,
    wildtrack,
)
from calib.formats.foreign import Wishes, settle
from calib.formats.source import NotThis, Source, open_source
from calib.rig import Rig
from calib.scene_text import write_atomically

# In the order they are tried; no file is taken by two of them (a test holds that).
READERS: dict[str, ModuleType] = {
    "pets2009": pets2009,
    "wildtrack": wildtrack,
    "citystreet": citystreet,
    "opencv": opencv,
    "aniposelib": aniposelib,
    "qualisys": qualisys,
    "epfl": epfl,
    "campus": campus,
    "panoptic": panoptic,
    "human36m": human36m,
    "colmap": colmap,
    "kalibr": kalibr,
}
# The same files under the other name that people know them by.
ALSO = {"caliscope": "aniposelib", "shelf": "campus", "easymocap": "opencv"}
WRITERS: dict[str, ModuleType] = {"opencv": opencv, "aniposelib": aniposelib, "colmap": colmap}
_ENDINGS = {".txt", ".xml", ".json", ".toml", ".yaml", ".yml"}


def read_rig(paths: Sequence[Path | str], format: str = "auto", wishes: Wishes | None = None) -> Rig:
    """Calibration files, or folders of them -> a rig in metres, right-handed, z up, with notes.

    format: a name of READERS or ALSO, or "auto": the one that recognises the files. Raises CalibError: for
    files that no format recognises, with each format's reason; for files that one recognises and cannot use.
    """
    wishes = Wishes() if wishes is None else wishes
    sources = _sources([Path(path) for path in paths])
    format = ALSO.get(format, format)
    if format not in (*READERS, "auto"):
        raise CalibError(f"there is no format {format!r}: choose auto or one of {', '.join(READERS)}")
    refusals: dict[str, list[str]] = {}
    for name in READERS if format == "auto" else (format,):
        try:
            found = READERS[name].read(sources, wishes)
        except NotThis as reason:
            refusals.setdefault(str(reason), []).append(name)
            continue
        rig = settle(found, wishes)
        how = "recognised by its content" if format == "auto" else "as you say"
        return Rig(rig.cameras, (f"format: {name}, {how}", *rig.notes))
    what = str(sources[0]) if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1} more files"
    tried = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in refusals.items())
    if format == "auto":
        raise CalibError(f"{what}: no known format. Tried: {tried}. Convert it, say to OpenCV's YAML")
    raise CalibError(f"{what}: is not {tried}; try --format auto")


def _sources(paths: Sequence[Path]) -> list[Source]:
    if not paths:
        raise CalibError("no files to import: give at least one")
    files = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                each for each in path.iterdir() if each.suffix.lower() in _ENDINGS and each.stat().st_size
            )
            if not inside:
                raise CalibError(f"{path}: holds no calibration file ({', '.join(sorted(_ENDINGS))})")
            files += inside
        else:
            files.append(path)
    seen: set[Path] = set()
    for path in files:
        if path.resolve() in seen:
            raise CalibError(f"{path}: is given twice: give it once")
        seen.add(path.resolve())
    return [open_source(path) for path in files]


def write_rig(rig: Rig, path: Path | str, format: str) -> tuple[Path, ...]:
    """Write a rig; returns the files written, each replaced whole or not at all.

    format: a name of WRITERS. path: a file, and for colmap a folder, which is made. Raises CalibError for a
    camera that the format cannot hold (skewed pixels) and for what cannot be written.
    """
    path = Path(path)
    if format not in WRITERS:
        raise CalibError(f"there is no format {format!r} to write: choose one of {', '.join(WRITERS)}")
    for name, camera in rig.cameras.items():
        if camera.K[0, 1] != 0:
            raise CalibError(
                f"camera {name} has skewed pixels (K[0, 1] = {camera.K[0, 1]:g}), which {format} cannot "
                "hold: calibrate it without skew"
            )
    texts: dict[Path, str] = WRITERS[format].texts(rig, path)
    if path not in texts:
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise CalibError(
                f"{path}: cannot be made a folder ({error.strerror or error}): choose another place"
            ) from error
    for file, text in texts.items():
        write_atomically(file, text)
    return tuple(texts)
