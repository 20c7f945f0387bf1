"""One picture of one answer: what each camera saw and where its people were moved, the density, the truth.

The hub publishes no frames and no flow. So this renders the same frames again, at the instants at which the
cameras took them, and asks the same bundle once more; density and counts are the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from edge.extractor import FeatureExtractor
from hub.buffer import Entry, Snapshot
from hub.fusion import Fusion, FusionOutputs
from viewsync.bundle import Bundle
from viewsync.demo.score import Score
from viewsync.demo.table import label
from viewsync.demo.truth import Truth
from viewsync.errors import UserError
from viewsync.prediction import Prediction, ViewReport
from viewsync.sim.codec import encode_decode
from viewsync.sim.render import Renderer

Image = NDArray[np.uint8]

_MARGIN, _BAR = 8, 22
_GROUND_HEIGHT = 456
_INK, _PAPER, _ARROW, _TRUTH = (235, 235, 235), (24, 26, 30), (80, 220, 255), (255, 255, 255)
# A cell's flow is drawn where the match is at least this sure, and the density within a step holds at least
# so much of a person.
_SURE, _SOMEBODY, _STEP_M = 0.3, 0.3, 1.0


def frames_of(prediction: Prediction, truth: Truth, renderers: Mapping[str, Renderer]) -> dict[str, Image]:
    """The frames (H, W, 3) uint8 RGB of the views that were used, as the video codec leaves them."""
    return _filmed(prediction.views, prediction.published_ns, truth, renderers)


def frames_before(
    prediction: Prediction, truth: Truth, renderers: Mapping[str, Renderer]
) -> dict[str, Image]:
    """Likewise the frames before, of the views where one was looked at, too."""
    reports = [
        replace(report, capture_ns=report.capture_ns - report.before_ns)
        for report in prediction.views
        if report.before_ns is not None and report.capture_ns is not None
    ]
    return _filmed(reports, prediction.published_ns, truth, renderers)


def _filmed(
    reports: Sequence[ViewReport], published_ns: int, truth: Truth, renderers: Mapping[str, Renderer]
) -> dict[str, Image]:
    frames = {}
    for report in reports:
        true_s = truth.capture_s(report, published_ns) if report.used else None
        if true_s is not None:
            crowd = truth.crowd
            sharp = renderers[report.view].render(crowd.state(true_s), crowd.appearance)
            frames[report.view] = encode_decode(sharp[None])[0]
    return frames


def answer_again(
    bundle: Bundle, prediction: Prediction, frames: Mapping[str, Image], before: Mapping[str, Image]
) -> FusionOutputs:
    """What the bundle says of these frames and those before, at the offsets that were published."""
    extractors = {view: FeatureExtractor.of_bundle(bundle, view, "cpu", 1) for view in frames}

    def shown(some: Mapping[str, Image], back: int) -> dict[str, Entry]:
        return {
            report.view: _entry(extractors[report.view], prediction, report, some[report.view], back)
            for report in prediction.views
            if report.view in some
        }

    entries, earlier = shown(frames, 0), shown(before, 1)
    others = (view for view in entries if view != prediction.reference)
    fusion = Fusion(bundle, (prediction.synchroniser,))
    unknown = [
        view for view in entries if any(f"{view}: offset too uncertain" in why for why in prediction.reasons)
    ]
    snapshot = Snapshot(prediction.seq, entries, earlier)
    return fusion.predict(snapshot, (prediction.reference, *others), unknown)


def _entry(
    extractor: FeatureExtractor, prediction: Prediction, report: ViewReport, frame: Image, back: int
) -> Entry:
    """The view's newest frame, or with `back` of 1 the one before it."""
    (tensor,) = extractor.extract(frame, (frame.shape[1], frame.shape[0]))
    capture_ns = prediction.capture_ns + (report.offset_ns or 0) - back * (report.before_ns or 0)
    return Entry(
        view=report.view,
        session=report.session or 0,
        seq=(report.seq or 0) - back,
        capture_ns=capture_ns,
        uncertainty_ns=0,
        stamped_ns=capture_ns,
        clock="rtcp",
        received_ns=prediction.published_ns,
        features=tensor.array.astype(np.uint8, copy=False),
    )


def draw(
    bundle: Bundle, prediction: Prediction, truth: Truth, renderers: Mapping[str, Renderer], score: Score
) -> Image:
    """The whole picture, (H, W, 3) uint8 RGB."""
    frames = frames_of(prediction, truth, renderers)
    outputs = answer_again(bundle, prediction, frames, frames_before(prediction, truth, renderers))
    panels = []
    for report in prediction.views:
        camera = bundle.scene.cameras[report.view]
        frame = frames.get(report.view)
        panel = np.full((camera.height, camera.width, 3), 48, np.uint8) if frame is None else frame.copy()
        if report.view in outputs.slots and report.used:
            _draw_flow(panel, camera, prediction, outputs, outputs.slots.index(report.view))
        panels.append(_titled(panel, _title(prediction, report)))
    top = _beside(panels)
    reference_s = truth.reference_s(prediction)
    places = np.empty((0, 2)) if reference_s is None else truth.places(reference_s)
    ground = _titled(
        _ground(prediction, places), "people per cell, north up; rings: where people really stood"
    )
    return _stack(top, ground, _facts(prediction, places, score))


def check(path: Path) -> None:
    """Raises UserError where no picture can be written to `path`: an unknown kind, or no such folder."""
    if path.suffix and not cv2.haveImageWriter(f"x{path.suffix}"):
        raise UserError(f"{path}: {path.suffix} is no kind of picture; name it .png or .jpg")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or write elsewhere")


def write(path: Path, image: Image) -> None:
    """Write a PNG, or what the name ends in; a file that was there stays until the new one is whole.

    Raises OSError naming `path` where the disk refuses, and as `check` does.
    """
    check(path)
    _, data = cv2.imencode(path.suffix or ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data.tobytes())
        part.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # a full disk names no file
        raise
    finally:
        part.unlink(missing_ok=True)


def _title(prediction: Prediction, report: ViewReport) -> str:
    if report.view == prediction.reference:
        return f"{report.view}: the reference"
    if not report.used or report.offset_ns is None:
        return f"{report.view}: left out ({report.reason})"
    warp = "" if report.mean_warp_m is None else f", people moved {report.mean_warp_m:.2f} m on average"
    return f"{report.view}: {report.offset_ns * 1e-9:+.2f} s{warp}"


def _draw_flow(
    panel: Image, camera: Camera, prediction: Prediction, outputs: FusionOutputs, slot: int
) -> None:
    """Arrows from where someone stands in this frame to where they stood when the reference was taken."""
    if slot == 0 or outputs.flow_m is None or outputs.match is None:
        return
    match, grid = outputs.match[slot], prediction.grid
    factor = grid.rows // match.shape[0]
    step = round(_STEP_M / grid.cell_m)
    around = np.asarray(cv2.boxFilter(prediction.density, -1, (step, step), normalize=False))
    somebody = around.reshape(match.shape[0], factor, match.shape[1], factor).max(axis=(1, 3))
    weight = match * somebody
    peaks = (match >= _SURE) & (somebody >= _SOMEBODY) & (weight >= cv2.dilate(weight, np.ones((3, 3))))
    then = grid.coarser(factor).centres()[peaks]
    now = then + outputs.flow_m[slot][peaks]
    ends = [camera.project(np.pad(places, ((0, 0), (0, 1)))) for places in (now, then)]
    for start, end in zip(*ends, strict=True):
        if np.isfinite([*start, *end]).all():
            first, second = ((round(float(x)), round(float(y))) for x, y in (start, end))
            cv2.arrowedLine(panel, first, second, _ARROW, 1, cv2.LINE_AA, tipLength=0.3)
            cv2.circle(panel, first, 2, _ARROW, -1, cv2.LINE_AA)


def _ground(prediction: Prediction, places: NDArray[np.float64]) -> Image:
    """The density from above, y up, with a ring where someone stood."""
    grid, density = prediction.grid, prediction.density
    scale = _GROUND_HEIGHT / grid.rows
    size = (round(grid.columns * scale), _GROUND_HEIGHT)
    # The same colours for the same density in every picture: the top is 1.75 people per square metre, the
    # peak of one person spread by 0.3 m.
    level = np.clip(density / (1.75 * grid.cell_m**2), 0, 1)
    large = cv2.resize((255 * level).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
    image = np.asarray(cv2.applyColorMap(large, cv2.COLORMAP_INFERNO)[:, :, ::-1], np.uint8).copy()
    for x, y in places:
        column, row = (x - grid.origin_x_m) / grid.cell_m, (y - grid.origin_y_m) / grid.cell_m
        cv2.circle(image, (round(column * scale), round(row * scale)), 6, _TRUTH, 1, cv2.LINE_AA)
    return np.ascontiguousarray(image[::-1])


def _facts(prediction: Prediction, places: NDArray[np.float64], score: Score) -> Image:
    lines = [(f"truth: {len(places)} people", 0.62), ("", 0.3)]
    for graph, count in prediction.counts.items():
        mae = score.mae(graph) if graph in score.graphs else None
        lines.append((f"{label(graph)}: {count:.1f}", 0.55))
        lines.append(("" if mae is None else f"    mean error so far {mae:.2f}", 0.45))
    lines += [
        ("", 0.3),
        (f"published {prediction.latency_ns * 1e-9:.1f} s after the reference frame was taken", 0.42),
        ("arrows: the flow, from where someone stands in the", 0.42),
        ("frame to where they stood in the reference's instant", 0.42),
        ("(computed again for this picture, from the same frames)", 0.42),
    ]
    image = np.full((_GROUND_HEIGHT + _BAR, 460, 3), _PAPER, np.uint8)
    y = _BAR
    for text, size in lines:
        y += round(44 * size)
        cv2.putText(image, text, (6, y), cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)
    return image


def _titled(panel: Image, title: str) -> Image:
    bar = np.full((_BAR, panel.shape[1], 3), _PAPER, np.uint8)
    cv2.putText(bar, title, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
    return np.concatenate([bar, panel])


def _beside(panels: list[Image]) -> Image:
    height = max(panel.shape[0] for panel in panels)
    framed = [np.pad(panel, ((_MARGIN, height - panel.shape[0]), (_MARGIN, 0), (0, 0))) for panel in panels]
    return np.concatenate(framed, axis=1)


def _stack(top: Image, ground: Image, facts: Image) -> Image:
    below = _beside([ground, facts])
    width = max(top.shape[1], below.shape[1]) + _MARGIN
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in (top, below)]
    return np.pad(np.concatenate(rows), ((0, _MARGIN), (0, 0), (0, 0)))
