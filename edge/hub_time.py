"""The hub's time as this agent knows it: the probe under way, and hub − agent from every answer. Pure.

At each connection the hub is asked first, and again when nothing has been asked for a while, which also shows
whether it is still there. A probe is small: over a slow link its round trip tells the offset far better than
that of a message that takes seconds.

State: the exchange, the probe under way, and whether the hub has answered one on this connection.
"""

from __future__ import annotations

from typing import Final

from viewsync.clock import ClockExchange
from viewsync.units import SECOND_NS
from viewsync.wire import Ack, ClockReply, OffsetEstimate, Refusal

PROBE_EVERY_NS: Final = 10 * SECOND_NS


class HubTime:
    """exchange: hub − agent; timeout_ns: for the answer to a probe. Times are the agent's clock, UTC ns."""

    def __init__(self, exchange: ClockExchange, timeout_ns: int) -> None:
        self._exchange = exchange
        self._timeout_ns = timeout_ns
        self._under_way_ns: int | None = None
        self._asked_ns = 0
        self.known = False

    def is_probe_due(self, now_ns: int) -> bool:
        """Whether to ask now."""
        return self._under_way_ns is None and (not self.known or now_ns - self._asked_ns >= PROBE_EVERY_NS)

    def probe_due_ns(self) -> int | None:
        """When to ask again; None: the answer to the last probe comes first, or the connection."""
        return self._asked_ns + PROBE_EVERY_NS if self.known and self._under_way_ns is None else None

    def asked(self, sent_ns: int) -> None:
        """A probe is under way."""
        self._under_way_ns = self._asked_ns = sent_ns

    def answer_due_ns(self) -> int | None:
        """When the probe under way will have waited too long."""
        return None if self._under_way_ns is None else self._under_way_ns + self._timeout_ns

    def is_ours(self, reply: ClockReply) -> bool:
        """Whether this answers the probe under way, which it then no longer is."""
        if reply.sent_ns != self._under_way_ns:
            return False
        self._under_way_ns = None
        self.known = True
        return True

    def learn(self, answer: Ack | Refusal | ClockReply, returned_ns: int) -> OffsetEstimate | None:
        """Hub − agent after one more answer to what we asked; None where its times contradict themselves."""
        assert answer.sent_ns is not None
        if not self._exchange.add(answer.sent_ns, answer.received_ns, answer.replied_ns, returned_ns):
            return None
        return self._exchange.estimate(returned_ns)

    def offset(self, now_ns: int) -> OffsetEstimate | None:
        """Hub − agent now."""
        return self._exchange.estimate(now_ns)

    def connected(self) -> None:
        """Perhaps another hub, or one that was started anew with another clock."""
        self._exchange.reset()

    def disconnected(self) -> None:
        """Nothing under way will be answered."""
        self._under_way_ns = None
        self.known = False
