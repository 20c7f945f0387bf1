"""Profile × policy × method × crowd, in virtual time, on several processes; and the curve of error against
offset. Same settings, same answers, whatever the machine and the number of processes.
"""

from __future__ import annotations

import functools
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from threading import Event

import cv2
import numpy as np

from viewsync.bundle import Bundle
from viewsync.errors import UserError
from viewsync.lab import curve, starving
from viewsync.lab.arrivals import arrivals, pictures, plan, times_off, worst_clock_of
from viewsync.lab.gate import RIVALS
from viewsync.lab.policy import load_policy
from viewsync.lab.profile import load_profile
from viewsync.lab.record import Key, Run
from viewsync.lab.replay import RememberingFusion, replay
from viewsync.lab.scenario import Cache

_TRUTH_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    """What to run. profiles, policies: names or files; bundles: folders or zips; methods: graphs of each
    bundle, none: its default graph and those it is compared with; curve: whether to measure it too; still:
    take the flow out of every graph that has one.
    """

    profiles: tuple[str, ...]
    policies: tuple[str, ...]
    bundles: tuple[Path, ...]
    crowds: range
    seconds: float
    cache: Path
    methods: tuple[str, ...] = ()
    curve: bool = True
    still: bool = False
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was found. methods: of each bundle, by its name, the synchronised one first; clocks: the worst
    clock error of each profile over all that reached the hub, and its stated bound, seconds; truths: of each
    profile's first crowd, (seconds, people in the region); offs: when links or cameras of a profile are off,
    (view, from, to) in seconds.
    """

    runs: tuple[Run, ...]
    points: tuple[curve.Point, ...]
    views: tuple[str, ...]
    methods: Mapping[str, tuple[str, ...]]
    hashes: Mapping[str, str]
    trained_s: Mapping[str, float]
    clocks: Mapping[str, tuple[float, float]]
    truths: Mapping[str, tuple[tuple[float, int], ...]]
    offs: Mapping[str, tuple[tuple[str, float, float], ...]]


@dataclass(frozen=True, slots=True)
class _Task:
    """One crowd under one profile, or on the curve (no profile)."""

    settings: Settings
    profile: str | None
    crowd: int


@dataclass(frozen=True, slots=True)
class _Result:
    runs: tuple[Run, ...] = ()
    points: tuple[curve.Point, ...] = ()
    clock: tuple[float, float] = (0.0, 1.0)
    truth: tuple[tuple[float, int], ...] = ()
    offs: tuple[tuple[str, float, float], ...] = ()


def check(settings: Settings) -> dict[str, Bundle]:
    """The bundles by name, once all that the settings name exists and fits together. Raises UserError."""
    bundles: dict[str, Bundle] = {}
    for path in settings.bundles:
        if path.stem in bundles:
            raise UserError(f"--bundle {path}: another bundle is called {path.stem} too; rename one of them")
        bundles[path.stem] = Bundle.load(path)
    views = {bundle.manifest.views for bundle in bundles.values()}
    if len(views) > 1:
        raise UserError("the bundles have different views; sweep each of them by itself")
    for name, bundle in bundles.items():
        methods = methods_of(settings, bundle)
        policies = [load_policy(policy) for policy in settings.policies]
        for policy in policies:
            policy.for_bundle(bundle)
        oldest_s = max(policy.gates.max_age_s for policy in policies)
        for profile in map(load_profile, settings.profiles):
            made = plan(profile, bundle, settings.crowds[0], settings.seconds)
            starving.check(profile, bundle, oldest_s, made.scenario.seconds)
        if settings.still:
            still = open_bundle(bundle.path, True)
            moving = [method for method in methods if "flow_m" in bundle.manifest.fusion[method].outputs]
            if not moving:
                raise UserError(f"--flow zero: no chosen method of bundle {name} publishes a flow")
            for method in moving:
                still.fusion_bytes(method)
    return bundles


def methods_of(settings: Settings, bundle: Bundle) -> tuple[str, ...]:
    """The graphs of this bundle to run. Raises UserError for one that it has not."""
    there = bundle.manifest.fusion
    if not settings.methods:
        return tuple(dict.fromkeys([bundle.manifest.default, *(rival for rival in RIVALS if rival in there)]))
    for method in settings.methods:
        if method not in there:
            raise UserError(f"--methods {method}: {bundle.path} has no such graph; it has {', '.join(there)}")
    return settings.methods


def run(
    settings: Settings,
    stop: Event,
    progress: Callable[[int, str], None] = lambda done, note: None,
) -> Sweep:
    """Do it all. Once `stop` is set, what is under way is finished and the rest left out.

    Raises UserError for what cannot be run, before anything is.
    """
    bundles = check(settings)
    tasks = [_Task(settings, profile, crowd) for profile in settings.profiles for crowd in settings.crowds]
    if settings.curve:
        tasks += [_Task(settings, None, crowd) for crowd in settings.crowds]
    results: dict[_Task, _Result] = {}
    # Fresh processes: a forked one would share our threads' locks and our signal handlers.
    with ProcessPoolExecutor(settings.workers, get_context("spawn"), _ready_worker) as pool:
        waiting = {pool.submit(_do, task): task for task in tasks}
        try:
            for done in as_completed(waiting):
                task = waiting[done]
                results[task] = done.result()
                progress(len(results), f"{task.profile or 'curve'} #{task.crowd}")
                if stop.is_set():
                    break
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    whole = [(task, results[task]) for task in tasks if task in results]
    profiles = [(_name(task.profile), result) for task, result in whole if task.profile is not None]
    clocks: dict[str, tuple[float, float]] = {}
    for name, result in profiles:
        known = clocks.get(name, (0.0, 1.0))
        clocks[name] = max(known, result.clock, key=lambda pair: pair[0] / pair[1])
    first = dict(reversed(profiles))
    return Sweep(
        runs=tuple(run for _, result in whole for run in result.runs),
        points=tuple(point for _, result in whole for point in result.points),
        views=next(iter(bundles.values())).manifest.views,
        methods={name: methods_of(settings, bundle) for name, bundle in bundles.items()},
        hashes={name: bundle.hash for name, bundle in bundles.items()},
        trained_s={name: bundle.manifest.offset.trained_s for name, bundle in bundles.items()},
        clocks=clocks,
        truths={name: result.truth for name, result in first.items()},
        offs={name: result.offs for name, result in first.items()},
    )


def _name(profile: str) -> str:
    return load_profile(profile).name


# --- in a process of its own ------------------------------------------------------------------------------


def _ready_worker() -> None:
    # Ctrl-C reaches the whole process group; the parent decides what is still finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    # The sweep asks for offsets beyond the trained range on purpose, and the report says so.
    logging.getLogger("hub.config").setLevel(logging.ERROR)


def _do(task: _Task) -> _Result:
    return _curve(task.settings, task.crowd) if task.profile is None else _profile(task, task.profile)


def _profile(task: _Task, name: str) -> _Result:
    settings, profile = task.settings, load_profile(name)
    cache = Cache(settings.cache)
    runs: list[Run] = []
    worst = (0.0, 1.0)
    for path in settings.bundles:
        bundle = open_bundle(path, settings.still)
        made = plan(profile, bundle, task.crowd, settings.seconds)
        truth = cache.truth(made.scenario)
        found = arrivals(made, bundle, pictures(made, bundle, cache))
        worst = max(worst, worst_clock_of(found.deliveries), key=lambda pair: pair[0] / pair[1])
        for method in methods_of(settings, bundle):
            fusion = _fusion(path, method, settings.still)
            fusion.forget()
            for policy_name in settings.policies:
                policy, rules = load_policy(policy_name).for_bundle(bundle)
                key = Key(profile.name, load_policy(policy_name).name, path.stem, method, task.crowd)
                runs.append(replay(key, made, found, truth, fusion, policy, rules))
            fusion.forget()
    times = np.arange(0.0, made.scenario.seconds, _TRUTH_EVERY_S).tolist()
    return _Result(
        runs=tuple(runs),
        clock=worst,
        truth=tuple((at_s, truth.count(at_s)) for at_s in times),
        offs=times_off(made),
    )


def _curve(settings: Settings, crowd: int) -> _Result:
    cache = Cache(settings.cache)
    points: list[curve.Point] = []
    for path in settings.bundles:
        bundle = open_bundle(path, settings.still)
        fusions = {method: _fusion(path, method, settings.still) for method in methods_of(settings, bundle)}
        for fusion in fusions.values():
            fusion.forget()
        points += curve.measure(bundle, path.stem, fusions, crowd, cache)
    return _Result(points=tuple(points))


class _Still(Bundle):
    """A bundle whose graphs see no flow."""

    def fusion_bytes(self, graph: str) -> bytes:
        """The graph, without its flow where it has one."""
        data = super().fusion_bytes(graph)
        if "flow_m" not in self.manifest.fusion[graph].outputs:
            return data
        from viewsync.lab.still import without_flow

        return without_flow(data, graph)


@functools.cache
def open_bundle(path: Path, still: bool) -> Bundle:
    """The bundle, once per process."""
    return (_Still if still else Bundle).load(path)


@functools.cache
def _fusion(path: Path, method: str, still: bool) -> RememberingFusion:
    fusion = RememberingFusion(open_bundle(path, still), method)
    fusion.warm_up()
    return fusion


def only(runs: Sequence[Run], **wanted: object) -> list[Run]:
    """Those of `runs` whose key has these values."""
    return [run for run in runs if all(getattr(run.key, name) == value for name, value in wanted.items())]
