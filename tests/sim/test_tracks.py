"""Tracks: motion between frames is smooth, stays with the annotation, and keeps identities."""

import gzip
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from calib.camera import Camera
from calib.formats.pets2009 import load_camera
from viewsync.errors import SourceError
from viewsync.sim.tracks import load_tracks

SEQUENCES = {"S1L1-1": (221, 46), "S1L2-1": (201, 42), "S2L1": (795, 19), "S2L2": (436, 43)}


@pytest.fixture
def folder():
    root = os.environ.get("VIEWSYNC_DATA")
    if not root:
        pytest.skip("VIEWSYNC_DATA is not set: real tracks are needed")
    return Path(root) / "pets2009"


@pytest.fixture
def from_above():
    """Looks straight down from 10 m: 100 px are one metre, x with x, y against y."""
    R = np.diag([1.0, -1.0, -1.0])
    return Camera([[1000, 0, 0], [0, 1000, 0], [0, 0, 1]], R, -R @ [0, 0, 10.0], np.zeros(5), 2000, 2000)


def cvml(frames: dict[int, dict[int, tuple[float, float]]]) -> str:
    """Annotations with feet (x, y) in pixels by frame and identity, boxes 20 px high."""
    text = ["<dataset>"]
    for number, people in frames.items():
        text.append(f'<frame number="{number}"><objectlist>')
        for who, (x, y) in people.items():
            text.append(f'<object id="{who}"><box h="20" w="8" xc="{x}" yc="{y - 10}"/></object>')
        text.append("</objectlist></frame>")
    return "".join(text) + "</dataset>"


def write(tmp_path, text):
    path = tmp_path / "tracks.xml"
    path.write_text(text)
    return path


def test_straight_walks_are_kept_exactly(tmp_path, from_above):
    # 1.4 m/s along x from (1, -2); a second person stands. Frames start at 5.
    path = write(tmp_path, cvml({5 + k: {3: (100 + 20 * k, 200), 8: (500, 500)} for k in range(22)}))
    tracks = load_tracks(path, from_above)
    assert tracks.fps == 7 and tracks.frames == 22 and tracks.duration_s == pytest.approx(3.0)
    for t in (0.0, 0.1, 1.0, 2.0 + 1 / 3, 3.0):
        ids, xy, velocity = tracks.positions(t)
        assert ids.tolist() == [3, 8]
        # A line through points on a line is that line, at the ends too.
        np.testing.assert_allclose(xy, [(1 + 1.4 * t, -2), (5, -5)], atol=1e-9)
        np.testing.assert_allclose(velocity, [(1.4, 0), (0, 0)], atol=1e-9)
    for t in (-0.01, 3.01):
        ids, xy, velocity = tracks.positions(t)
        assert len(ids) == 0 and xy.shape == velocity.shape == (0, 2)


def test_short_gaps_are_bridged_and_long_ones_are_not(tmp_path, from_above):
    frames = {k: {} for k in range(80)}
    for k in range(80):
        if not 20 <= k < 30:  # 10 of 7 per second: 1.4 s
            frames[k][1] = (20.0 * k, 100)
        if not 20 <= k < 40:  # 2.9 s
            frames[k][2] = (20.0 * k, 300)
    tracks = load_tracks(write(tmp_path, cvml(frames)), from_above)
    np.testing.assert_allclose(tracks.positions(25.5 / 7)[1], [(0.2 * 25.5, -1)], atol=1e-9)
    assert tracks.positions(19 / 7)[0].tolist() == [1, 2]
    assert tracks.positions(19.5 / 7)[0].tolist() == [1]  # 2 is seen at frame 19 and not at 20
    assert tracks.positions(40 / 7)[0].tolist() == [1, 2]


def test_jitter_is_smoothed_and_turns_are_followed(tmp_path, from_above):
    rng = np.random.default_rng(0)
    angle = np.arange(140) / 7 * 0.4  # a circle of 3 m at 1.2 m/s
    true = np.stack([5 + 3 * np.cos(angle), -5 + 3 * np.sin(angle)], axis=-1)
    seen = true + rng.normal(0, 0.05, true.shape)
    path = write(tmp_path, cvml({k: {1: (100 * x, -100 * y)} for k, (x, y) in enumerate(seen)}))
    tracks = load_tracks(path, from_above)
    error = np.linalg.norm(tracks.xy[:, 0] - true, axis=-1)
    assert np.sqrt((error**2).mean()) < 0.7 * np.sqrt(2) * 0.05
    speed = np.linalg.norm(tracks.velocity[:, 0], axis=-1)
    assert abs(np.median(speed) - 1.2) < 0.1


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_real_tracks(folder, sequence):
    camera = load_camera(folder / "calibration/View_001.xml")
    tracks = load_tracks(folder / f"annotations/PETS2009-{sequence}.xml.gz", camera)
    frames, most = SEQUENCES[sequence]
    assert tracks.frames == frames and len(tracks.ids) == most
    seen = ~np.isnan(tracks.xy[..., 0])
    # People walk: 99 % below 2 m/s, on the car park (60 m across).
    assert np.quantile(np.linalg.norm(tracks.velocity[seen], axis=-1), 0.99) < 2.0
    assert np.abs(tracks.xy[seen]).max() < 30
    # Smoothing leaves people on their feet: a walker covers 8 px between frames in the middle of the picture.
    root = ElementTree.fromstring(
        gzip.decompress((folder / f"annotations/PETS2009-{sequence}.xml.gz").read_bytes())
    )
    off = []
    for frame in root.iter("frame"):
        ids, xy, _ = tracks.positions(int(frame.get("number")) / tracks.fps)
        pixels = dict(
            zip(ids.tolist(), camera.project(np.column_stack([xy, np.zeros(len(xy))])), strict=True)
        )
        for person in frame.iter("object"):
            x, y, h = (float(person.find("box").get(key)) for key in ("xc", "yc", "h"))
            off.append(np.hypot(*(pixels[int(person.get("id"))] - (x, y + h / 2))))
    assert np.median(off) < 0.5 and np.quantile(off, 0.95) < 2.0
    step = 1e-4
    for t in (10.37, 14.56, 0.4321 * tracks.duration_s):
        ids, xy, velocity = tracks.positions(t)
        later, ahead, _ = tracks.positions(t + step)
        assert len(ids) >= 3 and set(ids) <= set(tracks.ids.tolist()) and ids.tolist() == later.tolist()
        # Velocity is the derivative of position; a cubic's curvature over 0.1 ms is far below 1e-2 m/s.
        np.testing.assert_allclose((ahead - xy) / step, velocity, atol=1e-2)


def test_real_tracks_are_continuous_across_frames(folder):
    camera = load_camera(folder / "calibration/View_001.xml")
    tracks = load_tracks(folder / "annotations/PETS2009-S2L1.xml.gz", camera)
    for frame in range(1, tracks.frames - 1, 50):
        before, at, after = (tracks.positions(frame / tracks.fps + shift) for shift in (-1e-6, 0.0, 1e-6))
        for side in (before, after):
            common = np.isin(at[0], side[0])
            shared = np.isin(side[0], at[0])
            np.testing.assert_allclose(side[1][shared], at[1][common], atol=1e-4)
            np.testing.assert_allclose(side[2][shared], at[2][common], atol=1e-3)


GOOD = cvml({0: {1: (100, 100)}, 1: {1: (101, 100)}})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('yc="90"', 'yc="low"', "frame 0"),
        ('h="20"', 'h="-20"', "positive height"),
        ('h="20"', 'h="nan"', "positive height"),
        ('id="1"', "", "'id'"),
        ('number="1"', 'number="0"', "twice|repeat"),
        ("</dataset>", "", "whole XML"),
        ("dataset", "data", "CVML|XML"),
        ('number="1"', 'number="99999999"', "leap"),
    ],
)
def test_damaged_annotations_are_named(tmp_path, from_above, old, new, said):
    text = GOOD.replace('yc="90.0"', 'yc="90"')
    assert old in text
    path = write(tmp_path, text.replace(old, new, 1))
    with pytest.raises(SourceError, match=said) as caught:
        load_tracks(path, from_above)
    assert "tracks.xml" in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_annotations_are_named(tmp_path, from_above):
    packed = gzip.compress(GOOD.encode())
    for name, content in (("cut.xml.gz", packed[:-20]), ("empty.xml", b""), ("noise.xml", os.urandom(100))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=name):
            load_tracks(tmp_path / name, from_above)
    with pytest.raises(SourceError, match="check the path"):
        load_tracks(tmp_path / "absent.xml", from_above)
    (tmp_path / "whole.xml.gz").write_bytes(packed)
    assert load_tracks(tmp_path / "whole.xml.gz", from_above).frames == 2
