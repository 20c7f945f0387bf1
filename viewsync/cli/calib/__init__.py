"""`viewsync calib`: from cameras to a scene file. One module per sub-command, imported when it runs."""

import importlib
import importlib.util
from typing import NamedTuple

import click


class _Entry(NamedTuple):
    module: str
    help: str


COMMANDS = {
    "import": _Entry("viewsync.cli.calib.importing", "Make a scene.yaml of calibration files of any format."),
    "export": _Entry("viewsync.cli.calib.exporting", "Write a scene's cameras in another program's format."),
    "intrinsics": _Entry("viewsync.cli.calib.intrinsics", "Find a camera's lens from pictures of a board."),
    "extrinsics": _Entry(
        "viewsync.cli.calib.extrinsics", "Find where cameras stand from points of known place."
    ),
    "refine": _Entry("viewsync.cli.calib.refine", "Make all cameras agree at once: points, clicks, boards."),
    "compare": _Entry("viewsync.cli.calib.compare", "How far two calibrations are apart."),
    "check": _Entry("viewsync.cli.calib.check", "Find what is suspicious about a scene, and draw it."),
    "serve": _Entry("viewsync.cli.calib.serve", "Look at a calibration, and work on it, in a browser."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if importlib.util.find_spec(entry.module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None or importlib.util.find_spec(entry.module) is None:
            return None
        command = importlib.import_module(entry.module).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, COMMANDS[name].help) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@click.group(name="calib", cls=_LazyGroup)
def command() -> None:
    """From calibration files, or from pictures and clicks, to a scene file that one can trust."""
