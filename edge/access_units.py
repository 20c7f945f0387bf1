"""From RTP fragments to whole pictures without waiting for the next one. Pure: times come in as arguments.

FFmpeg's H.264 and H.265 parsers hand out a picture (an access unit) when the first byte of the next one
arrives. At 0.3 frames/s that makes every frame three seconds old. So the demuxer runs without parser
(`fflags=noparse`), which gives one packet per RTP payload, all of one picture with one timestamp, and this
module puts them together. A picture is handed out when

* a fragment of the next picture arrives (certain), or
* nothing has arrived for the settle time (likely).

The settle time follows the connection: four times the pauses usual inside pictures lately, and much longer
while the newest fragment is as long as fragments get here, because a full fragment is what precedes a stall
in the middle of a picture, and the last one is rarely full. Where the guess was wrong after all, more
fragments of the same picture arrive: then the picture is handed out once more, `again`, and the decoder goes
back (`decoding.Decoder`). Nothing is lost by a wrong guess but one early look at a damaged frame.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from viewsync.units import MS_NS

Codec = Literal["h264", "hevc"]

SHORTEST_SETTLE_NS: Final = 20 * MS_NS
LONGEST_SETTLE_NS: Final = 500 * MS_NS
# Before the connection's rhythm is known, and always for H.265, whose decoder does not notice a cut picture.
CAUTIOUS_SETTLE_NS: Final = 100 * MS_NS
_UNITS_TO_KNOW: Final = 4
_UNITS_REMEMBERED: Final = 64
_FULL_FRAGMENT_FACTOR: Final = 5
_START_CODE: Final = b"\x00\x00\x01"
# What FFmpeg puts in front of a payload that starts a unit (4 + 1), beside the fragment header it removes (2)
# from that one and from all others.
_HEAD_BYTES: Final = 5


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One coded picture. pts: the stream's ticks; arrival_ns: when its first fragment came, agent's clock."""

    data: bytes
    pts: int
    arrival_ns: int
    # Capture time in the camera's clock, from its sender reports; None before the first one.
    capture_ns: int | None
    is_key: bool
    # Handed out before with fewer fragments: this one replaces it.
    again: bool = False


@dataclass(slots=True)
class _UnderWay:
    """The picture that fragments are added to, or that was handed out last."""

    pts: int | None
    arrival_ns: int
    parts: list[bytes]
    capture_ns: int | None = None
    has_picture: bool = False
    is_key: bool = False
    pause_ns: int = 0
    handed_out: bool = False
    again: bool = False


class AccessUnits:
    """Collects the fragments of one connection, in order of arrival.

    State: `_current`, the picture under way; once handed out it stays, in case more of it comes, until a
    fragment with another timestamp does. guessed_wrong: pictures handed out too early.
    """

    __slots__ = (
        "_codec",
        "_current",
        "_full_size",
        "_last_ns",
        "_last_size",
        "_next_head",
        "_pauses",
        "guessed_wrong",
    )

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._current = _UnderWay(None, 0, [])
        self._next_head: list[bytes] = []  # parameter sets that belong in front of the next picture
        self._last_ns = 0
        self._last_size = 0
        self._full_size = 0
        self._pauses: deque[int] = deque(maxlen=_UNITS_REMEMBERED)
        self.guessed_wrong = 0

    def push(
        self, fragment: bytes, pts: int, arrival_ns: int, capture_ns: int | None = None
    ) -> AccessUnit | None:
        """Take one fragment; returns the picture before, if this ends it and it was not handed out yet."""
        starts = fragment.startswith((_START_CODE, b"\x00" + _START_CODE))
        has_picture, is_key = picture_units(fragment, self._codec) if starts else (False, False)
        done = None
        if pts != self._current.pts:
            done = self._finish()
            self._current = _UnderWay(pts, arrival_ns, self._next_head)
            self._next_head = []
        elif self._current.handed_out and starts and not has_picture:
            # Some cameras send the next picture's parameter sets with the old timestamp.
            self._next_head.append(fragment)
            return None
        elif self._current.parts:
            pause_ns = arrival_ns - self._last_ns
            self._current.pause_ns = max(self._current.pause_ns, pause_ns)
            if pause_ns > LONGEST_SETTLE_NS:
                # Some servers send the head of a client's first picture ahead of its time.
                self._current.arrival_ns = arrival_ns
        current = self._current
        if not starts and not current.parts:
            return done  # the rest of something whose beginning we did not see
        if current.handed_out:
            current.handed_out = False
            current.again = True
            self.guessed_wrong += 1
        current.parts.append(fragment)
        current.has_picture |= has_picture
        current.is_key |= is_key
        current.capture_ns = current.capture_ns if capture_ns is None else capture_ns
        self._last_ns = arrival_ns
        # A fragment that starts a unit carries a start code and a rebuilt header on top of its payload.
        self._last_size = len(fragment) - (_HEAD_BYTES if starts else 0)
        self._full_size = max(self._full_size, self._last_size)
        return done

    def due_ns(self) -> int | None:
        """When the picture under way counts as whole if nothing more arrives; None: nothing to wait for."""
        if not self._current.has_picture or self._current.handed_out:
            return None
        return self._last_ns + self._settle_ns()

    def settle(self, now_ns: int) -> AccessUnit | None:
        """The picture under way, if nothing has arrived for the settle time."""
        due_ns = self.due_ns()
        if due_ns is None or now_ns < due_ns:
            return None
        self._current.handed_out = True
        return self._unit()

    def restart(self) -> None:
        """Fragments were lost here: forget the picture under way."""
        self._current = _UnderWay(None, 0, [])
        self._next_head = []

    def _settle_ns(self) -> int:
        cautious = self._codec == "hevc" or len(self._pauses) < _UNITS_TO_KNOW
        # All but the worst in twenty, and at least one: a single stall is no rhythm.
        usual = sorted(self._pauses)[: -max(1, len(self._pauses) // 20)]
        pause_ns = max(usual[-1] if usual else 0, self._current.pause_ns)
        settle_ns = max(4 * pause_ns, CAUTIOUS_SETTLE_NS if cautious else SHORTEST_SETTLE_NS)
        settle_ns = min(settle_ns, LONGEST_SETTLE_NS)
        return settle_ns * _FULL_FRAGMENT_FACTOR if self._last_size >= self._full_size else settle_ns

    def _finish(self) -> AccessUnit | None:
        """Close the picture under way, because another timestamp has come."""
        if not self._current.has_picture:
            self._next_head = self._current.parts
            return None
        self._pauses.append(self._current.pause_ns)
        return None if self._current.handed_out else self._unit()

    def _unit(self) -> AccessUnit:
        current = self._current
        assert current.pts is not None
        return AccessUnit(
            b"".join(current.parts),
            current.pts,
            current.arrival_ns,
            current.capture_ns,
            current.is_key,
            current.again,
        )


def picture_units(fragment: bytes, codec: Codec) -> tuple[bool, bool]:
    """Whether a fragment that begins with a start code holds (part of) a picture, and of a key picture.

    H.264 (table 7-1): types 1 to 5 are slices, 5 is an IDR. H.265 (table 7-1): 0 to 31 are slices, 16 to 23
    random access points.
    """
    has_picture = is_key = False
    at = fragment.find(_START_CODE)
    while 0 <= at < len(fragment) - len(_START_CODE):
        header = fragment[at + len(_START_CODE)]
        if codec == "h264":
            kind = header & 0x1F
            has_picture |= 1 <= kind <= 5
            is_key |= kind == 5
        else:
            kind = (header >> 1) & 0x3F
            has_picture |= kind <= 31
            is_key |= 16 <= kind <= 23
        at = fragment.find(_START_CODE, at + len(_START_CODE))
    return has_picture, is_key
