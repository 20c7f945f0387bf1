"""`viewsync calib check`: what is suspicious about a scene."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("scene", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--points", type=click.Path(path_type=Path, dir_okay=False), help="Marked points to hold the cameras to."
)
@click.option(
    "--frames",
    type=click.Path(path_type=Path),
    help="Folder with a picture or video of each view, named after it: north.png, east.mp4.",
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="VIEW=SOURCE",
    help="A picture, a video or rtsp://… of one view; may be given several times.",
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw it all into one file, .html or .png; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one line of JSON.")
def command(
    scene: Path,
    points: Path | None,
    frames: Path | None,
    sources: tuple[str, ...],
    reports: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Find what is suspicious about a scene: a camera below the ground, mirrored axes, wrong units, no
    overlap, points over 3 px off, pictures of another size. Exit code 2 if there is an error.

    \b
    viewsync calib check scene.yaml --points points.yaml --frames pictures --report report.html
    """
    from calib.errors import CalibError
    from calib.look.check import check
    from calib.points import load_points
    from calib.report import Looked, check_ending, write_report
    from calib.scene import load_scene
    from viewsync.cli.calib.pictures import first_pictures, gather

    for report in reports:
        check_ending(report)
    known = load_scene(scene)
    marked = load_points(points) if points is not None else ()
    pictures = first_pictures(gather(frames, sources))
    sizes = {view: (image.shape[1], image.shape[0]) for view, image in pictures.items()}
    checked = check(known, marked, sizes)
    looked = Looked(scene.name, known, marked, checked, pictures)
    for report in reports:
        write_report(looked, report)
    if as_json:
        rows = [
            {"severity": f.severity, "code": f.code, "view": f.view, "message": f.message}
            for f in checked.findings
        ]
        click.echo(json.dumps({"findings": rows, "reports": [str(report) for report in reports]}))
    else:
        for finding in checked.findings:
            click.echo(str(finding))
        if not checked.findings:
            click.echo(f"{scene}: nothing suspicious")
    if checked.errors:
        codes = ", ".join(dict.fromkeys(finding.code for finding in checked.errors))
        raise CalibError(f"{scene}: {len(checked.errors)} error(s) found ({codes}): correct them before use")
