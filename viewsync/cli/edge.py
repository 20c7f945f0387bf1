"""`viewsync edge`: one camera's frames in, its features to the hub."""

import os
from pathlib import Path

import click


@click.command()
@click.argument("source", required=False)
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="YAML file; see docs/edge.md."
)
@click.option("--view", help="Which of the bundle's views this camera is (view).")
@click.option("--hub", help="The hub's address (hub.endpoint), such as tcp://192.168.1.10:5555.")
@click.option("--bundle", help="Bundle folder or .zip (bundle).")
@click.option("--rate", help="Frames per second, 0.2 to 30 (rate_hz).")
@click.option("--site", help="Name of this installation (site).")
@click.option("--listen", is_flag=True, help="Wait at SOURCE for a camera that pushes (source.listen).")
@click.option("--loop", is_flag=True, help="Play a recording again and again (source.loop).")
@click.option(
    "--keys", metavar="DIR", help="Folder of agent-VIEW.key and hub.pub: turns CURVE on (security)."
)
@click.option("--health-port", help="Port of metrics and health (health.port).")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any other key of the configuration."
)
def command(
    source: str | None,
    config: Path | None,
    view: str | None,
    hub: str | None,
    bundle: str | None,
    rate: str | None,
    site: str | None,
    listen: bool,
    loop: bool,
    keys: str | None,
    health_port: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Run the agent of one camera until Ctrl-C.

    SOURCE is rtsp://user:password@host/path, a video file, a folder of images, or /dev/video0 (source.url).

    \b
    viewsync edge rtsp://10.0.0.5/stream1 --view north --hub tcp://10.0.0.1:5555 --bundle BUNDLE --keys keys
    viewsync edge --config edge.yaml --set rate_hz=0.5
    """
    from edge.agent import run
    from edge.config import EdgeConfig
    from viewsync.cli.stop import stopping
    from viewsync.config import Flag, load_config

    flags = [
        Flag("SOURCE, such as rtsp://10.0.0.5/stream1", "source.url", source),
        Flag("--listen", "source.listen", "true" if listen else None),
        Flag("--loop", "source.loop", "true" if loop else None),
        Flag("--view", "view", view),
        Flag("--hub", "hub.endpoint", hub),
        Flag("--bundle", "bundle", bundle),
        Flag("--rate", "rate_hz", rate),
        Flag("--site", "site", site),
        Flag("--health-port", "health.port", health_port),
    ]
    if keys is not None:
        # The key's name is the view's, unless it was made under another: then --set security.keys=FILE.
        name = view
        if name is None:
            name = load_config(EdgeConfig, config, overrides, os.environ, flags).view
        flags += [
            Flag("--keys", "security.keys", str(Path(keys) / f"agent-{name}.key")),
            Flag("--keys", "security.hub_key", str(Path(keys) / "hub.pub")),
        ]
    run(load_config(EdgeConfig, config, overrides, os.environ, flags), stopping())
