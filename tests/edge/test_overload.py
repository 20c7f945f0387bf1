"""A stream that comes faster than this machine decodes: bounded memory, and clean frames after the gap."""

import itertools
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import demuxing
from edge.counts import EdgeCounts
from edge.dating import FrameDating
from edge.demuxing import Backlog, Data, Opened, Overrun
from edge.frames import NewestFrame, RateGate
from edge.reception import Reception
from viewsync.capture_clock import CaptureClock
from viewsync.units import MS_NS

NOON_NS = 1_800_000_000_000_000_000


@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), max_size=60))
def test_a_backlog_is_bounded_keeps_order_and_tells_what_it_dropped(
    traffic: list[tuple[int, bool]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demuxing, "_MOST_WAITING_BYTES", 1000)
        backlog = Backlog()
        taken: list[int] = []
        told = put = 0

        def take() -> None:
            nonlocal told
            match backlog.get(0):
                case Data() as data:
                    taken.append(data.pts)
                case Overrun(packets):
                    told += packets

        for pts, (size, reads) in enumerate(traffic):
            assert backlog.put(Data(bytes(size), pts, 0, None, False))
            put += 1
            if reads:
                take()
        while not backlog.is_empty():
            take()
        assert taken == sorted(taken)
        assert len(taken) + told == put
        assert not traffic or taken[-1] == put - 1  # the newest is never the one that goes
        backlog.close()
        assert not backlog.put(Data(b"", 0, 0, None, False)) and backlog.get(0) is None


def test_after_a_gap_frames_come_again_from_the_next_key_frame_on(
    video: ModuleType, counts: EdgeCounts
) -> None:
    recording = video.record("libx264", 24, gop=8, tune="zerolatency")
    clock = itertools.count(NOON_NS, MS_NS)
    newest = NewestFrame("north")
    reception = Reception(
        Opened(video.decoder_context(recording), 1e8, fragments=True),
        RateGate(30.0),
        FrameDating(CaptureClock(), use_camera_clock=True),
        newest,
        None,
        counts,
        lambda: next(clock),
    )
    frames = newest.frames()
    seen = []
    for index, (pts, unit) in enumerate(recording.units):
        if 10 <= index < 13:
            reception.overrun(Overrun(5))
            continue
        had = reception.last_frame_ns
        for fragment in video.fragments(unit, 300):
            reception.receive(Data(fragment, pts, next(clock), None, False), caught_up=True)
        if reception.last_frame_ns != had:
            seen.append(next(frames).image)
    # Pictures 13 to 15 build on what is gone; 16 is a key frame. Each is out when the next begins: 0 to 8 and
    # 16 to 22.
    assert len(seen) == 9 + 7
    assert (
        counts.registry.get_sample_value("viewsync_edge_frames_dropped_total", {"reason": "overload"}) == 15
    )
    last = np.abs(seen[-1].astype(int) - video.moving_image(22)).mean()
    assert last < 20  # lossy, but this picture: another one is off by more than 50
    assert np.abs(seen[-1].astype(int) - video.moving_image(21)).mean() > 2 * last
