"""`viewsync evaluate --reach`: how many people `cls-plane` could find at all."""

from __future__ import annotations

from pathlib import Path

import click


def measure_reach(
    checkpoint: Path, scene: str | None, data: Path | None, crowds: range, frames: int, kappa_s: float | None
) -> None:
    """Print the share of people, seen by the reference and by another view, whose true displacement lies
    within the candidates of the checkpoint's `cls-plane`. Raises UserError for another checkpoint.
    """
    import torch

    from viewsync.errors import UserError
    from viewsync.nets.cls_plane import PlaneSynchroniser
    from viewsync.nets.encoder import STRIDE
    from viewsync.sim.scenes import load
    from viewsync.training.checkpoint import load_model, load_state
    from viewsync.training.geometry import scene_fundamentals
    from viewsync.training.plane_lessons import within_reach
    from viewsync.training.snapshots import Sampling, SnapshotSet

    model, config = load_model(checkpoint), load_state(checkpoint)["config"]
    if "cls-plane" not in model.config.methods:
        raise UserError(f"{checkpoint} has no cls-plane; it answers {', '.join(model.config.methods)}")
    place = load(scene or str(config["scene"])).scene
    kappa_s = float(config["kappa_s"]) if kappa_s is None else kappa_s
    shots = SnapshotSet(place, data or Path("runs/data") / f"{place.name}-test", crowds, Sampling(kappa_s))
    synchroniser = model.over_planes["cls-plane"]
    assert isinstance(synchroniser, PlaneSynchroniser)
    walk, least, _ = synchroniser.pair.log_reach.detach().exp().tolist()
    side = float(torch.sigmoid(synchroniser.pair.across.detach()))
    first = next(iter(place.cameras.values()))
    found = within_reach(
        (shots.draw(2, n, crowd=n * len(crowds) // frames, plain=True) for n in range(frames)),
        dict(enumerate(camera.undistorted() for camera in place.cameras.values())),
        walk,
        least,
        side,
        kappa_s,
        scene_fundamentals(place, -(-first.width // STRIDE), -(-first.height // STRIDE)),
    )
    click.echo(
        f"{place.name}: {walk:.2f} m/s × |offset| + {least:.2f} m along the line, {side:.2f} of "
        f"it across; within reach {_share(found.within, found.people)}; of those {kappa_s / 2:g} to "
        f"{kappa_s:g} s off {_share(found.late_within, found.late)}"
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % of {whole} people" if whole else "nobody"
