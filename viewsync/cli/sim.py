"""`viewsync sim`: simulated crowds and cameras."""

import dataclasses
import json
import time
from pathlib import Path

import click

from viewsync.cli.crowds import crowd_range, make_missing, make_missing_rigs
from viewsync.cli.sim_pets2009 import command as pets2009_command
from viewsync.cli.sim_site import link, up
from viewsync.cli.sim_sweep import sweep
from viewsync.cli.sim_world import site_camera, uplink, watch, world
from viewsync.cli.stop import default_signals, stopping


@click.group(name="sim")
def command() -> None:
    """Simulated crowds and cameras."""


def _clock_steps(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[float, float], ...]:
    steps = []
    for value in values:
        try:
            at_s, by_s = (float(part) for part in value.split(":"))
        except ValueError:
            raise click.BadParameter(f"{value!r} is not like 20:-3 (at 20 s, set back by 3 s)") from None
        steps.append((at_s, by_s))
    return tuple(sorted(steps))


for sub_command in (pets2009_command, world, site_camera, uplink, watch, link, up, sweep):
    command.add_command(sub_command)


@command.command()
@click.option(
    "--scene", default="plaza", show_default=True, help="plaza, a scene.yaml, or pets2009 (real cameras)."
)
@click.option("--view", required=True, help="Which of the scene's cameras to be.")
@click.option("--people", type=click.IntRange(1), default=40, show_default=True, help="Size of the crowd.")
@click.option(
    "--tracks", metavar="SEQUENCE", help="Instead of a crowd, PETS2009's real people, such as S2L1."
)
@click.option("--seed", type=click.IntRange(0), required=True, help="Which crowd; same seed, same pictures.")
@click.option(
    "--epoch-ns",
    type=click.IntRange(0),
    help="UTC time, in nanoseconds, of the crowd's time 0; cameras of one crowd need the same [now].",
)
@click.option(
    "--fps",
    type=click.FloatRange(0, 60, min_open=True),
    default=1.0,
    show_default=True,
    help="Frames per second.",
)
@click.option(
    "--phase", "phase_s", type=click.FloatRange(0), default=0.0, show_default=True, help="Time of frame 0, s."
)
@click.option(
    "--drop",
    "drop_rate",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of frames lost.",
)
@click.option(
    "--clock-offset",
    "offset_s",
    type=float,
    default=0.0,
    show_default=True,
    help="How far the camera's clock is ahead, s.",
)
@click.option(
    "--clock-drift-ppm",
    "drift_ppm",
    type=click.FloatRange(-100_000, 100_000),
    default=0.0,
    show_default=True,
    help="How much too fast the camera's clock runs.",
)
@click.option(
    "--clock-step",
    "steps",
    metavar="AT_S:BY_S",
    callback=_clock_steps,
    multiple=True,
    help="At a time (s), set the camera's clock by so much (s); may be repeated.",
)
@click.option(
    "--crowd-state",
    "state_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the crowd's state in this file: a camera that is started again goes on from there.",
)
@click.option("--url", required=True, help="Where the reader listens, or with --server, where to serve.")
@click.option("--server", is_flag=True, help="Be an RTSP server that readers pull from (needs GStreamer).")
def camera(
    scene: str,
    view: str,
    people: int,
    tracks: str | None,
    seed: int,
    epoch_ns: int | None,
    fps: float,
    phase_s: float,
    drop_rate: float,
    offset_s: float,
    drift_ppm: float,
    steps: tuple[tuple[float, float], ...],
    state_file: Path | None,
    url: str,
    server: bool,
) -> None:
    """Be one camera of a simulated crowd, live: H.264 over RTSP with sender reports.

    The stream is pushed to a reader that listens (`viewsync edge` with rtsp_listen), again and again until
    one is there. Capture times in the sender reports come from the camera's own clock, which may be wrong.
    """
    from viewsync.errors import ConfigError
    from viewsync.sim import pets2009
    from viewsync.sim.camera_clock import CameraClock, FrameSchedule
    from viewsync.sim.crowd import Crowd
    from viewsync.sim.kept_crowd import KeptCrowd
    from viewsync.sim.live import RtspPush, SimulatedCamera
    from viewsync.sim.render import Renderer
    from viewsync.sim.rtsp_server import RtspServed
    from viewsync.sim.scenes import from_scene, load
    from viewsync.sim.track_crowd import TrackCrowd

    stop = stopping()
    place = from_scene(pets2009.scene(pets2009.data_folder())) if scene == "pets2009" else load(scene)
    if view not in place.scene.cameras:
        known = ", ".join(place.scene.cameras)
        raise ConfigError(f"--view {view}: scene {place.scene.name} has no such camera; it has {known}")
    try:
        clock = CameraClock(offset_s, drift_ppm, steps)
        schedule = FrameSchedule(fps, phase_s, drop_rate, seed)
    except ValueError as error:
        raise ConfigError(f"{error}; correct the option") from error
    renderer = Renderer(place, view, seed)
    crowd: Crowd | KeptCrowd | TrackCrowd
    if tracks is None:
        crowd = Crowd(place.walk_area, people, seed, place.obstacles)
        if state_file is not None:
            crowd = KeptCrowd(crowd, state_file)
    else:
        crowd = TrackCrowd(pets2009.tracks(pets2009.data_folder(), tracks), seed)
    lens = renderer.camera
    stream = (RtspServed if server else RtspPush)(url, lens.width, lens.height, fps)
    epoch_ns = time.time_ns() if epoch_ns is None else epoch_ns
    SimulatedCamera(
        view,
        lambda true_s: renderer.render(crowd.state(true_s), crowd.appearance),
        clock,
        schedule,
        epoch_ns,
        stream,
        default_signals,
    ).run(stop)


@command.command()
@click.option("--scene", default="plaza", show_default=True, help="A built-in scene, or a scene.yaml.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the crowds."
)
@click.option(
    "--crowds", metavar="A:B", callback=crowd_range, required=True, help="Which crowds: seeds A to B - 1."
)
@click.option(
    "--workers", type=click.IntRange(1), default=2, show_default=True, help="How many to make at a time."
)
@click.option(
    "--frames", type=click.IntRange(1), default=12, show_default=True, help="Frames per crowd and view."
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Time between a view's frames, s.",
)
@click.option("--together", is_flag=True, help="All views at the same instants, for methods that need those.")
def dataset(
    scene: str, out: Path, crowds: range, workers: int, frames: int, interval_s: float, together: bool
) -> None:
    """Make crowds to train on or to test with: frames that went through the video codec, and the truth.

    Crowds that are there already are kept, so an interrupted run goes on where it stopped.
    """
    from viewsync.sim.dataset import Filming

    make_missing(scene, out, crowds, workers, Filming(frames, interval_s, together))
    click.echo(f"{out}: {len(crowds)} crowds", err=True)


@command.command()
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the rigs."
)
@click.option(
    "--rigs", metavar="A:B", callback=crowd_range, required=True, help="Which rigs: numbers A to B - 1."
)
@click.option(
    "--crowds",
    type=click.IntRange(1, 100),
    default=2,
    show_default=True,
    help="Crowds of each rig, in other clothes and light.",
)
@click.option(
    "--workers", type=click.IntRange(1), default=2, show_default=True, help="How many to make at a time."
)
@click.option(
    "--frames", type=click.IntRange(1), default=6, show_default=True, help="Frames per crowd and view."
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Time between a view's frames, s.",
)
def rigs(out: Path, rigs: range, crowds: int, workers: int, frames: int, interval_s: float) -> None:
    """Make random camera layouts with crowds, to train a model that serves rigs it never saw.

    A rig is a pure function of its number. What is there already is kept, so an interrupted run goes on.
    """
    make_missing_rigs(out, rigs, crowds, frames, interval_s, workers)
    click.echo(f"{out}: {len(rigs)} rigs, {len(rigs) * crowds} crowds", err=True)


@command.command()
@click.option("--scene", default="plaza", show_default=True, help="A built-in scene, or a scene.yaml.")
@click.option("--people", type=click.IntRange(1), default=40, show_default=True, help="Size of the crowds.")
@click.option(
    "--crowds", metavar="A:B", callback=crowd_range, default="0:8", show_default=True, help="Which crowds."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def describe(scene: str, people: int, crowds: range, as_json: bool) -> None:
    """Print how hard a scene is: what views hide, how people move, how alike they look, frames per second."""
    from viewsync.sim import describe as figures
    from viewsync.sim.scenes import load

    found = figures.describe(load(scene), crowds, people=people, timed_frames=60)
    click.echo(json.dumps(dataclasses.asdict(found)) if as_json else "\n".join(figures.lines(found)))
