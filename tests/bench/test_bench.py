"""The command runs with tiny settings, and its JSON has every row. The figures themselves are not tested."""

import importlib.util
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import onnxruntime
import pytest

from viewsync.lab.link.ways import why_not

FILTERING = "train.minimal_filtering"
PROMISED = {
    "edge.extraction": "≤ 20",
    "edge.memory": "≤ 300",
    "hub.step": "≤ 200",
    "hub.step_compare": "≤ 200",
    "hub.memory": "≤ 500",
    "path.latency": "≤ 10",
    "wire.bytes": None,
    "torch.encoder": None,
    "torch.fusion": None,
    **{
        f"method.{name}": None
        for name in ("column", "column-2", "sls", "cls-plane", "cls-cat", "cls-cor", "cls-epi")
    },
    **{f"train.{m}": None for m in ("none", "reference-only", "column", "column-2", "sls")},
    **{f"train.{m}": None for m in ("cls-plane", "cls-cat", "cls-cor", "cls-epi")},
    FILTERING: None,
    "sim.frames_per_s": "≥ 40",
    "link.own_delay": "≤ 1",
    "link.rate": "≥ 100",
    "page.click": "≤ 100",
    "refine.wildtrack": "≤ 20",
}
BESIDE = ("edge.extraction", "hub.step_compare", "wire.bytes")
DOCS = Path(__file__).parents[2] / "docs" / "bench.md"


def bench(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "viewsync", "bench", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=570)


@pytest.mark.timeout(600)  # eight processes start, and torch exports two graphs
def test_the_json_has_every_row(tiny_bundle: Path) -> None:
    done = bench("--bundle", str(tiny_bundle), "--frames", "3", "--answers", "1", "--seconds", "0", "--json")
    assert done.returncode == 0, done.stderr
    (only,) = done.stdout.splitlines()
    found = json.loads(only)
    rows = {row["name"]: row for row in found["rows"]}
    assert {name: row["promise"] for name, row in rows.items()} == PROMISED
    torch = importlib.util.find_spec("torch") is not None
    for name, row in rows.items():
        if name.startswith(("torch.", "method.", "train.")) and not torch:
            assert "not installed" in row["skipped"]
            continue
        if name.startswith("link.") and why_not("tun"):
            assert row["skipped"] == why_not("tun")
            continue
        if name == "page.click" and row["skipped"]:
            assert "no Chromium" in row["skipped"] or "not installed" in row["skipped"]
            continue
        if name == "refine.wildtrack" and "VIEWSYNC_DATA" not in os.environ:
            assert "VIEWSYNC_DATA is not set" in row["skipped"]
            continue
        assert row["figure"] > 0 and row["samples"] > 0 and row["skipped"] is None, name
        assert (row["holds"] is None) == (PROMISED[name] is None), name
    assert all(rows[name]["ratio"] > 0 and rows[name]["beside"] for name in BESIDE)
    assert "p99_ms" in rows["path.latency"]["facts"]
    if torch:
        # Two ways, and hardly any difference: were they one and the same, there would be none at all.
        assert rows[FILTERING]["ratio"] > 0 and 0 < rows[FILTERING]["facts"]["largest_difference"] < 1e-3
        # Both computed the same: quantised features are equal, densities are as close as floats allow.
        assert rows["torch.encoder"]["facts"]["largest_difference"] <= 1
        assert rows["torch.fusion"]["facts"]["largest_difference"] < 1e-3
        # By hand: networks of Table I on 48×36 places of 1,728 channels and 24×18 of 432; the rest is small.
        widths = (128, 128, 64, 64, 32, 2)
        weights = [sum(25 * a * b for a, b in pairwise((n, *widths))) for n in (1728, 432)]
        by_hand = 2 * (48 * 36 * weights[0] + 24 * 18 * weights[1]) / 1e9
        assert rows["method.cls-epi"]["facts"]["gflop"] == pytest.approx(by_hand, rel=0.05)
        # The first layer of CLS-cor sees sums of 16 products, of 32 on the fine scale: filters made of its
        # weights are laid over as many channels.
        saved = sum(25 * 128 * (n * n - 2 * n * r) for n, r in ((1728, 32), (432, 16)))
        assert rows["method.cls-cor"]["facts"]["gflop"] == pytest.approx(by_hand - 2 * saved / 1e9, rel=0.05)
        for method in ("cls-cor", "cls-epi"):
            found_parameters = rows[f"method.{method}"]["facts"]["parameters"]
            assert found_parameters == pytest.approx(sum(weights) + 2 * sum(widths), rel=0.01)
        operations = {name: rows[f"method.{name}"]["facts"]["gflop"] for name in ("cls-plane", "cls-epi")}
        assert operations["cls-plane"] <= operations["cls-epi"] / 20
    assert found["machine"].keys() >= {"processor", "cores", "load", "load_after", "bundle"}


def test_the_bundle_that_ships_is_computed_in_torch_as_well() -> None:
    done = bench("--frames", "3", "--only", "torch", "--json")
    assert done.returncode == 0, done.stderr
    encoder, fusion = json.loads(done.stdout)["rows"]
    assert encoder["facts"]["same_operators_as_bundle"] and encoder["facts"]["largest_difference"] <= 1
    assert fusion["facts"]["same_operators_as_bundle"]
    apart = fusion["facts"]["differences"]
    # Metres, where descriptors drawn by chance leave the best of many candidates nearly open.
    assert apart.pop("flow_m") < 1e-2
    assert set(apart) == {"density", "match"} and max(apart.values()) < 1e-3


def test_chosen_rows_come_as_a_table(tiny_bundle: Path) -> None:
    done = bench("--bundle", str(tiny_bundle), "--frames", "3", "--only", "bytes", "--only", "sim")
    assert done.returncode == 0, done.stderr
    assert "bytes of a message" in done.stdout and "frames rendered" in done.stdout
    assert "one answer" not in done.stdout


def test_without_the_real_data_its_row_is_skipped_and_says_so(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIEWSYNC_DATA", raising=False)
    done = bench("--bundle", str(tiny_bundle), "--frames", "3", "--only", "refine", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["figure"] is None and "VIEWSYNC_DATA is not set" in row["skipped"]


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime has CUDA"
)
def test_a_gpu_that_is_not_there_is_said_in_one_line(tiny_bundle: Path) -> None:
    done = bench("--bundle", str(tiny_bundle), "--frames", "3", "--only", "hub", "--provider", "cuda")
    assert done.returncode == 2 and done.stdout == ""
    assert "onnxruntime-gpu" in done.stderr.splitlines()[-1]


def test_the_page_explains_every_row_and_option() -> None:
    page = DOCS.read_text(encoding="utf-8")
    options = ("--bundle", "--provider", "--only", "--frames", "--answers", "--seconds", "--json")
    assert [word for word in (*PROMISED, *options) if f"`{word}" not in page] == []
