"""`viewsync calib export`: a scene's cameras in another program's format."""

from pathlib import Path

import click


@click.command(name="export")
@click.argument("scene", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format",
    type=click.Choice(["opencv", "aniposelib", "colmap"]),
    required=True,
    help="OpenCV's FileStorage, aniposelib's TOML, or COLMAP's text model.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The file, by its ending .yaml, .xml or .json for opencv; for colmap a folder.",
)
def command(scene: Path, format: str, out: Path) -> None:
    """Write the cameras of a scene.yaml for another program: metres, right-handed, z up, as in the scene.

    Ground grid, zones and whatever else a scene has beside its cameras stay behind.
    """
    from calib.errors import CalibError
    from calib.formats import write_rig
    from calib.rig import Rig
    from calib.scene import load_scene

    rig = Rig(load_scene(scene).cameras)
    if out.resolve() == scene.resolve():
        raise CalibError(f"{out}: is the scene itself: write elsewhere")
    for path in write_rig(rig, out, format):
        click.echo(path)
