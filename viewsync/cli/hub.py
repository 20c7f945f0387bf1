"""`viewsync hub`: newest features of every view in, predictions out."""

import os
from pathlib import Path

import click


@click.command()
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="YAML file; see docs/hub.md.")
@click.option("--bundle", help="Bundle folder or .zip (bundle).")
@click.option("--site", help="Name of this installation (site).")
@click.option("--bind", help="Address for agents (bind), such as tcp://0.0.0.0:5555.")
@click.option("--outputs", help="Address for subscribers (outputs.bind).")
@click.option("--keys", metavar="DIR", help="Folder of hub.key and allow.yaml: turns CURVE on (security).")
@click.option("--graph", help="Graph of the bundle that answers (model.graph).")
@click.option(
    "--compare", multiple=True, metavar="GRAPH", help="A further graph to count with (model.compare)."
)
@click.option("--provider", help="cpu or cuda (model.provider).")
@click.option("--reference", metavar="VIEW|POLICY", help="A view, or median or freshest (reference).")
@click.option("--health-port", help="Port of metrics and health (health.port).")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any other key of the configuration."
)
def command(
    config: Path | None,
    bundle: str | None,
    site: str | None,
    bind: str | None,
    outputs: str | None,
    keys: str | None,
    graph: str | None,
    compare: tuple[str, ...],
    provider: str | None,
    reference: str | None,
    health_port: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Run the hub until Ctrl-C: it counts whenever a view has something new.

    \b
    viewsync hub --bundle demo-bundle
    viewsync hub --config hub.yaml --set rate.max_rate_hz=2
    """
    from hub.config import HubConfig
    from hub.server import run
    from viewsync.cli.stop import stopping
    from viewsync.config import Flag, load_config
    from viewsync.keys import ALLOW

    by_rule = reference in ("median", "freshest")
    flags = [
        Flag("--bundle", "bundle", bundle),
        Flag("--site", "site", site),
        Flag("--bind", "bind", bind),
        Flag("--outputs", "outputs.bind", outputs),
        Flag("--keys", "security.keys", keys and str(Path(keys) / "hub.key")),
        Flag("--keys", "security.allow", keys and str(Path(keys) / ALLOW)),
        Flag("--graph", "model.graph", graph),
        Flag("--compare", "model.compare", f"[{', '.join(compare)}]" if compare else None),
        Flag("--provider", "model.provider", provider),
        Flag("--reference", "reference.policy", reference if by_rule else reference and "fixed"),
        Flag("--reference", "reference.view", None if by_rule else reference),
        Flag("--health-port", "health.port", health_port),
    ]
    run(load_config(HubConfig, config, overrides, os.environ, flags), stopping())
