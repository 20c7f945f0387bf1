"""A crowd whose state is kept in a file: whoever asks for it later need not play it from the beginning."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from viewsync.sim.crowd import STEP_S, Appearance, Crowd, CrowdMoment, CrowdState

_log = logging.getLogger(__name__)

KEEP_EVERY_S = 60.0


class KeptCrowd:
    """`crowd`, with its state in `path` every `KEEP_EVERY_S` of its time; the same people in the same places.

    The first question goes on from the state in the file, if that is this crowd's and not later than what is
    asked for. A file that cannot be read or written is said once and costs only time.
    """

    def __init__(self, crowd: Crowd, path: Path) -> None:
        self._crowd = crowd
        self._path = path
        self._kept_step: int | None = None  # None: the file has not been looked at

    @property
    def appearance(self) -> Appearance:
        """How everybody looks."""
        return self._crowd.appearance

    def state(self, t_s: float) -> CrowdState:
        """`Crowd.state`."""
        if self._kept_step is None:
            self._kept_step = self._resume(t_s)
        state = self._crowd.state(t_s)
        if t_s / STEP_S - self._kept_step >= KEEP_EVERY_S / STEP_S:
            self._kept_step = self._keep()
        return state

    def _resume(self, t_s: float) -> int:
        """Go on from the file, if it is of use; the step that it has, or 0."""
        try:
            facts, moment = _read(self._path.read_text(encoding="utf-8"))
            if facts != _plain(self._crowd.facts):
                raise ValueError("it is another crowd's")
            if moment.step * STEP_S > t_s:
                raise ValueError(f"it is of {moment.step * STEP_S:.1f} s, asked for is {t_s:.1f} s")
            self._crowd.resume(moment)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s: not used (%s); the crowd is played from its beginning", self._path, error)
            return 0
        _log.info("%s: the crowd goes on from %.0f s", self._path, moment.step * STEP_S)
        return moment.step

    def _keep(self) -> int:
        moment = self._crowd.moment()
        moving = {name: array.tolist() for name, array in moment.moving.items()}
        document = {
            "crowd": self._crowd.facts,
            "step": moment.step,
            "moving": moving,
            "randomness": moment.randomness,
        }
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            new.write_text(json.dumps(document), encoding="utf-8")
            new.replace(self._path)
        except OSError as error:
            new.unlink(missing_ok=True)
            _log.warning("%s: the crowd's state cannot be kept (%s)", self._path, error.strerror)
        return moment.step


def _read(text: str) -> tuple[object, CrowdMoment]:
    document = json.loads(text)
    step = document["step"]
    if type(step) is not int or step < 0:
        raise ValueError(f"step is {step!r}")
    moving = {name: np.array(rows, dtype=np.float64) for name, rows in document["moving"].items()}
    return document["crowd"], CrowdMoment(step, moving, document["randomness"])


def _plain(facts: object) -> Any:
    """As JSON has it: lists for tuples."""
    return json.loads(json.dumps(facts))
