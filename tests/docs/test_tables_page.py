"""docs/tables.md has every row and every number of the paper's, and each cell is a number or says why not.
What results/tables has, it has.
"""

import itertools
import re
from pathlib import Path

import pytest

from viewsync.training.tables.cell import everything
from viewsync.training.tables.grid import LATENCIES, SETS, TABLES, Cell, Table
from viewsync.training.tables.page import NOT_CONVERGED, NOT_RUN, markdown, number
from viewsync.training.tables.record import NAME

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tables.md"
KEPT = ROOT / "results" / "tables"
TITLES = {2: "## Table II\n", 3: "## Table III\n", "column": "## Parts of `column`\n"}
CELL = re.compile(rf"{NOT_RUN}|{NOT_CONVERGED}|\d+\.\d\d( ± \d+\.\d\d)? / \d\.\d{{3}}( ± \d\.\d{{3}})?")


def grid(text: str) -> list[list[str]]:
    """The first table of a text: its head and its rows, cell by cell."""
    lines = re.search(r"^\| method \| trained with .*?(?=^[^|]|\Z)", text, re.MULTILINE | re.DOTALL)
    assert lines is not None
    return [
        [cell.strip() for cell in line.strip("| \n").split(" | ")] for line in lines[0].strip().splitlines()
    ]


@pytest.mark.parametrize("table", list(TABLES))
def test_the_page_has_the_whole_table(table: Table) -> None:
    shown = grid(PAGE.read_text("utf-8").split(TITLES[table])[1])
    wanted = grid(markdown(table, {}))
    assert shown[0] == wanted[0] and len(shown) == len(wanted)
    for ours, theirs in zip(shown[2:], wanted[2:], strict=True):
        for head, cell, expected in zip(shown[0], ours, theirs, strict=True):
            ours_to_say = head not in ("method", "trained with", "paper")
            assert CELL.fullmatch(cell) if ours_to_say else cell == expected, (ours[0], head, cell)


def test_what_is_kept_of_measured_cells_is_on_the_page() -> None:
    text = PAGE.read_text("utf-8")
    # A run begun here that is not measured yet has no record.
    results = {
        folder: measured
        for folder, found in everything(KEPT).items()
        if (measured := [one for one in found if one.scores is not None])
    }
    assert {path.parent.parent for path in KEPT.rglob(NAME)} == {KEPT / folder for folder in results}
    assert results
    for table, rows in TABLES.items():
        head, _, *shown = grid(text.split(TITLES[table])[1])
        for row, line in zip(rows, shown, strict=True):
            for data_set, latency in itertools.product(SETS, LATENCIES):
                kept = number(results, Cell(table, data_set, latency, row))
                assert line[head.index(f"{data_set} {latency}")] == kept, row
    # What methods err by, gain and close is there as the command prints it.
    for data_set in {folder.split("/")[0] for folder in results}:
        printed = markdown(3, results, [data_set]).split("MAE / NAE of the count")[1]
        assert all(line in text for line in printed.splitlines() if line.startswith(("| ", "- ")))
