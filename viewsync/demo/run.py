"""The demonstration: cameras, agents and hub as separate processes, and this one, which knows the truth.

Frames go over RTSP and features over ZeroMQ, as in the field. What this process does besides starting the
others is to listen to the hub's predictions and to print the truth beside them.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from calib.scene import save_scene
from viewsync.bundle import Bundle
from viewsync.client import Subscriber
from viewsync.demo.counters import Counters
from viewsync.demo.processes import Program, Supervisor, free_ports
from viewsync.demo.score import NOT_SYNCHRONISED, REFERENCE_ONLY, Score
from viewsync.demo.truth import CameraPlan, Truth, plan_cameras
from viewsync.errors import InternalError, WireError
from viewsync.prediction import Prediction
from viewsync.sim.scenes import SimScene, load

_log = logging.getLogger(__name__)

# In the repository, beside the packages: the demo runs from a clone.
DEMO_BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "plaza"

_WAIT_S = 0.25
_COUNTERS_EVERY_S = 3.0
# Seven processes that start at once on two busy cores need their time.
_FIRST_ANSWER_S = 120.0
_RECENT = 20
# From exposure to arrival a simulated camera next door takes a tenth of a second, more on a busy machine.
_ALLOWANCE_MS = 400


@dataclass(frozen=True, slots=True)
class Settings:
    """seconds: to go on after the first answer, None until stopped; server: cameras behind a real RTSP
    server; logs: folder for what the programs are told and say, None: it is thrown away; tracks: a PETS2009
    sequence whose people walk about instead of a crowd.
    """

    bundle: Path
    seed: int
    people: int
    seconds: float | None = None
    server: bool = False
    logs: Path | None = None
    tracks: str | None = None


class Shows(Protocol):
    """Where the demo is watched."""

    def update(self, demo: Demo) -> None:
        """Called several times a second."""

    def answered(self, demo: Demo, prediction: Prediction, truth: int | None) -> None:
        """A new prediction came."""


class Demo:
    """One run. `make_truth` makes what the published counts are compared with, and nothing else sees it."""

    def __init__(self, settings: Settings, make_truth: Callable[..., Truth] = Truth) -> None:
        self.settings = settings
        self.bundle = Bundle.load(settings.bundle)
        manifest = self.bundle.manifest
        self.scene = _simulated(self.bundle)
        self.plans = plan_cameras(manifest.views, settings.seed)
        self.score = Score(manifest.default)
        self.recent: deque[Prediction] = deque(maxlen=_RECENT)
        self.note = "starting cameras, agents and hub"
        self.programs: Supervisor
        self._compare = [name for name in (NOT_SYNCHRONISED, REFERENCE_ONLY) if name in manifest.fusion]
        self._make_truth = make_truth
        self._started_s = self._answered_s = 0.0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started_s

    @property
    def restarts(self) -> Mapping[str, int]:
        return self.programs.restarts

    def run(self, stop: threading.Event, shows: Shows) -> None:
        """Until `stop` is set or the time is over. Raises UserError or InternalError if it cannot start."""
        settings = self.settings
        epoch_ns = time.time_ns()
        self.truth = self._make_truth(
            self.scene, settings.people, settings.seed, self.plans, epoch_ns, settings.tracks
        )
        self._started_s = time.monotonic()
        with ExitStack() as stack:
            folder = settings.logs
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="viewsync-demo-")))
            folder.mkdir(parents=True, exist_ok=True)
            programs, endpoint, ports = self._prepare(folder, epoch_ns)
            self._counters = Counters(ports)
            with Subscriber(endpoint) as hub, Supervisor(programs, folder) as self.programs:
                self.programs.start(time.monotonic())
                self._watch(hub, stop, shows)
                self._counters.read()

    def _watch(self, hub: Subscriber, stop: threading.Event, shows: Shows) -> None:
        counters_due_s = _COUNTERS_EVERY_S
        while not stop.is_set() and not self._over():
            try:
                message = hub.receive(_WAIT_S)
            except WireError as error:
                _log.warning("skipped a message of the hub: %s", error)
                continue
            for event in self.programs.poll(time.monotonic()):
                self.note = event
                _log.info("%s", event)
            if isinstance(message, Prediction):
                self._take(message, shows)
            elif message is not None:
                self.note = f"no answer: {'; '.join(message.reasons)}"
            if self.seconds > counters_due_s:
                counters_due_s = self.seconds + _COUNTERS_EVERY_S
                self._counters.read()
            shows.update(self)

    def _take(self, prediction: Prediction, shows: Shows) -> None:
        true_s = self.truth.reference_s(prediction)
        truth = None if true_s is None else self.truth.count(true_s)
        if self.score.add(prediction, truth):
            self._answered_s = self._answered_s or time.monotonic()
            self.recent.append(prediction)
            self.note = "; ".join(prediction.reasons)
            shows.answered(self, prediction, truth)

    def _over(self) -> bool:
        if not self._answered_s:
            if self.seconds > _FIRST_ANSWER_S:
                raise InternalError(f"no answer within {_FIRST_ANSWER_S:.0f} s; the last was: {self.note}")
            return False
        limit_s = self.settings.seconds
        return limit_s is not None and time.monotonic() - self._answered_s >= limit_s

    def summary(self) -> dict[str, Any]:
        """What `--json` prints."""
        counters = self._counters
        messages = counters.total("viewsync_edge_messages_sent_total")
        sent = counters.total("viewsync_edge_bytes_sent_total")
        return {
            **self.score.summary(),
            "bytes_per_message": round(sent / messages) if messages else None,
            "refused": counters.by_label("viewsync_hub_refused_total"),
            "restarts": {name: times for name, times in self.restarts.items() if times},
            "seconds": round(self.seconds, 1),
            "seed": self.settings.seed,
            "people": self.settings.people,
            "tracks": self.settings.tracks,
            "scene": self.bundle.scene.name,
            "bundle": self.bundle.hash,
            "verdict": self.score.verdict(),
        }

    def draw(self, path: Path) -> None:
        """Picture of the newest answer among those of the most views. Raises OSError, UserError."""
        from viewsync.demo import picture
        from viewsync.sim.render import Renderer

        if not self.recent:
            raise InternalError("there was no answer to draw")
        chosen = max(reversed(self.recent), key=lambda one: sum(report.used for report in one.views))
        views = self.bundle.manifest.views
        renderers = {view: Renderer(self.scene, view, self.settings.seed) for view in views}
        picture.write(path, picture.draw(self.bundle, chosen, self.truth, renderers, self.score))

    def _prepare(self, folder: Path, epoch_ns: int) -> tuple[list[Program], str, dict[str, int]]:
        """The programs, the address of the predictions, and the port of each metrics page."""
        views = self.bundle.manifest.views
        features, predictions, page, *rest = free_ports(3 + 2 * len(views))
        bundle = str(self.settings.bundle.resolve())
        endpoint = f"tcp://127.0.0.1:{predictions}"
        hub = {
            "bundle": bundle,
            "bind": f"tcp://127.0.0.1:{features}",
            "model": {"compare": self._compare},
            "outputs": {"bind": endpoint},
            "health": {"port": page},
        }
        programs = [Program("hub", ("hub", "--config", _written(folder / "hub.yaml", hub)))]
        pages = {"hub": page}
        for view, stream, page in zip(views, rest[::2], rest[1::2], strict=True):
            url = f"rtsp://127.0.0.1:{stream}/{view}"
            agent = {
                "bundle": bundle,
                "view": view,
                "source": {
                    "url": url,
                    "listen": not self.settings.server,
                    "reconnect_max_s": 1.0,
                    "arrival_allowance_ms": _ALLOWANCE_MS,
                },
                "hub": {"endpoint": hub["bind"], "reconnect_max_s": 1.0},
                "health": {"port": page},
            }
            name = f"agent-{view}"
            programs.append(Program(name, ("edge", "--config", _written(folder / f"{name}.yaml", agent))))
            pages[name] = page
            programs.append(self._camera(folder, self.plans[view], url, epoch_ns))
        return programs, endpoint, pages

    def _camera(self, folder: Path, plan: CameraPlan, url: str, epoch_ns: int) -> Program:
        scene = "plaza"
        if self.bundle.scene.name != scene:
            save_scene(self.bundle.scene, folder / "scene.yaml")
            scene = str(folder / "scene.yaml")
        arguments = [
            *("sim", "camera", "--scene", scene, *plan.arguments()),
            *("--people", str(self.settings.people), "--seed", str(self.settings.seed)),
            *("--epoch-ns", str(epoch_ns), "--url", url),
        ]
        if self.settings.tracks is not None:
            arguments += ("--tracks", self.settings.tracks)
        else:
            # Its own: after a restart the crowd need not be played from the demo's beginning.
            arguments += ("--crowd-state", str(folder / f"crowd-{plan.view}.json"))
        if self.settings.server:
            arguments.append("--server")
        return Program(f"camera-{plan.view}", tuple(arguments))


def _simulated(bundle: Bundle) -> SimScene:
    """The scene to simulate for this bundle: its own cameras and ground."""
    from viewsync.sim.scenes import from_scene

    if bundle.scene.name != "plaza":
        return from_scene(bundle.scene)
    scene = load("plaza")
    for view, camera in bundle.scene.cameras.items():
        ours = scene.scene.cameras.get(view)
        if ours is None or not np.allclose(ours.P, camera.P):
            raise InternalError(
                f"{bundle.path}: its camera {view} is not the simulated plaza's; export it again"
            )
    return scene


def _written(path: Path, settings: Mapping[str, Any]) -> str:
    path.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
    return str(path)
