"""ℓW and ℓs by number (Eq. 8, 9, 19–22), and that every one of the paper's methods learns flow from ℓW."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from calib.scene import Scene, load_scene
from viewsync.nets.flow import coarser
from viewsync.nets.model import CountingModel, ModelConfig, Motion, MotionAfter, MotionBefore
from viewsync.nets.synchronisers import Columns, Moved, Synchronised
from viewsync.training.config import TrainConfig
from viewsync.training.flow_losses import camera_warp_loss, similarity_loss, warp_loss
from viewsync.training.geometry import scene_grids
from viewsync.training.inputs import encode_with_synchronous, fundamentals, tensors
from viewsync.training.objective import batch_losses
from viewsync.training.snapshots import SnapshotSet

PAPER = ("sls", "cls-cat", "cls-cor", "cls-epi")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def still(batch: int, views: int, strides: tuple[int, ...], size: tuple[int, int]) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(batch, views - 1, -(-size[0] // s), -(-size[1] // s), 2) for s in strides)


def picture_model() -> CountingModel:
    """One whose ground features are the pictures', without weights."""
    return CountingModel(ModelConfig(methods=("none",), base="mvms", grid=(6, 11)))


def columns(features: Tensor) -> Columns:
    """Of (B, V, C, Hg, Wg), which look everywhere."""
    return Columns(features, torch.ones_like(features[:, :, :1]))


def test_eq_19_to_21_sum_over_views_and_scales_of_the_error_after_the_warp() -> None:
    before, wanted, strides = noise(2, 3, 4, 6, 11), noise(2, 3, 4, 6, 11, seed=1), (2, 1)
    flows = still(2, 3, strides, (6, 11))
    flows[1][:, 1, ..., 0] = 1.0  # view 2 at the finest scale: one place on along x
    loss = camera_warp_loss(Moved(before, flows, strides), before, wanted)
    for b in range(2):
        for view in (1, 2):
            finest = before[b, view]
            if view == 2:
                finest = torch.cat([finest[..., 1:], torch.zeros(4, 6, 1)], dim=-1)
            expected = ((finest - wanted[b, view]) ** 2).mean()
            small = [coarser(f[b, view : view + 1], 2) for f in (before, wanted)]
            expected = expected + ((small[0] - small[1]) ** 2).mean()
            assert loss[b, view - 1].item() == pytest.approx(expected.item(), rel=1e-4)


def test_eq_8_and_9_are_on_the_ground_for_a_method_after_projection() -> None:
    torch.manual_seed(0)
    model = CountingModel(
        ModelConfig(methods=("sls",), channels=4, heights=2, width=8, fusion="concat", views=("a", "b", "c"))
    )
    grids = noise(2, 3, 2, 12, 16, 2) * 2 - 1
    features, together, present = noise(2, 3, 4, 6, 11), noise(2, 3, 4, 6, 11, seed=1), torch.ones(2, 3)
    model.eval()
    with torch.no_grad():
        wanted = model.project(together, grids, present).features
        answer = model.fuse(features, grids, present, present * 0, ("sls",))
        motion = answer.motion["sls"]
        assert isinstance(motion, MotionAfter)
        loss = warp_loss(model, motion, features, together, grids, present)
        errors = (wanted[:, 1:] - motion.synchronised.warped).square().mean(dim=(2, 3, 4))
    assert loss.item() == pytest.approx(errors.sum(dim=1).mean().item(), rel=1e-5)
    assert wanted.shape == (2, 3, 8, 6, 8)


def test_an_absent_view_costs_nothing() -> None:
    before, wanted = noise(2, 3, 4, 6, 11), noise(2, 3, 4, 6, 11, seed=1)
    moved = Moved(before, still(2, 3, (1,), (6, 11)), (1,))
    looks = torch.ones(2, 3, 6, 11)
    motion = MotionBefore(moved, columns(before[:, :1]), columns(before[:, 1:]), looks)
    per_view = camera_warp_loss(moved, before, wanted)
    present = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    model = picture_model()
    loss = warp_loss(model, motion, before, wanted, before, present)
    assert loss.item() == pytest.approx((per_view[0, 1] + per_view[1, 0]).item() / 2, rel=1e-5)
    both, one = (similarity_loss(model, motion, there) for there in (torch.ones(2, 3), present))
    assert 0 < one < both


@pytest.mark.parametrize("before", [True, False])
def test_eq_22_is_one_less_the_cosine_along_channels_where_both_look(before: bool) -> None:
    reference = torch.zeros(1, 3, 2, 2)
    reference[0, 0] = 0.5
    same, across, opposite = reference * 3.0, reference.roll(1, dims=1), -reference
    looks = torch.ones(1, 4, 2, 2)
    others = torch.stack([same, across, opposite], dim=1)
    model = picture_model()

    def motion(others: Tensor, looks: Tensor) -> Motion:
        first = reference.unsqueeze(1)
        if before:
            moved = Moved(others, (), ())  # what was moved is not looked at, its columns are
            return MotionBefore(moved, columns(first), columns(others), looks)
        still = torch.zeros(1, others.shape[1], 2, 2, 2)
        synchronised = Synchronised(others, others, others, still)
        return MotionAfter(synchronised, columns(torch.cat([first, others], dim=1)), looks)

    def loss(others: Tensor, looks: Tensor) -> float:
        return similarity_loss(model, motion(others, looks), torch.ones(1, looks.shape[1])).item()

    assert loss(others, looks) == pytest.approx(0.0 + 1.0 + 2.0)
    mixed = torch.cat([same[..., :1], opposite[..., 1:]], dim=-1).unsqueeze(1)
    assert loss(mixed, torch.ones(1, 2, 2, 2)) == pytest.approx(1.0)  # half of the places
    there = torch.ones(1, 2, 2, 2)
    there[0, 1, :, 1] = 0.0  # view 1 does not look at the opposite ones
    assert loss(mixed, there) == pytest.approx(0.0, abs=1e-6)
    nothing = torch.zeros_like(mixed).requires_grad_()
    similarity_loss(model, motion(nothing, looks[:, :2]), torch.ones(1, 2)).backward()  # type: ignore[no-untyped-call]
    # A view that shows nothing has a direction to go, and no cliff: features of the wire are 1/15 or more.
    assert 0 < nothing.grad.abs().max() <= 100.0


# --- on frames --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(small_scene: Path) -> Scene:
    return load_scene(small_scene)


def regime(small_scene: Path, crowds: Path, method: str, **more: object) -> TrainConfig:
    given = {"fusion": "concat", "flow_nets": "pair", "flow_loss": "warp", "methods": (method,)} | more
    return TrainConfig(
        scene=str(small_scene),
        data=crowds,
        train_seeds=(0, 2),
        validation_seeds=(2, 3),
        first_stage=0.0,
        **given,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("method", PAPER)
def test_flow_is_learned_from_synchronised_frames(
    scene: Scene, small_scene: Path, crowds_together: Path, method: str
) -> None:
    """Two snapshots by heart, features fixed: the error after the warp falls below that without one."""
    torch.manual_seed(0)
    config = regime(small_scene, crowds_together, method)
    model = CountingModel(config.model(scene)).train()
    shots = SnapshotSet(scene, crowds_together, range(2), config.sampling(tuple(scene.cameras)))
    batch = [shots.draw(0, k) for k in range(2)]
    grids, present, offset = tensors(batch, torch.from_numpy(scene_grids(scene, 96, 72)))
    with torch.no_grad():
        features, together = encode_with_synchronous(model, batch, True)
    assert together is not None and (offset[:, 1:].abs() > 0.5).all()
    flow = [p for name, p in model.named_parameters() if name.startswith(("before.", "after."))]
    optimiser = torch.optim.Adam(flow, 3e-4)
    losses = []
    for _ in range(25):
        answer = model.fuse(features, grids, present, offset, (method,), fundamentals(model, batch, scene))
        loss = warp_loss(model, answer.motion[method], features, together, grids, present)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]  # the first is without a warp: networks start at zero


@pytest.mark.parametrize("method", PAPER)
def test_at_no_offset_nothing_is_to_be_learned(
    scene: Scene, small_scene: Path, crowds_together: Path, method: str
) -> None:
    config = regime(small_scene, crowds_together, method, kappa_s=0.0)
    torch.manual_seed(0)
    model = CountingModel(config.model(scene)).train()
    shots = SnapshotSet(scene, crowds_together, range(2), config.sampling(tuple(scene.cameras)))
    batch = [shots.draw(0, k) for k in range(2)]
    assert all((shot.true_offset_s == 0).all() for shot in batch)
    losses = batch_losses(model, batch, torch.from_numpy(scene_grids(scene, 96, 72)), scene, config, 0)
    # The same frames through the same batch of the encoder, and no warp before anything is learned.
    assert losses[f"{method}.flow"].item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "gamma", "expected"), [("warp", None, 1.0), ("similarity", None, 1000.0), ("warp", 3.0, 3.0)]
)
def test_gamma_is_the_paper_s_unless_told(
    scene: Scene, small_scene: Path, crowds_together: Path, kind: str, gamma: float | None, expected: float
) -> None:
    config = regime(small_scene, crowds_together, "sls", flow_loss=kind, gamma=gamma)
    assert config.flow_weight == expected
    once = regime(small_scene, crowds_together, "sls", flow_loss=kind, gamma=1.0)
    torch.manual_seed(0)
    model = CountingModel(config.model(scene)).eval()
    shots = SnapshotSet(scene, crowds_together, range(2), config.sampling(tuple(scene.cameras)))
    batch = [shots.draw(0, 1)]
    grids = torch.from_numpy(scene_grids(scene, 96, 72))
    with torch.no_grad():
        ours, theirs = (batch_losses(model, batch, grids, scene, c, 0) for c in (config, once))
    assert ours["sls.flow"].item() == pytest.approx(expected * theirs["sls.flow"].item(), rel=1e-5)
    assert ours["sls.density"] == theirs["sls.density"] and theirs["sls.flow"] > 0
