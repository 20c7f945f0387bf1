"""Real people's tracks, live: simulated cameras over RTSP into the agents' own source, kept with the truth.

Each view has a process of its own, as in the field: `viewsync sim camera` pushes H.264 with sender reports,
and the reader is what `viewsync edge` reads with. What is kept is what arrived: frames with the capture times
that the sender reports gave, in the format of `viewsync.sim.dataset`.
"""

import os
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from edge.config import SourceSection
from edge.counts import EdgeCounts
from edge.source import open_source
from viewsync.demo.child import end_with_parent
from viewsync.demo.processes import Program, Supervisor, free_ports
from viewsync.errors import SourceError
from viewsync.sim.dataset import CrowdTruth, save_crowd, seen
from viewsync.sim.pets2009 import VIEWS, data_folder, scene, tracks
from viewsync.sim.render import Renderer
from viewsync.sim.scenes import from_scene
from viewsync.sim.track_crowd import TrackCrowd

# A third of PETS2009's own rate, so that every third of its frames is seen; views start a frame apart.
FPS = 7.0 / 3.0
PHASES_S = {view: number / 7.0 for number, view in enumerate(VIEWS)}
# Before time 0 the programs start and connect, which takes longer on a busy machine; then the last frame's
# way.
_START_S, _END_S = 20.0, 3.0


@dataclass(frozen=True, slots=True)
class _Job:
    """One view of one recording."""

    view: str
    sequence: str
    casting: int
    seconds: float
    epoch_ns: int
    port: int


def record(
    folder: Path, sequence: str, casting: int, seconds: float | None = None, start_s: float = _START_S
) -> None:
    """Play a sequence in real time and keep it as crowd `casting` in `folder`/`sequence`.

    casting: seed of clothes, light and the cameras' looks; seconds: how much of it, None for all; start_s:
    time for the programs to start. Truth covers all identities; whoever is absent at an instant has NaN for a
    place. Raises ConfigError or SourceError where the data folder or a stream cannot be read.
    """
    data = data_folder()
    crowd = TrackCrowd(tracks(data, sequence), casting)
    lasts_s = crowd.tracks.duration_s if seconds is None else min(seconds, crowd.tracks.duration_s)
    epoch_ns = time.time_ns() + round(start_s * 1e9)
    jobs = [
        _Job(view, sequence, casting, lasts_s, epoch_ns, port)
        for view, port in zip(VIEWS, free_ports(len(VIEWS)), strict=True)
    ]
    with ProcessPoolExecutor(len(jobs), get_context("spawn"), end_with_parent, (os.getpid(),)) as pool:
        views = list(pool.map(_record_view, jobs))
    count = min(len(times) for times, _ in views)
    if not count:
        raise SourceError(f"{sequence}: a camera's frames did not arrive; try again on a less busy machine")
    times_s = np.stack([times[:count] for times, _ in views])
    pictures = np.stack([images[:count] for _, images in views])
    save_crowd(folder / sequence, casting, pictures, _truth(crowd, casting, times_s))


def _record_view(job: _Job) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Capture times (F,) in seconds of the sequence and pictures (F, H, W, 3) of one view."""
    url = f"rtsp://127.0.0.1:{job.port}/{job.view}"
    arguments = [
        *("sim", "camera", "--scene", "pets2009", "--tracks", job.sequence, "--view", job.view),
        *("--seed", str(job.casting), "--epoch-ns", str(job.epoch_ns), "--url", url),
        *("--fps", repr(FPS), "--phase", repr(PHASES_S[job.view])),
    ]
    counts = EdgeCounts(CollectorRegistry())
    settings = SourceSection(url=url, listen=True, reconnect_max_s=0.5)
    source = open_source(settings, job.view, 30.0, None, counts, time.time_ns)
    left_s = (job.epoch_ns - time.time_ns()) * 1e-9 + job.seconds + _END_S
    end = threading.Timer(left_s, source.close)
    times: list[float] = []
    images: list[NDArray[np.uint8]] = []
    camera = Program(f"camera-{job.view}", tuple(arguments))
    with (
        tempfile.TemporaryDirectory(prefix="viewsync-recording-") as logs,
        Supervisor([camera], Path(logs)) as programs,
    ):
        programs.start(time.monotonic())
        source.start()
        end.start()
        try:
            for frame in source.frames():
                at_s = (frame.capture_ns - job.epoch_ns) * 1e-9
                # Only frames that the camera's sender reports dated.
                if frame.clock == "rtcp" and 0.0 <= at_s <= job.seconds:
                    times.append(at_s)
                    images.append(frame.image)
        finally:
            end.cancel()
            source.close()
    return np.array(times), np.array(images, np.uint8)


def _truth(crowd: TrackCrowd, casting: int, times_s: NDArray[np.float64]) -> CrowdTruth:
    place = from_scene(scene(data_folder()))
    xy = np.empty((*times_s.shape, crowd.people, 2))
    visible = np.zeros(xy.shape[:3], bool)
    for v, view in enumerate(VIEWS):
        renderer = Renderer(place, view, casting)
        for f, at_s in enumerate(times_s[v]):
            state = crowd.state(float(at_s))
            xy[v, f] = state.xy
            visible[v, f] = seen(*renderer.visible_pixels(state, crowd.appearance))
    return CrowdTruth(VIEWS, times_s, xy, visible)
