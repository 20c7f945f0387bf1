"""Error against offset: the same reference frames for all; what is measured is kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from calib.scene import load_scene
from viewsync.cli import main
from viewsync.errors import UserError
from viewsync.sim import real_sets
from viewsync.training.config import TrainConfig
from viewsync.training.snapshots import Sampling, SnapshotSet
from viewsync.training.tables.by_offset import Curve, Measured, band, draws, offsets_s, places
from viewsync.training.tables.by_offset_page import markdown, picture
from viewsync.training.train import train


@pytest.fixture(scope="module")
def shots(small_scene: Path, crowds_together: Path) -> SnapshotSet:
    return SnapshotSet(load_scene(small_scene), crowds_together, range(3), Sampling(1.0))


def test_every_offset_is_asked_of_the_same_frames(shots: SnapshotSet) -> None:
    grid = offsets_s(1.0)
    assert grid == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    chosen = places(shots, (0, 2), grid[-1], 5)
    assert 0 < len(chosen) <= 5 and {p.row for p in chosen} <= {0, 2}
    assert places(shots, (0, 2), grid[-1], 5) == chosen
    snapshots = list(draws(shots, chosen, grid))
    assert len(snapshots) == len(chosen) * len(grid)
    slack = max(float(np.diff(t.times_s, axis=1).max()) for t in shots.truth)
    for k, (shot, group) in enumerate(snapshots):
        place, offset = chosen[k // len(grid)], grid[k % len(grid)]
        first, its_group = snapshots[k - k % len(grid)]
        assert (shot.xy[0] == first.xy[0]).all() and (shot.images[0] == first.images[0]).all()
        assert group == its_group
        for slot, row in enumerate(shot.view[1:], start=1):
            assert abs(shot.true_offset_s[slot] - place.sign[int(row)] * offset) <= slack / 2 + 1e-6
    with pytest.raises(UserError, match="a frame 500 s away; choose a smaller --kappa"):
        places(shots, (0,), 500.0, 5)


def test_the_band_is_of_stretches_and_holds_the_mean() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(10), 6)
    alike = np.stack([np.repeat(rng.normal(3.0, 1.0, 10), 6), np.full(60, 2.0)])
    mean, low, high = band(alike, group.tolist())
    assert (low <= mean).all() and (mean <= high).all() and mean[1] == low[1] == high[1] == 2.0
    # Frames of one stretch say the same: the interval is that of ten numbers, not of sixty.
    narrow = band(alike, list(range(60)))
    assert high[0] - low[0] > 1.8 * (narrow[2][0] - narrow[1][0])


def test_a_line_for_each_method_or_why_there_is_none() -> None:
    rng = np.random.default_rng(1)
    curve = Curve(rng.random((3, 8)) + 1.0, rng.random((3, 8)) + 5.0)
    worse = Curve(curve.mae + 0.5, curve.density_mse + 0.25)
    curves = {"a, seed 0": curve, "a, seed 1": curve, "none, seed 0": worse}
    measured = Measured({}, [0.0, 1.0, 2.0], [0, 0, 1, 1, 2, 2, 3, 3], curves)
    methods: dict[str, list[str] | str] = {"a": ["a, seed 0", "a, seed 1"], "b": "not converged"}
    methods["none"] = ["none, seed 0"]
    text = markdown(measured, methods)
    assert (
        text.count("| a |") == 2 and text.count("| b | not converged | not converged | not converged |") == 2
    )
    assert f"| a | {curve.density_mse[0].mean():.3g} [" in text and "others off by | 0.00 s | 1.00 s" in text
    # Frame by frame the difference is clear, whatever the frames have in common.
    for less in (-0.5, -0.25):
        cells = [f"{less:+.2g} [{less:+.2g}, {less:+.2g}]"] * 3
        assert f"| a − none | {' | '.join(cells)} |" in text
    drawn = cv2.imdecode(np.frombuffer(picture(measured, methods, 1.0), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.std() > 10 and drawn.shape[1] > 900


def run(*asked: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["evaluate", *asked, "--by-offset", "--frames", "3", "--threads", "1"])
    return done.exit_code, done.output


def test_checkpoints_are_measured_once(small_scene: Path, crowds_together: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        scene=str(small_scene),
        data=crowds_together,
        methods=("none", "reference-only"),
        train_seeds=(0, 2),
        validation_seeds=(2, 3),
        steps=2,
        first_stage=0.0,
        batch=1,
        kappa_s=1.0,
        validate_every=2,
        validation_snapshots=1,
        threads=1,
    )
    best = train(config, tmp_path / "run", lambda step: None, Event())
    path = tmp_path / "found.json"
    asked = (
        "--checkpoint",
        str(best),
        "--data",
        str(crowds_together),
        "--crowds",
        "0:3",
        "--json",
        str(path),
    )
    code, said = run(*asked)
    assert code == 0 and "| none (run/best) |" in said, said
    found = json.loads(path.read_text())
    # Who looks at the reference alone does not care how far off the others are.
    alone = np.array(found["curves"]["reference-only (run/best)"]["density_mse"])
    assert alone.shape == (9, 3) and np.ptp(alone, axis=0).max() < 1e-6
    assert np.ptp(np.array(found["curves"]["none (run/best)"]["density_mse"]), axis=0).max() > 1e-6
    assert found["offset_s"] == sorted(found["offset_s"]) and path.with_suffix(".png").stat().st_size > 5000
    # Kept, not measured again: a number that was changed by hand stays.
    found["curves"]["none (run/best)"]["mae"][0][0] = 77.0
    path.write_text(json.dumps(found))
    assert (
        run(*asked)[0] == 0 and json.loads(path.read_text())["curves"]["none (run/best)"]["mae"][0][0] == 77.0
    )
    code, said = run(*asked, "--kappa", "0.5")
    assert code == 2 and "was measured with offsets_s" in said
    # Of other crowds nothing is answered from what is kept.
    other = tmp_path / "other"
    shutil.copytree(crowds_together, other)
    code, said = run(*asked, "--data", str(other))
    assert code == 2 and "was measured with data" in said and str(other) in said
    moved = [str(other) if word == str(crowds_together) else word for word in asked]
    moved[-1] = str(tmp_path / "other.json")
    assert run(*moved)[0] == 0
    shutil.copy(other / "000000.npz", other / "000001.npz")
    code, said = run(*moved)
    assert code == 2 and "was measured with truth_sha256" in said
    code, said = run("--bundle", str(tmp_path))
    assert code == 2 and "--by-offset is of a --table or of every --checkpoint" in said


def test_cells_of_a_table_are_measured_where_they_are_trained(
    small_scene: Path, crowds_together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = replace(
        real_sets.SETS["pets2009-sim"],
        views=("left", "right", "far"),
        kappa_s=1.0,
        castings={"train": 1, "validation": 1, "test": 1},
    )
    monkeypatch.setattr(real_sets, "SETS", {**real_sets.SETS, "pets2009-sim": real})
    data = tmp_path / "data" / "pets2009-sim"
    data.mkdir(parents=True)
    shutil.copy(small_scene, data / "scene.yaml")
    for use in real_sets.USES:
        for piece in real.pieces(use):
            for suffix in (".npy", ".npz"):
                shutil.copy(crowds_together / f"{piece % 3:06d}{suffix}", data / f"{piece:06d}{suffix}")
    table = ("--table", "3", "--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"))
    code, said = run(*table)
    assert code == 2 and "has no such cell" in said and "fill it first" in said
    fill = ["evaluate", *table, "--steps", "2", "--frames", "3", "--threads", "1"]
    for row in ("BaseU", "synchronised"):
        done = CliRunner().invoke(main, [*fill, "--cells", f"pets2009-sim random {row}"])
        assert done.exit_code == 0, done.output
    code, said = run(*table)
    assert code == 0 and "| BaseU (ℓp) | not converged |" in said, said
    kept = tmp_path / "runs" / "table-3-by-offset-pets2009-sim.json"
    curves = json.loads(kept.read_text())["curves"]
    assert np.array(curves["BaseU (ℓp), seed 0"]["mae"]).shape == (9, 3)
    assert np.ptp(np.array(curves["BaseU (ℓp), seed 0"]["density_mse"]), axis=0).max() > 1e-6
    # The bound is of one instant, however far off the others are asked.
    flat = np.array(curves["synchronised (bound: frames of one instant), seed 0"]["density_mse"])
    assert flat.shape == (9, 3) and np.ptp(flat, axis=0).max() == 0.0
    assert kept.with_suffix(".png").exists() and kept.with_suffix(".md").exists()
    again, shown = run(*table, "--show")
    assert again == 0 and shown == said[said.index("| density MSE") :]
