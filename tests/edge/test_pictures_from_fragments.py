"""Pictures put together from RTP fragments and decoded: nothing lost or wrong, no waiting for the next."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.access_units import (
    CAUTIOUS_SETTLE_NS,
    LONGEST_SETTLE_NS,
    SHORTEST_SETTLE_NS,
    AccessUnit,
    AccessUnits,
)
from edge.decoding import Decoder
from viewsync.units import MS_NS

NOON_NS = 1_800_000_000_000_000_000
STREAMS = {
    "one slice": ("libx264", {"tune": "zerolatency", "threads": "1"}),
    "four slices": ("libx264", {"tune": "zerolatency", "slices": "4"}),
    "B-frames": ("libx264", {"bf": "2"}),
    "H.265": ("libx265", {"tune": "zerolatency", "x265-params": "log-level=none"}),
}
_made: dict[str, Any] = {}


@pytest.fixture(params=STREAMS)
def recording(request: pytest.FixtureRequest, video: ModuleType) -> Any:
    name = request.param
    if name not in _made:
        codec, options = STREAMS[name]
        _made[name] = video.record(codec, 18, **options)
    return _made[name]


def _pixels(frame: Any) -> np.ndarray:
    return frame.to_ndarray(format="gray")


def _plainly_decoded(recording: Any, video: ModuleType) -> dict[int, np.ndarray]:
    """An independent reading: the decoder fed with whole pictures by nobody's rules but FFmpeg's."""
    context = video.decoder_context(recording)
    frames = []
    for pts, data in recording.units:
        packet = video.av.Packet(data)
        packet.pts = packet.dts = pts
        frames += context.decode(packet)
    frames += context.decode(None)
    return {frame.pts: _pixels(frame) for frame in frames}


def _received(
    recording: Any, video: ModuleType, pauses_ns: list[int], interval_ns: int
) -> tuple[list[tuple[int, int, np.ndarray]], AccessUnits, dict[int, int]]:
    """(time, pts, pixels) of frames that come out in virtual time, and when each picture was all there.

    pauses_ns: between fragments of a picture, used in turn; interval_ns: between a picture's last fragment
    and the next one's first.
    """
    units = AccessUnits(recording.codec)
    decoder = Decoder(video.decoder_context(recording))
    out, whole_ns, now_ns, turn = [], {}, NOON_NS, 0

    def settle(until_ns: int) -> None:
        due_ns = units.due_ns()
        if due_ns is not None and due_ns <= until_ns:
            take(units.settle(due_ns), due_ns)

    def take(unit: Any, at_ns: int) -> None:
        if unit is not None:
            out.extend((at_ns, f.picture.pts, _pixels(f.picture)) for f in decoder.decode(unit))

    for pts, data in recording.units:
        for position, fragment in enumerate(video.fragments(data, 300)):
            now_ns += pauses_ns[turn % len(pauses_ns)] if position else interval_ns
            turn += bool(position)
            settle(now_ns)
            take(units.push(fragment, pts, now_ns, capture_ns=pts), now_ns)
        whole_ns[pts] = now_ns
    settle(now_ns + 10 * LONGEST_SETTLE_NS)
    return out, units, whole_ns


_SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=12, deadline=None, suppress_health_check=_SLOW)
@given(pauses_ms=st.lists(st.sampled_from([0, 1, 5, 30, 90, 250, 800, 3000]), min_size=1, max_size=40))
def test_whatever_the_pauses_every_picture_comes_out_as_it_was(
    recording: Any, video: ModuleType, pauses_ms: list[int]
) -> None:
    expected = _plainly_decoded(recording, video)
    pauses_ns = [pause * MS_NS for pause in pauses_ms]
    out, _, _ = _received(recording, video, pauses_ns, interval_ns=2000 * MS_NS)
    last = {pts: pixels for _, pts, pixels in out}
    reordered = recording.units[0][0] == 0 and [p for p, _ in recording.units] != sorted(expected)
    # What is still inside the decoder when the stream stops is no loss: only reordering holds anything there.
    missing = set(expected) - set(last)
    assert missing <= (set(sorted(expected)[-3:]) if reordered else set())
    for pts, pixels in last.items():
        np.testing.assert_array_equal(pixels, expected[pts])
    if recording.codec == "h264":
        # The decoder of H.264 knows a cut picture, so not even a first look is wrong.
        for _, pts, pixels in out:
            np.testing.assert_array_equal(pixels, expected[pts])


@pytest.mark.parametrize("pause_ms", [0, 1, 4])
def test_a_picture_is_out_the_settle_time_after_its_last_fragment_not_an_interval_later(
    recording: Any, video: ModuleType, pause_ms: int
) -> None:
    out, units, whole_ns = _received(recording, video, [pause_ms * MS_NS], 3000 * MS_NS)
    assert units.guessed_wrong == 0
    if [pts for pts, _ in recording.units] != sorted(whole_ns):
        return  # B-frames: how late a frame comes out is the camera's choice
    late_ns = [at_ns - whole_ns[pts] for at_ns, pts, _ in out]
    settle_ns = CAUTIOUS_SETTLE_NS if recording.codec == "hevc" else SHORTEST_SETTLE_NS
    full = 5  # a picture whose last fragment happens to be full waits longer
    assert sorted(late_ns)[len(late_ns) // 2] <= settle_ns
    assert max(late_ns) <= full * CAUTIOUS_SETTLE_NS


def test_a_connection_with_pauses_inside_pictures_is_given_time(video: ModuleType) -> None:
    recording = video.record("libx264", 24, tune="zerolatency")
    _, units, _ = _received(recording, video, [60 * MS_NS], 3000 * MS_NS)
    assert units.guessed_wrong == 0


def test_arrival_is_the_first_fragments_and_capture_comes_from_any(video: ModuleType) -> None:
    units = AccessUnits("h264")
    first, second = (video.fragments(data, 300) for _, data in video.record("libx264", 2).units[:2])
    assert len(first) > 2
    for index, fragment in enumerate(first):
        assert units.push(fragment, 10, NOON_NS + index, 77 if index == 1 else None) is None
    unit = units.push(second[0], 20, NOON_NS + 1000)
    assert unit is not None
    assert (unit.arrival_ns, unit.capture_ns, unit.pts, unit.is_key) == (NOON_NS, 77, 10, True)


def test_parameter_sets_with_the_old_timestamp_belong_to_the_next_picture(video: ModuleType) -> None:
    (_, key), (_, next_picture) = video.record("libx264", 2, tune="zerolatency", threads="1").units[:2]
    parts = video.fragments(key, 100_000)
    units = AccessUnits("h264")
    units.push(video.fragments(next_picture, 100_000)[-1], 1, NOON_NS)
    assert units.settle(NOON_NS + 10 * LONGEST_SETTLE_NS) is not None
    for parameter_set in parts[:-1]:
        assert units.push(parameter_set, 1, NOON_NS + 1) is None
    assert units.guessed_wrong == 0
    units.push(parts[-1], 2, NOON_NS + 2)
    unit = units.settle(NOON_NS + 10 * LONGEST_SETTLE_NS)
    assert unit is not None and unit.data == b"".join(parts)


def test_a_stream_joined_in_the_middle_starts_at_the_next_picture(video: ModuleType) -> None:
    (_, key), (_, following) = video.record("libx264", 2, tune="zerolatency", threads="1").units[:2]
    units = AccessUnits("h264")
    assert units.push(video.fragments(key, 300)[-1], 1, NOON_NS) is None
    assert units.due_ns() is None
    assert units.push(video.fragments(following, 100_000)[0], 2, NOON_NS + 1) is None
    assert units.due_ns() is not None


def test_a_lost_picture_withholds_what_is_built_on_it_until_the_key_frame(video: ModuleType) -> None:
    recording = video.record("libx264", 24, gop=8, tune="zerolatency")
    expected = _plainly_decoded(recording, video)
    units = AccessUnits("h264")
    decoder = Decoder(video.decoder_context(recording))
    seen = []
    for index, (pts, data) in enumerate(recording.units):
        whole = video.fragments(data, 100)
        for fragment in whole[: len(whole) // 2] if index == 10 else whole:
            unit = units.push(fragment, pts, NOON_NS + pts * 100 * MS_NS)
            seen += [] if unit is None else decoder.decode(unit)
    assert [frame.picture.pts for frame in seen] == [*range(10), *range(16, 23)]
    assert decoder.withheld == 6
    for frame in seen:
        np.testing.assert_array_equal(_pixels(frame.picture), expected[frame.picture.pts])


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_damaged_pictures_of_any_kind_are_withheld_and_end_nothing(codec: str, video: ModuleType) -> None:
    recording = video.record(codec, 16, gop=4)
    chance = np.random.default_rng(3)
    withheld = 0
    for _ in range(25):
        decoder = Decoder(video.decoder_context(recording))
        for index, (pts, data) in enumerate(recording.units):
            damaged = bytearray(data)
            for place in chance.integers(0, len(data), chance.integers(0, 6)).tolist():
                damaged[place] ^= 1 << int(chance.integers(8))
            at_ns = NOON_NS + index * 100 * MS_NS
            decoder.decode(AccessUnit(bytes(damaged), pts, at_ns, None, is_key=index % 4 == 0))
        withheld += decoder.withheld
    assert withheld > 0
