"""A run that starts from another's weights may let one head start from another's."""

from pathlib import Path

import pytest
import torch

from viewsync.errors import UserError
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.training.checkpoint import save_checkpoint
from viewsync.training.train import _start_from


@pytest.fixture
def known(tmp_path: Path) -> tuple[Path, CountingModel]:
    torch.manual_seed(1)
    model = CountingModel(ModelConfig())
    save_checkpoint(tmp_path / "known", model, None, {"step": 1})
    return tmp_path / "known", model


def test_the_named_head_starts_from_the_others_and_all_else_from_its_own(
    known: tuple[Path, CountingModel],
) -> None:
    folder, source = known
    torch.manual_seed(2)
    model = CountingModel(ModelConfig())
    _start_from(model, folder, {"none": "column"})
    for name, value in model.state_dict().items():
        origin = name.replace("heads.none.", "heads.column.")
        assert torch.equal(value, source.state_dict()[origin]), name


def test_a_model_of_one_answer_starts_from_a_head_it_does_not_have(
    known: tuple[Path, CountingModel],
) -> None:
    folder, source = known
    model = CountingModel(ModelConfig(methods=("none",)))
    _start_from(model, folder, {"none": "column"})
    ours = model.state_dict()["heads.none.decoder.enter.0.weight"]
    assert torch.equal(ours, source.state_dict()["heads.column.decoder.enter.0.weight"])


def test_heads_that_are_not_there_are_named(known: tuple[Path, CountingModel]) -> None:
    folder, _ = known
    with pytest.raises(UserError, match="cannot start none from flow"):
        _start_from(CountingModel(ModelConfig()), folder, {"none": "flow"})
