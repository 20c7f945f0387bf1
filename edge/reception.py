"""One open connection: packets in, chosen frames out. The thread that owns it decodes; nothing here blocks.

State: the picture under way (`AccessUnits`), the decoder, and `_held`, a frame that was chosen while more of
the stream waited to be decoded: a newer one takes its place, for `_HOLD_NS` at most.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.access_units import AccessUnit, AccessUnits
from edge.counts import EdgeCounts
from edge.dating import FrameDating
from edge.decoding import Decoded, Decoder
from edge.demuxing import Data, Opened, Overrun
from edge.frames import Candidate, NewestFrame, RateGate
from edge.pictures import DecodedPicture
from viewsync.units import SECOND_NS

_HOLD_NS = SECOND_NS // 10
# After dropping a stretch of the stream, wait for a key frame at most this long: some cameras send none.
_KEY_WAIT_NS = 10 * SECOND_NS


class Reception:
    """Feeds `newest` from one connection. last_frame_ns: when the last whole frame came out, agent's clock.

    now: the agent's clock, UTC ns.
    """

    def __init__(
        self,
        opened: Opened,
        gate: RateGate,
        dating: FrameDating,
        newest: NewestFrame,
        wanted_size: tuple[int, int] | None,
        counts: EdgeCounts,
        now: Callable[[], int],
    ) -> None:
        codec = opened.context.name
        self._units = AccessUnits("hevc" if codec == "hevc" else "h264") if opened.fragments else None
        self._decoder = Decoder(opened.context)
        self._ns_per_tick = opened.ns_per_tick
        self._gate = gate
        self._dating = dating
        self._newest = newest
        self._wanted_size = wanted_size
        self._counts = counts
        self._now = now
        self._held: Candidate | None = None
        self._held_since_ns = 0
        self._skip_until_ns: int | None = None
        self.last_frame_ns: int | None = None

    def due_s(self) -> float | None:
        """Seconds until `settle` has something to do; None: never, unless a packet comes."""
        due_ns = None if self._units is None else self._units.due_ns()
        return None if due_ns is None else max(0.0, (due_ns - self._now()) / SECOND_NS)

    def receive(self, data: Data, caught_up: bool) -> None:
        """Take one packet. caught_up: no other waits."""
        unit: AccessUnit | None
        if self._units is None:
            unit = AccessUnit(data.data, data.pts, data.arrival_ns, data.capture_ns, data.is_key)
        else:
            unit = self._units.push(data.data, data.pts, data.arrival_ns, data.capture_ns)
        if unit is not None:
            self._decode(unit)
        self._release(caught_up)

    def settle(self) -> None:
        """Nothing has come for a while: what is under way may be whole."""
        unit = None if self._units is None else self._units.settle(self._now())
        if unit is not None:
            self._decode(unit)
        self._release(caught_up=True)

    def finish(self) -> None:
        """The stream ended: nothing more of the picture under way will come."""
        due_ns = None if self._units is None else self._units.due_ns()
        unit = None if self._units is None or due_ns is None else self._units.settle(due_ns)
        if unit is not None:
            self._decode(unit)
        self._release(caught_up=True)

    def overrun(self, gap: Overrun) -> None:
        """Packets were dropped: nothing can be decoded until the next key frame."""
        self._counts.frames_dropped.labels("overload").inc(gap.packets)
        if self._units is not None:
            self._units.restart()
        self._skip_until_ns = self._now() + _KEY_WAIT_NS

    def _decode(self, unit: AccessUnit) -> None:
        if self._skip_until_ns is not None:
            if not unit.is_key and self._now() < self._skip_until_ns:
                return
            self._skip_until_ns = None
        withheld, redone = self._decoder.withheld, self._decoder.redone
        for decoded in self._decoder.decode(unit):
            self._choose(decoded)
        self._counts.frames_dropped.labels("damaged").inc(self._decoder.withheld - withheld)
        self._counts.decoded_again.inc(self._decoder.redone - redone)

    def _choose(self, decoded: Decoded) -> None:
        now_ns = self.last_frame_ns = self._now()
        self._counts.frames_read.inc()
        refused, steps = self._dating.refused, self._dating.steps
        capture_ns, clock, offset = self._dating.date(decoded.capture_ns, decoded.arrival_ns)
        self._counts.clock_refused.inc(self._dating.refused - refused)
        self._counts.clock_steps.inc(self._dating.steps - steps)
        if offset is not None:
            self._counts.camera_offset.set(offset.offset_ns / SECOND_NS)
            self._counts.camera_uncertainty.set(offset.uncertainty_ns / SECOND_NS)
        assert decoded.picture.pts is not None
        chosen = self._gate.admit(round(decoded.picture.pts * self._ns_per_tick))
        if not chosen and self._held is None:
            self._counts.frames_dropped.labels("rate").inc()
            return
        if self._held is None:
            self._held_since_ns = now_ns
        else:
            self._counts.frames_dropped.labels("newer").inc()
        picture = DecodedPicture(decoded.picture, self._wanted_size)
        self._held = Candidate(picture, capture_ns, clock, decoded.arrival_ns, offset, now_ns)

    def _release(self, caught_up: bool) -> None:
        if self._held is None or not (caught_up or self._now() - self._held_since_ns > _HOLD_NS):
            return
        if self._newest.offer(self._held):
            self._counts.frames_dropped.labels("newer").inc()
        self._held = None
