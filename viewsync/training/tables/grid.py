"""What the tables hold: rows with the paper's own numbers (Zhang & Chan, Tables II and III) and the settings
that train them here, bounds, and the order in which cells are filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from viewsync.nets.config import COLUMN_PARTS

LATENCIES = ("constant", "random")
# Data sets of the paper, and what stands for them here; the harder variants have no numbers in the paper.
PAPER_SETS = ("pets2009-sim", "citystreet-sim")
SETS = (*PAPER_SETS, "pets2009-sim-hard", "citystreet-sim-hard")

Numbers = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One method of a table. paper: (MAE, NAE) of PETS2009 constant and random, CityStreet constant and
    random; () for rows that the paper has not. settings: of the training, beside what all rows share;
    start: the row that it starts from; synchronised: tested on synchronised frames, too.
    """

    name: str
    loss: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    paper: tuple[Numbers, ...] = ()
    start: str = ""
    synchronised: bool = False

    @property
    def slug(self) -> str:
        """Name of its folder."""
        words = f"{self.name} {self.loss}".translate(str.maketrans("ℓₚ", "l ", "+,"))
        return "-".join(words.lower().split())

    def paper_number(self, data_set: str, latency: str) -> Numbers | None:
        """The paper's (MAE, NAE) for the data set that `data_set` stands for."""
        if not self.paper or data_set not in PAPER_SETS:
            return None
        return self.paper[2 * PAPER_SETS.index(data_set) + LATENCIES.index(latency)]


def _flow(method: str, loss: str) -> dict[str, Any]:
    return {"methods": (method,), "flow_loss": loss}


_NONE = {"methods": ("none",)}
REFERENCE_ONLY = Row("reference-only", "bound", {"methods": ("reference-only",)})
SYNCHRONISED = Row("synchronised", "bound", {**_NONE, "kappa_s": 0.0, "tau_s": None}, synchronised=True)
PERFECT = Row("perfect-matching", "bound", {"methods": ("perfect-matching",)})
FLOW = Row("perfect-flow", "bound", {"methods": ("perfect-flow",)})
COLUMN = Row("column", "ours", {"methods": ("column",)})
COLUMN_2 = Row("column-2", "ours, two frames", {"methods": ("column-2",)})
PLANE = Row("cls-plane", "ours", {"methods": ("cls-plane",)})
BASE_U = Row("BaseU", "ℓp", _NONE, ((6.18, 0.187), (6.22, 0.192), (10.22, 0.134), (9.35, 0.121)))
BASE_S = Row(
    "BaseS",
    "ℓp",
    {**_NONE, "kappa_s": 0.0, "tau_s": None},
    ((7.21, 0.200), (4.58, 0.139), (9.07, 0.108), (8.86, 0.107)),
)


def _two(name: str, settings: Mapping[str, Any], *paper: Numbers) -> Row:
    return Row(name, "ℓp" if name == "BaseSU" else "ℓp+ℓW", settings, paper, start="BaseS")


def _column(name: str, settings: Mapping[str, Any]) -> Row:
    return Row(name, "column", {"methods": ("column",), **settings})


# 2 and 3 are the paper's; `column`: what each of its parts is worth.
Table = int | str
TABLES: Mapping[Table, tuple[Row, ...]] = {
    2: (
        BASE_S,
        _two("BaseSU", _NONE, (4.36, 0.137), (4.30, 0.140), (9.02, 0.106), (8.82, 0.108)),
        _two("SLS", _flow("sls", "warp"), (4.49, 0.145), (4.91, 0.154), (8.23, 0.102), (8.02, 0.101)),
        _two("CLS-cat", _flow("cls-cat", "warp"), (4.18, 0.130), (4.85, 0.150), (8.82, 0.111), (8.57, 0.108)),
        _two("CLS-cor", _flow("cls-cor", "warp"), (4.13, 0.135), (4.03, 0.128), (8.03, 0.099), (7.99, 0.098)),
        _two("CLS-epi", _flow("cls-epi", "warp"), (3.95, 0.130), (4.09, 0.129), (8.05, 0.100), (7.93, 0.096)),
    ),
    3: (
        BASE_U,
        Row(
            "SLS",
            "ℓp+ℓs",
            _flow("sls", "similarity"),
            ((5.37, 0.178), (4.82, 0.150), (8.50, 0.105), (8.33, 0.100)),
        ),
        Row(
            "CLS-cat",
            "ℓp+ℓs",
            _flow("cls-cat", "similarity"),
            ((6.00, 0.186), (6.08, 0.189), (8.48, 0.102), (9.17, 0.110)),
        ),
        Row(
            "CLS-cor",
            "ℓp+ℓs",
            _flow("cls-cor", "similarity"),
            ((4.18, 0.136), (4.34, 0.136), (8.02, 0.098), (7.77, 0.093)),
        ),
        Row(
            "CLS-epi",
            "ℓp+ℓs",
            _flow("cls-epi", "similarity"),
            ((4.25, 0.135), (4.77, 0.144), (8.04, 0.095), (7.70, 0.094)),
        ),
        Row("SLS", "ℓp", _flow("sls", "none"), ((7.13, 0.226), (5.30, 0.162), (8.77, 0.107), (8.45, 0.107))),
        Row(
            "CLS-cat",
            "ℓp",
            _flow("cls-cat", "none"),
            ((6.30, 0.194), (5.98, 0.184), (8.28, 0.098), (9.15, 0.108)),
        ),
        Row(
            "CLS-cor",
            "ℓp",
            _flow("cls-cor", "none"),
            ((4.25, 0.138), (4.49, 0.141), (8.20, 0.099), (8.10, 0.102)),
        ),
        Row(
            "CLS-epi",
            "ℓp",
            _flow("cls-epi", "none"),
            ((4.27, 0.135), (4.53, 0.143), (8.16, 0.097), (7.86, 0.096)),
        ),
        COLUMN,
        COLUMN_2,
        PLANE,
        REFERENCE_ONLY,
        SYNCHRONISED,
        PERFECT,
        FLOW,
    ),
    "column": (
        BASE_U,
        COLUMN,
        *(_column(part, {"column_parts": (part,)}) for part in COLUMN_PARTS),
        _column("coarse+iterated", {"column_parts": ("coarse-to-fine", "iterated")}),
        _column("mutual+sharp", {"column_parts": ("mutual", "sharp")}),
        _column("column-2+mutual+sharp", {"methods": ("column-2",), "column_parts": ("mutual", "sharp")}),
        _column(
            "column-2+mutual+sharp+subcell",
            {"methods": ("column-2",), "column_parts": ("mutual", "sharp", "subcell")},
        ),
        _column("known", {"offsets": "known"}),
        _column("known+limit", {"offsets": "known", "column_parts": ("speed-limit",)}),
        _column("unknown", {"offsets": "unknown"}),
        PERFECT,
        FLOW,
    ),
}
# Cells that say most come first.
_FIRST = (
    *("BaseS", "BaseU", "reference-only", "synchronised"),
    *("column", "perfect-matching", "perfect-flow", "column-2", "CLS-epi", "CLS-cor"),
)
_FIRST_PLACE = ("pets2009-sim", "random")


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of a table."""

    table: Table
    data_set: str
    latency: str
    row: Row

    @property
    def folder(self) -> str:
        """Where it lies, below the folder of the runs; a row of two tables is trained once."""
        home = 3 if self.row in TABLES[3] else self.table
        return f"{self.data_set}/{self.latency}/table-{home}-{self.row.slug}"

    @property
    def words(self) -> frozenset[str]:
        """What it may be chosen by."""
        return frozenset({self.data_set, self.latency, self.row.name, self.row.loss})


def cells(table: Table, chosen: Sequence[str] = ()) -> list[Cell]:
    """The table's cells in the order in which they are filled; `chosen`: only those that each of these texts,
    of words such as "random CLS-epi", or one of several such texts, names.
    """
    every = [Cell(table, s, latency, row) for s in SETS for latency in LATENCIES for row in TABLES[table]]

    def rank(cell: Cell) -> tuple[int, int, int, bool]:
        first = (cell.data_set, cell.latency) != _FIRST_PLACE
        name = cell.row.name
        plain = cell.row.loss == "ℓp" and name not in ("BaseS", "BaseU", "BaseSU")
        place = _FIRST.index(name) if name in _FIRST else len(_FIRST)
        return int(first), SETS.index(cell.data_set) if first else 0, place, plain

    wanted = [frozenset(text.split()) for text in chosen]
    return sorted((c for c in every if not wanted or any(words <= c.words for words in wanted)), key=rank)
