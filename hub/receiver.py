"""The ROUTER socket that agents connect to: bytes in, replies out. It knows who speaks, and nothing of what
they say.

Who speaks is what libzmq says: the routing id that this socket gave the connection, and with CURVE the
public key that the handshake authenticated (the `User-Id` of the frame's metadata). Nothing in a message
can change either.
"""

import errno
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from hub.sockets import bind_server
from viewsync.keys import KeyPair
from viewsync.wire import MAX_MESSAGE_BYTES, Ack, ClockReply, Refusal, encode

_log = logging.getLogger(__name__)

AGENT_DOMAIN = b"agents"

# Longer than any clock probe and shorter than any features: messages of this size are all kept, of longer
# ones the newest.
_SMALL_BYTES = 512

# Messages taken before the hub turns to answering: a flood of one peer may fill a turn, never hold it.
_MOST_PER_TURN = 256

# Unread messages that libzmq keeps per peer; the rest waits in the peer, which is where newest-only is
# decided.
_UNREAD_PER_PEER = 4

# Peers whose last acknowledgement is kept, to see whether they are still there: more than a site has agents.
_REMEMBERED_ACKS = 1024


@dataclass(frozen=True, slots=True)
class Peer:
    """One connection. key: its public key (Z85 text) as the CURVE handshake proved it; None without CURVE."""

    routing_id: bytes
    key: str | None


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message as it came. payload None: it was not a single part."""

    peer: Peer
    payload: bytes | None
    received_ns: int


class Receiver:
    """Owns the socket; `now` gives UTC nanoseconds of the hub's clock.

    Raises ConfigError where `endpoint` cannot be bound.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        key: KeyPair | None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._now = now
        self._last_ack: OrderedDict[bytes, bytes] = OrderedDict()
        self.socket = context.socket(zmq.ROUTER)
        # A reply to a peer that has gone fails loudly instead of vanishing: that is how a gone peer is
        # noticed.
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self.socket.setsockopt(zmq.RCVHWM, _UNREAD_PER_PEER)
        # Replies are small and an agent has one message under way; a peer that never reads fills this and
        # loses replies.
        self.socket.setsockopt(zmq.SNDHWM, 64)
        self.endpoint = bind_server(self.socket, endpoint, key, AGENT_DOMAIN, "bind")

    def drain(self) -> tuple[list[Arrival], int]:
        """What has arrived, without waiting: of each peer all small messages and the newest other one, in
        order of arrival.

        An older features message of the same peer is dropped undecoded; the second value counts those. A
        connection carries one view (an acknowledgement names session and seq only), so nothing else is lost,
        and acknowledging a message answers for all before it.
        """
        small: list[Arrival] = []
        newest: dict[bytes, Arrival] = {}
        superseded = 0
        for _ in range(_MOST_PER_TURN):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            received_ns = self._now()
            peer = Peer(frames[0].bytes, _user_id(frames[-1]))
            payload = frames[1].bytes if len(frames) == 2 else None
            arrival = Arrival(peer, payload, received_ns)
            if payload is None or len(payload) <= _SMALL_BYTES:
                small.append(arrival)
            else:
                superseded += newest.pop(peer.routing_id, None) is not None
                newest[peer.routing_id] = arrival
        return sorted([*small, *newest.values()], key=lambda arrival: arrival.received_ns), superseded

    def reply(self, peer: Peer, message: Ack | Refusal | ClockReply) -> bool:
        """Send without waiting; False where the peer has gone or does not read its replies."""
        payload = encode(message)
        if isinstance(message, Ack):
            self._last_ack[peer.routing_id] = payload
            self._last_ack.move_to_end(peer.routing_id)
            if len(self._last_ack) > _REMEMBERED_ACKS:
                self._last_ack.popitem(last=False)
        return self._send(peer, payload) == 0

    def is_connected(self, peer: Peer) -> bool:
        """Whether the connection of a peer that was once acknowledged still stands.

        libzmq tells only by sending. The peer's last acknowledgement is sent once more, which agents ignore
        as a duplicate.
        """
        payload = self._last_ack.get(peer.routing_id)
        if payload is None:
            return False
        gone = self._send(peer, payload) == errno.EHOSTUNREACH
        if gone:
            del self._last_ack[peer.routing_id]
        return not gone

    def _send(self, peer: Peer, payload: bytes) -> int:
        try:
            self.socket.send_multipart([peer.routing_id, payload], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.EAGAIN):
                raise
            return error.errno
        return 0

    def close(self) -> None:
        self.socket.close(linger=0)


def _user_id(frame: zmq.Frame) -> str | None:
    try:
        user = frame.get("User-Id")
    except zmq.ZMQError:
        return None
    return user if isinstance(user, str) and user else None
