"""What is suspicious about a scene: the mistakes that rigs come with, each found by what it does to numbers.

Findings are for people: what, where, what to do. `error`: the scene cannot be right; `warning`: look at it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from calib.look.check_points import point_findings
from calib.look.coverage import Coverage, coverage
from calib.look.finding import Finding
from calib.points import MarkedPoint
from calib.scene import Scene

__all__ = ["Checked", "Finding", "check"]

Size = tuple[int, int]

# No camera that counts people hangs higher or further away, and no person is this small against a lens.
_HIGHEST_M = 120.0
_FURTHEST_M = 1000.0
_LOWEST_M = 0.15
_LARGEST_CELL_M = 10.0
_USUAL_HEIGHTS_M = (1.0, 40.0)
_UNITS = {"millimetres": 1000.0, "centimetres": 100.0, "inches": 39.37, "feet": 3.281}
_FEWEST_PIXELS = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """findings: errors first; coverage: of the ground, which reports draw."""

    findings: tuple[Finding, ...]
    coverage: Coverage

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")


def check(
    scene: Scene, points: Sequence[MarkedPoint] = (), stream_sizes: Mapping[str, Size] | None = None
) -> Checked:
    """Everything suspicious about `scene`. points: as clicked in the images; stream_sizes: (width, height) of
    the pictures that views deliver, pixels.
    """
    covered = coverage(scene)
    found = [
        *_units(scene),
        *_below_ground(scene),
        *_upside_down(scene),
        *_overlap(covered),
        *_sizes(scene, stream_sizes or {}),
        *point_findings(scene, points),
    ]
    order: list[Literal["error", "warning"]] = ["error", "warning"]
    return Checked(tuple(sorted(found, key=lambda finding: order.index(finding.severity))), covered)


def _error(code: str, view: str | None, message: str) -> Finding:
    return Finding(code, "error", view, message)


def _warning(code: str, view: str | None, message: str) -> Finding:
    return Finding(code, "warning", view, message)


def _units(scene: Scene) -> Iterator[Finding]:
    if scene.ground.cell_m > _LARGEST_CELL_M:
        yield _error(
            "units",
            None,
            f"a ground cell is {scene.ground.cell_m:g} m wide: ground.origin_m and cell_m look like "
            "millimetres; divide them by 1000",
        )
    heights = {view: float(camera.centre[2]) for view, camera in scene.cameras.items()}
    grid = scene.ground
    middle = (
        np.array([grid.origin_x_m, grid.origin_y_m]) + grid.cell_m * np.array([grid.columns, grid.rows]) / 2
    )
    extent = grid.cell_m * np.hypot(grid.columns, grid.rows)
    for view, camera in scene.cameras.items():
        high = abs(heights[view])
        away = float(np.linalg.norm(camera.centre[:2] - middle))
        if high > _HIGHEST_M or away > max(_FURTHEST_M, 20 * extent):
            yield _error(
                "units",
                view,
                f"the camera is {high:,.0f} m from the ground and {away:,.0f} m from the middle of the "
                f"ground grid: its translation looks like {_likely_unit(high)}; give metres",
            )
    highest = max(map(abs, heights.values()))
    if highest < _LOWEST_M:
        yield _error(
            "units",
            None,
            f"no camera is more than {highest:.2g} m from the ground: translations "
            "look like kilometres, or metres divided by 1000; give metres",
        )


def _likely_unit(high: float) -> str:
    low, top = _USUAL_HEIGHTS_M
    return next((unit for unit, factor in _UNITS.items() if low <= high / factor <= top), "millimetres")


def _below_ground(scene: Scene) -> Iterator[Finding]:
    for view, camera in scene.cameras.items():
        high = float(camera.centre[2])
        if high <= 0:
            advice = (
                "z points down in this rig: turn it around (y and z negated)"
                if camera.R[1, 2] > 0
                else "check the sign of the translation, and that t is not the camera centre (t = -R C)"
            )
            yield _error("below-ground", view, f"the camera is {-high:.2f} m below the ground: {advice}")


def _upside_down(scene: Scene) -> Iterator[Finding]:
    """The image's down is the world's up: z of the world points down, or the camera hangs upside down."""
    turned = [view for view, camera in scene.cameras.items() if camera.R[1, 2] > 0.2]
    for view in turned:
        if len(turned) == len(scene.cameras):
            advice = "the world's z axis points down: negate y and z of the rig (mirrored axes otherwise)"
        else:
            advice = "its axes are mirrored, or it hangs upside down and its picture is not turned"
        yield _error("mirrored", view, f"people stand on their heads in this view: {advice}")


def _overlap(covered: Coverage) -> Iterator[Finding]:
    seen = covered.pixels > 0
    for index, view in enumerate(covered.views):
        if not seen[index].any():
            yield _error(
                "sees-no-ground",
                view,
                "the view sees nobody on the ground grid: check where it looks, and the grid's origin",
            )
            continue
        others = np.delete(seen, index, axis=0)
        if len(covered.views) > 1 and not (seen[index] & others.any(axis=0)).any():
            yield _error(
                "no-overlap",
                view,
                "no place on the ground grid is seen by this view and another: check the pose, or turn it",
            )
        largest = float(covered.pixels[index].max())
        if largest < _FEWEST_PIXELS:
            yield _warning(
                "small-people",
                view,
                f"a person is at most {largest:.0f} pixels tall: too small to be found; go closer or zoom in",
            )


def _sizes(scene: Scene, sizes: Mapping[str, Size]) -> Iterator[Finding]:
    for view, (width, height) in sizes.items():
        camera = scene.cameras.get(view)
        if camera is None:
            yield _warning(
                "image-size",
                view,
                f"there are pictures of {view!r}, which is no camera of the scene: calibrate it, or "
                "correct the name",
            )
        elif (width, height) != (camera.width, camera.height):
            same = abs(width * camera.height - height * camera.width) <= max(camera.width, camera.height)
            calibrated = f"{camera.width}x{camera.height}"
            told = f"the picture is {width}x{height}, the camera was calibrated at {calibrated}"
            if same:
                yield _warning("image-size", view, f"{told}: same aspect ratio, pictures will be resized")
            else:
                yield _error(
                    "image-size",
                    view,
                    f"{told}: another aspect ratio; set the stream to that size, or calibrate at this one",
                )
