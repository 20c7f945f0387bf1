"""`viewsync calib import`: calibration files of other programs and data sets -> scene.yaml."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from calib.ground import GroundGrid
    from calib.rig import Rig
    from calib.scene import Scene

_FORMATS = (
    *("auto", "pets2009", "wildtrack", "citystreet", "opencv", "easymocap", "aniposelib", "caliscope"),
    *("qualisys", "epfl", "campus", "shelf", "panoptic", "human36m", "colmap", "kalibr"),
)
# Where bodies are in a column above the ground, which `heights_m` samples.
_HEIGHTS_M = (0.1, 0.45, 0.85, 1.2, 1.5, 1.75)


def _unit(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    from calib.formats.foreign import UNITS_M

    if value is None:
        return None
    try:
        metres = UNITS_M[value] if value in UNITS_M else float(value)
    except ValueError:
        metres = 0.0
    if not 0 < metres < 1e6:
        raise click.BadParameter(f"{value!r} is neither one of {', '.join(UNITS_M)} nor metres per unit")
    return metres


def _image_size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    wide, _, high = value.lower().partition("x")
    if not (wide.isdigit() and high.isdigit()):
        raise click.BadParameter(f"{value!r} is not like 1920x1080")
    return int(wide), int(high)


def _rectangle(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise click.BadParameter(f"{value!r} is not x,y,width,height in metres, like -3,-9,12,36")
    return numbers


@click.command(name="import")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format",
    type=click.Choice(_FORMATS),
    default="auto",
    show_default=True,
    help="What they are.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The scene.yaml to write.")
@click.option("--name", help="The scene's name [that of --out].")
@click.option("--unit", callback=_unit, help="The files' unit: m, dm, cm, mm, ft, in, or metres per unit.")
@click.option(
    "--up", type=click.Choice(["z", "-z", "y", "-y", "x", "-x"]), help="Which of the files' axes points up."
)
@click.option(
    "--raise", "raise_m", type=float, default=0.0, help="How far above the ground the files' height 0 is, m."
)
@click.option("--size", callback=_image_size, help="Image size where the files lack it, like 1920x1080.")
@click.option("--cameras", metavar="A,B…", help="Only these cameras, by the names that the files have.")
@click.option("--which", help="Which rig of a file that holds several, such as Human3.6M's subject S1.")
@click.option(
    "--ground",
    metavar="X,Y,W,H",
    callback=_rectangle,
    help="Ground to give answers on: corner, width along x, height along y, m [what the cameras share].",
)
@click.option("--force", is_flag=True, help="Replace --out even where that loses something.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def command(
    files: tuple[Path, ...],
    format: str,
    out: Path | None,
    name: str | None,
    unit: float | None,
    up: str | None,
    raise_m: float,
    size: tuple[int, int] | None,
    cameras: str | None,
    which: str | None,
    ground: tuple[float, float, float, float] | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make a scene.yaml of calibration files, or folders of them, of any known format.

    Prints what was found: format, unit, axes, handedness, image sizes, cameras and ground. Without --out,
    only that.
    """
    from calib.formats import read_rig
    from calib.formats.foreign import Wishes
    from calib.look.common_view import common_ground, grid_over
    from calib.scene import Scene

    only = tuple(part.strip() for part in cameras.split(",")) if cameras else ()
    rig = read_rig(files, format, Wishes(unit, up, size, only, which, raise_m))
    grid = grid_over(*ground) if ground is not None else common_ground(rig.cameras)
    notes = (*rig.notes, _ground_note(grid, ground is not None))
    scene = Scene(name or _scene_name(out, files), rig.cameras, grid, _HEIGHTS_M, {})
    if out is not None:
        _save(scene, out, force)
    if as_json:
        click.echo(json.dumps(_facts(rig, grid, notes, out)))
    else:
        click.echo(
            "\n".join([*notes, *_table(rig), *([f"{out}: {len(rig.cameras)} cameras"] if out else [])])
        )


def _scene_name(out: Path | None, files: tuple[Path, ...]) -> str:
    from calib.rig import is_usable_name

    stem = (out or files[0]).stem
    return stem if is_usable_name(stem) else "scene"


def _save(scene: "Scene", out: Path, force: bool) -> None:
    from calib.errors import CalibError
    from calib.saving import save_checked
    from calib.scene import load_scene

    if out.exists() and not force:
        old = load_scene(out)
        lost = [
            what
            for what, there in (("zones", old.zones), ("a region", old.region), ("occluders", old.occluders))
            if there is not None and len(there)
        ]
        if lost:
            raise CalibError(
                f"{out} was not overwritten: it has {' and '.join(lost)}, which an import does not; save "
                "elsewhere, or use --force"
            )
    save_checked(scene, out, force=force)


def _ground_note(grid: "GroundGrid", said: bool) -> str:
    x0, y0 = grid.origin_x_m, grid.origin_y_m
    x1, y1 = x0 + grid.columns * grid.cell_m, y0 + grid.rows * grid.cell_m
    why = "as you say" if said else "what the cameras see best together; --ground chooses another"
    return (
        f"ground grid: x {x0:g} to {x1:g} m, y {y0:g} to {y1:g} m, {grid.columns}x{grid.rows} cells of "
        f"{grid.cell_m:g} m ({why})"
    )


def _table(rig: "Rig") -> list[str]:
    widest = max(6, *map(len, rig.cameras))
    lines = [f"{'camera':{widest}}  image      focal px  centre x, y, z (m)"]
    for name, camera in rig.cameras.items():
        x, y, z = camera.centre
        size = f"{camera.width}x{camera.height}"
        lines.append(f"{name:{widest}}  {size:9}  {camera.K[0, 0]:8.0f}  {x:.2f}, {y:.2f}, {z:.2f}")
    return lines


def _facts(rig: "Rig", grid: "GroundGrid", notes: tuple[str, ...], out: Path | None) -> dict[str, Any]:
    return {
        "scene": str(out) if out is not None else None,
        "notes": list(notes),
        "cameras": {
            name: {
                "width_px": camera.width,
                "height_px": camera.height,
                "focal_px": [camera.K[0, 0], camera.K[1, 1]],
                "centre_m": camera.centre.tolist(),
            }
            for name, camera in rig.cameras.items()
        },
        "ground": {
            "origin_m": [grid.origin_x_m, grid.origin_y_m],
            "cell_m": grid.cell_m,
            "columns": grid.columns,
            "rows": grid.rows,
        },
    }
