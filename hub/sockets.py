"""Binding a server socket the way both of the hub's sockets need it: CURVE, heartbeats, and an error a
person can act on.
"""

import zmq

from viewsync.errors import ConfigError
from viewsync.keys import KeyPair


def bind_server(
    socket: "zmq.Socket[bytes]", endpoint: str, key: KeyPair | None, domain: bytes, config_key: str
) -> str:
    """Bind and return the address really bound (a port of * becomes a number). The socket is closed on
    failure.

    domain: what the authenticator tells this socket's clients apart by. Raises ConfigError naming
    `config_key`.
    """
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IPV6, int("[" in endpoint))
    # A peer behind a cut cable is dropped. Not sooner: libzmq counts whole messages as a sign of life, not
    # bytes, and a large message takes many seconds on a slow link.
    socket.setsockopt(zmq.HEARTBEAT_IVL, 2_000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 20_000)
    # A stranger who connects and says nothing does not hold a connection.
    socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
    if key is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public)
        socket.setsockopt(zmq.ZAP_DOMAIN, domain)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        if error.errno == zmq.EADDRINUSE:
            why = "the address is in use; stop the other program or choose another port"
        else:
            why = f"{error.strerror}; give an address of this machine, such as tcp://127.0.0.1:5555"
        raise ConfigError(f"{config_key}: cannot bind {endpoint}: {why}") from None
    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return bound.rstrip(b"\0").decode()
