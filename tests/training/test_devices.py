"""A training step never leaves its device, as far as that shows without a GPU: tensors that have shape and
device but no values, on a device that is not the CPU, so that whatever mixes the two is an error.
"""

from pathlib import Path

import pytest
import torch
from torch._functorch import config as functorch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from viewsync.nets.encoder import Encoder
from viewsync.nets.flow import FlowNet
from viewsync.nets.model import CountingModel
from viewsync.sim.scenes import load
from viewsync.training import objective
from viewsync.training.config import TrainConfig
from viewsync.training.geometry import scene_grids
from viewsync.training.processes import Processes
from viewsync.training.snapshots import SnapshotSet

ELSEWHERE = torch.device("meta")


def settings(small_scene: Path, small_crowds: Path) -> TrainConfig:
    return TrainConfig(
        scene=str(small_scene),
        data=small_crowds,
        methods=("column", "cls-epi", "sls", "perfect-matching"),
        flow_loss="similarity",
        train_seeds=(0, 2),
        validation_seeds=(4, 6),
        first_stage=0.0,
        batch=2,
    )


def step(config: TrainConfig) -> list[torch.device | None]:
    """Devices of the losses, then of all gradients, of a step elsewhere."""
    scene = load(config.scene).scene
    shots = SnapshotSet(scene, config.data, range(*config.train_seeds), config.sampling(tuple(scene.cameras)))
    batch = [shots.draw(0, index) for index in range(config.batch)]
    with (
        functorch.patch(fake_tensor_allow_meta=True),
        FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True),
    ):
        with ELSEWHERE:
            model = CountingModel(config.model(scene)).train()
        grids = torch.from_numpy(scene_grids(scene, 96, 72)).to(ELSEWHERE)
        losses = objective.batch_losses(model, batch, grids, scene, config, 0)
        sum(losses[name] for name in losses if name not in objective.TOLD).backward()
        assert {name.partition(".")[2] for name in losses} >= {"density", "flow"} and "partner" in losses
        gradients = [None if w.grad is None else w.grad.device for w in model.parameters()]
        return [*(loss.device for loss in losses.values()), *gradients]


def test_a_step_stays_on_its_device(
    small_scene: Path, small_crowds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(small_scene, small_crowds)
    assert set(step(config)) == {ELSEWHERE}
    # It would show: labels left behind.
    real = objective.density_loss
    monkeypatch.setattr(objective, "density_loss", lambda p, t: real(p, torch.zeros(t.shape)))
    with pytest.raises(RuntimeError, match=r"(?i)device"):
        step(config)


def test_in_bf16_convolutions_give_32_bit_numbers_and_are_measured_in_full(
    small_scene: Path, small_crowds: Path
) -> None:
    torch.manual_seed(0)
    encoder = Encoder()
    plain = Encoder()
    plain.load_state_dict(encoder.state_dict())
    Processes(precision="bf16").place(encoder)
    image = torch.rand(2, 3, 32, 40)
    coarse, fine = encoder.train()(image), plain.train()(image)
    assert coarse.dtype == torch.float32 and not torch.equal(coarse, fine)
    assert (coarse - fine).abs().mean() < 0.02
    coarse.sum().backward()
    assert all(w.grad is not None and w.grad.dtype == torch.float32 for w in encoder.parameters())
    plain.load_state_dict(encoder.state_dict())
    with torch.inference_mode():
        assert torch.equal(encoder.eval()(image), plain.eval()(image))


def test_in_bf16_a_correlation_that_is_never_made_gives_the_same_flow_to_its_digits() -> None:
    torch.manual_seed(0)
    net, plain = FlowNet(12 * 16), FlowNet(12 * 16)
    torch.nn.init.normal_(net[-1].weight, std=0.1)  # type: ignore[arg-type]
    plain.load_state_dict(net.state_dict())
    Processes(precision="bf16").place(net)
    reference, other = torch.rand(2, 8, 12, 16), torch.rand(2, 8, 10, 14)
    coarse, fine = net.train()(other, reference), plain.train()(other, reference)
    assert coarse.dtype == torch.float32 and not torch.equal(coarse, fine)
    # bf16 has eight binary digits; six layers of it.
    assert (coarse - fine).abs().mean() < 0.02 * fine.abs().mean()
    coarse.sum().backward()
    assert all(w.grad is not None and w.grad.dtype == torch.float32 for w in net.parameters())
