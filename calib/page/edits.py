"""Every change that the page can make to a draft: pure functions from (draft, what was asked) to a draft.

What is asked comes from a browser as JSON: `{"do": name, …}`. Whatever is wrong with it is a CalibError, and
the draft stays as it was.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calib.errors import CalibError
from calib.ground import GroundGrid
from calib.page.asked import Asked
from calib.page.draft import Draft, Polygons
from calib.points import MarkedPoint
from calib.polygons import checked_polygon
from calib.scene import checked_name


@dataclass(frozen=True, slots=True)
class Edited:
    """draft: after the change; label: what was done, for the undo button; notes: what to know about it;
    point: the point that is in hand now.
    """

    draft: Draft
    label: str
    notes: tuple[str, ...] = ()
    point: str | None = None


def apply(draft: Draft, action: Mapping[str, Any]) -> Edited:
    """The draft after `action`. CalibError if it cannot be done."""
    asked = Asked(action)
    name = asked.text("do")
    edit = _EDITS.get(name)
    if edit is None:
        raise CalibError(f"the page asked for {name!r}, which this version cannot do: reload the page")
    return edit(draft, asked)


def _mark(draft: Draft, asked: Asked) -> Edited:
    """Mark a point in a view: a new one, or where the point in hand is seen."""
    view, pixel = _view(draft, asked), asked.numbers("pixel", 2)
    width, height = draft.sizes[view]
    pixel = np.clip(pixel, -0.5, np.array([width, height]) - 0.5)
    name = asked.optional_text("point")
    if name is None:
        name = _free_name(draft, "p")
        points = (*draft.points, MarkedPoint(name, None, {view: pixel}))
        return Edited(replace(draft, points=points), f"mark {name} in {view}", point=name)
    old = draft.point(name)
    label = f"move {name} in {view}" if view in old.pixels else f"mark {name} in {view}"
    changed = MarkedPoint(name, old.world, {**old.pixels, view: pixel})
    return Edited(_with_point(draft, name, changed), label, point=name)


def _unmark(draft: Draft, asked: Asked) -> Edited:
    view, name = _view(draft, asked), asked.text("point")
    old = draft.point(name)
    if view not in old.pixels:
        raise CalibError(f"point {name!r} is not marked in {view}: there is nothing to remove")
    pixels = {other: pixel for other, pixel in old.pixels.items() if other != view}
    if not pixels and old.world is None:
        return _remove(draft, asked)
    changed = MarkedPoint(name, old.world, pixels)
    return Edited(_with_point(draft, name, changed), f"remove {name} from {view}", point=name)


def _place(draft: Draft, asked: Asked) -> Edited:
    """Give a point its world position, or take it away; a point that is not there yet is made."""
    name = asked.optional_text("point")
    world = asked.optional_numbers("world", 3)
    if name is None:
        name = _free_name(draft, "p")
        points = (*draft.points, MarkedPoint(name, world, {}))
        return Edited(replace(draft, points=points), f"place {name}", point=name)
    old = draft.point(name)
    label = f"forget where {name} is" if world is None else f"place {name}"
    return Edited(_with_point(draft, name, MarkedPoint(name, world, old.pixels)), label, point=name)


def _rename(draft: Draft, asked: Asked) -> Edited:
    name, new = asked.text("point"), asked.text("name").strip()
    old = draft.point(name)
    changed = _with_point(draft, name, MarkedPoint(new, old.world, old.pixels))
    return Edited(changed, f"rename {name} to {new}", point=new)


def _remove(draft: Draft, asked: Asked) -> Edited:
    gone = draft.point(asked.text("point"))
    points = tuple(point for point in draft.points if point is not gone)
    return Edited(replace(draft, points=points), f"remove {gone.name}")


def _zone(draft: Draft, asked: Asked) -> Edited:
    """Draw a zone, or change or rename one."""
    old, corners = asked.optional_text("name"), asked.polygon("corners")
    new = asked.optional_text("rename") or old or _free_shape("zone", draft.zones)
    zones = _put(draft.zones, "zone", old, new, corners, "metres")
    return Edited(replace(draft, zones=zones), f"{'change' if old else 'draw'} zone {new}")


def _occluder(draft: Draft, asked: Asked) -> Edited:
    view, old, corners = _view(draft, asked), asked.optional_text("name"), asked.polygon("corners")
    mine = draft.occluders.get(view, {})
    new = asked.optional_text("rename") or old or _free_shape("occluder", mine)
    size = np.array(draft.sizes[view])
    polygons = _put(mine, "occluder", old, new, np.clip(corners, -0.5, size - 0.5), "pixels")
    occluders = {**draft.occluders, view: polygons}
    return Edited(replace(draft, occluders=occluders), f"{'change' if old else 'draw'} occluder {new}")


def _region(draft: Draft, asked: Asked) -> Edited:
    region = checked_polygon("region", asked.polygon("corners"), "metres")
    return Edited(replace(draft, region=region), "draw the region of interest")


def _erase(draft: Draft, asked: Asked) -> Edited:
    """Remove a zone, the region or an occluder."""
    kind = asked.text("kind")
    if kind == "region":
        return Edited(replace(draft, region=None), "remove the region of interest")
    name = asked.text("name")
    if kind == "zone":
        return Edited(replace(draft, zones=_without(draft.zones, name)), f"remove zone {name}")
    view = _view(draft, asked)
    occluders = {**draft.occluders, view: _without(draft.occluders.get(view, {}), name)}
    return Edited(replace(draft, occluders=occluders), f"remove occluder {name}")


def _ground(draft: Draft, asked: Asked) -> Edited:
    origin = asked.numbers("origin_m", 2)
    cell = float(asked.numbers("cell_m", 1)[0])
    grid = GroundGrid(float(origin[0]), float(origin[1]), cell, asked.whole("columns"), asked.whole("rows"))
    return Edited(replace(draft, ground=grid), "change the ground grid")


def _solve(draft: Draft, asked: Asked) -> Edited:
    """The pose of one view from its points with a world position."""
    from calib.solve.extrinsics import pose_from_points

    view = _view(draft, asked)
    chosen = [point for point in draft.points if point.world is not None and view in point.pixels]
    camera = None if asked.flag("focal_too") else draft.lens(view)
    solved = pose_from_points(
        [point.world for point in chosen if point.world is not None],
        [point.pixels[view] for point in chosen],
        draft.sizes[view],
        camera,
        [point.name for point in chosen],
    )
    kept = [
        float(residual)
        for point, residual in zip(chosen, solved.residuals_px, strict=True)
        if point.name not in solved.outliers and np.isfinite(residual)
    ]
    found = {"pose": "pose", "focal": "pose and focal length", "focal+k1": "pose, focal length and k1"}
    rms = float(np.sqrt(np.mean(np.square(kept)))) if kept else float("nan")
    notes = [
        f"{view}: {found[solved.solved]} from {len(kept)} points, {rms:.2f} px RMS, "
        f"position ± {solved.position_deviation_m:.2f} m"
    ]
    if solved.outliers:
        notes.append(f"left out, because they do not fit the others: {', '.join(solved.outliers)}")
    cameras = {**draft.cameras, view: solved.camera}
    return Edited(replace(draft, cameras=cameras), f"solve the pose of {view}", (*notes, *solved.notes))


def _refine(draft: Draft, asked: Asked) -> Edited:
    """All cameras and points together."""
    from calib.solve.refine import refine

    refined = refine(draft.cameras, draft.points, solve_intrinsics=asked.flag("intrinsics_too"))
    note = (
        f"all cameras refined: {refined.rms_before_px:.2f} px RMS before, {refined.rms_after_px:.2f} px now"
    )
    cameras = {**draft.cameras, **refined.cameras}
    return Edited(replace(draft, cameras=cameras), "refine all cameras", (note,))


_EDITS: Mapping[str, Callable[[Draft, Asked], Edited]] = {
    "mark": _mark,
    "unmark": _unmark,
    "place": _place,
    "rename": _rename,
    "remove": _remove,
    "zone": _zone,
    "occluder": _occluder,
    "region": _region,
    "erase": _erase,
    "ground": _ground,
    "solve": _solve,
    "refine": _refine,
}


def _view(draft: Draft, asked: Asked) -> str:
    view = asked.text("view")
    if view not in draft.sizes:
        raise CalibError(f"there is no view {view!r}: the views are {', '.join(draft.sizes)}")
    return view


def _with_point(draft: Draft, name: str, changed: MarkedPoint) -> Draft:
    return replace(draft, points=tuple(changed if p.name == name else p for p in draft.points))


def _free_name(draft: Draft, stem: str) -> str:
    taken = {point.name for point in draft.points}
    return next(f"{stem}{n}" for n in range(1, len(taken) + 2) if f"{stem}{n}" not in taken)


def _free_shape(stem: str, taken: Polygons) -> str:
    return next(f"{stem}-{n}" for n in range(1, len(taken) + 2) if f"{stem}-{n}" not in taken)


def _put(polygons: Polygons, kind: str, old: str | None, new: str, corners: Any, unit: Any) -> Polygons:
    """With the polygon under its new name, in its old place."""
    checked_name(kind, new)
    if old is not None and old not in polygons:
        raise CalibError(f"there is no {kind} {old!r}: it was renamed or removed")
    if new != old and new in polygons:
        raise CalibError(f"there is a {kind} {new!r} already: take another name")
    polygon = checked_polygon(f"{kind} {new}", corners, unit)
    kept = {new if name == old else name: polygon if name == old else p for name, p in polygons.items()}
    return {**kept, new: polygon}


def _without(polygons: Polygons, name: str) -> Polygons:
    if name not in polygons:
        raise CalibError(f"there is nothing named {name!r} to remove")
    return {other: polygon for other, polygon in polygons.items() if other != name}
