"""One snapshot as a picture, like the paper's Fig. 5: what each view saw and where its people were moved, the
true density, and what every method makes of it with what it got wrong.

Shape letters: V views (slot 0 the reference), N people, H W image, Hg Wg ground grid.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from calib.camera import Camera
from calib.ground import GroundGrid
from calib.scene import Scene
from viewsync.training.runners import Runner
from viewsync.training.snapshots import Snapshot, density_map

Floats = NDArray[np.float32]
Answers = Mapping[str, Mapping[str, Floats]]
_FLOW, _TRUTH = "#ffd400", "#00e5ff"
# People per square metre at the end of the colours: the peak of one person spread by 0.3 m.
_MOST_PER_M2 = 1.75
# Nothing is drawn of somebody whom the method is less sure than this to have found in the other view.
_SURE = 0.3
_DPI = 80


def answers_of(runner: Runner, shot: Snapshot) -> Answers:
    """Everything that a runner's graphs say of a snapshot."""

    def features(of: Snapshot) -> NDArray[Any]:
        return np.stack([runner.encode(image, int(v)) for image, v in zip(of.images, of.view, strict=True)])

    return runner.fuse(features(shot), shot, None if shot.earlier is None else features(shot.earlier))


def draw(scene: Scene, shot: Snapshot, answers: Answers, kind: str = "png") -> bytes:
    """The picture as a file of this `kind`. Flow is that of the first answer that has any on the ground."""
    grid, names = scene.ground, tuple(scene.cameras)
    flowing = next((name for name, outputs in answers.items() if "flow_m" in outputs), None)
    views, columns = len(shot.view), max(len(shot.view), 1 + len(answers))
    figure = Figure(figsize=(3.5 * columns, 8.6), layout="constrained")
    axes = figure.subplots(3, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_visible(False)
    for slot in range(views):
        name, axis = names[int(shot.view[slot])], axes[0, slot]
        axis.set_visible(True)
        axis.imshow(shot.images[slot])
        axis.set_title(
            f"{name}: the reference" if slot == 0 else f"{name}: {shot.true_offset_s[slot]:+.1f} s"
        )
        if slot and flowing is not None:
            camera = scene.cameras[name].undistorted()
            _draw_flow(axis, camera, grid, shot, slot, answers[flowing])
    people = shot.xy[0][grid.contains(shot.xy[0])]
    truth = density_map(shot.xy[0], grid)
    _ground(axes[1, 0], grid, truth, people, f"truth: {len(people)} people")
    for column, (name, outputs) in enumerate(answers.items(), 1):
        density = outputs["density"]
        _ground(axes[1, column], grid, density, people, f"{name}: {density.sum():.1f} people")
        error = float(((density - truth) ** 2).sum())
        _residual(axes[2, column], grid, density - truth, f"{name} − truth, squared {error:.2f}")
    handles = [
        Line2D([], [], color=_TRUTH, marker="o", fillstyle="none", ls="", label="true place (in that frame)")
    ]
    if flowing is not None:
        label = f"{flowing}: from where it finds them to where they are at the reference's instant"
        handles.append(Line2D([], [], color=_FLOW, label=label))
    figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=_DPI)
    return out.getvalue()


def arrows(
    camera: Camera, grid: GroundGrid, shot: Snapshot, slot: int, outputs: Mapping[str, Floats]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For everybody whom the method finds in the view of `slot`: where in its picture, and where they are at
    the reference's instant, (x, y) pixels both.
    """
    flow, match = outputs["flow_m"][slot], outputs.get("match")
    coarse = grid.coarser(grid.rows // flow.shape[0])
    for place in shot.xy[0][coarse.contains(shot.xy[0])]:
        row, column = coarse.cell_of(place[None])[0]
        if match is not None and match[slot, row, column] < _SURE:
            continue
        ends = np.stack([place + flow[row, column], place])
        pixels = camera.project(np.pad(ends, ((0, 0), (0, 1))))
        inside = (pixels >= 0) & (pixels < (camera.width, camera.height))
        if np.isfinite(pixels).all() and inside.all():
            yield pixels[0], pixels[1]


def _draw_flow(
    axis: Axes,
    camera: Camera,
    grid: GroundGrid,
    shot: Snapshot,
    slot: int,
    outputs: Mapping[str, Floats],
) -> None:
    seen = shot.xy[slot][shot.seen[slot]]
    pixels = camera.project(np.pad(seen, ((0, 0), (0, 1))))
    axis.scatter(pixels[:, 0], pixels[:, 1], s=22, facecolors="none", edgecolors=_TRUTH, linewidths=1.0)
    for start, end in arrows(camera, grid, shot, slot, outputs):
        style = {"arrowstyle": "->", "color": _FLOW, "lw": 1.1}
        axis.annotate("", (end[0], end[1]), (start[0], start[1]), arrowprops=style)
    axis.set_xlim(-0.5, camera.width - 0.5)
    axis.set_ylim(camera.height - 0.5, -0.5)


def _extent(grid: GroundGrid) -> tuple[float, float, float, float]:
    right = grid.origin_x_m + grid.columns * grid.cell_m
    return grid.origin_x_m, right, grid.origin_y_m, grid.origin_y_m + grid.rows * grid.cell_m


def _ground(axis: Axes, grid: GroundGrid, density: Floats, people: NDArray[np.float64], title: str) -> None:
    axis.set_visible(True)
    most = _MOST_PER_M2 * grid.cell_m**2
    axis.imshow(density, origin="lower", extent=_extent(grid), cmap="inferno", vmin=0, vmax=most)
    axis.scatter(people[:, 0], people[:, 1], s=26, facecolors="none", edgecolors=_TRUTH, linewidths=0.6)
    axis.set_title(title)


def _residual(axis: Axes, grid: GroundGrid, error: Floats, title: str) -> None:
    axis.set_visible(True)
    most = 0.7 * _MOST_PER_M2 * grid.cell_m**2
    axis.imshow(error, origin="lower", extent=_extent(grid), cmap="RdBu_r", vmin=-most, vmax=most)
    axis.set_title(title)
