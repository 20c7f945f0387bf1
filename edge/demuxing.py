"""One connection to a camera, read in a thread of its own, because a read may block for seconds.

The thread only demuxes: it stamps the arrival, takes the capture time that the sender reports give (side data
`prft`), and puts the bytes into a `Backlog`. When nobody wants the camera any more the thread is left alone:
it ends by itself at its next packet or timeout, and as a daemon it keeps no process alive.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from viewsync.errors import SourceError

# Coded video that may wait for the decoder. More means that this machine cannot keep up with the stream.
_MOST_WAITING_BYTES: Final = 8 * 1024**2
_SPLIT_CODECS: Final = ("h264", "hevc")


@dataclass(frozen=True, slots=True)
class Opening:
    """How FFmpeg opens a stream. rtp: packets come as RTP payloads; whole_packets: FFmpeg's parser puts them
    together, and pictures then come one late.
    """

    url: str
    options: dict[str, str]
    format: str | None
    open_timeout_s: float | None
    read_timeout_s: float
    rtp: bool
    whole_packets: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream is there. fragments: packets are RTP payloads that must be put together."""

    context: VideoCodecContext
    ns_per_tick: float
    fragments: bool


@dataclass(frozen=True, slots=True)
class Data:
    """One packet: a picture, or a fragment of one."""

    data: bytes
    pts: int
    arrival_ns: int
    capture_ns: int | None
    is_key: bool


@dataclass(frozen=True, slots=True)
class Overrun:
    """Packets were dropped here, because they came faster than they could be decoded."""

    packets: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The connection is over. error None: the camera closed it without saying why."""

    error: Exception | None


Event = Opened | Data | Overrun | Ended


class Backlog:
    """Events from the reading thread to the decoding one, bounded in bytes.

    State: `_events`, and `_closed` once nobody reads any more. On overflow all waiting packets go, because
    later ones are worth more; the decoder learns of the gap.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._closed = False

    def put(self, event: Event) -> bool:
        """False: nobody reads any more, stop."""
        with self._changed:
            if isinstance(event, Data):
                self._bytes += len(event.data)
                if self._bytes > _MOST_WAITING_BYTES:
                    self._drop_packets()
                    self._bytes = len(event.data)
            self._events.append(event)
            self._changed.notify()
            return not self._closed

    def get(self, timeout_s: float | None) -> Event | None:
        """The next event; None after the timeout, or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._closed, timeout_s)
            if self._closed or not self._events:
                return None
            event = self._events.popleft()
            if isinstance(event, Data):
                self._bytes -= len(event.data)
            return event

    def is_empty(self) -> bool:
        """Whether the decoder has caught up."""
        with self._changed:
            return not self._events

    def close(self) -> None:
        """Nobody reads any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _drop_packets(self) -> None:
        dropped = sum(isinstance(event, Data) for event in self._events)
        earlier = sum(event.packets for event in self._events if isinstance(event, Overrun))
        self._events = deque(event for event in self._events if not isinstance(event, (Data, Overrun)))
        self._events.append(Overrun(dropped + earlier))


def start_reading(opening: Opening, now: Callable[[], int]) -> Backlog:
    """Open and read in a new daemon thread. now: the agent's clock, UTC ns. Close the backlog to leave it."""
    backlog = Backlog()
    threading.Thread(target=_read, args=(opening, backlog, now), name="camera", daemon=True).start()
    return backlog


def _read(opening: Opening, backlog: Backlog, now: Callable[[], int]) -> None:
    try:
        container, stream, fragments = _open(opening)
        with container:
            # FFmpeg's parser ends a picture when the next one begins to arrive.
            one_late = opening.rtp and not fragments and stream.codec_context.name != "mjpeg"
            if backlog.put(Opened(stream.codec_context, _ns_per_tick(stream), fragments)):
                _demux(container, stream, one_late, backlog, now)
        backlog.put(Ended(None))
    except Exception as error:  # noqa: BLE001 (whatever it was, who waits for packets must learn of it)
        backlog.put(Ended(error))


def _open(opening: Opening) -> tuple[InputContainer, VideoStream, bool]:
    """The third is whether packets are fragments."""
    split = opening.rtp and not opening.whole_packets
    container = _container(opening, split)
    stream = _video(container)
    if not split or stream.codec_context.name in _SPLIT_CODECS:
        return container, stream, split
    if stream.codec_context.name == "mjpeg":
        return container, stream, False  # FFmpeg gives whole pictures already
    # The pictures of other codecs only FFmpeg's parser can tell apart.
    container.close()
    container = _container(opening, split=False)
    return container, _video(container), False


def _container(opening: Opening, split: bool) -> InputContainer:
    options = dict(opening.options)
    if split:
        options["fflags"] = "noparse+nofillin"
    start_s = time.monotonic()
    try:
        return av.open(
            opening.url,
            format=opening.format,
            options=options,
            timeout=(opening.open_timeout_s, opening.read_timeout_s),
        )
    except av.error.InvalidDataError as error:
        # So FFmpeg calls it, too, when RTSP's first answer does not come in time.
        waited_s = time.monotonic() - start_s
        if opening.open_timeout_s is not None and waited_s >= 0.9 * opening.open_timeout_s:
            raise TimeoutError("no answer") from error
        raise


def _video(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        container.close()
        raise SourceError("there is no video in the stream; give the address of a video stream")
    return container.streams.video[0]


def _ns_per_tick(stream: VideoStream) -> float:
    if stream.time_base is None:
        raise SourceError("the stream has no time base; this kind of stream is not supported")
    return float(stream.time_base) * 1e9


def _demux(
    container: InputContainer, stream: VideoStream, one_late: bool, backlog: Backlog, now: Callable[[], int]
) -> None:
    previous_ns = None
    tick = 0
    for packet in container.demux(stream):
        returned_ns = now()
        if packet.size == 0:
            return  # how PyAV tells the end
        # Where pictures come one late, this one began to arrive when the one before was handed out.
        arrival_ns = previous_ns if one_late and previous_ns is not None else returned_ns
        previous_ns = returned_ns
        tick = packet.pts if packet.pts is not None else tick + 1
        data = Data(bytes(packet), tick, arrival_ns, _capture_ns(packet), packet.is_keyframe)
        if not backlog.put(data):
            return


def _capture_ns(packet: av.Packet[VideoStream]) -> int | None:
    """The capture time in the camera's clock, from its newest sender report: AVProducerReferenceTime."""
    if not packet.has_sidedata("prft"):
        return None
    side_data = packet.get_sidedata("prft")
    (microseconds,) = struct.unpack_from("<q", bytes(side_data))
    return int(microseconds) * 1000
