"""A way for other threads to end a poll at once: an event that has a file descriptor."""

from __future__ import annotations

import socket


class Wakeup:
    """Poll `fileno()` for reading; any thread may `set`, the polling one `clear`s."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    def set(self) -> None:
        try:
            self._writer.send(b"\0")
        except BlockingIOError:
            pass  # full of wake-ups already

    def clear(self) -> None:
        try:
            while self._reader.recv(256):
                pass
        except BlockingIOError:
            pass
