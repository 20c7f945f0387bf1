"""Profiles under which no view could ever be heard: said before anything is started."""

from __future__ import annotations

import math
from typing import Final

from viewsync.bundle import Bundle
from viewsync.errors import ConfigError
from viewsync.lab.profile import Direction, Period, Profile, ViewSection

# Entropy coding leaves about so much of a message.
_PACKED: Final = 0.5
# Beyond such a loss TCP's back-off outlasts any age that a frame may have.
_HOPELESS_LOSS: Final = 0.8
# Round trips until a message is there: the window grows, and the hub's time is asked before the first one.
_TRIPS: Final = 3


def check(profile: Profile, bundle: Bundle, max_age_s: float, lasts_s: float = math.inf) -> None:
    """Raises ConfigError where every view starves, with each one's reason.

    max_age_s: the oldest frame that the hub takes; lasts_s: how long the site runs at most.
    """
    spec = bundle.manifest.features
    size = math.ceil(_PACKED * spec.channels * spec.height * spec.width * math.log2(spec.levels) / 8)
    views = profile.of_views(bundle.manifest.views)
    reasons = {view: why_starved(section, size, max_age_s, lasts_s) for view, section in views.items()}
    if all(reasons.values()):
        told = "; ".join(f"{view}: {reason}" for view, reason in reasons.items())
        raise ConfigError(
            f"profile {profile.name} starves every view, nothing would ever be answered ({told}); "
            "leave at least one of them alive"
        )


def why_starved(section: ViewSection, size: int, max_age_s: float, lasts_s: float = math.inf) -> str:
    """Why this view's messages of `size` bytes never reach the hub in time; "" where they may."""
    if _covered(section.camera.dead, lasts_s):
        return "its camera is dead all the time"
    for name, way in (("uplink", section.up), ("downlink", section.down)):
        if _covered(way.outages, lasts_s):
            return f"its {name} is out all the time"
        if way.loss >= _HOPELESS_LOSS:
            return f"its {name} loses {100 * way.loss:g} % of all packets"
    trip_s = (section.up.delay_ms + section.down.delay_ms) / 1000
    takes_s = _TRIPS * trip_s + _sending_s(section.up, size)
    if takes_s > max_age_s:
        return (
            f"a message of {size / 1000:.0f} kB takes {takes_s:.0f} s, and the hub takes frames of up to "
            f"{max_age_s:g} s"
        )
    return ""


def _sending_s(way: Direction, size: int) -> float:
    return 0.0 if way.rate_kbit_s is None else 8e-3 * size / (way.rate_kbit_s * (1.0 - way.loss))


def _covered(periods: tuple[Period, ...], lasts_s: float) -> bool:
    """Whether the periods together leave no gap from 0 to `lasts_s`."""
    reached_s = 0.0
    for period in sorted(periods, key=lambda one: one.at_s):
        if period.at_s > reached_s:
            return False
        reached_s = max(reached_s, math.inf if period.for_s is None else period.at_s + period.for_s)
        if reached_s >= lasts_s:
            return True
    return reached_s == math.inf
