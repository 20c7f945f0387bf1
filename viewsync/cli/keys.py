"""`viewsync keys`: CURVE keys for the hub, its agents and its subscribers, and the hub's allow-list."""

import json
from pathlib import Path

import click

from viewsync.errors import UserError


@click.group()
def command() -> None:
    """Make CURVE keys and the hub's allow-list.

    With CURVE, every connection is encrypted and authenticated: the hub accepts only keys on its allow-list,
    each agent only for its own views, and agents and subscribers only talk to the hub whose public key they
    hold.
    """


@command.command()
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path, file_okay=False), default="keys", show_default=True,
    help="Folder of the keys; made where it is missing.",
)  # fmt: skip
@click.option("--hub", "hub", is_flag=True, help="The hub's own key pair, and an empty allow-list.")
@click.option(
    "--agent", "agents", multiple=True, metavar="NAME", help="An agent; may be given several times."
)
@click.option("--site", default="default", show_default=True, help="Site of the agents.")
@click.option("--scene", help="Scene of the agents (the name in the bundle's scene.yaml).")
@click.option(
    "--views", help="Views the agent may send, separated by commas; without it the view named as the agent."
)
@click.option(
    "--subscriber", "subscribers", multiple=True, metavar="NAME", help="A subscriber; several times."
)
@click.option(
    "--force", is_flag=True, help="Replace the named secrets; whoever holds the old ones is locked out."
)
def make(
    folder: Path,
    hub: bool,
    agents: tuple[str, ...],
    site: str,
    scene: str | None,
    views: str | None,
    subscribers: tuple[str, ...],
    force: bool,
) -> None:
    """Make keys; what exists is kept, so the same command can be given again.

    \b
    viewsync keys make --hub
    viewsync keys make --agent north --agent south --scene plaza
    viewsync keys make --agent pi-7 --scene plaza --views east,west
    viewsync keys make --subscriber wall

    \b
    keys/hub.key             secret; stays with the hub (security.keys)
    keys/allow.yaml          stays with the hub (security.allow)
    keys/hub.pub             copy it to every agent and subscriber
    keys/agent-NAME.key      secret; move it to that agent
    keys/subscriber-NAME.key secret; move it to that subscriber
    """
    from viewsync.keys import Allowed, KeyFolder

    if not (hub or agents or subscribers):
        raise UserError("keys make: nothing to make; give --hub, --agent NAME or --subscriber NAME")
    if agents and not scene:
        raise UserError(
            "keys make: an agent's key is for one scene; give --scene NAME, as in the bundle's scene.yaml"
        )
    if views is not None and len(agents) != 1:
        raise UserError("keys make: --views goes with exactly one --agent; make the others by a command each")
    keys = KeyFolder(folder)
    if hub:
        _say(folder / "hub.key", keys.make_hub(force))
    for name in agents:
        sent = tuple(view.strip() for view in views.split(",")) if views else (name,)
        _say(
            folder / f"agent-{name}.key",
            keys.make_client(Allowed(name, "agent", site, scene or "", sent), force),
        )
    for name in subscribers:
        _say(folder / f"subscriber-{name}.key", keys.make_client(Allowed(name, "subscriber"), force))


@command.command("list")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path, file_okay=False), default="keys", show_default=True,
    help="Folder of the keys.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object per entry.")
def list_(folder: Path, as_json: bool) -> None:
    """Print who is on the allow-list, one line each."""
    from viewsync.keys import ALLOW, load_allow_list

    for key, entry in load_allow_list(folder / ALLOW).items():
        if as_json:
            facts: dict[str, object] = {"role": entry.role, "name": entry.name, "public": key}
            if entry.role == "agent":
                facts |= {"site": entry.site, "scene": entry.scene, "views": entry.views}
            click.echo(json.dumps(facts))
        else:
            rights = f" {entry.site}/{entry.scene} {','.join(entry.views)}" if entry.role == "agent" else ""
            click.echo(f"{entry.role} {entry.name}{rights} {key}")


def _say(path: Path, new: bool) -> None:
    click.echo(f"{path}: {'made' if new else 'kept (--force replaces it)'}")
