"""What is kept of a cell that is trained and measured: one file, `cell.json`, whole without the weights.

So measured cells can be handed on, and committed, where the models that they are of cannot.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from viewsync.errors import UserError
from viewsync.training.metrics import Scores

NAME = "cell.json"


@dataclass(frozen=True, slots=True)
class Record:
    """A measured cell. cell: its folder's name (`grid.Cell.folder`); steps: trained; passes: how often each
    instant taught was looked at; config: settings of the training; curve: (step, density error on the
    validation pieces); scores: of every test frame.
    """

    cell: str
    steps: int
    passes: float
    config: Mapping[str, Any]
    curve: tuple[tuple[int, float], ...]
    scores: Scores

    def save(self, folder: Path) -> None:
        """Write it into the cell's folder, whole or not at all; of scores seven digits are kept."""
        plain: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["scores"] = {name: _plain(values) for name, values in asdict(self.scores).items()}
        part = folder / f"{NAME}.part"
        part.write_text(json.dumps(plain) + "\n")
        os.replace(part, folder / NAME)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """That of a cell's folder; None where there is none. Raises UserError for a damaged one."""
        path = folder / NAME
        try:
            kept = json.loads(path.read_text())
            scores = Scores(*(np.array(kept["scores"][field.name]) for field in fields(Scores)))
            curve = tuple((int(step), float(error)) for step, error in kept["curve"])
            trained = int(kept["steps"]), float(kept["passes"]), dict(kept["config"])
            return cls(str(kept["cell"]), *trained, curve, scores)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: cannot be read ({error!r}); remove it and fill the cell again"
            ) from error


def _plain(values: np.typing.NDArray[Any]) -> list[float] | list[int]:
    if np.issubdtype(values.dtype, np.integer):
        return [int(value) for value in values]
    rounded = [float(f"{value:.7g}") for value in values]
    return [int(value) for value in rounded] if all(v.is_integer() for v in rounded) else rounded
