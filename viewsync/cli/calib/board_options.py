"""What all commands that look for boards ask about the board."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from calib.boards.board import Board

Command = TypeVar("Command", bound=Callable[..., Any])


def whole_size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """`4x5` as (4, 5)."""
    if value is None:
        return None
    columns, _, rows = value.lower().partition("x")
    if not (columns.isdigit() and rows.isdigit()):
        raise click.BadParameter(f"{value!r} is not like 4x5")
    return int(columns), int(rows)


def board_options(required: bool) -> Callable[[Command], Command]:
    """--board, --size and what else describes one; `read_board` makes it of them."""
    options = [
        click.option(
            "--board",
            "kind",
            type=click.Choice(["charuco", "chessboard", "aruco"]),
            required=required,
            help="What kind of board was filmed.",
        ),
        click.option(
            "--size",
            metavar="COLUMNSxROWS",
            callback=whole_size,
            required=required,
            help="Squares of a ChArUco board, inner corners of a chessboard, markers of an ArUco grid.",
        ),
        click.option(
            "--square-m",
            type=float,
            required=required,
            help="Side of a square, m; of an ArUco grid, from one marker to the next, gap included.",
        ),
        click.option("--marker-m", type=float, help="Side of a marker, m."),
        click.option(
            "--dictionary", default="DICT_4X4_50", show_default=True, help="The markers', by OpenCV's name."
        ),
        click.option("--inverted", is_flag=True, help="The board is white on black."),
        click.option("--legacy", is_flag=True, help="A ChArUco board made by OpenCV before 4.6."),
    ]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def read_board(
    kind: Any,
    size: tuple[int, int] | None,
    square_m: float | None,
    marker_m: float | None,
    dictionary: str,
    inverted: bool,
    legacy: bool,
) -> Board:
    """Raises UsageError where it is not told, CalibError where no board is like that."""
    from calib.boards.board import Board

    if kind is None or size is None or square_m is None:
        raise click.UsageError("which board is it? give --board, --size and --square-m")

    return Board(kind, *size, square_m, marker_m, dictionary.upper(), inverted, legacy)
