"""What the page is told: plain values for JSON, made of a draft. Lengths in metres, places in pixels or
metres.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.errors import CalibError
from calib.ground import GroundGrid
from calib.look.check import check
from calib.look.coverage import coverage
from calib.look.overlay import closed, epipolar_curves, grid_step_m, ground_lines, image_lines
from calib.look.walker import HEIGHT_M, Walk, Walker, seen_walker
from calib.page.draft import Draft, Size
from calib.points import residuals
from calib.triangulation import triangulate_all

Floats = NDArray[np.float64]

# A line may be this far from the one drawn.
_SIMPLER_PX = 0.3


def draft_facts(draft: Draft, sizes: Mapping[str, Size]) -> dict[str, Any]:
    """Everything that a change can change. sizes: of the pictures that views deliver, as far as known."""
    found = residuals(draft.cameras, draft.points)
    errors: dict[str, dict[str, float | None]] = {}
    for name, view, distance in zip(found.points, found.cameras, found.distances_px, strict=True):
        errors.setdefault(name, {})[view] = _number(distance, 2)
    by_camera, by_point = found.by_camera(), found.by_point()
    views = [
        _view_facts(draft, view, by_camera[view].rms_px if view in by_camera else math.nan)
        for view in draft.sizes
    ]
    placed = iter(triangulate_all(draft.cameras, [p.pixels for p in draft.points if p.world is None]))
    points = []
    for point in draft.points:
        place = point.world if point.world is not None else next(placed)
        points.append(
            {
                "name": point.name,
                "world": None if point.world is None else point.world.tolist(),
                "found": _place(place, 3),
                "pixels": {view: _place(pixel, 2) for view, pixel in point.pixels.items()},
                "projected": {view: _projected(camera, place) for view, camera in draft.cameras.items()},
                "errors": errors.get(point.name, {}),
                "rms_px": _number(by_point[point.name].rms_px, 2) if point.name in by_point else None,
            }
        )
    return {
        "name": draft.name,
        "views": views,
        "points": points,
        "zones": {name: polygon.tolist() for name, polygon in draft.zones.items()},
        "region": None if draft.region is None else draft.region.tolist(),
        "ground": _ground_facts(draft.ground),
        "rms_px": _number(found.overall.rms_px, 2),
        "clicks": found.overall.count,
        "findings": _findings(draft, sizes),
    }


def _findings(draft: Draft, sizes: Mapping[str, Size]) -> list[dict[str, Any]]:
    try:
        scene = draft.scene()
    except CalibError:
        return []
    known = {view: size for view, size in sizes.items() if view in draft.cameras}
    found = check(scene, draft.points, known).findings
    return [
        {"severity": f.severity, "code": f.code, "view": f.view, "message": f.message}
        for f in found
        if f.code != "unknown-view"  # views without a pose yet are said to be so
    ]


def _view_facts(draft: Draft, view: str, rms_px: float) -> dict[str, Any]:
    width, height = draft.sizes[view]
    polygons = draft.occluders.get(view, {})
    facts: dict[str, Any] = {
        "name": view,
        "width": width,
        "height": height,
        "rms_px": _number(rms_px, 2),
        "occluders": {name: polygon.tolist() for name, polygon in polygons.items()},
        "camera": None,
        "lens_known": draft.lens(view) is not None,
    }
    camera = draft.cameras.get(view)
    if camera is not None:
        ahead = camera.R[2]
        facts["camera"] = {
            "centre": _place(camera.centre, 3),
            "heading_rad": _number(math.atan2(ahead[1], ahead[0]), 4),
            "half_view_rad": _number(math.atan2(camera.width / 2, camera.K[0, 0]), 4),
            "focal_px": _number(float(camera.K[0, 0]), 1),
            "down_deg": _number(math.degrees(-math.asin(max(-1.0, min(1.0, float(ahead[2]))))), 1),
        }
        facts["lines"] = _lines(camera, draft.ground)
        facts["shapes"] = {
            "zones": {name: _outline(camera, polygon) for name, polygon in draft.zones.items()},
            "region": [] if draft.region is None else _outline(camera, draft.region),
        }
    return facts


def _outline(camera: Camera, polygon: Floats) -> list[list[float]]:
    return [_flat(part) for part in image_lines(camera, closed(polygon), 240)]


@functools.lru_cache(maxsize=64)
def _lines(camera: Camera, grid: GroundGrid) -> dict[str, Any]:
    lines = ground_lines(camera, grid)
    return {
        "net": [_flat(part) for part in lines.net],
        "border": [_flat(part) for part in lines.border],
        "axes": [[_flat(part) for part in axis] for axis in lines.axes],
    }


def _ground_facts(grid: GroundGrid) -> dict[str, Any]:
    return {
        "origin_m": [grid.origin_x_m, grid.origin_y_m],
        "cell_m": grid.cell_m,
        "columns": grid.columns,
        "rows": grid.rows,
        "step_m": grid_step_m(grid),
    }


def plan_facts(draft: Draft) -> dict[str, Any]:
    """Coverage and resolution on the ground plan: per view, row by row, pixels of a standing person."""
    scene = draft.scene()
    covered = coverage(scene)
    plan = covered.plan
    return {
        "origin_m": [plan.origin_x_m, plan.origin_y_m],
        "cell_m": plan.cell_m,
        "columns": plan.columns,
        "rows": plan.rows,
        "pixels": {
            view: np.rint(pixels).astype(int).ravel().tolist()
            for view, pixels in zip(covered.views, covered.pixels, strict=True)
        },
        "shares": [round(covered.share(count), 4) for count in range(1, len(covered.views) + 1)],
    }


def hover_facts(draft: Draft, view: str, pixel: Sequence[float]) -> dict[str, Any]:
    """The hovered pixel of a view: where its ray meets the ground, and its curve in the other views."""
    camera = draft.cameras.get(view)
    if camera is None:
        return {"ground": None, "person_px": None, "curves": {}}
    ground = camera.back_project(pixel)
    top = camera.project(np.add(ground, (0, 0, HEIGHT_M)))
    curves = epipolar_curves(draft.cameras, view, pixel)
    return {
        "ground": _place(ground[:2], 3),
        "person_px": _number(float(np.linalg.norm(top - np.asarray(pixel))), 0),
        "curves": {
            name: {
                "parts": [_flat(part) for part in seen.parts],
                "ground": None if seen.ground is None else _place(seen.ground, 1),
            }
            for name, seen in curves.items()
        },
    }


def ground_hover_facts(draft: Draft, place: Sequence[float]) -> dict[str, Any]:
    """A place on the ground (x, y), metres: where each view sees it."""
    world = np.array([place[0], place[1], 0.0])
    return {"pixels": {view: _projected(camera, world) for view, camera in draft.cameras.items()}}


def walk_of(draft: Draft) -> Walk:
    """The round that the walking person takes."""
    return Walk.over(draft.ground, draft.region)


def walker_facts(draft: Draft, person: Walker) -> dict[str, Any]:
    """A walking person in every view that sees it."""
    views = {}
    for view, camera in draft.cameras.items():
        seen = seen_walker(camera, person)
        if seen is not None:
            views[view] = {
                "limbs": [_flat(limb, simplify=False) for limb in seen.limbs],
                "head": _place(seen.head, 1),
                "radius": _number(seen.head_radius_px, 1),
                "height": _number(seen.height_px, 1),
            }
    return {"at": _place(person.feet[:2], 3), "views": views}


def _projected(camera: Camera, world: Floats) -> list[float] | None:
    return _place(camera.project(world), 2)


def _place(values: Floats, digits: int) -> list[float] | None:
    """Plain numbers, or None where one of them is none."""
    if not np.isfinite(values).all():
        return None
    return [round(float(value), digits) for value in values]


def _number(value: float, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


def _flat(line: Floats, simplify: bool = True) -> list[float]:
    """x, y, x, y …; with `simplify`, as few places as keep the line where it is."""
    if simplify and len(line) > 4:
        # In halves: OpenCV loses a side of a line that ends where it begins.
        half = len(line) // 2
        line = np.concatenate([_fewer(line[: half + 1])[:-1], _fewer(line[half:])])
    rounded: list[float] = np.round(line, 1).ravel().tolist()
    return rounded


def _fewer(line: Floats) -> Floats:
    found = cv2.approxPolyDP(line.astype(np.float32), _SIMPLER_PX, False)
    return found.reshape(-1, 2).astype(np.float64)
