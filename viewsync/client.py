"""Listening to a hub: what `viewsync subscribe` uses, and your own program may.

    from viewsync.client import Subscriber
    with Subscriber("tcp://127.0.0.1:5556") as hub:
        for message in hub:
            print(message)  # Prediction or Status

For a hub with keys, `Subscriber(address, load_client_keys(own_secret, hub_pub))` (`viewsync.keys`).

Every prediction is delivered unless the hub's or this side's queue overflows; `lost` counts those that were
not. The connection is made again by itself when the hub restarts.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from viewsync.closing import Closing
from viewsync.endpoints import port_of
from viewsync.errors import UserError
from viewsync.keys import ClientKeys
from viewsync.packing import MAX_MESSAGE_BYTES
from viewsync.prediction import Prediction, Status, decode_prediction

_QUEUE: Final = 1000  # messages: minutes of predictions for a program that pauses
_HEARTBEAT_MS: Final = 2_000
_HEARTBEAT_TIMEOUT_MS: Final = 10_000
_WATCHED: Final = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_BROKEN_HANDSHAKES: Final = 3
_REDIAL_REFUSED_S: Final = 0.5
_REDIAL_LOST_S: Final = 5.0


class Subscriber(Closing):
    """A subscription to one hub's predictions. Not thread-safe: use it from one thread.

    `received` and `lost` count predictions: a gap in `seq` within a hub's session is a loss. `connected`
    says whether the hub has been reached, as of the last `receive`.
    """

    def __init__(self, endpoint: str, keys: ClientKeys | None = None, *, newest_only: bool = False) -> None:
        """Start listening; the hub need not be there yet.

        endpoint: such as tcp://127.0.0.1:5556. keys: for a hub that demands CURVE (`viewsync.keys`).
        newest_only: what waits is skipped (and counted as `skipped`) except for the newest. Raises
        UserError for an unusable endpoint.
        """
        if keys is not None and not isinstance(keys, ClientKeys):
            raise UserError("Subscriber: keys are what viewsync.keys.load_client_keys makes of two files")
        if endpoint.startswith("tcp:") and not port_of(endpoint):
            raise UserError(_bad_endpoint(endpoint, "it has no port from 1 to 65535"))
        self.endpoint = endpoint
        self.received = 0
        self.lost = 0
        self.skipped = 0
        self.connected = False
        self._secured = keys is not None
        self._broken_handshakes = 0  # in a row
        self._redial_at = math.inf  # monotonic, s
        self._newest_only = newest_only
        self._last: tuple[int, int] | None = None  # session and seq of the newest prediction
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.linger = 0
        self._socket.rcvhwm = _QUEUE
        self._socket.ipv6 = "[" in endpoint
        self._socket.maxmsgsize = MAX_MESSAGE_BYTES
        self._socket.heartbeat_ivl = _HEARTBEAT_MS
        self._socket.heartbeat_timeout = _HEARTBEAT_TIMEOUT_MS
        self._socket.reconnect_ivl_max = 2_000
        self._monitor = self._socket.get_monitor_socket(_WATCHED)
        try:
            if keys is not None:
                keys.secure(self._socket)
            self._socket.subscribe(b"")
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise UserError(_bad_endpoint(endpoint, str(error))) from error
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)

    def receive(self, timeout_s: float | None = None) -> Prediction | Status | None:
        """The next message; None where none comes within `timeout_s` (None: wait for ever).

        Raises UserError where the hub refuses this side's keys, WireError where it speaks another format.
        Either way the subscription goes on: ask again.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            until = min(deadline, self._redial_at)
            wait_ms = None if until == math.inf else max(0, math.ceil(1000 * (until - now)))
            ready = dict(self._poller.poll(wait_ms))
            if self._monitor in ready:
                self._note_events()
            if self._socket in ready:
                return self._take()
            if time.monotonic() >= self._redial_at:
                self._dial_again()
            if not ready and time.monotonic() >= deadline:
                return None

    def __iter__(self) -> Iterator[Prediction | Status]:
        """Messages without end."""
        while True:
            message = self.receive()
            if message is not None:
                yield message

    def close(self) -> None:
        """Stop listening. Closing twice is fine."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)
            self._context.term()

    def _take(self) -> Prediction | Status:
        message = self._count(decode_prediction(self._socket.recv()))
        while self._newest_only and self._socket.poll(0):
            self.skipped += 1
            message = self._count(decode_prediction(self._socket.recv()))
        return message

    def _count(self, message: Prediction | Status) -> Prediction | Status:
        if isinstance(message, Prediction):
            self.received += 1
            if self._last is not None and self._last[0] == message.session:
                self.lost += max(0, message.seq - self._last[1] - 1)
            self._last = (message.session, message.seq)
        return message

    def _note_events(self) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connected = True
                self._broken_handshakes = 0
                self._redial_at = math.inf
            elif event == zmq.EVENT_DISCONNECTED:
                self.connected = False
                self._redial_at = min(self._redial_at, time.monotonic() + _REDIAL_LOST_S)
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._redial_at = time.monotonic() + _REDIAL_REFUSED_S
                raise UserError(
                    f"the hub at {self.endpoint} does not know this subscriber's key; add it to the hub's "
                    "allow-list as a subscriber (`viewsync keys make`)"
                )
            else:
                self._redial_at = time.monotonic() + _REDIAL_REFUSED_S
                self._broken_handshakes += 1
                # One may be a hub that stopped just then.
                if self._broken_handshakes == _BROKEN_HANDSHAKES:
                    raise UserError(self._why_no_handshake())

    def _dial_again(self) -> None:
        # libzmq gives a connection up for good after a refused or failed handshake; keys and allow-lists
        # change.
        self._redial_at = math.inf
        with contextlib.suppress(zmq.ZMQError):  # it may have forgotten the endpoint already
            self._socket.disconnect(self.endpoint)
        self._socket.connect(self.endpoint)

    def _why_no_handshake(self) -> str:
        broken = f"the hub at {self.endpoint} breaks off the handshake"
        if self._secured:
            return f"{broken}; it uses no keys, or the hub key given is another hub's: give its hub.pub"
        return f"{broken}; it demands keys: give a subscriber's key and hub.pub (`viewsync keys make`)"


def _bad_endpoint(endpoint: str, why: str) -> str:
    return f"cannot listen to {endpoint!r} ({why}); give an address such as tcp://127.0.0.1:5556"
