"""What the configurations of agent and hub have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from viewsync.config import Section
from viewsync.endpoints import port_of


def _with_port(endpoint: str) -> str:
    if endpoint.startswith("tcp://") and port_of(endpoint) is None:
        raise ValueError("it has no port from 1 to 65535; give an address such as tcp://127.0.0.1:5555")
    return endpoint


Endpoint = Annotated[str, StringConstraints(pattern=r"^(tcp|ipc)://.+$"), AfterValidator(_with_port)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class HealthSection(Section):
    """Prometheus metrics and /healthz over HTTP."""

    # Address to listen on.
    host: str = "127.0.0.1"
    # Port; none: no HTTP server; 0: any free port, logged.
    port: int | None = Field(default=None, ge=0, le=65535)
