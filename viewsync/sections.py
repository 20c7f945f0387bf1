"""What the configurations of agent and hub have in common."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from viewsync.config import Section
from viewsync.endpoints import port_of


def _endpoint(endpoint: str) -> str:
    if not re.match(r"(tcp|ipc)://.", endpoint):
        raise ValueError(f"{endpoint!r} is no address; give one such as tcp://127.0.0.1:5555")
    if endpoint.startswith("tcp://") and port_of(endpoint) is None:
        raise ValueError("it has no port from 1 to 65535; give an address such as tcp://127.0.0.1:5555")
    return endpoint


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(f"{name!r} is no name; give up to 64 letters, digits and . _ -")
    return name


Endpoint = Annotated[str, AfterValidator(_endpoint)]
Name = Annotated[str, AfterValidator(_name)]


class HealthSection(Section):
    """Prometheus metrics and /healthz over HTTP."""

    # Address to listen on.
    host: str = "127.0.0.1"
    # Port; none: no HTTP server; 0: any free port, logged.
    port: int | None = Field(default=None, ge=0, le=65535)
