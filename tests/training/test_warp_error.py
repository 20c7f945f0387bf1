"""The measure of a warp without labels, on pairs whose truth is known: no flow is 1, the true flow is 0, and
nothing is gained by collapse.
"""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from viewsync.cli import main
from viewsync.errors import UserError
from viewsync.nets.flow import warp
from viewsync.nets.model import CountingModel, ModelConfig
from viewsync.training import mohicans
from viewsync.training.checkpoint import save_checkpoint
from viewsync.training.mohicans import Pair, measure, pairs, place_from_pixel, shuffle, summary, table
from viewsync.training.warp_error import moving, normalised_error, optical_flow, plain_error

SIZE = (12, 16)


def textured(seed: int = 0) -> torch.Tensor:
    """Smooth, as features are: a neighbour is like its neighbour."""
    noise = torch.rand(1, 5, *SIZE, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2)[0]


def shifted(features: torch.Tensor, columns: int) -> torch.Tensor:
    """Everybody `columns` places to the right."""
    return features.roll(columns, dims=-1)


INNER = np.zeros(SIZE, bool)
INNER[2:-2, 3:-3] = True


def ratio(after: torch.Tensor, before: torch.Tensor, wanted: torch.Tensor) -> float:
    return normalised_error(after, wanted, INNER) / normalised_error(before, wanted, INNER)


def test_no_flow_is_one_and_the_true_flow_is_nothing() -> None:
    wanted = textured()
    given = shifted(wanted, 2)
    flow = torch.zeros(1, 2, *SIZE)
    assert ratio(warp(given[None], flow)[0], given, wanted) == pytest.approx(1.0, abs=1e-4)
    flow[:, 0] = 2.0  # whoever belongs at p is two places to the right
    assert ratio(warp(given[None], flow)[0], given, wanted) == pytest.approx(0.0, abs=1e-4)
    flow[:, 0] = -2.0
    assert ratio(warp(given[None], flow)[0], given, wanted) > 0.9


def test_collapse_does_not_win() -> None:
    """Where every error is measured in features, the smallest features win; not here."""
    wanted = textured()
    given = shifted(wanted, 2)
    everywhere_the_same = torch.zeros(1, 2, *SIZE)
    columns = torch.arange(SIZE[1]).float()
    everywhere_the_same[:, 0] = 8.0 - columns  # all from one column, and then from one row, too
    everywhere_the_same[:, 1] = (6.0 - torch.arange(SIZE[0]).float()).unsqueeze(1)
    collapsed = warp(given[None], everywhere_the_same)[0]
    mean = given.mean(dim=(1, 2), keepdim=True).expand_as(given)
    for nothing in (collapsed, mean, mean * 0.0):
        assert plain_error(nothing, wanted, INNER) != plain_error(given, wanted, INNER)
        assert ratio(nothing, given, wanted) >= 1.0
    far = shifted(wanted, 6)  # as a plain error would have it:
    assert plain_error(mean, wanted, INNER) < plain_error(far, wanted, INNER)
    # Neither does a model whose features are small.
    assert ratio(0.01 * given, 0.01 * given, 0.01 * wanted) == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(ValueError, match="do not vary"):
        normalised_error(given, mean, INNER)


def picture(x: int) -> np.ndarray:
    """A grey courtyard with one dark person at column `x`."""
    grey = np.random.default_rng(0).integers(150, 170, (96, 128)).astype(np.uint8)
    grey[40:70, x : x + 12] = 20
    return grey


def test_what_moves_is_where_somebody_was_and_is() -> None:
    found = moving(picture(40), picture(72), 4)
    assert found.shape == (24, 32)
    assert found[11:16, 11:12].all() and found[11:16, 19:20].all()
    assert not found[:8].any() and not found[:, :8].any() and not found[:, 25:].any()
    assert not moving(picture(40), picture(40), 4).any()


def test_optical_flow_knows_where_the_person_went() -> None:
    flow = optical_flow(picture(60), picture(68), 4)
    assert flow.shape == (1, 2, 24, 32)
    assert flow[0, 0, 12:16, 15:17].mean() == pytest.approx(2.0, abs=0.7)  # places of four pixels


def test_pairs_are_all_steps_both_ways_with_each_camera_the_reference() -> None:
    found = list(pairs((0, 24, 48, 72, 96)))
    assert len(found) == 2 * 2 * (4 + 3 + 2) and len(set(found)) == len(found)
    assert Pair(0, 0, 72) in found and Pair(1, 96, 24) in found
    assert {abs(p.step) for p in found} == {24, 48, 72}


def test_a_shuffled_frame_has_the_same_features_in_other_places() -> None:
    features = torch.arange(2 * 16 * 24.0).reshape(1, 1, 2, 16, 24)
    found = shuffle(features)
    assert not torch.equal(found, features)
    assert torch.equal(found.flatten().sort().values, features.flatten())


# --- a crowd made up of boxes -----------------------------------------------------------------------------


def write_crowd(folder: Path) -> Path:
    """Two parallel cameras before grey boxes that walk to the right; cam1 sees all 40 px to the left."""
    rng = np.random.default_rng(1)
    ground = cv2.GaussianBlur(rng.integers(0, 255, (1234, 1664)).astype(np.uint8), (0, 0), 4)
    for camera, parallax in (("cam0", 0), ("cam1", 40)):
        (folder / camera).mkdir(parents=True)
        for number in (0, 24, 48):
            shown = ground[:, parallax : parallax + 1624].copy()
            for k in range(6):
                x, y = 400 + 110 * k + 2 * number - parallax, 420 + 60 * k
                shown[y : y + 160, x : x + 60] = 30 + 35 * k
            cv2.imwrite(str(folder / camera / f"im{number}.png"), shown)
    x, y = rng.uniform(50, 1500, 200), rng.uniform(20, 1200, 200)
    lines = [f"{a},{b},{a - 40},{b}" for a, b in zip(x, y, strict=True)]
    (folder / "matches.csv").write_text("x0,y0,x1,y1\n" + "\n".join(lines) + "\n")
    return folder


def small_model(*methods: str) -> CountingModel:
    torch.manual_seed(0)
    config = ModelConfig(methods=methods, heights=6, width=8, grid=(24, 32), flow_strides=(4,))
    model = CountingModel(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():  # statistics of such pictures, so that features vary
        model.train()
        model.encode(torch.rand(2, 2, 3, 96, 128))
    return model.eval()


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_crowd(tmp_path_factory.mktemp("data") / mohicans.FOLDER)


def test_geometry_of_made_up_cameras_is_found_in_their_windows(made_up: Path) -> None:
    crowd = mohicans.load_crowd(made_up)
    real = mohicans.Real(crowd, (24, 32))
    F = real.fundamental(0)[0, 1].numpy().astype(np.float64)
    planes = real.planes(0, 3)[0, 1].numpy().astype(np.float64)
    for x, y in ((500.0, 600.0), (1100.0, 900.0)):
        here, there = (
            place_from_pixel(camera, (24, 32)) @ (px, y, 1.0) for camera, px in ((0, x), (1, x - 40.0))
        )
        line = F @ here
        assert abs(line @ there) / np.hypot(*line[:2]) < 0.05
        mapped = planes[:, :3] @ there
        np.testing.assert_allclose(mapped[:, :2] / mapped[:, 2:], np.tile(here[:2], (3, 1)), atol=0.05)
        assert (planes[:, 3] @ there > 0).all() and (mapped[:, 2] > 0).all()


def test_untrained_networks_move_nothing_and_the_bounds_are_where_they_belong(made_up: Path) -> None:
    crowd = mohicans.load_crowd(made_up)
    rows = measure(small_model("cls-cat", "cls-epi"), crowd, (24,))
    found = summary(rows)
    assert found["zero flow"][24]["pairs"] == 8
    for way in ("zero flow", "cls-cat", "cls-epi", "cls-cat, shuffled frame"):
        assert found[way][24]["ratio"] == pytest.approx(1.0, abs=2e-3)
    assert found["the true frame"][24]["ratio"] == 0.0
    assert found["optical flow of the true frame"][24]["ratio"] < 0.9
    text = table(found).splitlines()
    assert text[0] == "| flow | ± 24 frames |" and len(text) == 2 + len(found)


def test_the_command_prints_writes_and_draws(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIEWSYNC_DATA", str(made_up.parent))
    state = {"step": 3, "config": {"scene": "plaza", "kappa_s": 3.0}}
    save_checkpoint(tmp_path / "run" / "best", small_model("cls-plane", "cls-cat"), None, state)
    save_checkpoint(tmp_path / "none" / "best", CountingModel(ModelConfig(methods=("none",))), None, state)
    words = ["evaluate", "--mohicans", "--threads", "1", "--json", str(tmp_path / "found.json")]
    run = CliRunner().invoke(
        main,
        [*words, "--checkpoint", str(tmp_path / "run/best"), "--picture", str(tmp_path / "flow.png")],
    )
    assert run.exit_code == 0, run.output
    assert "| cls-plane, shuffled frame |" in run.output and (tmp_path / "found.json").exists()
    drawn = cv2.imread(str(tmp_path / "flow.png"))
    assert drawn.shape == (3 * 2 * 96, 2 * 2 * 128, 3)
    refused = CliRunner().invoke(main, [*words, "--checkpoint", str(tmp_path / "none/best")])
    assert refused.exit_code == 2 and "a checkpoint of none has no flow between pictures" in refused.output
    assert CliRunner().invoke(main, ["evaluate", "--mohicans"]).exit_code == 2


def test_what_is_missing_is_named(made_up: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no pictures cam0/im<N>\.png are there"):
        mohicans.load_crowd(tmp_path)
    broken = write_crowd(tmp_path / "crowd")
    (broken / "cam1" / "im24.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"cam1/im24\.png: missing, or no picture"):
        mohicans.load_crowd(broken)
    (broken / "cam1" / "im24.png").write_bytes((broken / "cam1" / "im48.png").read_bytes())
    (broken / "matches.csv").write_text("x0,y0,x1,y1\n1,2,3,4\n")
    with pytest.raises(UserError, match=r"matches\.csv: give x0, y0, x1, y1 of 8 matches or more"):
        mohicans.load_crowd(broken)


def test_the_real_pairs_are_there_whole_and_their_matches_agree() -> None:
    if not os.environ.get("VIEWSYNC_DATA"):
        pytest.skip("VIEWSYNC_DATA is not set: real crowd pairs are needed")
    crowd = mohicans.load_crowd(Path(os.environ["VIEWSYNC_DATA"]) / mohicans.FOLDER)
    assert crowd.numbers == (0, 24, 48, 72, 96) and crowd.pictures.shape == (2, 5, 1234, 1624)
    F = mohicans.fundamental_of(crowd)
    first, second = (np.column_stack([crowd.matches[:, k : k + 2], np.ones(430)]) for k in (0, 2))
    lines = first @ F.T
    off = np.abs((lines * second).sum(axis=1)) / np.hypot(lines[:, 0], lines[:, 1])
    assert (off < 2.0).mean() > 0.97  # the set's own page: 644 of 647
    real = mohicans.Real(crowd, (72, 96))
    for pair in pairs(crowd.numbers):
        other = 1 - pair.reference
        where = moving(*(real.picture(other, n) for n in (pair.frame, pair.other_frame)), 4)
        assert 0.05 < where.mean() < 0.4
