"""Passwords leave addresses before anything is printed or logged."""

import logging
import re

# Everything up to white space or the next address: a password that nobody percent-encoded may hold "@", "/",
# quotes.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]{0,20}://"
_ADDRESS = re.compile(rf"(?P<scheme>{_SCHEME})(?P<rest>(?:(?!{_SCHEME})\S)*)")
_HOST_ONLY = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^/?#@:]*)(:\d*)?([/?#]|$)")
# Some cameras take the password as a parameter, in the query or in the path
# (rtsp://host/user=admin&password=…).
_PARAMETER = re.compile(r"(?i)((?:^|[?&/_;,\s])(?:password|passwd|passphrase|pwd|pass)=)[^&\s\"'<>;,]+")


def redact(text: str) -> str:
    """`text` with the user-info of every URL, and every `password=` parameter, replaced by `***`.

    The host and the path stay readable, but behind user-info a path is cut at its own last "@".
    """
    return _PARAMETER.sub(r"\1***", _ADDRESS.sub(_without_user_info, text))


def _without_user_info(match: re.Match[str]) -> str:
    scheme, rest = match["scheme"], match["rest"]
    if "@" not in rest or _HOST_ONLY.match(rest):
        return match[0]
    return f"{scheme}***@{rest.rpartition('@')[2]}"


class RedactingFormatter(logging.Formatter):
    """Redacts the finished line: message, arguments and traceback alike."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
