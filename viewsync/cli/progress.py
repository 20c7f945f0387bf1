"""A bar with the time left on stderr; where that is no terminal, a line in the log now and then."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

_log = logging.getLogger(__name__)
_LINE_EVERY_S = 20.0


class Advance(Protocol):
    """Says that `done` of the total are done; `note` is shown behind the bar."""

    def __call__(self, done: int, note: str = "") -> None: ...


@contextmanager
def progress(what: str, total: int, start: int = 0) -> Iterator[Advance]:
    """Show how far `what` is, from `start` of `total` on."""
    if not sys.stderr.isatty():
        yield _Lines(what, total, start)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        # A long window: steps of training are uneven while they alternate with validation.
        TimeLeftColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=120) as bars:
        task = bars.add_task(what, total=total, completed=start, note="")
        yield lambda done, note="": bars.update(task, completed=done, note=note)


@contextmanager
def phases(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """Phases of `what`, one after the other: report(phase, done, total). Each has a bar of its own, that
    begins where it is first reported: what an earlier run did says nothing of the time left.
    """
    with ExitStack() as bar:
        yield _Phases(what, bar)


class _Phases:
    def __init__(self, what: str, bar: ExitStack) -> None:
        self._what, self._bar, self._phase = what, bar, ""

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase != self._phase:
            self._bar.close()
            self._advance = self._bar.enter_context(progress(f"{self._what}: {phase}", total, done))
            self._phase = phase
        self._advance(done)


class _Lines:
    def __init__(self, what: str, total: int, start: int) -> None:
        self._what, self._total, self._start = what, total, start
        self._began = self._last = time.monotonic()

    def __call__(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        begun = done > self._start
        if not begun:
            self._began = now  # nothing says yet how long it takes
        if now - self._last < _LINE_EVERY_S and not (begun and done >= self._total):
            return
        self._last = now
        if not begun:
            _log.info("%s", f"{self._what}: {done} of {self._total} {note}".rstrip())
            return
        left_s = (now - self._began) / max(done - self._start, 1) * (self._total - done)
        line = f"{self._what}: {done} of {self._total}, about {_minutes(left_s)} left {note}"
        _log.info("%s", line.rstrip())


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
