"""One suspicious thing about a scene."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """code: what kind, for programs; view: the camera that it is about, or None; message: one line for
    people, what is wrong and what to do.
    """

    code: str
    severity: Literal["error", "warning"]
    view: str | None
    message: str

    def __str__(self) -> str:
        return (
            f"{self.severity}: {self.view}: {self.message}"
            if self.view
            else f"{self.severity}: {self.message}"
        )
