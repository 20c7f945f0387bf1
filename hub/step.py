"""One answer: snapshot, reference, gates, graphs, Prediction. No socket and no clock, so tests and
simulators drive it too.
"""

from hub.buffer import Entry, Snapshot, ViewBuffer
from hub.fusion import Fusion, FusionOutputs
from hub.reference import Policy, Selection, select
from viewsync.prediction import MAX_REASONS, Prediction, Status, ViewReport
from viewsync.units import SECOND_NS


def step(buffer: ViewBuffer, fusion: Fusion, policy: Policy, now_ns: int) -> Prediction | None:
    """The answer that is due at `now_ns` (hub clock), or None.

    None: no frame is new since the last answer, that was less than the policy's interval ago, or the policy
    or the graph allows no answer from these frames (`silence` says why). Published is `now_ns` plus what
    the fusion's timer measured.
    """
    snapshot = buffer.snapshot(now_ns, policy.min_interval_ns)
    if snapshot is None:
        return None
    selection = select(snapshot, fusion.views, policy, now_ns)
    if selection.reference is None or fusion.objection(selection.used):
        return None
    buffer.mark_answered(snapshot, now_ns)
    unknown = _unknown_offsets(snapshot, selection, policy)
    outputs = fusion.predict(snapshot, selection.used, unknown)
    reasons = (
        *selection.reasons,
        *(f"{view}: offset too uncertain, given to the model as unknown" for view in unknown),
        *outputs.skipped,
    )
    reference = snapshot.entries[selection.reference]
    published_ns = now_ns + outputs.elapsed_ns
    return Prediction(
        site=buffer.rules.site,
        scene=buffer.rules.scene,
        session=buffer.session,
        seq=snapshot.number,
        published_ns=published_ns,
        capture_ns=reference.capture_ns,
        capture_uncertainty_ns=reference.uncertainty_ns,
        reference=reference.view,
        synchroniser=fusion.synchroniser,
        count=outputs.counts[fusion.synchroniser],
        counts=outputs.counts,
        density=outputs.density,
        grid=fusion.bundle.scene.ground,
        views=_reports(snapshot, selection, fusion, published_ns, outputs),
        bundle=fusion.bundle.hash,
        latency_ns=published_ns - reference.capture_ns,
        fuse_ns=outputs.fuse_ns,
        degraded=bool(reasons),
        reasons=_capped(reasons),
        zones={name: float((outputs.density * weights).sum()) for name, weights in fusion.zones.items()},
    )


def silence(buffer: ViewBuffer, fusion: Fusion, policy: Policy, now_ns: int) -> Status:
    """What to publish when there has been no answer for too long: no count, but why, and how each view
    stands.
    """
    snapshot = Snapshot(0, buffer.newest())
    selection = select(snapshot, fusion.views, policy, now_ns)
    reasons = selection.reasons
    if selection.reference is not None:
        objection = fusion.objection(selection.used)
        newest_ns = max(entry.received_ns for entry in snapshot.entries.values())
        quiet = f"no new frame for {(now_ns - newest_ns) / SECOND_NS:.1f} s"
        reasons = (objection or quiet, *reasons)
    return Status(
        site=buffer.rules.site,
        scene=buffer.rules.scene,
        published_ns=now_ns,
        degraded=True,
        reasons=_capped(reasons),
        views=_reports(snapshot, selection, fusion, now_ns, None),
    )


def _capped(reasons: tuple[str, ...]) -> tuple[str, ...]:
    """As many as a message may hold."""
    if len(reasons) <= MAX_REASONS:
        return reasons
    return (*reasons[: MAX_REASONS - 1], f"and {len(reasons) - MAX_REASONS + 1} more")


def _unknown_offsets(snapshot: Snapshot, selection: Selection, policy: Policy) -> tuple[str, ...]:
    reference = snapshot.entries[selection.used[0]]
    return tuple(
        view
        for view in selection.used[1:]
        if snapshot.entries[view].uncertainty_ns + reference.uncertainty_ns > policy.max_uncertainty_ns
    )


def _reports(
    snapshot: Snapshot, selection: Selection, fusion: Fusion, published_ns: int, outputs: FusionOutputs | None
) -> tuple[ViewReport, ...]:
    reference = None if selection.reference is None else snapshot.entries[selection.reference]
    return tuple(
        _report(view, snapshot.entries.get(view), reference, selection, published_ns, outputs)
        for view in fusion.views
    )


def _report(
    view: str,
    entry: Entry | None,
    reference: Entry | None,
    selection: Selection,
    published_ns: int,
    outputs: FusionOutputs | None,
) -> ViewReport:
    used = outputs is not None and view in selection.used
    reason = "" if used else selection.left_out.get(view, "no answer made")
    if entry is None:
        return ViewReport(view=view, used=False, reason=reason)
    offset_ns = None if reference is None else entry.capture_ns - reference.capture_ns
    uncertainty_ns = entry.uncertainty_ns
    if reference is not None:
        # Two captures, each within its own uncertainty; the reference differs from itself by nothing.
        uncertainty_ns = 0 if entry is reference else entry.uncertainty_ns + reference.uncertainty_ns
    return ViewReport(
        view=view,
        used=used,
        reason=reason,
        session=entry.session,
        seq=entry.seq,
        capture_ns=entry.stamped_ns,
        clock=entry.clock,
        offset_ns=offset_ns,
        uncertainty_ns=uncertainty_ns,
        age_ns=published_ns - entry.capture_ns,
        mean_warp_m=outputs.mean_warp_m(view) if used and outputs is not None else None,
        before_ns=outputs.before_ns.get(view) if used and outputs is not None else None,
    )
