"""What the configurations of agent and hub have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from viewsync.config import Section

Endpoint = Annotated[str, StringConstraints(pattern=r"^(tcp|ipc)://.+$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class HealthSection(Section):
    """Prometheus metrics and /healthz over HTTP."""

    # Address to listen on.
    host: str = "127.0.0.1"
    # Port; none: no HTTP server; 0: any free port, logged.
    port: int | None = Field(default=None, ge=0, le=65535)
