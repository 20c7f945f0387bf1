"""The report as one HTML file: nothing is loaded from anywhere, so that it can be mailed and kept."""

import base64
import json
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from calib.look.coverage import Coverage
from calib.look.overlay import grid_step_m
from calib.look.walker import HEIGHT_M, SPEED_M_PER_S, Walk, seen_walker
from calib.page.pictures import encode
from calib.points import Residuals, residuals
from calib.report import Looked
from calib.report.drawing import draw_view
from calib.report.plan import maps, png_bytes
from calib.scene import Scene

_WIDTH_PX = 880
_POSES_PER_S = 8.0
_MOST_POSES = 160
_WORST_POINTS = 12


def html_report(looked: Looked) -> str:
    """The whole file."""
    scene = looked.scene
    found = residuals(scene.cameras, looked.points)
    walk = Walk.over(scene.ground, scene.region)
    poses = min(_MOST_POSES, max(2, round(walk.length_m / SPEED_M_PER_S * _POSES_PER_S)))
    figures = "".join(_view(looked, view, walk, poses, found) for view in scene.cameras)
    covered = looked.checked.coverage
    parts = {
        "name": escape(scene.name),
        "title": escape(looked.title),
        "summary": _summary(looked, found),
        "findings": _findings(looked),
        "step": f"{grid_step_m(scene.ground):g}",
        "tall": f"{HEIGHT_M:g}",
        "last": str(poses - 1),
        "figures": figures,
        "plans": _plans(scene, covered),
        "shares": _shares(covered),
        "cameras": _cameras(scene, covered, found),
        "points": _points(found),
        "css": _static("report.css"),
        "js": _static("report.js"),
    }
    return Template(_static("report.html")).substitute(parts)


def _static(name: str) -> str:
    return files("calib.report").joinpath("static", name).read_text("utf-8")


def _summary(looked: Looked, found: Residuals) -> str:
    overall = found.overall
    marked = f", {overall.count} clicks, {overall.rms_px:.2f} px RMS" if overall.count else ""
    return f"{len(looked.scene.cameras)} views, {len(looked.points)} marked points{marked}"


def _findings(looked: Looked) -> str:
    if not looked.checked.findings:
        return '<p class="good">Nothing suspicious.</p>'
    rows = "".join(
        f'<li class="{f.severity}"><b>{f.severity}</b> '
        f"{f'<b>{escape(f.view)}</b>: ' if f.view else ''}{escape(f.message)}</li>"
        for f in looked.checked.findings
    )
    return f"<ul>{rows}</ul>"


def _embedded(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _view(looked: Looked, view: str, walk: Walk, poses: int, found: Residuals) -> str:
    scene = looked.scene
    camera = scene.cameras[view]
    drawn = draw_view(scene, view, looked.pictures.get(view), looked.points, (), _WIDTH_PX)
    people = json.dumps(
        [_pose(scene, view, walk, pose / poses) for pose in range(poses)], separators=(",", ":")
    )
    spread = found.by_camera().get(view)
    off = f", {spread.count} clicks, {spread.rms_px:.2f} px RMS" if spread and spread.count else ""
    missing = "" if view in looked.pictures else " (no picture was given)"
    return (
        f'<figure><div class="view"><img src="{_embedded("jpeg", encode(drawn))}" alt="{escape(view)}">'
        f'<svg viewBox="-0.5 -0.5 {camera.width} {camera.height}" data-poses="{escape(people)}"></svg></div>'
        f"<figcaption><b>{escape(view)}</b> {camera.width} × {camera.height}{off}{missing}</figcaption>"
        "</figure>"
    )


def _pose(scene: Scene, view: str, walk: Walk, share: float) -> list[Any] | None:
    """Limbs as paths, head, radius, and width of the lines; None out of sight."""
    seen = seen_walker(scene.cameras[view], walk.at(share))
    if seen is None:
        return None
    path = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in limb.tolist()) for limb in seen.limbs)
    head = [round(float(value), 1) for value in seen.head]
    return [path, *head, round(seen.head_radius_px, 1), round(max(1.0, 0.07 * seen.height_px), 1)]


def _plans(scene: Scene, covered: Coverage) -> str:
    plan = covered.plan
    wide, high = plan.cell_m * plan.columns, plan.cell_m * plan.rows
    low = np.array([plan.origin_x_m, plan.origin_y_m])
    centres = np.array([camera.centre[:2] for camera in scene.cameras.values()]) - low
    # Cameras that are far away must not make the ground a dot.
    reach = 0.4 * max(wide, high)
    near = np.clip(centres, -reach, np.array([wide, high]) + reach)
    margin = 0.04 * max(wide, high)
    x0, y0 = np.minimum(near.min(axis=0), 0) - 2 * margin
    x1, y1 = np.maximum(near.max(axis=0), (wide, high)) + 2 * margin
    size = 0.033 * max(x1 - x0, y1 - y0)
    polygons = [("region", scene.region)] if scene.region is not None else []
    polygons += [("zone", polygon) for polygon in scene.zones.values()]
    shapes = ""
    for kind, polygon in polygons:
        corners = " ".join(f"{x:.3f},{high - y:.3f}" for x, y in (polygon - low).tolist())
        shapes += f'<polygon class="{kind}" points="{corners}"/>'
    cameras = "".join(
        f'<circle cx="{x:.2f}" cy="{high - y:.2f}" r="{0.4 * size:.3f}"/>'
        f'<text x="{x + 0.6 * size:.2f}" y="{high - y:.2f}" font-size="{size:.3f}">{escape(view)}</text>'
        for view, (x, y) in zip(scene.cameras, near.tolist(), strict=True)
    )
    step = grid_step_m(scene.ground)
    places = [
        (value - low[0], high + 1.1 * size, value)
        for value in np.arange(np.ceil(low[0] / step), (low[0] + wide) / step + 1e-9, 4) * step
    ] + [
        (wide + 0.8 * size, high - (value - low[1]), value)
        for value in np.arange(np.ceil(low[1] / step), (low[1] + high) / step + 1e-9, 4) * step
    ]
    ticks = "".join(
        f'<text class="tick" x="{x:.2f}" y="{y:.2f}" font-size="{0.8 * size:.3f}">{value:g}</text>'
        for x, y, value in places
    )
    parts = []
    for title, image, legend in maps(covered):
        keys = "".join(
            f'<span><i style="background:rgb{colour}"></i>{escape(words)}</span>'
            for _, colour, words in legend
        )
        parts.append(
            f"<figure><figcaption>{escape(title)}</figcaption>"
            f'<svg class="plan" viewBox="{x0:.3f} {high - y1:.3f} {x1 - x0:.3f} {y1 - y0:.3f}">'
            f'<image href="{_embedded("png", png_bytes(image))}" width="{wide:.3f}" height="{high:.3f}" '
            f'preserveAspectRatio="none"/>{shapes}{cameras}{ticks}</svg>'
            f'<div class="legend">{keys}</div></figure>'
        )
    return "".join(parts)


def _shares(covered: Coverage) -> str:
    counts = range(1, min(4, len(covered.views)) + 1)
    told = ", ".join(f"{covered.share(count):.0%} by {count} or more" for count in counts)
    return (
        f"<p>Of the ground is seen: {told}. A person counts as seen where the middle of the body is in the "
        "picture and the feet are not behind an occluder of the scene; people in each other's way do not "
        "count.</p>"
    )


def _cameras(scene: Scene, covered: Coverage, found: Residuals) -> str:
    rows = []
    by_camera = found.by_camera()
    for index, (view, camera) in enumerate(scene.cameras.items()):
        pixels = covered.pixels[index]
        seen = pixels[pixels > 0]
        sees = f"{(pixels > 0).mean():.0%}" if seen.size else "nothing"
        people = f"{seen.min():.0f} to {seen.max():.0f} px" if seen.size else "–"
        spread = by_camera.get(view)
        off = f"{spread.rms_px:.2f} px ({spread.count})" if spread and spread.count else "–"
        x, y, z = camera.centre
        across = 2 * np.degrees(np.arctan(camera.width / 2 / camera.K[0, 0]))
        down = np.degrees(np.arcsin(np.clip(-camera.R[2, 2], -1, 1)))
        cells = (
            escape(view),
            f"{x:.2f}, {y:.2f}",
            f"{z:.2f} m",
            f"{down:.0f}°",
            f"{camera.K[0, 0]:.0f} px, {across:.0f}°",
            sees,
            people,
            off,
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    names = (
        "view",
        "x, y (m)",
        "height",
        "looks down",
        "focal length, across",
        "sees",
        "people",
        "RMS (clicks)",
    )
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _points(found: Residuals) -> str:
    spreads = {name: spread for name, spread in found.by_point().items() if spread.count}
    if not spreads:
        return ""
    worst = sorted(spreads, key=lambda name: -spreads[name].worst_px)[:_WORST_POINTS]
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{spreads[name].rms_px:.2f} px</td>"
        f"<td>{spreads[name].worst_px:.2f} px</td><td>{spreads[name].count}</td></tr>"
        for name in worst
    )
    more = f" (the {_WORST_POINTS} furthest off of {len(spreads)})" if len(spreads) > _WORST_POINTS else ""
    return (
        f"<section><h2>Marked points{more}</h2><table><thead><tr><th>point</th><th>RMS</th><th>worst</th>"
        f"<th>views</th></tr></thead><tbody>{rows}</tbody></table></section>"
    )
