"""`viewsync calib intrinsics`: a lens from pictures of a board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viewsync.cli.calib.board_options import board_options, read_board

if TYPE_CHECKING:
    from calib.boards.board import BoardFinder, Image, Sighting
    from calib.boards.intrinsics import Intrinsics

# Pictures without the board, from all along the way, that tell what to do where it is in none.
_KEPT_FOR_ADVICE = 6


@click.command()
@click.argument("sources", metavar="SOURCE…", nargs=-1, required=True)
@board_options(required=True)
@click.option(
    "--lens",
    type=click.Choice(["auto", "none", "k1", "k1-k2", "brown"]),
    default="auto",
    show_default=True,
    help="Which distortion is fitted; auto: the most that the pictures can tell.",
)
@click.option(
    "--views", type=click.IntRange(3, 200), default=30, show_default=True, help="Use so many at most."
)
@click.option(
    "--search", type=click.IntRange(3), default=300, show_default=True, help="Search so many of a video."
)
@click.option(
    "--seconds",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    help="How long to watch a live camera.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file to write.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def command(
    sources: tuple[str, ...],
    lens: Any,
    views: int,
    search: int,
    seconds: float,
    out: Path | None,
    as_json: bool,
    **board: Any,
) -> None:
    """Find a camera's focal length and lens distortion from pictures of a board.

    SOURCE: pictures, folders of pictures, a video, or a live camera (rtsp://…, /dev/video…), all of one
    camera. Chooses pictures that differ, and says where the board was not seen.

    \b
    viewsync calib intrinsics north.mp4 --board charuco --size 5x7 --square-m 0.04 --marker-m 0.03
    """
    from calib.boards.board import BoardFinder
    from calib.boards.intrinsics import choose_views, solve_intrinsics
    from calib.boards.lens_file import save_lens

    finder = BoardFinder(read_board(**board))
    seen, looked = _look(finder, sources, search, seconds)
    found = solve_intrinsics(choose_views(seen, views), lens, len(seen))
    if out is not None:
        save_lens(
            found.camera,
            out,
            f"{sum(view.used for view in found.views)} views of a {finder.board}, off by "
            f"{found.rms_px:.2f} px (root mean square)",
        )
    if as_json:
        click.echo(json.dumps(_facts(found, looked, out)))
    else:
        click.echo("\n".join(_lines(found, looked, out)))


def _look(
    finder: BoardFinder, sources: tuple[str, ...], search: int, seconds: float
) -> tuple[list[Sighting], int]:
    from calib.boards.board import why_not_found
    from calib.errors import CalibError
    from viewsync.cli.calib.board_pictures import is_live, pictures

    seen: list[Sighting] = []
    missed: list[Image] = []
    looked, step = 0, 1
    try:
        for picture in pictures(sources, search, seconds):
            looked += 1
            sighting = finder.find(picture.image, picture.name, picture.time_s)
            if sighting is not None:
                seen.append(sighting)
            elif (looked - 1) % step == 0:
                missed.append(picture.image)
                if len(missed) > _KEPT_FOR_ADVICE:
                    missed, step = missed[::2], 2 * step
            if any(map(is_live, sources)):
                click.echo(f"board seen in {len(seen)} of {looked} pictures (Ctrl-C to solve)", err=True)
    except KeyboardInterrupt:
        if not seen:
            raise
    if not seen:
        advice = why_not_found(finder.board, missed) if missed else "give pictures"
        raise CalibError(f"no {finder.board} is in any of {looked} picture(s); {advice}")
    return seen, looked


def _lines(found: Intrinsics, looked: int, out: Path | None) -> list[str]:
    camera, coverage = found.camera, found.coverage
    K = camera.K
    coefficients = ", ".join(f"{value:.4f}" for value in camera.distortion)
    used = [view for view in found.views if view.used]
    lines = [
        f"board found in {found.seen} of {looked} pictures; {len(used)} that differ are used",
        f"focal length {K[0, 0]:.1f}, {K[1, 1]:.1f} px (± {found.focal_deviation_px:.1f}); principal point "
        f"{K[0, 2]:.1f}, {K[1, 2]:.1f}; image {camera.width}x{camera.height}",
        f"distortion k1, k2, p1, p2, k3: {coefficients} (model {found.model})",
        f"corners are off by {found.rms_px:.3f} px (root mean square)",
        "",
        "view                              corners  tilt  off px",
    ]
    for view in found.views:
        left = "" if view.used else "  left out: does not fit the others"
        lines.append(
            f"{view.name[-32:]:32}  {view.corners:7}  {view.tilt_deg:3.0f}°  {view.rms_px:6.3f}{left}"
        )
    lines += [
        "",
        f"corners by part of the image ({100 * coverage.share:.0f} % have some):",
        coverage.drawing(),
        *(f"warning: {note}" for note in found.notes),
    ]
    return [*lines, *([f"{out}: written"] if out is not None else [])]


def _facts(found: Intrinsics, looked: int, out: Path | None) -> dict[str, Any]:
    camera = found.camera
    return {
        "out": None if out is None else str(out),
        "width_px": camera.width,
        "height_px": camera.height,
        "intrinsics_px": camera.K.tolist(),
        "distortion": camera.distortion.tolist(),
        "model": found.model,
        "rms_px": found.rms_px,
        "focal_deviation_px": found.focal_deviation_px,
        "pictures": looked,
        "seen": found.seen,
        "views": [
            {
                "name": view.name,
                "rms_px": view.rms_px,
                "corners": view.corners,
                "tilt_deg": view.tilt_deg,
                "used": view.used,
            }
            for view in found.views
        ],
        "coverage": {"share": found.coverage.share, "cells": found.coverage.cells.tolist()},
        "warnings": list(found.notes),
    }
