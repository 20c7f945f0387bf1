"""The newest frames of every view: the hub's only changing state about what cameras saw. No socket, no
clock, no file.

The rule: *newest* means the highest `seq` of the newest `session`, never the largest capture time, so a
clock that is stepped back cannot lock a view out. A session that its view has never had becomes the newest
one when its first good message arrives; the session it replaces is then refused for good. Within a session
the `depth` highest sequence numbers are held, whatever order they come in. A message that is refused
changes nothing but the count of its reason.

An answer takes a snapshot (the newest frame of each view) and marks it answered; the next snapshot exists
only once that set of frames has changed.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from viewsync.clock import IMPLAUSIBLE_NS, capture_in_hub
from viewsync.errors import WireError
from viewsync.units import SECOND_NS
from viewsync.wire import Clock, FeatureMessage

# Replaced sessions remembered per view. A session of one agent restart lives in flight for seconds; 64
# restarts take longer.
_REMEMBERED_SESSIONS = 64


@dataclass(frozen=True, slots=True)
class BufferRules:
    """What a message must satisfy; times in nanoseconds.

    hashes: view -> features hash of the bundle, in the bundle's order; shape: (C, h, w) of the `features`
    tensor; levels: its values are 0 … levels − 1; depth: frames held per view.
    """

    site: str
    scene: str
    hashes: Mapping[str, str]
    shape: tuple[int, int, int]
    levels: int
    max_age_ns: int
    max_future_ns: int
    max_uncertainty_ns: int
    depth: int = 1

    def __post_init__(self) -> None:
        if not self.hashes:
            raise ValueError("a buffer needs at least one view")
        if self.depth < 1 or not 2 <= self.levels <= 256 or min(self.shape) < 1 or len(self.shape) != 3:
            raise ValueError(f"depth {self.depth}, levels {self.levels} or shape {self.shape} out of range")
        if self.max_age_ns <= 0 or self.max_future_ns < 0 or self.max_uncertainty_ns <= 0:
            raise ValueError("max_age_ns and max_uncertainty_ns must be positive, max_future_ns not negative")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a message was taken; otherwise a short reason and, in words, what is wrong and what to do."""

    accepted: bool
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One frame of one view.

    capture_ns ± uncertainty_ns: capture in the hub's clock; stamped_ns: as the agent sent it, in the clock
    that `clock` names; features: uint8 (C, h, w), quantised.
    """

    view: str
    session: int
    seq: int
    capture_ns: int
    uncertainty_ns: int
    stamped_ns: int
    clock: Clock
    received_ns: int
    features: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest frame of every view that has one, in the bundle's order; `number` counts the snapshots
    answered before. before: the frame before of those that have one, of the same session.
    """

    number: int
    entries: Mapping[str, Entry]
    before: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def frames(self) -> tuple[tuple[str, int, int], ...]:
        """What makes this snapshot differ from another: (view, session, seq) of each frame."""
        return tuple((entry.view, entry.session, entry.seq) for entry in self.entries.values())


@dataclass(slots=True)
class _View:
    session: int | None = None
    held: tuple[Entry, ...] = ()  # newest first; replaced whole, so that another thread may read it
    replaced: OrderedDict[int, None] = field(default_factory=OrderedDict)


class ViewBuffer:
    """Newest frames per view under `rules`; `session` is this hub run's own random id, passed on in
    predictions.
    """

    def __init__(self, rules: BufferRules, session: int) -> None:
        self.rules = rules
        self.session = session
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.answered_ns: int | None = None
        self._views = {view: _View() for view in rules.hashes}
        self._answered = 0
        self._answered_frames: tuple[tuple[str, int, int], ...] = ()

    def put(self, message: FeatureMessage, now_ns: int) -> Verdict:
        """Take the message's frame, or refuse it; refusals are counted by reason."""
        verdict = self._judge(message, now_ns)
        if verdict.accepted:
            self.accepted[message.view] += 1
        else:
            self.refused[verdict.reason] += 1
        return verdict

    def newest(self) -> dict[str, Entry]:
        """The newest frame of every view that has one, in the bundle's order."""
        return {view: held[0] for view, state in self._views.items() if (held := state.held)}

    def held(self, view: str) -> tuple[Entry, ...]:
        """The frames held of `view`, newest first."""
        return self._views[view].held

    @property
    def changed(self) -> bool:
        """Whether the set of newest frames differs from the one last answered."""
        return Snapshot(0, self.newest()).frames != self._answered_frames

    def snapshot(self, now_ns: int, min_interval_ns: int = 0) -> Snapshot | None:
        """The newest frames, or None: nothing has changed since the last answer, or that is less than
        `min_interval_ns` ago.
        """
        if not self.changed or now_ns < self.due_ns(now_ns, min_interval_ns):
            return None
        held = {view: state.held for view, state in self._views.items()}
        newest = {view: frames[0] for view, frames in held.items() if frames}
        before = {view: frames[1] for view, frames in held.items() if len(frames) > 1}
        return Snapshot(self._answered, newest, before)

    def due_ns(self, now_ns: int, min_interval_ns: int) -> int:
        """Earliest time of the next answer. A hub clock that was stepped back does not postpone it."""
        if self.answered_ns is None or now_ns < self.answered_ns:
            return now_ns
        return self.answered_ns + min_interval_ns

    def mark_answered(self, snapshot: Snapshot, now_ns: int) -> None:
        """No further answer is made from these frames."""
        self._answered = snapshot.number + 1
        self._answered_frames = snapshot.frames
        self.answered_ns = now_ns

    def _judge(self, message: FeatureMessage, now_ns: int) -> Verdict:
        rules = self.rules
        if message.site != rules.site:
            return _refuse(
                "foreign-site",
                f"this hub serves site {rules.site}, the agent says {message.site}; set its site",
            )
        if message.scene != rules.scene:
            return _refuse(
                "foreign-scene",
                f"this hub's bundle is of scene {rules.scene}, the agent's of {message.scene}",
            )
        state = self._views.get(message.view)
        if state is None:
            known = ", ".join(self._views)
            return _refuse("unknown-view", f"scene {rules.scene} has no view {message.view}; it has {known}")
        if message.features_hash != rules.hashes[message.view]:
            return _refuse(
                "features-hash",
                f"view {message.view}: the agent's bundle differs from the hub's; give both the same",
            )
        features = _features_of(message, rules)
        if isinstance(features, Verdict):
            return features
        if message.session in state.replaced:
            return _refuse("old-session", f"view {message.view}: a newer run of this agent is sending")
        if message.session == state.session:
            if any(entry.seq == message.seq for entry in state.held):
                return _refuse("duplicate", f"view {message.view}: frame {message.seq} is here already")
            if len(state.held) == rules.depth and message.seq < state.held[-1].seq:
                return _refuse(
                    "old-seq", f"view {message.view}: frame {message.seq} is older than {state.held[-1].seq}"
                )
        try:
            capture_ns, uncertainty_ns = capture_in_hub(message)
        except WireError as error:
            return _refuse(error.reason, error.detail)
        late = _judge_time(message.view, now_ns - capture_ns, uncertainty_ns, rules)
        if late is not None:
            return late
        self._hold(
            state,
            Entry(
                view=message.view,
                session=message.session,
                seq=message.seq,
                capture_ns=capture_ns,
                uncertainty_ns=uncertainty_ns,
                stamped_ns=message.capture_ns,
                clock=message.clock,
                received_ns=now_ns,
                features=features,
            ),
        )
        return Verdict(True)

    def _hold(self, state: _View, entry: Entry) -> None:
        if entry.session != state.session:
            if state.session is not None:
                state.replaced[state.session] = None
                if len(state.replaced) > _REMEMBERED_SESSIONS:
                    state.replaced.popitem(last=False)
            state.session = entry.session
            state.held = ()
        held = sorted((*state.held, entry), key=lambda held: held.seq, reverse=True)
        state.held = tuple(held[: self.rules.depth])


def _refuse(reason: str, detail: str) -> Verdict:
    return Verdict(False, reason, detail)


def _features_of(message: FeatureMessage, rules: BufferRules) -> NDArray[np.uint8] | Verdict:
    for tensor in message.tensors:
        if tensor.name == "features":
            array = tensor.array
            if array.dtype != np.uint8 or array.shape != rules.shape:
                return _refuse(
                    "features-shape",
                    f"view {message.view}: features are {array.dtype} {array.shape}, not uint8 {rules.shape}",
                )
            if rules.levels < 256 and int(array.max()) >= rules.levels:
                return _refuse(
                    "features-range", f"view {message.view}: a feature is above level {rules.levels - 1}"
                )
            return array
    return _refuse("features-shape", f"view {message.view}: the message has no tensor named features")


def _judge_time(view: str, age_ns: int, uncertainty_ns: int, rules: BufferRules) -> Verdict | None:
    """A refusal, or None for a plausible age; the uncertainty excuses a future time only up to the bound of
    the rules.
    """
    age_s = age_ns / SECOND_NS
    if abs(age_ns) > IMPLAUSIBLE_NS:
        return _refuse(
            "implausible-time",
            f"view {view}: captured {age_s:.0f} s ago, it seems; set the clocks of camera, agent and hub",
        )
    if -age_ns > rules.max_future_ns + min(uncertainty_ns, rules.max_uncertainty_ns):
        return _refuse(
            "future",
            f"view {view}: the frame seems captured {-age_s:.3f} s in the future; check the camera's clock",
        )
    if age_ns > rules.max_age_ns:
        limit_s = rules.max_age_ns / SECOND_NS
        return _refuse(
            "too-old",
            f"view {view}: the frame is {age_s:.1f} s old, more than {limit_s:.1f} s; check the link",
        )
    # The wire allows 146 years. A prediction could not say the sum of two such, and would end the hub.
    if uncertainty_ns > IMPLAUSIBLE_NS:
        return _refuse(
            "implausible-time",
            f"view {view}: captured at an instant known to ± {uncertainty_ns / SECOND_NS:.0f} s only; set the"
            " clocks of camera and agent",
        )
    return None
