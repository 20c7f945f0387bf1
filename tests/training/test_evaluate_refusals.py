"""What `viewsync evaluate` refuses to measure, before anything is rendered."""

from pathlib import Path
from threading import Event

import pytest
from click.testing import CliRunner

from viewsync.cli import main
from viewsync.training.config import TrainConfig
from viewsync.training.train import train


@pytest.fixture(scope="module")
def trained(
    small_scene: Path, small_crowds: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Checkpoints by what is special about them, of a step each."""
    folder = tmp_path_factory.mktemp("trained")
    fixed = {"fusion": "concat", "methods": ("none",)}
    settings: dict[str, dict[str, object]] = {
        "plain": {"methods": ("none",)},
        "left": fixed | {"reference": "left"},
        "right": fixed | {"reference": "right"},
    }
    for name, special in settings.items():
        values = {
            "scene": str(small_scene),
            "data": small_crowds,
            "train_seeds": (0, 2),
            "validation_seeds": (2, 3),
            "steps": 1,
            "first_stage": 0.0,
            "batch": 1,
            "validate_every": 1,
            "validation_snapshots": 1,
            "threads": 1,
            **special,
        }
        train(TrainConfig.model_validate(values), folder / name, lambda row: None, Event())
    return {name: folder / name / "best" for name in settings}


@pytest.mark.parametrize(
    ("checkpoints", "flags", "said"),
    [
        (("plain", "plain"), (), "one is given twice"),
        (("left", "right"), (), "references left, right are fixed; measure them one at a time"),
        (("plain",), ("--tau", "west=1"), "--tau west: the scene has"),
        (("plain",), ("--before", "1"), "--before is for column-2"),
        (("plain",), ("--scene", "rigs", "--tau", "left=1"), "rigs differ in their cameras"),
        (("plain",), ("--scene", "rigs", "--by-offset"), "is of the cameras of one scene, not of rigs"),
        (("plain",), ("--by-offset", "--draw", "PICTURE"), "give it without --by-offset"),
        (("plain",), ("--tuning-data", "NOWHERE"), "NOWHERE"),
        (("plain",), ("--crowds", "0:4", "--tuning", "3:5"), "thresholds chosen on them would flatter"),
        ((), (), "give a --bundle or a --checkpoint to measure"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_rendered(
    trained: dict[str, Path], tmp_path: Path, checkpoints: tuple[str, ...], flags: tuple[str, ...], said: str
) -> None:
    places = {"PICTURE": tmp_path / "one.png", "NOWHERE": tmp_path / "NOWHERE"}
    given = [str(places.get(flag, flag)) for flag in flags]
    asked = [word for name in checkpoints for word in ("--checkpoint", str(trained[name]))]
    data = ["--data", str(tmp_path / "data"), "--frames", "2"]
    done = CliRunner().invoke(main, ["evaluate", *asked, *data, *given])
    assert done.exit_code == 2 and said in done.output
    assert not list(tmp_path.iterdir())


def test_a_bundle_s_thresholds_are_chosen_where_it_can_answer(tiny_bundle: Path, tmp_path: Path) -> None:
    asked = ["--bundle", str(tiny_bundle), "--data", str(tmp_path / "data"), "--tuning-data", str(tmp_path)]
    done = CliRunner().invoke(main, ["evaluate", *asked])
    assert done.exit_code == 2 and "for which a bundle cannot answer" in done.output
    assert not (tmp_path / "data").exists()
