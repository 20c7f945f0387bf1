"""What the hub publishes: one Prediction per answered snapshot, a Status while it is silent; and their bytes.

The same style and caps as wire.py: one msgpack map per message. Times are in the hub's clock unless said
otherwise. Counts are authoritative; the density travels quantised to 16 bits, so that its sum differs from
the count in the fourth digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from calib.errors import CalibError
from calib.ground import GroundGrid
from viewsync import packing, values
from viewsync.errors import WireError
from viewsync.wire import CLOCKS, Clock

MAX_VIEWS: Final = 64
MAX_REASONS: Final = 64
_LEVELS: Final = 65_535
_GRID_KEYS: Final = ("origin_x_m", "origin_y_m", "cell_m", "columns", "rows")


@dataclass(frozen=True, slots=True)
class ViewReport:
    """What one view contributed to an answer, or why it did not.

    `reason` is "" for a view that was used, else why not, for people ("no frame", "offset 4.2 s > 3.0 s").
    `capture_ns` is as the agent stamped it, in the clock that `clock` names; `offset_ns` is the
    capture time minus the reference's, with `uncertainty_ns` of that difference; `age_ns` is publish time
    minus capture time. None: this view was never heard, or has no such number. `mean_warp_m`: how far its
    people were moved on the ground, where the synchroniser says. `before_ns`: how much earlier the frame
    before was captured that was looked at, too; None: none was.
    """

    view: str
    used: bool
    reason: str
    session: int | None = None
    seq: int | None = None
    capture_ns: int | None = None
    clock: Clock | None = None
    offset_ns: int | None = None
    uncertainty_ns: int | None = None
    age_ns: int | None = None
    mean_warp_m: float | None = None
    before_ns: int | None = None

    def __post_init__(self) -> None:
        values.check_name("view", self.view)
        values.check_bool("used", self.used)
        values.check_text("reason", self.reason)
        if self.used == bool(self.reason):
            raise WireError(
                "bad-value", f"view {self.view}: give a reason exactly where the view was not used"
            )
        for name, check in _REPORT_CHECKS.items():
            value = getattr(self, name)
            if value is not None:
                check(f"view {self.view}: {name}", value)
        if self.before_ns is not None:
            values.check_span(f"view {self.view}: before_ns", self.before_ns)
        if self.clock is not None:
            values.check_choice("clock", self.clock, CLOCKS)


_REPORT_CHECKS: Final = {
    "session": values.check_counter,
    "seq": values.check_counter,
    "capture_ns": values.check_time,
    "offset_ns": values.check_span,
    "uncertainty_ns": values.check_time,
    "age_ns": values.check_span,
    "mean_warp_m": values.check_number,
}
_REPORT_KEYS: Final = ("view", "used", "reason", *_REPORT_CHECKS, "clock")


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One answer: how many people stood where, at the moment the reference frame was taken.

    `capture_ns` ± `capture_uncertainty_ns`: that moment in the hub's clock. `session` is random per hub
    start, `seq` counts its answers from 0 without gaps. `count` is the answer of the graph `synchroniser`;
    `counts` has every graph that answered. `density` (Hg, Wg) float32 people per cell on `grid`. `zones`:
    people in each zone of the scene. `latency_ns`: publish time minus capture time; `fuse_ns`: of that,
    spent in the model. `bundle`: hash of the whole bundle.
    """

    site: str
    scene: str
    session: int
    seq: int
    published_ns: int
    capture_ns: int
    capture_uncertainty_ns: int
    reference: str
    synchroniser: str
    count: float
    counts: Mapping[str, float]
    density: npt.NDArray[np.float32]
    grid: GroundGrid
    views: tuple[ViewReport, ...]
    bundle: str
    latency_ns: int
    fuse_ns: int
    degraded: bool
    reasons: tuple[str, ...] = ()
    zones: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("site", "scene", "reference", "synchroniser"):
            values.check_name(name, getattr(self, name))
        for name in ("session", "seq"):
            values.check_counter(name, getattr(self, name))
        for name in ("published_ns", "capture_ns", "capture_uncertainty_ns", "fuse_ns"):
            values.check_time(name, getattr(self, name))
        values.check_span("latency_ns", self.latency_ns)
        values.check_number("count", self.count)
        values.check_hash("bundle", self.bundle)
        packing.check_array("density", self.density, ("<f4",))
        if self.density.shape != self.grid.shape:
            raise WireError(
                "bad-value", f"density has shape {self.density.shape}, its grid {self.grid.shape}"
            )
        _check_reports(self.views, self.degraded, self.reasons)
        for name in ("counts", "zones"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if self.synchroniser not in self.counts:
            raise WireError("bad-value", f"counts has no entry for the synchroniser {self.synchroniser}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prediction):
            return NotImplemented
        return bool(np.array_equal(self.density, other.density)) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__ if name != "density"
        )

    __hash__ = None  # type: ignore[assignment]  # arrays can't be hashed


@dataclass(frozen=True, slots=True)
class Status:
    """The hub has nothing new to answer with, and why; sent instead of repeating a count."""

    site: str
    scene: str
    published_ns: int
    degraded: bool
    reasons: tuple[str, ...]
    views: tuple[ViewReport, ...]

    def __post_init__(self) -> None:
        values.check_name("site", self.site)
        values.check_name("scene", self.scene)
        values.check_time("published_ns", self.published_ns)
        _check_reports(self.views, self.degraded, self.reasons)


def _check_reports(views: tuple[ViewReport, ...], degraded: bool, reasons: tuple[str, ...]) -> None:
    values.check_bool("degraded", degraded)
    if len(views) > MAX_VIEWS:
        raise WireError("bad-value", f"views has {len(views)} entries; at most {MAX_VIEWS}")
    if len({report.view for report in views}) != len(views):
        raise WireError("bad-value", "views names a view twice")
    if len(reasons) > MAX_REASONS:
        raise WireError("bad-value", f"reasons has {len(reasons)} entries; at most {MAX_REASONS}")
    for reason in reasons:
        values.check_text("a reason", reason)


def _numbers(name: str, value: object) -> Mapping[str, float]:
    if not isinstance(value, Mapping) or len(value) > values.MAX_ITEMS:
        raise WireError("bad-value", f"{name} is no map of at most {values.MAX_ITEMS} numbers")
    for key, number in value.items():
        values.check_name(f"a key of {name}", key)
        values.check_number(f"{name}.{key}", number)
    return MappingProxyType({key: float(number) for key, number in value.items()})


# --- bytes ------------------------------------------------------------------------------------------------

_PLAIN_KEYS: Final = (
    "site", "scene", "session", "seq", "published_ns", "capture_ns", "capture_uncertainty_ns", "reference",
    "synchroniser", "count", "bundle", "latency_ns", "fuse_ns", "degraded",
)  # fmt: skip


_STATUS_KEYS: Final = ("site", "scene", "published_ns", "degraded")


def encode_prediction(message: Prediction | Status) -> bytes:
    """The bytes of one message on the predictions socket."""
    shared = {"reasons": list(message.reasons), "views": [_report_fields(report) for report in message.views]}
    if isinstance(message, Status):
        return packing.pack("status", {name: getattr(message, name) for name in _STATUS_KEYS} | shared)
    fields = {name: getattr(message, name) for name in _PLAIN_KEYS}
    fields |= shared
    fields["counts"], fields["zones"] = dict(message.counts), dict(message.zones)
    fields["grid"] = {name: getattr(message.grid, name) for name in _GRID_KEYS}
    fields["density"] = _pack_density(message.density)
    return packing.pack("prediction", fields)


def decode_prediction(data: bytes | bytearray | memoryview) -> Prediction | Status:
    """The record in one message of the predictions socket. Raises WireError for everything else."""
    kind, fields = packing.unpack(data)
    if kind not in ("prediction", "status"):
        raise WireError(
            "unknown-kind", f"the message is of kind {kind[:40]!r}; this socket carries predictions"
        )
    entries = values.as_list("views", values.take(fields, "views"), MAX_VIEWS)
    views = tuple(_report(values.as_map("a view", entry)) for entry in entries)
    reasons = tuple(values.as_list("reasons", values.take(fields, "reasons"), MAX_REASONS))
    if kind == "status":
        plain = {name: values.take(fields, name) for name in _STATUS_KEYS}
        return Status(**plain, reasons=reasons, views=views)
    grid = _grid(values.as_map("grid", values.take(fields, "grid")))
    density = _unpack_density(values.as_map("density", values.take(fields, "density")))
    return Prediction(
        **{name: values.take(fields, name) for name in _PLAIN_KEYS},
        counts=values.as_map("counts", values.take(fields, "counts")),
        zones=values.as_map("zones", values.take(fields, "zones")),
        density=density,
        grid=grid,
        views=views,
        reasons=reasons,
    )


def summary(message: Prediction | Status) -> dict[str, Any]:
    """The message as plain JSON-ready values, without the density cells: what `subscribe --json` prints."""
    shared = {"reasons": list(message.reasons), "views": [_report_fields(report) for report in message.views]}
    if isinstance(message, Status):
        return {"kind": "status", **{name: getattr(message, name) for name in _STATUS_KEYS}, **shared}
    plain = {name: getattr(message, name) for name in _PLAIN_KEYS}
    return {
        "kind": "prediction",
        **plain,
        "counts": dict(message.counts),
        "zones": dict(message.zones),
        **shared,
    }


def _report_fields(report: ViewReport) -> dict[str, Any]:
    fields = {name: getattr(report, name) for name in _REPORT_KEYS}
    # Came later: said only where there is something to say.
    return fields if report.before_ns is None else {**fields, "before_ns": report.before_ns}


def _report(fields: Mapping[str, Any]) -> ViewReport:
    before_ns = fields.get("before_ns")
    return ViewReport(**{name: values.take(fields, name) for name in _REPORT_KEYS}, before_ns=before_ns)


def _grid(fields: Mapping[str, Any]) -> GroundGrid:
    found = {name: values.take(fields, name) for name in _GRID_KEYS}
    for name in _GRID_KEYS[:3]:
        values.check_number(f"grid.{name}", found[name])
    for name in _GRID_KEYS[3:]:
        values.check_int(f"grid.{name}", found[name], 1, packing.MAX_SIDE)
    try:
        return GroundGrid(**found)
    except CalibError as error:
        raise WireError("bad-value", f"grid: {error}") from None


def _pack_density(density: npt.NDArray[np.float32]) -> dict[str, Any]:
    """`low + scale·level`, level uint16: an error of at most scale / 2 per cell."""
    low, high = float(density.min()), float(density.max())
    scale = (high - low) / _LEVELS
    if scale == 0.0:
        levels = np.zeros(density.shape, "<u2")
    else:
        levels = np.rint((density.astype(np.float64) - low) / scale).clip(0, _LEVELS).astype("<u2")
    return {**packing.pack_array(levels, "zstd"), "low": low, "scale": scale}


def _unpack_density(fields: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    levels = packing.unpack_array("density", fields, ("<u2",))
    low, scale = values.take(fields, "low"), values.take(fields, "scale")
    # A float32 cell is at most 3.4e38, so that neither bound may come near it.
    values.check_number("density.low", low, -1e30, 1e30)
    values.check_number("density.scale", scale, 0.0, 1e30)
    density: npt.NDArray[np.float32] = (low + scale * levels.astype(np.float64)).astype(np.float32)
    density.setflags(write=False)
    return density
