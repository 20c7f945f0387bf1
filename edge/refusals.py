"""Why hubs refuse messages, and what to do about it at the agent: said once per reason, counted always."""

from __future__ import annotations

import logging
from typing import Final

from edge.counts import EdgeCounts
from viewsync.wire import Refusal

_log = logging.getLogger(__name__)

# The hub's slugs become labels of a metric: no more of them than a hub could mean.
_MOST_REASONS: Final = 32

_SAME_BUNDLE: Final = "give agent and hub the same bundle, and restart the one that has the older"
_CLOCKS: Final = "look at the clocks of the camera and of this machine"

_ADVICE: Final = {
    "features-hash": _SAME_BUNDLE,
    "features-shape": _SAME_BUNDLE,
    "features-range": _SAME_BUNDLE,
    "unknown-view": "choose a view of the hub's bundle (`view`)",
    "foreign-site": "set the site that the hub has (`site`)",
    "foreign-scene": _SAME_BUNDLE,
    "not-allowed": "use the key that was made for this view (`security.keys`)",
    "view-taken": "stop the other agent of this view, or choose another view",
    "too-old": "the link is too slow for the rate: lower `rate_hz`, or raise the hub's gates.max_age_s",
    "future": _CLOCKS,
    "implausible-time": _CLOCKS,
    "clock-unknown": _CLOCKS,
    "wire-version": "run the same version of viewsync on agent and hub",
    "duplicate": "nothing: the hub had it already when the connection broke",
    "old-session": "stop the other agent of this view that was started later",
}


class Refusals:
    """The refusals of one agent. State: the reasons so far."""

    def __init__(self, endpoint: str, counts: EdgeCounts) -> None:
        self._endpoint = endpoint
        self._counts = counts
        self._reasons: set[str] = set()

    def note(self, refusal: Refusal) -> None:
        """Count one, and log it if its reason is new."""
        known = refusal.reason in self._reasons or len(self._reasons) < _MOST_REASONS
        reason = refusal.reason if known else "other"
        self._counts.messages_refused.labels(reason).inc()
        if reason not in self._reasons:
            self._reasons.add(reason)
            todo = _ADVICE.get(reason, "see the hub's log")
            _log.warning("hub %s refuses (%s): %s; %s", self._endpoint, reason, refusal.detail, todo)

    def reasons(self) -> list[str]:
        """All so far, for /healthz."""
        return sorted(self._reasons)
