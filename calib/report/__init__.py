"""A scene as one file to look at: what `check` finds, every view with net and walking person, the plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibError
from calib.look.check import Checked
from calib.points import MarkedPoint
from calib.scene import Scene

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Looked:
    """title: the file's name; pictures: by view, RGB (H, W, 3), where there are any."""

    title: str
    scene: Scene
    points: Sequence[MarkedPoint]
    checked: Checked
    pictures: Mapping[str, Image] = field(default_factory=dict)


def check_ending(path: Path) -> str:
    """.html or .png; CalibError for another ending, before the work is done."""
    ending = path.suffix.lower()
    if ending not in (".html", ".png"):
        raise CalibError(f"{path}: a report is .html or .png: change the ending")
    return ending


def write_report(looked: Looked, path: Path) -> None:
    """Write a .html or a .png. CalibError for another ending, and where it cannot be written."""
    from calib.report.page import html_report
    from calib.report.poster import png_report

    ending = check_ending(path)
    data = html_report(looked).encode() if ending == ".html" else png_report(looked)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise CalibError(f"{path}: cannot be written ({error.strerror}): check folder and rights") from error
