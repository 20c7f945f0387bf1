"""What to do at the agent about each reason for which a hub refuses a message."""

from __future__ import annotations

from typing import Final

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


def advice(reason: str) -> str:
    """What the person who runs the agent can do."""
    return _ADVICE.get(reason, "see the hub's log")
