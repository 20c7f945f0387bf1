"""What waits to be sent and what waits to be acknowledged. Pure: no socket; times come in as arguments.

Newest only: one message waits at most, and a newer one takes its place. At most `window` messages are under
way unacknowledged; so, whatever the buffers of libzmq and of the kernels could hold, a message never stands
behind more than those.

State: `_waiting`, and `_under_way` by sequence number with the time each was sent.
"""

from __future__ import annotations

from collections import OrderedDict

from viewsync.wire import FeatureMessage


class Outbox:
    """One agent's messages of one session. A message that has waited for `stale_ns` since its arrival is
    dropped rather than sent, so that only fresh frames flow when a hub comes back after long.
    """

    def __init__(self, window: int, timeout_ns: int, stale_ns: int) -> None:
        if window < 1:
            raise ValueError(f"window is {window}; at least one message must be allowed under way")
        self._window = window
        self._timeout_ns = timeout_ns
        self._stale_ns = stale_ns
        self._waiting: FeatureMessage | None = None
        self._under_way: OrderedDict[int, tuple[FeatureMessage, int]] = OrderedDict()

    def offer(self, message: FeatureMessage) -> bool:
        """Let `message` wait; whether it took the place of one that waited."""
        replaced = self._waiting is not None
        self._waiting = message
        return replaced

    def take(self, now_ns: int) -> FeatureMessage | None:
        """The message to send now, if the window allows one; from now on it is under way."""
        if self._waiting is None or len(self._under_way) >= self._window:
            return None
        message, self._waiting = self._waiting, None
        if now_ns - message.arrival_ns > self._stale_ns:
            return None
        self._under_way[message.seq] = (message, now_ns)
        return message

    def not_sent(self, seq: int) -> None:
        """The message that `take` gave could not be sent: it waits again, where nothing newer does."""
        message, _ = self._under_way.pop(seq)
        if self._waiting is None:
            self._waiting = message

    def answered(self, seq: int) -> int:
        """The hub has taken or refused message `seq`, and read all before it: how many that settles."""
        settled = [earlier for earlier in self._under_way if earlier <= seq]
        for earlier in settled:
            del self._under_way[earlier]
        return len(settled)

    def sent_ns(self, seq: int) -> int | None:
        """When message `seq`, still unanswered, was sent."""
        entry = self._under_way.get(seq)
        return None if entry is None else entry[1]

    def due_ns(self) -> int | None:
        """When the oldest unanswered message will have waited too long."""
        for _, sent_ns in self._under_way.values():
            return sent_ns + self._timeout_ns
        return None

    def connection_lost(self) -> None:
        """Nothing under way will be answered. The newest of it waits again, where nothing newer does."""
        if self._under_way and self._waiting is None:
            self._waiting = next(reversed(self._under_way.values()))[0]
        self._under_way.clear()

    @property
    def is_empty(self) -> bool:
        return self._waiting is None and not self._under_way
