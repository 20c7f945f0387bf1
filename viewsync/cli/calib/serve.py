"""`viewsync calib serve`: the calibration page."""

from pathlib import Path

import click


@click.command()
@click.argument("scene", type=click.Path(path_type=Path, dir_okay=False))
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
    "--points",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of marked points to edit [points.yaml beside the scene].",
)
@click.option(
    "--lens",
    "lenses",
    multiple=True,
    metavar="VIEW=FILE",
    help="Intrinsics of a view that has no pose yet: a file of `viewsync calib intrinsics`, or a scene.yaml; "
    "may be given several times.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8070, show_default=True, help="Port; 0: any free one."
)
def command(
    scene: Path,
    frames: Path | None,
    sources: tuple[str, ...],
    points: Path | None,
    lenses: tuple[str, ...],
    host: str,
    port: int,
) -> None:
    """Look at a calibration and work on it in a browser, until Ctrl-C.

    SCENE is the scene.yaml to edit; if there is none yet, it is made from the pictures given. Nothing is
    written before you save on the page. The page works offline and listens on this computer only, unless
    --host says otherwise; whoever reaches it can change and save the scene.

    \b
    viewsync calib serve scene.yaml --frames pictures
    viewsync calib serve scene.yaml --source north=rtsp://10.0.0.5/stream1 --source east=east.mp4
    """
    import asyncio
    import logging
    import time

    from calib.errors import CalibError
    from calib.page.draft import Draft
    from calib.page.pictures import Shots
    from calib.page.server import Files, serve
    from calib.points import load_points
    from calib.scene import load_scene
    from viewsync.cli.calib.lenses import read_lenses
    from viewsync.cli.calib.pictures import gather
    from viewsync.cli.stop import stopping
    from viewsync.errors import ConfigError

    log = logging.getLogger(__name__)
    known = load_scene(scene) if scene.exists() else None
    kept_at = points or scene.with_name("points.yaml")
    marked = load_points(kept_at) if kept_at.exists() else ()
    known_lenses = read_lenses(lenses)
    pictures = gather(frames, sources)
    for view in known_lenses:
        if view not in pictures and (known is None or view not in known.cameras):
            raise ConfigError(f"--lens {view}: there is no such view; give its picture with --source")
    if known is None and not pictures:
        raise ConfigError(f"{scene} does not exist yet: give --frames or --source to make it from pictures")
    stop = stopping()
    shots = Shots(pictures)
    shots.first_sizes()
    # A live camera without a pose: its pictures' size is not known before the first.
    for view in pictures:
        deadline = time.monotonic() + 15
        while view not in shots.sizes and (known is None or view not in known.cameras):
            try:
                shots.image(view, 0.0)
            except CalibError as error:
                if stop.wait(0.2) or time.monotonic() > deadline:
                    raise ConfigError(str(error)) from None
    name = "".join(c if c.isalnum() or c in "_.-" else "-" for c in scene.resolve().parent.name).strip("_.-")
    draft = Draft.of(name[:64] or "scene", known, marked, shots.sizes, known_lenses)
    if host not in ("127.0.0.1", "localhost", "::1"):
        log.warning("whoever reaches %s can change and save %s; use 127.0.0.1 and an SSH tunnel", host, scene)
    asyncio.run(
        serve(
            draft,
            shots,
            Files(scene, kept_at),
            host,
            port,
            stop.is_set,
            lambda address: log.info("the calibration page is at %s (Ctrl-C ends it)", address),
            new=known is None,
        )
    )
