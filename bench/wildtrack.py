"""WILDTRACK's real clicks: all cameras refined on half of the points, judged by the other half."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.rows import Promise, Row
from calib.camera import Camera
from calib.points import MarkedPoint, residuals
from calib.projection import rotations
from calib.solve.from_scratch import cameras_from_scratch
from calib.solve.lens_columns import Lens
from calib.solve.refine import Refined, refine
from calib.triangulation import triangulate_all

Floats = NDArray[np.float64]
_WHAT = "calibration: WILDTRACK's 7 cameras refined on 831 cross-view points, one core"
_PROMISE = Promise(20.0)
# Poses, and of each lens focal length and k1.
LENS: Lens = "focal+k1"
# Degrees and centimetres that every camera is turned and moved from its published place.
_STARTS = ((2.0, 20.0), (5.0, 50.0))


def folder() -> Path | None:
    """Where the data is, from VIEWSYNC_DATA; None where it is not."""
    data = os.environ.get("VIEWSYNC_DATA")
    path = Path(data, "wildtrack-7cam") if data else None
    return path if path is not None and path.is_dir() else None


def published_cameras(data: Path) -> dict[str, Camera]:
    """C1 to C7 for raw pixels, as published before their own bundle adjustment."""
    document = json.loads((data / "raw_image_cameras.json").read_text("utf-8"))
    width, height = document["image_size"]
    cameras = {}
    for entry in document["cameras"]:
        k1, k2, k3, p1, p2 = entry["distortion_k1k2k3p1p2"]
        K = [[entry["fx"], 0, entry["cx"]], [0, entry["fy"], entry["cy"]], [0, 0, 1]]
        R = rotations(np.array([entry["rvec"]]))[0]
        t = np.array(entry["tvec"]) / 100
        cameras[entry["name"]] = Camera(np.array(K), R, t, np.array([k1, k2, p1, p2, k3]), width, height)
    return cameras


def marked_points(data: Path) -> tuple[list[MarkedPoint], list[MarkedPoint]]:
    """The surveyed markers, and the cross-view clicks that two cameras or more share."""
    markers: dict[str, tuple[Floats, dict[str, Floats]]] = {}
    for row in _rows(data / "fixed_points.csv"):
        place = np.array([float(row[axis]) / 100 for axis in ("x_cm", "y_cm", "z_cm")])
        _, pixels = markers.setdefault(f"marker-{row['point']}", (place, {}))
        pixels[f"C{row['cam']}"] = np.array([float(row["u"]), float(row["v"])])
    clicks: dict[str, dict[str, Floats]] = {}
    for row in _rows(data / "correspondences.csv"):
        pixels = clicks.setdefault(f"click-{row['point']}", {})
        pixels[f"C{row['cam']}"] = np.array([float(row["u"]), float(row["v"])])
    return (
        [MarkedPoint(name, place, pixels) for name, (place, pixels) in markers.items()],
        [MarkedPoint(name, None, pixels) for name, pixels in clicks.items() if len(pixels) > 1],
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def displaced(cameras: Mapping[str, Camera], degrees: float, centimetres: float) -> dict[str, Camera]:
    """Every camera turned and moved that far, each in a direction of its own, the same every time."""
    rng = np.random.default_rng(0)
    result = {}
    for name, camera in cameras.items():
        turn, shift = rng.normal(size=(2, 3))
        turn *= np.deg2rad(degrees) / np.linalg.norm(turn)
        shift *= centimetres / 100 / np.linalg.norm(shift)
        R = rotations(turn[None])[0] @ camera.R
        t = -R @ (camera.centre + shift)
        result[name] = Camera(camera.K, R, t, camera.distortion, camera.width, camera.height)
    return result


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Points that no camera was refined on. clicks: (N,) px, from where all their views place them; other:
    (N,) px, from where all the other views place them (three views or more); markers: (N,) px, from where
    they were surveyed.
    """

    clicks: Floats
    other: Floats
    markers: Floats


def held_out(
    cameras: Mapping[str, Camera], clicks: Sequence[MarkedPoint], markers: Sequence[MarkedPoint]
) -> HeldOut:
    """How far these clicks are from these cameras."""
    shared = [point for point in clicks if len(point.pixels) > 2]
    views = [(point, view) for point in shared for view in point.pixels]
    rest = [{name: at for name, at in point.pixels.items() if name != view} for point, view in views]
    places = triangulate_all(cameras, rest)
    placed = [
        MarkedPoint(str(number), place, {view: point.pixels[view]})
        for number, ((point, view), place) in enumerate(zip(views, places, strict=True))
        if np.isfinite(place).all()
    ]
    return HeldOut(
        residuals(cameras, clicks).distances_px,
        residuals(cameras, placed).distances_px,
        residuals(cameras, markers).distances_px,
    )


def refined_from(
    start: Mapping[str, Camera] | None, points: Sequence[MarkedPoint], lens: Lens
) -> tuple[Refined, float]:
    """Cameras refined from these, or from scratch, and how many seconds it took."""
    began = time.perf_counter()
    if start is None:
        sizes = dict.fromkeys(sorted({view for point in points for view in point.pixels}), (1920, 1080))
        start = {name: solved.camera for name, solved in cameras_from_scratch(points, sizes).items()}
    return refine(start, points, solve_intrinsics=lens), time.perf_counter() - began


def wildtrack_rows(times: int) -> list[Row]:
    """All cameras refined on all points so many times, from 5 degrees and 50 cm off. As facts: refined on
    half of the points from each start, how far the other half is. Skipped without the data.
    """
    data = folder()
    if data is None:
        why = "VIEWSYNC_DATA is not set to a folder that holds wildtrack-7cam"
        return [Row("refine.wildtrack", _WHAT, "s", promise=_PROMISE, skipped=why)]
    published = published_cameras(data)
    markers, clicks = marked_points(data)
    wall, processor = [], []
    for _ in range(times):
        began = time.process_time()
        wall.append(refined_from(displaced(published, *_STARTS[-1]), markers + clicks, LENS)[1])
        processor.append(time.process_time() - began)
    facts: dict[str, Any] = {"points": len(clicks), "clicks": sum(len(point.pixels) for point in clicks)}
    facts |= _judged("published", published, markers, clicks)
    starts = {f"from_{turn:g}_deg_{far:g}_cm": displaced(published, turn, far) for turn, far in _STARTS}
    for name, start in [*starts.items(), ("from_scratch", None)]:
        refined, _ = refined_from(start, markers[::2] + clicks[::2], LENS)
        facts |= _judged(name, refined.cameras, markers, clicks)
    return [
        Row(
            "refine.wildtrack",
            _WHAT,
            "s",
            float(np.median(wall)),
            _PROMISE,
            times,
            float(np.median(processor)),
            facts=facts,
        )
    ]


def _judged(
    name: str,
    cameras: Mapping[str, Camera],
    markers: Sequence[MarkedPoint],
    clicks: Sequence[MarkedPoint],
) -> dict[str, float]:
    found = held_out(cameras, clicks[1::2], markers[1::2])
    return {
        f"{name}_{what}_px": float(np.nanmedian(distances))
        for what, distances in (
            ("clicks", found.clicks),
            ("clicks_from_other_views", found.other),
            ("markers", found.markers),
        )
    }
