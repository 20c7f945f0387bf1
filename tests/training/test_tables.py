"""The paper's tables: what they hold, when a cell is a number, and what is gained."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from viewsync.cli import main
from viewsync.sim import real_sets
from viewsync.sim.dataset import load_truth
from viewsync.training.metrics import METRICS, Scores
from viewsync.training.tables import closure as closure_figures
from viewsync.training.tables.cell import Result, flattened, known
from viewsync.training.tables.closure import closure, gap, prize
from viewsync.training.tables.grid import TABLES, Cell, cells
from viewsync.training.tables.page import markdown, picture

ALL_BUT_THE_RECORD = shutil.ignore_patterns("best", "last", "tensorboard", "*.csv", "*.png")
ROWS = {(table, row.name, row.loss): row for table, rows in TABLES.items() for row in rows}


def scores(error: float, seed: int = 0, groups: int = 12) -> Scores:
    """Counts that are off by `error` on average, on the same 60 snapshots for every seed."""
    rng = np.random.default_rng(seed)
    true = np.linspace(10, 30, 60)
    off = error * (1 + 0.1 * rng.standard_normal(60))
    hits = np.round(true * np.exp(-error / 10))
    return Scores(true + off, true, off**2, hits, true, np.arange(60) // (60 // groups))


def test_the_papers_numbers_are_beside_ours() -> None:
    epi = ROWS[3, "CLS-epi", "ℓp+ℓs"]
    assert epi.paper_number("pets2009-sim", "random") == (4.77, 0.144)
    assert epi.paper_number("citystreet-sim", "constant") == (8.04, 0.095)
    assert epi.paper_number("pets2009-sim-hard", "random") is None
    assert ROWS[2, "CLS-cor", "ℓp+ℓW"].paper_number("pets2009-sim", "random") == (4.03, 0.128)
    # 6 rows of Table II and 9 of Table III, each with four pairs; ours and the bounds have none.
    assert [sum(len(row.paper) == 4 for row in TABLES[table]) for table in (2, 3)] == [6, 9]
    # What the paper concludes: best and worst of each column.
    best = [min(r.paper[c][0] for r in TABLES[2]) for c in range(4)]
    assert best == [3.95, 4.03, 8.03, 7.93]
    worst = [max(r.paper[c][0] for r in TABLES[3] if r.paper) for c in range(4)]
    assert worst == [7.13, 6.22, 10.22, 9.35]


def test_cells_that_say_most_come_first_and_can_be_chosen() -> None:
    names = [c.row.name for c in cells(3)[:5]]
    assert names == ["BaseU", "reference-only", "synchronised", "column", "perfect-matching"]
    assert {(c.data_set, c.latency) for c in cells(3)[:16]} == {("pets2009-sim", "random")}
    assert len(cells(3)) == 16 * 8 and len({c.folder for t in (2, 3) for c in cells(t)}) == 22 * 8
    two = cells(3, ["pets2009-sim random CLS-epi ℓp+ℓs", "citystreet-sim constant BaseU"])
    assert [c.row.name for c in two] == ["CLS-epi", "BaseU"]
    assert not cells(2, ["BaseU"])


def test_closure_is_the_share_of_the_gap() -> None:
    base, bound = [scores(6.0), scores(6.0, 1)], [scores(2.0, 2), scores(2.0, 3)]
    for metric in ("mae", "density_mse", "f1"):
        assert gap(base, bound, metric).clear
        for method, share in ((base, 0.0), (bound, 1.0)):
            found = closure(base, method, bound, metric)
            assert found is not None and found.value == pytest.approx(share)
    half = closure(base, [scores(4.0, 5)], bound, "mae")
    assert half is not None and half.value == pytest.approx(0.5, abs=0.03)
    assert half.low < half.value < half.high
    worth = prize(base, bound, "mae")
    assert worth.value == pytest.approx(4.0, abs=0.1) and worth.low < 4.0 < worth.high


def test_without_a_gap_there_is_no_share() -> None:
    base, same = [scores(4.0, 7)], [scores(4.0, 8)]
    assert not gap(base, same, "mae").clear
    assert closure(base, [scores(1.0)], same, "mae") is None
    with pytest.raises(ValueError, match="same snapshots"):
        gap(base, [scores(4.0, groups=6)], "mae")


def shares_of(text: str) -> dict[str, dict[str, str]]:
    """Of the table of who closes the gap: method → head → cell."""
    lines = text.split("prize and gap closure:")[1].splitlines()
    head, _, *rows = ([c.strip() for c in line[1:-1].split("|")] for line in lines if line.startswith("|"))
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_a_cell_is_a_number_only_where_it_is_finished_and_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is said here hangs on the intervals' existence and rough width, not on their last digit.
    monkeypatch.setattr(closure_figures, "_DRAWS", 200)
    base, epi = ROWS[3, "BaseU", "ℓp"], ROWS[3, "CLS-epi", "ℓp+ℓs"]
    column = ROWS[3, "column", "ours"]

    def folder(row: object) -> str:
        return Cell(3, "pets2009-sim", "random", row).folder  # type: ignore[arg-type]

    results = {
        folder(base): [Result(scores(6.0, k), 100, True, "100 steps of batch 4") for k in (0, 1)],
        folder(epi): [Result(scores(4.0), 100, True), Result(scores(4.1), 60, False)],
        folder(column): [Result(None, 100, True)],
    }
    text = markdown(3, results, ["pets2009-sim"])
    lines = {tuple(line.split(" | ")[:2]): line.split(" | ") for line in text.splitlines() if "|" in line}
    assert "±" in lines["| BaseU", "ℓp"][4] and lines["| BaseU", "ℓp"][5].startswith("6.22 / 0.192")
    assert lines["| BaseU", "ℓp"][2] == "not run"
    assert (
        lines["| CLS-epi", "ℓp+ℓs"][4] == "not converged" and lines["| column", "ours"][4] == "not converged"
    )
    assert text.endswith("The prize is not run: pets2009-sim constant, pets2009-sim random.")
    assert "- pets2009-sim, random: BaseU (ℓp): 100 steps of batch 4, 2 seeds" in text
    for row, error, seed in (("reference-only", 7.0, 2), ("synchronised", 2.0, 3)):
        results[folder(ROWS[3, row, "bound"])] = [Result(scores(error, seed), 100, True)]
    results[folder(epi)] = [Result(scores(4.0, 4), 100, True)]
    text = markdown(3, results, ["pets2009-sim"])
    assert "prize (reference-only − synchronised): MAE 5.0" in text and "noise" not in text
    shares = shares_of(text)["CLS-epi (ℓp+ℓs)"]
    assert shares["gap closed: MAE"].startswith("0.5") and "of perfect matching's gain: MAE" not in shares
    results[folder(ROWS[3, "perfect-matching", "bound"])] = [Result(scores(3.5, 5), 100, True)]
    text = markdown(3, results, ["pets2009-sim"])
    assert shares_of(text)["CLS-epi (ℓp+ℓs)"]["of perfect matching's gain: MAE"].startswith("0.79")
    assert shares_of(text)["perfect-matching (bound)"]["gap closed: MAE"].startswith("0.6")
    assert shares_of(text)["perfect-matching (bound)"]["of perfect matching's gain: MAE"] == ""
    results[folder(ROWS[3, "perfect-flow", "bound"])] = [Result(scores(5.0, 6), 100, True)]
    text = markdown(3, results, ["pets2009-sim"])
    shares = shares_of(text)["CLS-epi (ℓp+ℓs)"]
    assert shares["of perfect matching's gain: MAE"].startswith("0.79")
    assert shares["of perfect flow's gain: MAE"].startswith("2.1")
    results[folder(ROWS[3, "synchronised", "bound"])] = [Result(scores(7.0, 9), 100, True)]
    text = markdown(3, results, ["pets2009-sim"])
    assert "within noise, so that it cannot rank methods: MAE" in " ".join(text.split())
    assert shares_of(text)["CLS-epi (ℓp+ℓs)"]["gap closed: MAE"] == "no gap"
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 150
    drawn = cv2.imdecode(np.frombuffer(picture(3, results, ["pets2009-sim"]), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.std() > 10 and drawn.shape[1] > 500


def test_beside_baseu_stand_mean_error_density_places_and_what_is_gained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(closure_figures, "_DRAWS", 200)
    base, epi = ROWS[3, "BaseU", "ℓp"], ROWS[3, "CLS-epi", "ℓp+ℓs"]
    twice, alone = [scores(6.0, 0), scores(6.0, 1)], scores(4.0, 4)
    results = {
        Cell(3, "pets2009-sim", "random", base).folder: [Result(s, 100, True) for s in twice],
        Cell(3, "pets2009-sim", "random", epi).folder: [Result(alone, 100, True)],
    }
    text = markdown(3, results, ["pets2009-sim"]).split("pets2009-sim, random:\n")[1]
    head, _, first, second = (line.strip("| ").split(" | ") for line in text.split("\n")[1:5])
    assert head[:5] == ["method", "count − truth", "MAE", "density MSE", "F1"] and len(second) == len(head)
    error = alone.predicted - alone.true
    assert first[0] == "BaseU" and len(first) == 5  # gains nothing over itself
    mae, mse, f1 = (METRICS[m](alone) for m in ("mae", "density_mse", "f1"))
    assert second[0] == "CLS-epi (ℓp+ℓs)"
    assert second[1:5] == [
        f"{error.mean():+.2f} ± {error.std():.2f}",
        f"{mae:.2f}",
        f"{mse:.3f}",
        f"{f1:.3f}",
    ]
    assert "not compared" not in text
    few = Result(scores(4.0, 4, groups=6), 100, True)
    results[Cell(3, "pets2009-sim", "random", ROWS[3, "reference-only", "bound"]).folder] = [few]
    text = markdown(3, results, ["pets2009-sim"])
    assert "Measured on other frames (--frames), and not compared: reference-only (bound)." in text
    assert "The prize is not run" in text
    for cell, metric, sign, digits in zip(
        second[5:], closure_figures.CLOSURE_METRICS, (1, 1, -1), (2, 3, 3), strict=True
    ):
        gained = sign * (np.mean([METRICS[metric](s) for s in twice]) - METRICS[metric](alone))
        assert cell.startswith(f"{gained:.{digits}f} [")


def test_a_curve_is_flat_when_its_last_third_gains_nothing() -> None:
    steps = range(100, 1300, 100)
    falling = [(s, 1.0 - s / 1400) for s in steps]
    flat = [(s, max(0.5, 1.0 - s / 1000)) for s in steps]
    assert not flattened(falling, 1200) and flattened(flat, 1200)
    assert not flattened(flat[:6], 1200) and not flattened([], 1200)


def test_a_table_is_filled_cell_by_cell_and_goes_on(
    small_scene: Path, crowds_together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = replace(
        real_sets.SETS["pets2009-sim"],
        views=("left", "right", "far"),
        kappa_s=1.0,
        tau_s={"right": 1.0},
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

    def run(table: str, words: str, *more: str) -> tuple[int, str]:
        asked = [
            "evaluate",
            "--table",
            table,
            "--data",
            str(tmp_path / "data"),
            "--runs",
            str(tmp_path / "runs"),
        ]
        asked += ["--steps", "3", "--frames", "6", "--threads", "1", "--seeds", "1", *more]
        done = CliRunner().invoke(
            main, [*asked, *[w for text in words.split(",") for w in ("--cells", text)]]
        )
        return done.exit_code, done.output

    code, said = run("2", "pets2009-sim random BaseSU")
    assert code == 2 and "BaseSU starts from BaseS, which is not trained yet" in said
    code, said = run("3", "pets2009-sim random BaseU,pets2009-sim random synchronised")
    assert code == 0, said
    assert said.count("| not converged |") == 2 and "3 steps, not converged" in said
    kept = sorted((tmp_path / "runs").rglob("cell.json"))
    assert len(kept) == 2
    found = [json.loads(path.read_text())["scores"] for path in kept]
    # Both answered the same frames of the reference, whoever was there.
    assert found[0]["true"] == found[1]["true"] and found[0]["crowd"] == found[1]["crowd"]
    # What is kept of a measured cell needs no weights beside it, wherever it and its set lie now: the same
    # table, and nothing to train.
    alone, elsewhere = tmp_path / "alone", tmp_path / "elsewhere"
    elsewhere.symlink_to(tmp_path / "data")
    for path in kept:
        shutil.copytree(
            path.parent, alone / path.parent.relative_to(tmp_path / "runs"), ignore=ALL_BUT_THE_RECORD
        )
    both = "pets2009-sim random BaseU,pets2009-sim random synchronised"
    code, again = run("3", both, "--runs", str(alone), "--data", str(elsewhere))
    assert code == 0 and again.split("| method")[1:] == said.split("| method")[1:]
    assert not list(alone.rglob("model.safetensors"))
    assert str(tmp_path) not in "".join(path.read_text() for path in alone.rglob("cell.json"))
    code, other = run("3", "pets2009-sim random BaseU", "--runs", str(alone), "--set", "batch=2")
    assert code == 2 and "was trained with batch 4, now it is 2; use another folder of --runs" in other
    strange = alone / "pets2009-sim/random/table-3-sls-lp/seed-0"
    shutil.copytree(next(alone.rglob("cell.json")).parent, strange)
    code, other = run("3", "pets2009-sim random BaseU", "--runs", str(alone), "--show")
    assert code == 2 and "here is the record of pets2009-sim/random/table-3-" in other
    times = [path.stat().st_mtime_ns for path in kept]
    assert run("3", "pets2009-sim random BaseU")[0] == 0
    code, said = run("3", "pets2009-sim", "--show", "--start-from", "nowhere")
    assert code == 0 and "| not run |" in said and (tmp_path / "runs" / "table-3.png").stat().st_size > 5000
    assert [path.stat().st_mtime_ns for path in kept] == times
    code, said = run("3", "pets2009-sim random column", "--set", "methods=[none]")
    assert code == 2 and "column (ours) says this itself" in said
    code, said = run("3", "pets2009-sim random column", "--set", "batch=2", "--set", "sparsity=0")
    assert code == 0, said
    trained = json.loads(
        next((tmp_path / "runs").rglob("table-3-column-ours/seed-0/last/state.json")).read_text()
    )
    assert trained["config"]["batch"] == 2 and trained["config"]["sparsity"] == 0
    code, said = run("3", "pets2009-sim random column", "--set", "batch=2", "--set", "sparsity=0.5")
    assert code == 2 and "sparsity 0.0, now it is 0.5; use another folder of --runs" in said
    code, said = run("3", "pets2009-sim random column", "--set", "devices=2")
    assert code == 2 and "cells are filled by one process" in said
    code, said = run("2", "pets2009-sim random BaseSU", "--set", "start_from=runs/x")
    assert code == 2 and "BaseSU (ℓp) says this itself" in said
    (column,) = cells(3, ["pets2009-sim random column"])
    found_there = known(column, tmp_path / "runs", 0)
    assert found_there is not None and found_there.trained_with == "3 steps of batch 2, sparsity 0.0"
    written = json.loads(next((tmp_path / "runs").rglob("table-3-column-ours/seed-0/cell.json")).read_text())
    taught = [load_truth(data / f"{piece:06d}.npz") for piece in real.pieces("train")]
    assert written["passes"] == round(3 * 2 / sum(truth.times_s.shape[1] for truth in taught), 2)
    code, said = run("3", "citystreet-sim random BaseU")
    assert code == 2 and "viewsync data make citystreet-sim" in said
    code, said = run("3", "pets2009-sim BaseU,citystreet-sim random column", "--cost")
    assert code == 0 and "| pets2009-sim | BaseU | ℓp |" in said, said
    assert "2 runs of 3 steps: " in said and "Not counted: citystreet-sim is not there" in said
    code, said = run("3", "nonsense")
    assert code == 2 and "has no such cell" in said
