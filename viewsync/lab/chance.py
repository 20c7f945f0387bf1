"""What chance in links makes of a cell: its virtual run again, under other draws.

Nothing is fused: when a hub answers, and to which frames, does not depend on what it counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from hub.buffer import Snapshot
from hub.fusion import FusionOutputs
from viewsync.lab.arrivals import arrivals, pictures, plan
from viewsync.lab.policy import load_policy
from viewsync.lab.profile import load_profile
from viewsync.lab.record import Key, Run
from viewsync.lab.replay import RememberingFusion, replay
from viewsync.lab.scenario import Cache
from viewsync.lab.sweep import Settings, methods_of, open_bundle

DRAWS = 12


class _CountsNobody(RememberingFusion):
    def predict(self, snapshot: Snapshot, used: Sequence[str], unknown: Sequence[str] = ()) -> FusionOutputs:
        rows, columns = self.bundle.scene.ground.rows, self.bundle.scene.ground.columns
        nobody = np.zeros((rows, columns), np.float32)
        return FusionOutputs(nobody, {self.synchroniser: 0.0}, (), tuple(used), None, None, 0, 0)


def redrawn(settings: Settings, stop: Callable[[], bool]) -> dict[Key, list[Run]]:
    """Of every cell of the first bundle's first crowd: `DRAWS` virtual runs whose links draw otherwise. Their
    counts mean nothing. stop: whether to leave the rest out.
    """
    path, crowd = settings.bundles[0], settings.crowds[0]
    bundle = open_bundle(path, settings.still)
    cache = Cache(settings.cache)
    runs: dict[Key, list[Run]] = {}
    methods = methods_of(settings, bundle)
    fusion = _CountsNobody(bundle, methods[0])
    for profile in map(load_profile, settings.profiles):
        made = plan(profile, bundle, crowd, settings.seconds)
        truth, seen = cache.truth(made.scenario), pictures(made, bundle, cache)
        for draw in range(1, 1 + DRAWS):
            if stop():
                return runs
            # A seed that no profile has, for theirs are whole numbers from 0 on that people choose.
            other = dataclasses.replace(made, seed=made.seed + draw * 1_000_003)
            found = arrivals(other, bundle, seen)
            for policy_name in settings.policies:
                named = load_policy(policy_name)
                policy, rules = named.for_bundle(bundle)
                key = Key(profile.name, named.name, path.stem, methods[0], crowd)
                run = replay(key, other, found, truth, fusion, policy, rules)
                fusion.forget()
                for method in methods:
                    as_method = dataclasses.replace(key, method=method)
                    runs.setdefault(as_method, []).append(dataclasses.replace(run, key=as_method))
    return runs
