"""Who may speak for a view. Pure: the receiver says who speaks, the caller says what time it is.

With CURVE: the key that the handshake authenticated, through the allow-list. Two connections with one key
are one agent that came back, and the buffer's newest-session rule decides between them.

Without CURVE nobody can prove anything, so the rule guards against mistakes, not malice: a view belongs to
the first agent that sends a good message for it. An agent is a connection, or another connection that
continues its session. It keeps the view until its connection is gone, or it has been silent for
`owner_silence_ns`; then the next one takes over. So an agent that was killed and restarted gets its view
back at once, and a second agent started by mistake with the same view does not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hub.buffer import Verdict
from hub.receiver import Peer
from viewsync.keys import Allowed
from viewsync.wire import FeatureMessage


@dataclass(slots=True)
class _Owner:
    peer: Peer
    session: int
    heard_ns: int


class KeyClaims:
    """Claims by authenticated key. allowed: the allow-list as it is now, public key (Z85 text) -> entry."""

    def __init__(self, allowed: Callable[[], Mapping[str, Allowed]]) -> None:
        self._allowed = allowed

    def check(self, peer: Peer, message: FeatureMessage, now_ns: int) -> Verdict:
        """Whether this peer's key may send this message."""
        entry = self._allowed().get(peer.key or "")
        if entry is None or entry.role != "agent":
            return Verdict(
                False,
                "not-allowed",
                "this key is no agent of the hub's allow-list; add it with `viewsync keys`",
            )
        if (entry.site, entry.scene) != (message.site, message.scene) or message.view not in entry.views:
            allowed = f"{entry.site}/{entry.scene} {', '.join(entry.views)}"
            return Verdict(
                False,
                "not-allowed",
                f"this agent's key may send {allowed}, not {message.site}/{message.scene} {message.view}",
            )
        return Verdict(True)

    def settle(self, peer: Peer, message: FeatureMessage, now_ns: int) -> None:
        """Nothing to remember: the key says it all."""


class FirstClaims:
    """Claims without keys. connected: whether a connection still stands."""

    def __init__(self, owner_silence_ns: int, connected: Callable[[Peer], bool]) -> None:
        self._owner_silence_ns = owner_silence_ns
        self._connected = connected
        self._owners: dict[str, _Owner] = {}

    def check(self, peer: Peer, message: FeatureMessage, now_ns: int) -> Verdict:
        """Whether this peer may send this view now; changes nothing."""
        owner = self._owners.get(message.view)
        if owner is None or owner.peer == peer or owner.session == message.session:
            return Verdict(True)
        if now_ns - owner.heard_ns > self._owner_silence_ns or not self._connected(owner.peer):
            return Verdict(True)
        return Verdict(
            False,
            "view-taken",
            f"another agent is sending view {message.view}; stop one, or use keys to say whose it is",
        )

    def settle(self, peer: Peer, message: FeatureMessage, now_ns: int) -> None:
        """A message that passed `check` was good: its view is this peer's."""
        self._owners[message.view] = _Owner(peer, message.session, now_ns)
