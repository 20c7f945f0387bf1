"""What every source is: a thread that puts frames into a slot for the newest one, until told to stop."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator

from edge.frames import Frame, NewestFrame


class SourceThread(ABC):
    """`_work` runs in the thread: it offers frames to `_newest` until `_stop` is set. What it fails with is
    raised where the frames are taken.
    """

    def __init__(self, view: str) -> None:
        self._newest = NewestFrame(view)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)

    @abstractmethod
    def _work(self) -> None: ...

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def frames(self) -> Iterator[Frame]:
        """The newest chosen frame each time one is asked for; ends on `close`, or with a recording."""
        return self._newest.frames()

    def close(self) -> None:
        """Stop within moments, whatever the camera does. Closing twice is fine."""
        self._stop.set()
        self._newest.close()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 (raised again where the frames are taken)
            self._newest.fail(error)
