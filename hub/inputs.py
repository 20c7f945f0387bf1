"""What a graph is given of a snapshot: dequantised features, who is there, and when their frames were taken.

All views have a slot, the reference the first, absent ones with present = 0: the shapes never change, so
nothing is planned anew when a camera drops out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hub.buffer import Snapshot
from viewsync.bundle import Bundle
from viewsync.manifest import Fusion as FusionSpec
from viewsync.units import SECOND_NS

Floats = NDArray[np.float32]

NEWEST = frozenset({"features", "present", "offset_s"})
BEFORE = frozenset({"features_before", "present_before", "before_s"})
# A camera whose frames come just as far apart as was trained is not to drop in and out.
_JITTER_NS = 20_000_000


def takes_before(spec: FusionSpec) -> bool:
    """Whether a graph looks at the frame before of each view, too."""
    return "features_before" in spec.inputs


class SnapshotInputs:
    """Snapshots as arrays for the graphs of a bundle; `slots`: all V views, the reference first.

    Features are (V, C, h, w); present, 0 or 1, offset_s and before_s, seconds, are (V,); all float32.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.manifest.features
        # Every value of the wire, dequantised: a look-up is three times faster than arithmetic on the whole
        # tensor.
        self._values = np.linspace(spec.low, spec.high, spec.levels, dtype=np.float64).astype(np.float32)
        self._shape = (len(bundle.manifest.views), spec.channels, spec.height, spec.width)
        self._unknown_s = bundle.manifest.offset.unknown_s
        # How far frames before lie back: as in training, what was asked for, give or take half. Where a
        # bundle does not tell that: as far as offsets were trained.
        backs_s = [(back / 2, back * 3 / 2) for back in bundle.manifest.before_s]
        backs_s = backs_s or [(0.0, bundle.manifest.offset.trained_s)]
        self._backs_ns = [
            (round(least * SECOND_NS) - _JITTER_NS, round(most * SECOND_NS) + _JITTER_NS)
            for least, most in backs_s
        ]

    def nothing(self, slots: tuple[str, ...]) -> dict[str, Floats]:
        """Every input that a graph may take, of a reference that shows nothing and no other view."""
        alone = np.zeros(len(slots), np.float32)
        alone[0] = 1.0
        newest = {
            "features": np.zeros(self._shape, np.float32),
            "present": alone,
            "offset_s": np.zeros_like(alone),
        }
        return newest | self.before(Snapshot(0, {}), slots, {})

    def newest(
        self, snapshot: Snapshot, slots: tuple[str, ...], used: frozenset[str], unknown: frozenset[str]
    ) -> dict[str, Floats]:
        """The `used` frames of a snapshot; unknown: views whose offset is not told to the model."""
        reference_ns = snapshot.entries[slots[0]].capture_ns
        features = np.zeros(self._shape, dtype=np.float32)
        present = np.zeros(len(slots), dtype=np.float32)
        offset_s = np.zeros(len(slots), dtype=np.float32)
        for slot, view in enumerate(slots):
            if view in used:
                entry = snapshot.entries[view]
                np.take(self._values, entry.features, out=features[slot], mode="clip")
                present[slot] = 1.0
                offset_s[slot] = (
                    self._unknown_s if view in unknown else (entry.capture_ns - reference_ns) / SECOND_NS
                )
        return {"features": features, "present": present, "offset_s": offset_s}

    def ages(self, snapshot: Snapshot, used: Sequence[str]) -> dict[str, int]:
        """How much earlier each used view's frame before was captured, by its own camera's clock; views
        without one that tells anything are left out.
        """
        ages: dict[str, int] = {}
        for view in used:
            newest, before = snapshot.entries[view], snapshot.before.get(view)
            if before is None or (before.session, before.clock) != (newest.session, newest.clock):
                continue
            age_ns = newest.stamped_ns - before.stamped_ns
            if age_ns > 0 and any(least <= age_ns <= most for least, most in self._backs_ns):
                ages[view] = age_ns
        return ages

    def before(
        self, snapshot: Snapshot, slots: tuple[str, ...], ages_ns: Mapping[str, int]
    ) -> dict[str, Floats]:
        """The frames before, of the views that have an age."""
        features = np.zeros(self._shape, dtype=np.float32)
        present = np.zeros(len(slots), dtype=np.float32)
        before_s = np.zeros(len(slots), dtype=np.float32)
        for slot, view in enumerate(slots):
            if view in ages_ns:
                np.take(self._values, snapshot.before[view].features, out=features[slot], mode="clip")
                present[slot], before_s[slot] = 1.0, ages_ns[view] / SECOND_NS
        return {"features_before": features, "present_before": present, "before_s": before_s}
