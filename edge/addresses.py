"""What an error of FFmpeg means for the person who gave the address: what, where, what to do."""

from __future__ import annotations

import errno

import av

from viewsync.errors import SourceError
from viewsync.redact import redact

_ADVICE: list[tuple[type[Exception], str]] = [
    (
        av.error.HTTPUnauthorizedError,
        "the camera wants a user name and password, or refuses these (401); "
        "put user:password@ before the host in the address",
    ),
    (av.error.HTTPForbiddenError, "the camera forbids this user to see the stream (403); give it the right"),
    (
        av.error.HTTPNotFoundError,
        "the camera has no stream under this path (404); look the path up in its manual",
    ),
    (av.error.HTTPBadRequestError, "the camera does not understand the request (400); check the address"),
    (
        av.error.HTTPTooManyRequestsError,
        "the camera refuses more viewers (429); close another one",
    ),
    (
        av.error.HTTPOtherClientError,
        "the camera refuses the request (4xx); try the other `source.transport`, and check the path",
    ),
    (av.error.HTTPServerError, "the camera has an error of its own (5xx); restart it"),
    (
        ConnectionRefusedError,
        "nobody listens there (connection refused); check address and port, and that the camera is on",
    ),
    (ConnectionResetError, "the camera closed the connection (reset); it may allow fewer viewers"),
    (BrokenPipeError, "the camera closed the connection; it may allow fewer viewers"),
    (
        av.error.ExitError,
        "the camera does not answer in time; check address and network, or raise `source.timeout_s`",
    ),
    (
        TimeoutError,
        "the camera does not answer in time; check address and network, or raise `source.timeout_s`",
    ),
    (FileNotFoundError, "it is not there; check the path"),
    (PermissionError, "reading it is not permitted; give this user the right"),
    (
        av.error.ProtocolNotFoundError,
        "this kind of address is not known; use rtsp://, a file, a folder or /dev/video…",
    ),
    (av.error.DecoderNotFoundError, "the codec is not known; set the camera to H.264"),
    (
        av.error.InvalidDataError,
        "what comes from there is no video this program can read; check the address, or the file",
    ),
]
_BY_NUMBER = {
    errno.EHOSTUNREACH: "the host cannot be reached; check address and network",
    errno.ENETUNREACH: "the network cannot be reached; check address and network",
    errno.EADDRINUSE: "the port is in use; stop the other program or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address; listen on 0.0.0.0 or one of its own",
    errno.EBUSY: "another program uses the device; stop it",
    errno.EIO: "the host name is not known, or the connection broke; check address and network",
}


_DEVICE_BY_NUMBER = {
    errno.ENOTTY: "it is no camera; give /dev/video…",
    errno.ENODEV: "it is no camera that takes pictures, or was unplugged; try another /dev/video…",
    errno.ENXIO: "there is no camera behind it; plug it in, or try another /dev/video…",
    errno.EINVAL: "the camera refuses what is asked of it; leave out source.device_size, device_format "
    "and device_rate_hz, or give what `v4l2-ctl --list-formats-ext` lists",
    errno.EACCES: "reading it is not permitted; add this user to the group that may (often `video`)",
    errno.EPERM: "reading it is not permitted; let the container have the device",
}


def explain(address: str, error: Exception | None, listens: bool = False) -> str:
    """One line for a source that failed, without its password. error None: the stream just ended.

    listens: the camera had connected to us.
    """
    where = redact(address)
    if listens and (error is None or isinstance(error, (ConnectionResetError, BrokenPipeError))):
        return f"{where}: the camera stopped pushing; start it again"
    if error is None:
        return f"{where}: the stream ended"
    if isinstance(error, SourceError):
        return f"{where}: {redact(str(error))}"
    number = getattr(error, "errno", None)
    if address.startswith("/dev/") and number in _DEVICE_BY_NUMBER:
        return f"{where}: {_DEVICE_BY_NUMBER[number]}"
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return f"{where}: {advice}"
    if not is_foreseen(error):
        said = redact(" ".join(f"{type(error).__name__}: {error}".split()))
        return f"{where}: reading it failed in a way that nobody foresaw ({said}); please report this"
    if number in _BY_NUMBER:
        return f"{where}: {_BY_NUMBER[number]}"
    text = getattr(error, "strerror", None) or str(error)
    return f"{where}: {redact(' '.join(str(text).split()))}; check the address"


def is_foreseen(error: Exception | None) -> bool:
    """Whether it is of the kind that FFmpeg and the network give, rather than a mistake of our own."""
    return error is None or isinstance(error, (av.error.FFmpegError, OSError, ValueError, SourceError))


def is_timeout(error: Exception | None) -> bool:
    """Whether nobody answered, rather than somebody badly."""
    return isinstance(error, (TimeoutError, av.error.ExitError))
