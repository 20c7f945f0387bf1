import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewsync.redact import RedactingFormatter, redact

# What a person may type: no white space, and no second address inside.
passwords = st.text(
    st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=6, max_size=20
).filter(lambda word: "://" not in word)


@given(passwords)
def test_no_password_before_a_host_survives(password: str) -> None:
    marked = f"S{password}T"
    line = redact(f"cannot open rtsp://admin:{marked}@cam.local:554/stream: timed out")
    assert marked not in line
    assert "admin" not in line
    assert line.endswith("@cam.local:554/stream: timed out")


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://cam.local/stream",
        "rtsp://cam.local:554/stream@2",
        "rtsp://[fe80::1]:8554/a@b",
        "tcp://*:5555",
        "tcp://127.0.0.1:5555 and a@b",
        "no address at all, only me@example.org",
    ],
)
def test_what_holds_no_password_is_left_alone(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://u:p@[::1]:8554/a", "rtsp://***@[::1]:8554/a"),
        ("rtsp://cam/a,rtsp://u:p@cam/b", "rtsp://cam/a,rtsp://***@cam/b"),
        ('["rtsp://cam/a","rtsps://u:p@cam/b"]', '["rtsp://cam/a","rtsps://***@cam/b"]'),
        ("RTSP://u:p@cam", "RTSP://***@cam"),
        ("rtsp://cam/user=admin&password=x1&channel=1", "rtsp://cam/user=admin&password=***&channel=1"),
        ("http://cam/video?usr=a&PWD=x1", "http://cam/video?usr=a&PWD=***"),
    ],
)
def test_every_address_on_a_line_is_redacted(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


def test_the_log_redacts_message_arguments_and_traceback() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter("%(message)s"))
    record_to = logging.Logger("camera")
    record_to.addHandler(handler)
    try:
        raise OSError("rtsp://u:hunter2@cam refused")
    except OSError:
        record_to.exception("cannot open %s", "rtsp://u:hunter2@cam")
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("rtsp://***@cam") >= 2
