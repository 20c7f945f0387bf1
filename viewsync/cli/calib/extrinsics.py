"""`viewsync calib extrinsics`: where cameras stand, from marked points."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viewsync.cli.calib.board_options import board_options, read_board, whole_size
from viewsync.cli.calib.lenses import read_lenses

if TYPE_CHECKING:
    from calib.camera import Camera
    from calib.points import MarkedPoint
    from calib.scene import Scene
    from calib.solve.extrinsics import Solved


@click.command()
@click.argument("points", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The scene.yaml to write, or to add to."
)
@click.option("--cameras", metavar="A,B…", help="Only these cameras [all that the points name].")
@click.option(
    "--lens",
    "lenses",
    multiple=True,
    metavar="CAMERA=FILE",
    help="Intrinsics of one camera: a file of `viewsync calib intrinsics`, or a scene.yaml that has it; "
    "without, focal length and k1 are found too. May be given several times.",
)
@click.option(
    "--image", "image", callback=whole_size, metavar="WxH", help="Image size of cameras without --lens."
)
@click.option(
    "--rest",
    type=click.Path(path_type=Path, file_okay=False),
    help="Instead of points: pictures of a board at rest, a folder per place with north.png … in each.",
)
@click.option("--floor", metavar="PLACE", help="With --rest: where the board lay on the ground, face up.")
@board_options(required=False)
@click.option("--force", is_flag=True, help="Replace what --out has even by something worse.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def command(
    points: Path | None,
    out: Path | None,
    cameras: str | None,
    lenses: tuple[str, ...],
    image: tuple[int, int] | None,
    rest: Path | None,
    floor: str | None,
    force: bool,
    as_json: bool,
    **board: Any,
) -> None:
    """Find where cameras stand: from points whose place in the world is known, or from a board at rest.

    4 points give the pose of a camera whose lens is known, 6 also the focal length, 8 also its k1. Pairs that
    do not fit the rest are left out and named. A camera with too few surveyed points is placed by points that
    others see. With --rest and --floor no tape measure is needed: the board is the scale, and the world's
    origin is its first corner on the floor. Without --out it only prints.

    \b
    viewsync calib extrinsics points.yaml --lens north=lens.yaml --out scene.yaml
    """
    if (points is None) == (rest is None):
        raise click.UsageError("give either a file of points, or --rest with pictures of a board")
    known = read_lenses(lenses)
    if rest is not None:
        _from_boards(rest, floor, board, known, out, force, as_json)
    elif points is not None:
        _from_points(points, cameras, known, image, out, force, as_json)


def _from_boards(
    rest: Path,
    floor: str | None,
    board: dict[str, Any],
    lenses: dict[str, Camera],
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    from calib.boards.board import BoardFinder
    from calib.solve.from_boards import cameras_from_boards, on_floor
    from calib.solve.refine import refine
    from viewsync.cli.calib.board_views import resting_views

    if floor is None or not lenses:
        raise click.UsageError(
            "--rest needs --floor, the place where the board lay on the ground, and --lens"
        )
    views, notes = resting_views(BoardFinder(read_board(**board)), rest, lenses)
    refined = refine(cameras_from_boards(lenses, views), (), views)
    found = on_floor(refined.cameras, views, floor)
    if out is not None:
        _save(found, out, (), force)
    centres = {name: camera.centre.tolist() for name, camera in found.items()}
    if as_json:
        facts = {name: {"centre_m": centre} for name, centre in centres.items()}
        told = {"scene": None if out is None else str(out), "notes": [*notes, *refined.notes]}
        click.echo(json.dumps({**told, "rms_px": refined.rms_after_px, "cameras": facts}))
        return
    lines = [*notes, *refined.notes, f"corners are off by {refined.rms_after_px:.2f} px (root mean square)"]
    lines.append(f"origin: the first corner of the board at {floor}; scale: the board's")
    lines += [f"{name}: centre {x:.3f}, {y:.3f}, {z:.3f} m" for name, (x, y, z) in centres.items()]
    click.echo("\n".join([*lines, *([f"{out}: written"] if out is not None else [])]))


def _from_points(
    points: Path,
    cameras: str | None,
    known: dict[str, Camera],
    image: tuple[int, int] | None,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    from calib.points import load_points
    from calib.solve.from_scratch import cameras_from_scratch

    marked = load_points(points)
    names = _names(marked, cameras, points)
    for name in known:
        if name not in names:
            raise click.UsageError(f"--lens {name}: no point is marked there; there are {', '.join(names)}")
    sizes = {}
    for name in names:
        if name in known:
            sizes[name] = (known[name].width, known[name].height)
        elif image is None:
            raise click.UsageError(
                f"the image size of {name} is not known: give --image, or --lens {name}=FILE"
            )
        else:
            sizes[name] = image
    solved = cameras_from_scratch(marked, sizes, known)
    if out is not None:
        _save({name: found.camera for name, found in solved.items()}, out, marked, force)
    if as_json:
        click.echo(
            json.dumps({"scene": None if out is None else str(out), "cameras": _facts(solved, marked)})
        )
    else:
        lines = _lines(solved, marked)
        click.echo("\n".join([*lines, *([f"{out}: written"] if out is not None else [])]))


def _names(marked: Sequence[MarkedPoint], cameras: str | None, points: Path) -> list[str]:
    named = list(dict.fromkeys(view for point in marked for view in point.pixels))
    if not named:
        raise click.UsageError(f"{points}: no point has pixels: click points in the views first")
    if cameras is None:
        return named
    chosen = [part.strip() for part in cameras.split(",") if part.strip()]
    for name in chosen:
        if name not in named:
            raise click.UsageError(
                f"--cameras {name}: no point is marked there; there are {', '.join(named)}"
            )
    return chosen


def _save(found: Mapping[str, Camera], out: Path, marked: Sequence[MarkedPoint], force: bool) -> None:
    from calib.saving import save_checked

    save_checked(_scene(found, out), out, marked, force)


def _scene(found: Mapping[str, Camera], out: Path) -> Scene:
    """The scene that is there with these cameras in it, or a new one."""
    from dataclasses import replace

    from calib.look.common_view import common_ground
    from calib.page.draft import FIRST_HEIGHTS_M
    from calib.rig import is_usable_name
    from calib.scene import Scene, load_scene

    if out.exists():
        old = load_scene(out)
        return replace(old, cameras={**old.cameras, **found})
    name = out.stem if is_usable_name(out.stem) else "scene"
    return Scene(name, dict(found), common_ground(found), FIRST_HEIGHTS_M, {})


def _lines(solved: Mapping[str, Solved], marked: Sequence[MarkedPoint]) -> list[str]:
    lines = []
    for name, facts in _facts(solved, marked).items():
        x, y, z = facts["centre_m"]
        lines.append(
            f"{name}: {facts['solved']} from {facts['points']} points, off by {facts['median_px']:.2f} px "
            f"(median), {facts['worst_px']:.2f} px at worst"
        )
        lines.append(f"  centre {x:.3f}, {y:.3f}, {z:.3f} m (± {facts['position_deviation_m']:.3f})")
        if facts["solved"] != "pose":
            lines.append(
                f"  focal length {facts['focal_px']:.1f} px (± {facts['focal_deviation_px']:.1f}), k1 "
                f"{facts['k1']:.4f}"
            )
        lines += [
            f"  left out: {wrong['point']}, off by {_px(wrong['off_px'])}: check its click and its position"
            for wrong in facts["left_out"]
        ]
        lines += [f"  warning: {note}" for note in facts["notes"]]
    return lines


def _px(off: float | None) -> str:
    return "more than any lens reaches" if off is None else f"{off:.1f} px"


def _facts(solved: Mapping[str, Solved], marked: Sequence[MarkedPoint]) -> dict[str, dict[str, Any]]:
    import numpy as np

    facts = {}
    for name, found in solved.items():
        kept = [
            off
            for used, off in zip(found.names, found.residuals_px, strict=True)
            if used not in found.outliers
        ]
        by_name = dict(zip(found.names, found.residuals_px.tolist(), strict=True))
        facts[name] = {
            "solved": found.solved,
            "points": len(found.residuals_px),
            "median_px": float(np.median(kept)),
            "worst_px": float(np.max(kept)),
            "centre_m": found.camera.centre.tolist(),
            "position_deviation_m": found.position_deviation_m,
            "focal_px": float(found.camera.K[0, 0]),
            "focal_deviation_px": found.focal_deviation_px,
            "k1": float(found.camera.distortion[0]),
            "left_out": [
                {"point": wrong, "off_px": by_name[wrong] if np.isfinite(by_name[wrong]) else None}
                for wrong in found.outliers
            ],
            "notes": list(found.notes),
        }
    return facts
