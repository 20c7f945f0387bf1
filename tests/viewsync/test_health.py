import http.client
import json
import socket
import threading

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from viewsync.errors import ConfigError
from viewsync.health import HealthServer


def get(server: HealthServer, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.fixture
def state():
    return {"well": True, "raise": False}


@pytest.fixture
def server(state):
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("refused", "Refused messages.", ["reason"], registry=registry).labels(
        "too-large"
    ).inc(3)

    def healthy() -> tuple[bool, dict[str, object]]:
        if state["raise"]:
            raise RuntimeError("rtsp://u:hunter2@cam")
        return bool(state["well"]), {"views": 3}

    with HealthServer("127.0.0.1", 0, registry, healthy) as server:
        yield server


def test_metrics_are_prometheus_text(server) -> None:
    status, body = get(server, "/metrics")
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert [sample.value for sample in families["refused"].samples if sample.name == "refused_total"] == [3.0]


def test_health_follows_the_program(server, state) -> None:
    assert get(server, "/healthz") == (200, b'{"views": 3}\n')
    state["well"] = False
    status, body = get(server, "/healthz")
    assert (status, json.loads(body)) == (503, {"views": 3})
    state["raise"] = True
    status, body = get(server, "/healthz")
    assert status == 503
    assert b"hunter2" not in body


def test_anything_else_is_not_found_and_head_has_no_body(server) -> None:
    assert get(server, "/")[0] == 404
    assert get(server, "/healthz", "HEAD") == (200, b"")
    assert get(server, "/healthz", "POST")[0] == 501


def test_silent_clients_block_neither_the_program_nor_its_end(server) -> None:
    silent = [socket.create_connection((server.host, server.port)) for _ in range(30)]
    # None of them ever says anything, so closing that waited for one would never end.
    closing = threading.Thread(target=server.close, daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    for client in silent:
        client.close()


def test_a_port_in_use_is_the_users_to_solve(server) -> None:
    with pytest.raises(ConfigError, match=f"127.0.0.1:{server.port}.*in use.*another port"):
        HealthServer("127.0.0.1", server.port, prometheus_client.CollectorRegistry(), lambda: (True, {}))
