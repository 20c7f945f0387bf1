"""SIGINT, SIGTERM, and SIGHUP when the terminal is closed, become one event that every loop waits on.

The event is set by a small thread that reads Python's signal wake-up pipe, never by the handler: a handler
runs in the main thread between any two instructions, so `Event.set` there can deadlock with the `Event.wait`
it interrupts. It also means that the event is set while the main thread is deep inside native code.
"""

import functools
import os
import signal
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@functools.cache
def stopping() -> threading.Event:
    """The event that these signals set; the first call, in the main thread, installs the handlers.

    A second signal raises KeyboardInterrupt, so that an impatient Ctrl-C ends a program that does not stop;
    a terminal that is closed may send several, though. What `nohup` started goes on without its terminal.
    """
    stop = threading.Event()
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(reader, True)
    seen = 0

    def handle(number: int, frame: types.FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1 and number != signal.SIGHUP:
            raise KeyboardInterrupt

    def watch() -> None:
        while not set(STOPS).intersection(os.read(reader, 64)):
            pass
        stop.set()

    threading.Thread(target=watch, name="signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in STOPS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)
    return stop


@contextmanager
def default_signals() -> Iterator[None]:
    """The system's own handling of the signals that stop us: they end the process.

    PyAV holds the interpreter lock during the RTSP handshake, so with a reader that froze no Python code of
    ours could run to stop. There is nothing to clean up then; the system closes the connection.
    """
    numbers = [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]
    ours = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
