"""A whole site on one machine behind a profile's links: cameras, an agent each, the hub, and who listens.

The programs are those of the field, with keys and all. They run in network namespaces, or where that is not
permitted behind relays; only this process, which listens like any subscriber, knows the truth.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from viewsync.bundle import Bundle
from viewsync.client import Subscriber
from viewsync.demo.processes import Supervisor
from viewsync.demo.score import NOT_SYNCHRONISED, REFERENCE_ONLY, Score
from viewsync.demo.truth import CameraPlan, Truth
from viewsync.errors import InternalError, WireError
from viewsync.lab import starving
from viewsync.lab.link.network import Network
from viewsync.lab.link.ways import Way, choose
from viewsync.lab.policy import NamedPolicy
from viewsync.lab.profile import load_profile
from viewsync.lab.record import Answer, Cost, Key, Run, write_answers
from viewsync.lab.replay import beside_truth
from viewsync.lab.scenario import simulated
from viewsync.lab.site_programs import SITE, Told
from viewsync.lab.world import plans
from viewsync.prediction import Prediction
from viewsync.units import SECOND_NS

_log = logging.getLogger(__name__)

_WAIT_S: Final = 0.25
_COUNTERS_EVERY_S: Final = 3.0
# Programs that start at once on two busy cores need their time; and the profile's is to begin with them up.
_START_S: Final = 10.0
_FIRST_ANSWER_S: Final = 120.0
_FOLDER: Final = "viewsync-site-"

Shows = Callable[["Site", Prediction, int | None], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """profile: name or path; seed, people: of the crowd; seconds: after the profile's time 0, None: until
    stopped; way: of the links, None: the first that works here; report: folder for what is left behind.
    """

    bundle: Path
    profile: str
    policy: NamedPolicy
    seed: int
    people: int
    seconds: float | None = None
    way: Way | None = None
    report: Path | None = None


class Site:
    """One run. Everything that can be wrong with the settings is said when it is made, before anything runs.

    Raises ConfigError, BundleError, UserError.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bundle = Bundle.load(settings.bundle)
        manifest = self.bundle.manifest
        self.profile = load_profile(settings.profile)
        self.sections = self.profile.of_views(manifest.views)
        self._config = settings.policy.config(settings.bundle.resolve(), SITE)
        settings.policy.for_bundle(self.bundle)
        starving.check(
            self.profile, self.bundle, self._config.gates.max_age_s, settings.seconds or float("inf")
        )
        self.way = choose(settings.way)
        self.plans: Mapping[str, CameraPlan] = plans(self.profile, manifest.views, settings.seed)
        self.score = Score(manifest.default)
        self.programs: Supervisor
        self._compare = [name for name in (NOT_SYNCHRONISED, REFERENCE_ONLY) if name in manifest.fusion]
        self._answers: dict[str, list[Answer]] = {name: [] for name in (manifest.default, *self._compare)}
        self._silences = 0
        self._cpu_s = 0.0
        self._note = "starting"

    @property
    def at_s(self) -> float:
        """Seconds since the profile's time 0."""
        return (time.time_ns() - self._epoch_ns) / SECOND_NS

    def run(self, stop: threading.Event, shows: Shows) -> None:
        """Until `stop` is set or the time is over; whatever happens, nothing stays behind.

        Raises UserError or InternalError where a program does not start, or no answer ever comes.
        """
        remove_leftovers()
        self._epoch_ns = time.time_ns() + round(_START_S * SECOND_NS)
        scene = simulated(self.bundle)
        self.truth = Truth(scene, self.settings.people, self.settings.seed, self.plans, self._epoch_ns)
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            views = self.bundle.manifest.views
            network = stack.enter_context(Network(self.settings.profile, views, self.way, self._epoch_ns))
            told = Told(self.bundle, self._config, self._compare, self.plans, self._crowd(), network, folder)
            hub = stack.enter_context(network.inside(None, told.listen))
            programs = [*network.programs, *told.programs]
            self.programs = stack.enter_context(Supervisor(programs, folder))
            stack.callback(self._keep, folder)
            self._counters = told.counters
            self.programs.start(time.monotonic())
            self._watch(hub, stop, shows)
            self._counters.read()
            self._cpu_s = _cpu_s(self.programs.pids.get("hub"))

    def _crowd(self) -> tuple[str, ...]:
        people, seed = str(self.settings.people), str(self.settings.seed)
        return ("--people", people, "--seed", seed, "--epoch-ns", str(self._epoch_ns))

    def _watch(self, hub: Subscriber, stop: threading.Event, shows: Shows) -> None:
        counters_due_s = time.monotonic() + _COUNTERS_EVERY_S
        while not stop.is_set() and not self._over():
            self._let_live_and_die()
            for event in self.programs.poll(time.monotonic()):
                _log.info("%s", event)
            if time.monotonic() > counters_due_s:
                counters_due_s = time.monotonic() + _COUNTERS_EVERY_S
                self._counters.read()
            try:
                message = hub.receive(_WAIT_S)
            except WireError as error:
                _log.warning("skipped a message of the hub: %s", error)
                continue
            if isinstance(message, Prediction):
                self._take(message, shows)
            elif message is not None:
                self._silences += 1
                self._note = "; ".join(message.reasons)

    def _over(self) -> bool:
        limit_s = self.settings.seconds
        if limit_s is not None and self.at_s >= limit_s:
            return True
        if not self.score.predictions and self.at_s > _FIRST_ANSWER_S:
            raise InternalError(f"no answer within {_FIRST_ANSWER_S:.0f} s; the last was: {self._note}")
        return False

    def _let_live_and_die(self) -> None:
        for view, section in self.sections.items():
            if section.camera.is_dead(max(0.0, self.at_s)):
                self.programs.hold(f"camera-{view}")
            else:
                self.programs.release(f"camera-{view}")

    def _take(self, prediction: Prediction, shows: Shows) -> None:
        used = [report for report in prediction.views if report.used]
        instants = {report.view: self.truth.capture_s(report, prediction.published_ns) for report in used}
        known = {view: at_s for view, at_s in instants.items() if at_s is not None}
        reference_s = known.get(prediction.reference)
        truth = None if reference_s is None else self.truth.count(reference_s)
        if not self.score.add(prediction, truth):
            return
        if len(known) == len(used):
            true_ns = {
                (report.view, report.seq or 0): self._epoch_ns + round(known[report.view] * SECOND_NS)
                for report in used
            }
            answer = beside_truth(prediction, true_ns, self.truth, self._epoch_ns)
            for graph, count in prediction.counts.items():
                error = answer.squared_error if graph == prediction.synchroniser else math.nan
                self._answers[graph].append(replace(answer, count=count, squared_error=error))
        shows(self, prediction, truth)

    def runs(self) -> list[Run]:
        """What the run leaves, one record per graph that answered: as virtual runs have it."""
        counters = self._counters
        cost = Cost(
            frames=round(counters.total("viewsync_edge_frames_extracted_total")),
            messages=round(counters.total("viewsync_edge_messages_sent_total")),
            replaced=round(counters.total("viewsync_edge_messages_replaced_total")),
            bytes=round(counters.total("viewsync_edge_bytes_sent_total")),
            reconnects=round(counters.total("viewsync_edge_hub_reconnects_total")),
            refused=counters.by_label("viewsync_hub_refused_total"),
            silences=self._silences,
            cpu_s=self._cpu_s,
            wall_s=self._lasted_s,
        )
        return [
            Run(
                Key(
                    self.profile.name, self.settings.policy.name, self.bundle.hash, graph, self.settings.seed
                ),
                0.0,
                self._lasted_s,
                tuple(answers),
                cost,
            )
            for graph, answers in self._answers.items()
        ]

    def summary(self) -> dict[str, Any]:
        """What `--json` prints."""
        answers = self._answers[self.bundle.manifest.default]
        worst = max(answers, key=lambda one: one.clock_error_s / max(one.clock_bound_s, 1e-9), default=None)
        return {
            **self.score.summary(),
            "profile": self.profile.name,
            "via": self.way,
            "policy": self.settings.policy.name,
            "seconds": round(self._lasted_s, 1),
            "silences": self._silences,
            "clock_error_ms": None if worst is None else round(1000 * worst.clock_error_s, 2),
            "clock_bound_ms": None if worst is None else round(1000 * worst.clock_bound_s, 2),
            "refused": self._counters.by_label("viewsync_hub_refused_total"),
            "restarts": {name: times for name, times in self.programs.restarts.items() if times},
            "seed": self.settings.seed,
            "people": self.settings.people,
            "bundle": self.bundle.hash,
            "verdict": self.score.verdict(),
        }

    def _keep(self, folder: Path) -> None:
        """Leave the report behind: answers beside the truth, the summary, and what the programs said."""
        self._lasted_s = self.at_s
        report = self.settings.report
        if report is None:
            return
        (report / "logs").mkdir(parents=True, exist_ok=True)
        for log in folder.glob("*.log"):
            shutil.copy(log, report / "logs" / log.name)
        write_answers(report / "answers.csv", self.runs(), self.bundle.manifest.views)
        (report / "summary.json").write_text(json.dumps(self.summary(), indent=1) + "\n", encoding="utf-8")


def remove_leftovers() -> None:
    """Take away the folders of sites that were killed: all that a killed one can leave."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _cpu_s(pid: int | None) -> float:
    """Seconds of processor time that a process has used; 0 where it is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
