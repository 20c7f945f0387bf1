"""Prometheus metrics and a health answer over HTTP, on loopback unless configured otherwise."""

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from viewsync.closing import Closing
from viewsync.errors import ConfigError

_log = logging.getLogger(__name__)

# A client that connects and says nothing holds one thread for at most this long, seconds.
_TIMEOUT_S = 5.0
# Requests answered at once; more are turned away: a flood neither makes threads without end nor blocks close.
_MOST_AT_ONCE = 8

Health = Callable[[], tuple[bool, Mapping[str, Any]]]


class HealthServer(Closing):
    """`GET /metrics` (Prometheus text) and `GET /healthz` (JSON; 200 healthy, 503 not).

    host, port: where to listen; port 0 takes any free port, told by `port`. healthy: called for each
    /healthz, from a thread of the server, so it must be quick and thread-safe; what it returns is the
    answer's JSON. Raises ConfigError where the address cannot be had.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, healthy: Health) -> None:
        try:
            self._server = _Server((host, port), _request_class(registry, healthy))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"health: cannot listen on {host}:{port}: {reason}; "
                "stop the other program or choose another port"
            ) from None
        self.host = host
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.25}, name="health", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening; safe to call twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_TIMEOUT_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Closing must not wait for a client that keeps its connection open.
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], request_class: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(_MOST_AT_ONCE)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, request_class)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("health: request of %s failed", client_address, exc_info=True)


def _request_class(registry: CollectorRegistry, healthy: Health) -> type[BaseHTTPRequestHandler]:
    class Request(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S
        server_version = "viewsync"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path == "/healthz":
                well, facts = self._health()
                self._answer(200 if well else 503, "application/json", json.dumps(facts).encode() + b"\n")
            else:
                self._answer(404, "text/plain; charset=utf-8", b"here are /metrics and /healthz\n")

        do_HEAD = do_GET

        def _health(self) -> tuple[bool, Mapping[str, Any]]:
            try:
                return healthy()
            except Exception:  # noqa: BLE001 (whatever is wrong in there, the program is not healthy)
                _log.exception("health: the check itself failed")
                return False, {"error": "the health check failed; see the log"}

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            _log.debug("health: %s", format % args)

    return Request
