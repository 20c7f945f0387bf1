"""docs/tables.md has every row and every number of the paper's, and each cell is a number or says why not."""

import re
from pathlib import Path

import pytest

from viewsync.training.tables.grid import TABLES, Table
from viewsync.training.tables.page import NOT_CONVERGED, NOT_RUN, markdown

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"
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
    title = {2: "## Table II\n", 3: "## Table III\n", "column": "## Parts of `column`\n"}[table]
    shown = grid(PAGE.read_text("utf-8").split(title)[1])
    wanted = grid(markdown(table, {}))
    assert shown[0] == wanted[0] and len(shown) == len(wanted)
    for ours, theirs in zip(shown[2:], wanted[2:], strict=True):
        for head, cell, expected in zip(shown[0], ours, theirs, strict=True):
            ours_to_say = head not in ("method", "trained with", "paper")
            assert CELL.fullmatch(cell) if ours_to_say else cell == expected, (ours[0], head, cell)
