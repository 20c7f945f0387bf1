"""Saving a scene over another one: a good file is never replaced by a worse one without being told to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calib.errors import CalibError
from calib.look.check import check
from calib.look.check_points import WORST_PX
from calib.points import MarkedPoint, residuals
from calib.scene import Scene, load_scene, save_scene

# Rounding and another least-squares start are no worsening.
_TOLERANCE = 1.02
_TOLERANCE_PX = 0.05


def save_checked(
    scene: Scene, path: Path | str, points: Sequence[MarkedPoint] = (), force: bool = False
) -> None:
    """Write `scene` to `path`, atomically, unless the file that is there is better.

    Worse is: a camera is lost; marked points that both know are further off (all together, or in one camera
    that was within 3 px); or the new scene has an error that `check` finds and the old one has not.
    CalibError says which; force: write all the same.
    """
    path = Path(path)
    if not force and path.exists():
        reason = worse(scene, path, points)
        if reason is not None:
            raise CalibError(f"{path} was not overwritten: {reason}; save elsewhere, or use --force")
    save_scene(scene, path)


def worse(scene: Scene, path: Path, points: Sequence[MarkedPoint] = ()) -> str | None:
    """Why `scene` is worse than what is at `path`, in words that follow a colon; None if it is not."""
    try:
        old = load_scene(path)
    except CalibError as error:
        return f"what is there is no scene that can be read ({str(error).removeprefix(f'{path}: ')})"
    lost = [view for view in old.cameras if view not in scene.cameras]
    if lost:
        return f"it has cameras that the new scene lacks ({', '.join(lost)})"
    changed = {view for view, camera in old.cameras.items() if camera != scene.cameras[view]}
    if changed:
        reason = _further_off(old, scene, points)
        if reason is not None:
            return reason
    known = {(finding.code, finding.view) for finding in check(old, points).errors}
    new = [finding for finding in check(scene, points).errors if (finding.code, finding.view) not in known]
    if new:
        about = f"camera {new[0].view}: " if new[0].view else ""
        return f"the new scene has a mistake that the old one has not ({about}{new[0].message})"
    return None


def _further_off(old: Scene, new: Scene, points: Sequence[MarkedPoint]) -> str | None:
    """Compared where the old scene has an answer; one that the new scene has no answer for is worse."""
    views = {view: new.cameras[view] for view in old.cameras}
    before, after = residuals(old.cameras, points), residuals(views, points)
    known = np.isfinite(before.distances_px)
    if not known.any():
        return None
    then = before.distances_px[known]
    now = np.where(np.isfinite(after.distances_px[known]), after.distances_px[known], np.inf)
    named = np.array(before.cameras)[known]
    total_then, total_now = _rms(then), _rms(now)
    if total_now > total_then * _TOLERANCE + _TOLERANCE_PX:
        return f"marked points are {_px(total_now)} off in the new scene, {_px(total_then)} in the old one"
    for view in dict.fromkeys(named.tolist()):
        mine = named == view
        was, is_now = _rms(then[mine]), _rms(now[mine])
        if is_now > WORST_PX >= was:
            return f"marked points of camera {view} are {_px(is_now)} off now, {_px(was)} in the old scene"
    return None


def _rms(distances: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    return float(np.sqrt(np.mean(distances**2)))


def _px(rms: float) -> str:
    return f"{rms:.2f} px" if np.isfinite(rms) else "impossibly far"
