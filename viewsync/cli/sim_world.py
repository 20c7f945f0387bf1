"""`viewsync sim world | site-camera | uplink | watch`: a simulated site in parts."""

import json
import logging
import secrets
import time
from pathlib import Path

import click

from viewsync.cli.stop import default_signals, stopping
from viewsync.errors import KeysError, UserError, WireError
from viewsync.prediction import Prediction, Status, summary

_log = logging.getLogger(__name__)

# A stop signal is noticed this late; messages are printed as they come.
_STOP_CHECK_S = 0.25
# No hub for so long is worth a line.
_SILENCE_S = 10.0

_world = click.option(
    "--world",
    "world_path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File of `viewsync sim world`.",
)
_profile = click.option(
    "--profile", default="lan", show_default=True, help="Network profile: says how the cameras are."
)


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write."
)
@click.option("--scene", default="plaza", show_default=True, help="plaza, or the path of a scene.yaml.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Which crowds [random].")
@click.option("--people", type=click.IntRange(1, 500), help="How many walk about [another number each era].")
def world(out: Path, scene: str, seed: int | None, people: int | None) -> None:
    """Choose what really happens at a simulated site: for its cameras and the subscriber that judges.

    One crowd walks for a quarter of an hour, then comes another. A file that is there already is kept.
    """
    from viewsync.lab.world import World, load_world, save_world
    from viewsync.sim.scenes import load

    load(scene)
    if out.exists():
        load_world(out)
        click.echo(f"{out}: kept (remove it for another world)")
        return
    save_world(World(scene=scene, seed=secrets.randbits(32) if seed is None else seed, people=people), out)
    click.echo(f"{out}: made")


@click.command("site-camera")
@_world
@_profile
@click.option("--view", required=True, help="Which of the scene's cameras to be.")
@click.option("--url", required=True, help="Where the reader listens, or with --server, where to serve.")
@click.option("--server", is_flag=True, help="Be an RTSP server that readers pull from (needs GStreamer).")
def site_camera(world_path: Path, profile: str, view: str, url: str, server: bool) -> None:
    """Be one camera of a simulated site, live, for as long as it runs: H.264 over RTSP with sender reports.

    Rate, phase, losses, deaths and the camera's own clock are the profile's, the crowd is the world's.
    """
    from viewsync.errors import ConfigError
    from viewsync.lab.profile import load_profile
    from viewsync.lab.world import load_world, run_camera
    from viewsync.sim.live import RtspPush
    from viewsync.sim.rtsp_server import RtspServed
    from viewsync.sim.scenes import load

    stop = stopping()
    found, conditions = load_world(world_path), load_profile(profile)
    place = load(found.scene)
    if view not in place.scene.cameras:
        known = ", ".join(place.scene.cameras)
        raise ConfigError(f"--view {view}: scene {place.scene.name} has no such camera; it has {known}")
    lens = place.scene.cameras[view]
    fps = conditions.of_views(tuple(place.scene.cameras))[view].camera.fps
    kind = RtspServed if server else RtspPush
    run_camera(
        found,
        place,
        conditions,
        view,
        lambda: kind(url, lens.width, lens.height, fps),
        default_signals,
        stop,
    )


@click.command()
@_profile
@click.option("--view", required=True, help="Whose link to be.")
@click.option(
    "--scene", default="plaza", show_default=True, help="Its cameras are the views: plaza, or a scene.yaml."
)
@click.option("--listen", default="127.0.0.1:5555", show_default=True, help="HOST:PORT for the agent.")
@click.option("--to", "target", required=True, help="HOST:PORT of the hub.")
def uplink(profile: str, view: str, scene: str, listen: str, target: str) -> None:
    """Be the link between one agent and the hub, as bad as the profile says.

    Through Linux's netem where the kernel has it and this program may use it (it says so), else through a
    relay of our own.
    """
    from viewsync.errors import ConfigError
    from viewsync.lab.link.uplink import address, run
    from viewsync.lab.profile import load_profile
    from viewsync.sim.scenes import load

    stop = stopping()
    views = tuple(load(scene).scene.cameras)
    if view not in views:
        raise ConfigError(f"--view {view}: scene {scene} has no such camera; it has {', '.join(views)}")
    run(load_profile(profile), views, view, address(listen, "--listen"), address(target, "--to"), stop)


@click.command()
@click.argument("endpoint", default="tcp://127.0.0.1:5556")
@_world
@_profile
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after this long [never].")
@click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False), help="Own secret, subscriber-NAME.key."
)
@click.option("--hub-key", type=click.Path(path_type=Path, dir_okay=False), help="The hub's hub.pub.")
@click.option("--health-host", default="127.0.0.1", show_default=True, help="Address of metrics and health.")
@click.option("--health-port", type=click.IntRange(0, 65535), help="Their port [no HTTP server].")
def watch(
    endpoint: str,
    world_path: Path,
    profile: str,
    as_json: bool,
    seconds: float | None,
    key: Path | None,
    hub_key: Path | None,
    health_host: str,
    health_port: int | None,
) -> None:
    """Print what the hub at ENDPOINT counts beside how many are really there, until Ctrl-C.

    The truth is worked out here, from the world and the profile that the cameras were given too; hub and
    agents have neither.
    """
    from contextlib import ExitStack

    from prometheus_client import CollectorRegistry

    from viewsync.client import Subscriber
    from viewsync.demo.score import Score
    from viewsync.demo.table import line
    from viewsync.health import HealthServer
    from viewsync.keys import load_client_keys
    from viewsync.lab.profile import load_profile
    from viewsync.lab.watch import WatchMetrics
    from viewsync.lab.world import Truths, load_world
    from viewsync.sim.scenes import load

    if (key is None) != (hub_key is None):
        raise KeysError("watch: give both --key and --hub-key, or neither for a hub without CURVE")
    keys = load_client_keys(key, hub_key) if key is not None and hub_key is not None else None
    found = load_world(world_path)
    truths = Truths(found, load(found.scene), load_profile(profile))
    stop = stopping()
    start_s = time.monotonic()
    metrics = WatchMetrics(CollectorRegistry(), time.monotonic_ns())
    score: Score | None = None
    heard_s = said_s = start_s
    with ExitStack() as stack:
        if health_port is not None:
            server = HealthServer(
                health_host, health_port, metrics.registry, lambda: metrics.health(time.monotonic_ns())
            )
            stack.callback(server.close)
            _log.info("metrics and health: http://%s:%d", server.host, server.port)
        hub = stack.enter_context(Subscriber(endpoint, keys))
        while not stop.is_set() and (seconds is None or time.monotonic() - start_s < seconds):
            message: Prediction | Status | None = None
            try:
                message = hub.receive(_STOP_CHECK_S)
            except (UserError, WireError) as error:
                # The hub's keys, or its version, may change while this waits.
                _log.warning("%s: %s", endpoint, error)
            now_s = time.monotonic()
            if message is None:
                if now_s - max(heard_s, said_s) > _SILENCE_S:
                    said_s = now_s
                    _log.warning("%s: nothing from the hub for %.0f s", endpoint, now_s - heard_s)
                continue
            heard_s = now_s
            truth = truths.of(message) if isinstance(message, Prediction) else None
            metrics.take(message, truth, time.monotonic_ns())
            if as_json:
                click.echo(json.dumps(summary(message) | {"truth": truth}))
            elif isinstance(message, Status):
                click.echo(f"{now_s - start_s:6.1f} s  no answer: {'; '.join(message.reasons)}")
            else:
                click.echo(line(now_s - start_s, message, truth))
            if isinstance(message, Prediction):
                score = score or Score(message.synchroniser)
                score.add(message, truth)
    if not as_json:
        click.echo(score.verdict() if score else "The hub answered nothing.")
