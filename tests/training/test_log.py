"""What a run writes of itself: log.csv, TensorBoard's events and the learning curve."""

import csv
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from viewsync.errors import UserError
from viewsync.training.curve import draw_curve
from viewsync.training.log import TrainingLog

CHECKS = {"none.mae": 3.5, "none.density_mse": 0.25, "score": 0.25}


def write(folder: Path, start: int, steps: range) -> Path:
    log = TrainingLog(folder / "log.csv", ("none",), start)
    for step in steps:
        checked = CHECKS if step % 25 == 0 else None
        log.write(step, {"none.density": 1.0 / step, "visible": 0.5}, checked)
    log.close()
    return folder / "log.csv"


def events(folder: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) in the order of writing: records of length, its checksum, data and theirs."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


def marks(folder: Path) -> list[Event]:
    """The events that say from which step on what earlier files told is dropped."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            if event.session_log.status == SessionLog.START:
                found.append(event)
            data = data[16 + length :]
    return found


def test_tensorboard_is_told_what_the_log_says(tmp_path: Path) -> None:
    rows = list(csv.DictReader(write(tmp_path, 0, range(1, 51)).open()))
    assert [int(row["step"]) for row in rows] == [10, 20, 25, 30, 40, 50]
    told = {(name, step): value for name, step, value in events(tmp_path)}
    for row in rows:
        values = {name: value for name, value in row.items() if value and name != "step"}
        for name, value in values.items():
            kind = name.replace("validation.", "validation/") if "validation" in name else f"loss/{name}"
            assert told.pop((kind, int(row["step"]))) == pytest.approx(float(value), rel=1e-4)
    assert not told


def test_a_run_that_begins_anew_leaves_no_curve_of_the_one_before(tmp_path: Path) -> None:
    # Killed before its first checkpoint; TensorBoard drops what lies behind a start of a later file.
    for _ in range(2):
        write(tmp_path, 0, range(1, 11))
    starts = [event.step for event in marks(tmp_path)]
    assert starts and set(starts) == {1}


def test_a_log_goes_on_after_what_was_saved_whatever_its_columns_were(tmp_path: Path) -> None:
    path = write(tmp_path, 0, range(1, 51))
    whole = path.read_text()
    path.write_text(whole[:-3])  # the machine stopped while it wrote of step 50
    assert write(tmp_path, 40, range(41, 51)).read_text() == whole
    # A log of other columns keeps what both have.
    rows = list(csv.reader(whole.splitlines()))
    at = rows[0].index("visible")
    path.write_text("\n".join(",".join(row[:at] + row[at + 1 :] + ["7"]) for row in rows) + "\n")
    TrainingLog(path, ("none",), 50).close()
    again = list(csv.DictReader(path.open()))
    assert [row["none.density"] for row in again] == [row[rows[0].index("none.density")] for row in rows[1:]]
    assert {row["visible"] for row in again} == {""} and "7" not in again[0].values()


@pytest.mark.parametrize("start", [30, 50])
def test_a_damaged_log_is_one_line_and_stays_as_it_is(tmp_path: Path, start: int) -> None:
    path = write(tmp_path, 0, range(1, 51))
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:4]
    path.write_text(damaged := "\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"log\.csv: line 3 is damaged; remove it, or move the file away"):
        TrainingLog(path, ("none",), start)
    assert path.read_text() == damaged
    path.write_text("\n".join(lines[:2])[:-2])
    with pytest.raises(UserError, match=rf"it ends at step 0, the checkpoint is of step {start}; move"):
        TrainingLog(path, ("none",), start)
    path.write_bytes(b"\xff\xfe\x00 no text")
    with pytest.raises(UserError, match=r"log\.csv: .*move"):
        TrainingLog(path, ("none",), start)


def test_the_curve_is_drawn_once_there_is_something_to_draw(tmp_path: Path) -> None:
    write(tmp_path, 0, range(0))
    assert draw_curve(tmp_path) is None and not (tmp_path / "curve.png").exists()
    write(tmp_path, 0, range(1, 20))
    pale = cv2.imread(str(draw_curve(tmp_path)))
    write(tmp_path, 0, range(1, 1001))
    picture = cv2.imread(str(draw_curve(tmp_path)))
    assert picture.shape == pale.shape
    # Its first line is blue, in the panel of losses and in that of the density's error.
    blue = np.all(np.abs(picture.astype(int) - (0xB2, 0x72, 0x00)) < 8, axis=2)
    assert blue[:, :400].sum() > 100 and blue[:, 400:800].sum() > 100
