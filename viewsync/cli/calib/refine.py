"""`viewsync calib refine`: all cameras of a scene made to agree at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viewsync.cli.calib.board_options import board_options, read_board

if TYPE_CHECKING:
    from calib.points import Residuals, Spread
    from calib.solve.refine import Refined
    from calib.solve.refine_start import BoardView

_WORST_SHOWN = 10


@click.command()
@click.argument("scene", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--points",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Marked points: surveyed ones hold the world, others tie views together.",
)
@click.option(
    "--rest",
    type=click.Path(path_type=Path, file_okay=False),
    help="Pictures of a board at rest: a folder per place, with north.png … in each.",
)
@click.option(
    "--video",
    "videos",
    multiple=True,
    metavar="CAMERA=FILE",
    help="Video of a board carried about, by one camera; may be given several times.",
)
@click.option(
    "--times",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV of when the videos' pictures were taken: camera,frame,time_s [all videos start at once].",
)
@click.option(
    "--corners",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Corners of such a board that another program found: caliscope's xy.csv.",
)
@click.option(
    "--clock-error-s",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="How far two cameras' times may be apart.",
)
@board_options(required=False)
@click.option(
    "--intrinsics",
    type=click.Choice(["keep", "focal", "focal+k1", "all"]),
    default="keep",
    show_default=True,
    help="What else than poses may change; all: focal length, principal point, k1, k2.",
)
@click.option("--fixed", metavar="A,B…", help="These cameras stay where they are.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The scene.yaml to write; may be the one that was read.",
)
@click.option("--force", is_flag=True, help="Replace what --out has even by something worse.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def command(
    scene: Path,
    points: Path | None,
    rest: Path | None,
    videos: tuple[str, ...],
    times: Path | None,
    corners: Path | None,
    clock_error_s: float,
    intrinsics: Any,
    fixed: str | None,
    out: Path | None,
    force: bool,
    as_json: bool,
    **board: Any,
) -> None:
    """Make all cameras of a scene agree at once: with surveyed points, with points that several views see,
    and with boards.

    Cameras need not be synchronised: points must stand still, and a board ties cameras together only while it
    rests. Surveyed points stay, and hold the world. Without --out it only prints.

    \b
    viewsync calib refine scene.yaml --points points.yaml --out scene.yaml
    """
    from dataclasses import replace

    from calib.boards.board import BoardFinder
    from calib.points import load_points
    from calib.saving import save_checked
    from calib.scene import load_scene
    from calib.solve.refine import refine
    from viewsync.cli.calib.board_corners import read_corners
    from viewsync.cli.calib.board_views import joined_views, resting_views, video_views

    start = load_scene(scene)
    marked = load_points(points) if points is not None else ()
    views: list[BoardView] = []
    notes: list[str] = []
    if rest is not None or videos:
        finder = BoardFinder(read_board(**board))
        if rest is not None:
            found, said = resting_views(finder, rest, start.cameras)
            views, notes = views + found, notes + said
        if videos:
            found, said = video_views(finder, videos, start.cameras, times, clock_error_s)
            views, notes = views + found, notes + said
    if corners is not None:
        found, said = joined_views(read_corners(corners, start.cameras), clock_error_s)
        views, notes = views + found, notes + said
    if not views and points is None:
        raise click.UsageError("there is nothing to refine with: give --points, --rest, --video or --corners")
    keep = [name.strip() for name in fixed.split(",") if name.strip()] if fixed else []
    refined = refine(start.cameras, marked, views, solve_intrinsics=intrinsics, fixed=keep)
    if out is not None:
        save_checked(replace(start, cameras=refined.cameras), out, marked, force)
    if as_json:
        click.echo(json.dumps(_facts(refined, notes, start.cameras, out)))
    else:
        lines = [*notes, *_lines(refined, start.cameras)]
        click.echo("\n".join([*lines, *([f"{out}: written"] if out is not None else [])]))


def _lines(refined: Refined, before: Any) -> list[str]:
    lines = [
        *refined.notes,
        f"world: {refined.world}",
        f"off by {refined.rms_before_px:.2f} px before, {refined.rms_after_px:.2f} px after (rms)",
        "",
        "camera            clicks  median px   rms px  worst px  moved m  turned °  focal px",
    ]
    rows = _joined(refined).by_camera()
    for name, camera in refined.cameras.items():
        spread, (moved, turned) = rows.get(name), _moved(before[name], camera)
        told = "     0          –        –         –" if spread is None else _spread(spread)
        lines.append(f"{name[:16]:16}  {told}  {moved:7.3f}  {turned:8.2f}  {camera.K[0, 0]:8.1f}")
    worst = sorted(_known(refined.residuals), key=lambda row: -row[1].worst_px)[:_WORST_SHOWN]
    if worst:
        lines += ["", "points that are farthest off   clicks  worst px"]
        lines += [f"{name[-28:]:28}   {spread.count:6}  {spread.worst_px:8.2f}" for name, spread in worst]
    if refined.wrong:
        listed = ", ".join(
            f"{one.point} in {one.camera} ({one.off_px:.0f} px)" for one in refined.wrong[:_WORST_SHOWN]
        )
        more = len(refined.wrong) - _WORST_SHOWN
        lines += [
            "",
            f"{len(refined.wrong)} click(s) contradict the others and hardly counted: {listed}"
            + (f" and {more} more" if more > 0 else "")
            + "; correct or remove them",
        ]
    return lines


def _known(residuals: Residuals) -> list[tuple[str, Spread]]:
    return [(name, spread) for name, spread in residuals.by_point().items() if spread.count]


def _spread(spread: Spread) -> str:
    return f"{spread.count:6}  {spread.median_px:9.2f}  {spread.rms_px:7.2f}  {spread.worst_px:8.2f}"


def _joined(refined: Refined) -> Residuals:
    import numpy as np

    from calib.points import Residuals

    clicks, corners = refined.residuals, refined.board_residuals
    return Residuals(
        clicks.points + corners.points,
        clicks.cameras + corners.cameras,
        np.concatenate([clicks.offsets_px, corners.offsets_px]),
    )


def _moved(before: Any, after: Any) -> tuple[float, float]:
    import numpy as np

    from calib.projection import degrees_between

    return float(np.linalg.norm(after.centre - before.centre)), degrees_between(after.R, before.R)


def _facts(refined: Refined, notes: list[str], before: Any, out: Path | None) -> dict[str, Any]:
    rows = _joined(refined).by_camera()
    return {
        "scene": None if out is None else str(out),
        "notes": [*notes, *refined.notes],
        "world": refined.world,
        "rms_before_px": refined.rms_before_px,
        "rms_after_px": refined.rms_after_px,
        "cameras": {
            name: {
                "clicks": rows[name].count if name in rows else 0,
                "median_px": rows[name].median_px if name in rows else None,
                "rms_px": rows[name].rms_px if name in rows else None,
                "worst_px": rows[name].worst_px if name in rows else None,
                "moved_m": _moved(before[name], camera)[0],
                "turned_deg": _moved(before[name], camera)[1],
                "centre_m": camera.centre.tolist(),
                "focal_px": camera.K[0, 0],
            }
            for name, camera in refined.cameras.items()
        },
        "points": {
            name: {
                "world_m": refined.points[name].tolist(),
                "rms_px": spread.rms_px,
                "worst_px": spread.worst_px,
            }
            for name, spread in _known(refined.residuals)
        },
        "wrong": [
            {"point": click.point, "camera": click.camera, "off_px": click.off_px} for click in refined.wrong
        ],
    }
