"""A live camera: connects, decodes, dates and chooses frames, and comes back when the camera does.

One thread here decodes and never blocks for long; the connection's own thread (`demuxing`) may. Dating a
frame: the camera's time where its sender reports give one and arrival does not contradict it (`rtcp`), else
the time the first packet of the picture arrived (`arrival`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from edge.addresses import explain, is_foreseen, is_timeout
from edge.backoff import Backoff
from edge.counts import EdgeCounts
from edge.dating import FrameDating
from edge.demuxing import Backlog, Data, Ended, Opened, Opening, Overrun, start_reading
from edge.frames import RateGate
from edge.reception import Reception
from edge.source_thread import SourceThread
from viewsync.redact import redact
from viewsync.units import SECOND_NS

_log = logging.getLogger(__name__)

# Say so when an open stream has not given a whole frame for so long.
_NO_FRAME_S: Final = 15.0


class CameraSource(SourceThread):
    """Frames of one camera, newest only, `rate_hz` at most.

    wanted_size: (width, height) that the frames will be remapped to. listens: the camera connects to us.
    now: the agent's clock, UTC ns. On `close`, a connection that blocks is left to end by itself.
    """

    def __init__(
        self,
        view: str,
        opening: Opening,
        listens: bool,
        rate_hz: float,
        wanted_size: tuple[int, int] | None,
        dating: FrameDating,
        backoff: Backoff,
        counts: EdgeCounts,
        now: Callable[[], int],
    ) -> None:
        super().__init__(view)
        self._view = view
        self._opening = opening
        self._address = redact(opening.url)
        self._listens = listens
        self._gate = RateGate(rate_hz)
        self._wanted_size = wanted_size
        self._dating = dating
        self._backoff = backoff
        self._counts = counts
        self._now = now
        self._lock = threading.Lock()  # guards _backlog against close
        self._backlog: Backlog | None = None
        # Written by the source's thread, read by /healthz.
        self._problem = "waiting for the camera to connect" if listens else "connecting"
        self._last_frame_ns: int | None = None
        self._logged_problem = ""
        self._opened_s = 0.0

    def close(self) -> None:
        super().close()
        with self._lock:
            if self._backlog is not None:
                self._backlog.close()

    def state(self) -> tuple[bool, dict[str, Any]]:
        """Whether frames come, and facts for /healthz."""
        facts: dict[str, Any] = {"address": self._address, "problem": self._problem}
        if self._last_frame_ns is None:
            return False, facts
        age_s = (self._now() - self._last_frame_ns) / SECOND_NS
        facts["last_frame_s"] = round(age_s, 3)
        return not self._problem and age_s < self._opening.read_timeout_s, facts

    def _work(self) -> None:
        while not self._stop.is_set():
            reception, error = self._watch()
            if self._stop.is_set():
                return
            if self._listens and reception is None and is_timeout(error):
                continue  # nobody has connected yet
            self._lost(error)
            if not (self._listens and reception):
                self._stop.wait(self._backoff.next_s())

    def _watch(self) -> tuple[Reception | None, Exception | None]:
        """Open the stream and follow it until it ends: what was received, and why it ended."""
        backlog = start_reading(self._opening, self._now)
        with self._lock:
            self._backlog = backlog
        if self._stop.is_set():
            backlog.close()
        reception: Reception | None = None
        try:
            while True:
                event = backlog.get(reception.due_s() if reception else None)
                if self._stop.is_set():
                    return reception, None
                match event:
                    case Opened():
                        self._dating.restart()
                        reception = self._receive_from(event)
                    case Ended():
                        if reception is not None and event.error is None:
                            reception.finish()
                        return reception, event.error
                    case None if reception is not None:
                        reception.settle()
                    case Data() if reception is not None:
                        reception.receive(event, backlog.is_empty())
                    case Overrun() if reception is not None:
                        reception.overrun(event)
                if reception is not None:
                    self._note(reception)
        except Exception as error:  # noqa: BLE001 (a picture that nobody foresaw ends this connection only)
            return reception, error
        finally:
            backlog.close()

    def _receive_from(self, opened: Opened) -> Reception:
        self._opened_s = time.monotonic()
        self._problem = "connected, but no whole frame has come yet"
        return Reception(
            opened, self._gate, self._dating, self._newest, self._wanted_size, self._counts, self._now
        )

    def _note(self, reception: Reception) -> None:
        """Keep what /healthz and the log say in step with what comes in."""
        if reception.last_frame_ns is not None:
            self._last_frame_ns = reception.last_frame_ns
            if self._problem:
                _log.info("view %s: frames come from %s", self._view, self._address)
                self._problem = self._logged_problem = ""
                self._counts.source_up.set(1)
                self._backoff.reset()
        elif time.monotonic() - self._opened_s > _NO_FRAME_S:
            self._report(
                f"{self._address}: no whole frame in {_NO_FRAME_S:.0f} s of stream; "
                "set a shorter key frame interval on the camera"
            )

    def _lost(self, error: Exception | None) -> None:
        self._counts.source_up.set(0)
        self._counts.source_reconnects.inc()
        self._report(explain(self._opening.url, error, self._listens), None if is_foreseen(error) else error)

    def _report(self, problem: str, unforeseen: Exception | None = None) -> None:
        """Log a problem when it is another one than before: a camera that stays away fills no log.

        unforeseen: an error of our own, logged with where it came from.
        """
        self._problem = problem
        if problem != self._logged_problem:
            self._logged_problem = problem
            _log.warning("view %s: %s; trying on", self._view, problem, exc_info=unforeseen)
