"""The cells of a sweep live: real processes, sockets and clocks, through `Site`; the same record is left."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from threading import Event

from viewsync.lab.arrivals import plan
from viewsync.lab.policy import load_policy
from viewsync.lab.profile import load_profile
from viewsync.lab.record import Run
from viewsync.lab.site import Settings as SiteSettings
from viewsync.lab.site import Site
from viewsync.lab.sweep import Settings, methods_of, open_bundle
from viewsync.sim.dataset import crowd_size


def run(settings: Settings, bundle_path: Path, folder: Path, stop: Event) -> list[Run]:
    """Every profile × policy of the settings, live, with their first crowd; what each leaves, in `folder`.

    Raises UserError or InternalError where a site cannot be started or never answers.
    """
    bundle = open_bundle(bundle_path, settings.still)
    methods = methods_of(settings, bundle)
    crowd = settings.crowds[0]
    runs: list[Run] = []
    for name in settings.profiles:
        made = plan(load_profile(name), bundle, crowd, settings.seconds)
        for policy in map(load_policy, settings.policies):
            if stop.is_set():
                return runs
            site = Site(
                SiteSettings(
                    bundle=bundle_path,
                    profile=name,
                    policy=policy,
                    seed=crowd,
                    people=crowd_size(crowd),
                    seconds=made.scenario.seconds,
                    report=folder / f"live-{load_profile(name).name}-{policy.name}",
                )
            )
            site.run(stop, lambda site, prediction, truth: None)
            for found in site.runs():
                if found.key.method in methods:
                    runs.append(_as_virtual(found, bundle_path.stem, made.start_s))
    return runs


def _as_virtual(run: Run, bundle: str, start_s: float) -> Run:
    """The run under the sweep's name of its bundle, counted from where the virtual one counts."""
    return dataclasses.replace(
        run,
        key=dataclasses.replace(run.key, bundle=bundle),
        start_s=start_s,
        answers=tuple(answer for answer in run.answers if answer.at_s >= start_s),
    )
