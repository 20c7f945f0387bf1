"""The PUB socket that subscribers connect to. A slow or frozen subscriber loses messages; it never holds
the hub up.
"""

import zmq

from hub.sockets import bind_server
from viewsync.keys import KeyPair
from viewsync.prediction import Prediction, Status, encode_prediction

SUBSCRIBER_DOMAIN = b"subscribers"

# Messages kept for a subscriber that does not read; beyond that it misses some, which `seq` shows it.
_UNREAD_PER_SUBSCRIBER = 100


class Outputs:
    """Owns the socket. Raises ConfigError where `endpoint` cannot be bound."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, key: KeyPair | None) -> None:
        self.socket = context.socket(zmq.PUB)
        self.socket.setsockopt(zmq.SNDHWM, _UNREAD_PER_SUBSCRIBER)
        # All that a subscriber may send us are subscriptions.
        self.socket.setsockopt(zmq.MAXMSGSIZE, 1024)
        self.endpoint = bind_server(self.socket, endpoint, key, SUBSCRIBER_DOMAIN, "outputs.bind")

    def send(self, message: Prediction | Status) -> None:
        """Publish to whoever listens, without waiting."""
        self.socket.send(encode_prediction(message), zmq.NOBLOCK)

    def close(self) -> None:
        self.socket.close(linger=0)
