"""The command line: the composition root, above every package and imported by none.

Each command lives in `viewsync/cli/<name>.py` as `command: click.Command` and is imported only when it runs;
a command is listed once its module exists. Exit codes: 0 done, 2 the user's mistake (one line), 1 ours (a
traceback). stdout carries results only; logs and errors go to stderr, with passwords redacted.
"""

import errno
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import click

import viewsync
from viewsync.cli.stop import stopping
from viewsync.errors import InternalError, ViewsyncError
from viewsync.redact import RedactingFormatter, redact

__all__ = ["COMMANDS", "log_to_stderr", "main", "stopping"]

_log = logging.getLogger(__name__)
_OURS = ("calib", "viewsync", "edge", "hub", "export", "bench")
_LEVELS = click.Choice(["debug", "info", "warning", "error"])


class _Entry(NamedTuple):
    module: str
    help: str
    extra: str  # what to install where a package that the command needs is missing


COMMANDS = {
    "demo": _Entry(
        "viewsync.cli.demo", "Simulated cameras, agents and a hub: counts beside the truth.", "demo"
    ),
    "edge": _Entry("viewsync.cli.edge", "Run the agent beside one camera.", "edge"),
    "hub": _Entry("viewsync.cli.hub", "Run the hub: newest features in, predictions out.", "hub"),
    "subscribe": _Entry("viewsync.cli.subscribe", "Print predictions, one line each.", "hub"),
    "keys": _Entry("viewsync.cli.keys", "Make CURVE keys and the hub's allow-list.", "hub"),
    "calib": _Entry("viewsync.cli.calib", "From cameras to a scene file that one can trust.", "calib"),
    "sim": _Entry("viewsync.cli.sim", "Simulated crowds and cameras.", "lab"),
    "data": _Entry("viewsync.cli.data", "Data sets of real cameras: make or check them.", "train"),
    "train": _Entry("viewsync.cli.train", "Train a model on simulated crowds.", "train"),
    "evaluate": _Entry("viewsync.cli.evaluate", "Measure a bundle on unseen crowds.", "train"),
    "export": _Entry("viewsync.cli.export", "Make a bundle from a checkpoint and a scene.", "train"),
    "bench": _Entry(
        "viewsync.cli.bench", "Measure speed, memory and bytes, as ratios in one run.", "demo,train,dev"
    ),
    "doctor": _Entry("viewsync.cli.doctor", "Check this machine and say what is missing.", "demo"),
}

# Conditions of the machine, not bugs: one line, exit 2.
_MACHINE = {
    errno.EADDRINUSE: "the address is in use; stop the other program or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address; use one of its own, or 127.0.0.1",
    errno.ENOSPC: "the disk is full; free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere",
    errno.EROFS: "the file system is read-only; write elsewhere",
    errno.EACCES: "permission denied; change the permissions or choose another place (a port below 1024?)",
    errno.EPERM: "the system does not permit it; run it with the rights it needs",
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "a part of the path is not a folder; check the path",
    errno.EISDIR: "it is a folder; give a file",
    errno.EEXIST: "it exists already; choose another name",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.ECONNREFUSED: "connection refused; check the address, and that the other side runs",
    errno.EHOSTUNREACH: "the host cannot be reached; check the address and the network",
    errno.ENETUNREACH: "the network cannot be reached; check the address and the network",
    errno.ENODEV: "no such device or network interface; check the name in the address",
}


def log_to_stderr(level: str) -> None:
    """Send log records of `level` and above to stderr, redacted; replaces what an earlier call set up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, RedactingFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)


def _log_level_option() -> click.Option:
    def set_level(context: click.Context, option: click.Parameter, value: str | None) -> None:
        if value is not None and not context.resilient_parsing:
            log_to_stderr(value)

    return click.Option(
        ["--log-level"],
        type=_LEVELS,
        callback=set_level,
        expose_value=False,
        help="How much to log on stderr [info].",
    )


class _LazyGroup(click.Group):
    """Imports a command when it is asked for; turns errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if importlib.util.find_spec(entry.module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None or importlib.util.find_spec(entry.module) is None:
            return None
        try:
            command = importlib.import_module(entry.module).command
        except ModuleNotFoundError as error:
            _missing_package(cmd_name, error)
        except AttributeError as error:
            raise InternalError(f"{entry.module} defines no `command`") from error
        assert isinstance(command, click.Command)
        if all("--log-level" not in parameter.opts for parameter in command.params):
            command.params.append(_log_level_option())
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, COMMANDS[name].help) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return _reader_gone()

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        log_to_stderr("info")
        try:
            code = super().main(args, prog_name or "viewsync", complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(2)
        except click.ClickException as error:
            _fail(2, _usage(error))
        except (KeyboardInterrupt, click.Abort):
            _fail(130, "interrupted")
        except BrokenPipeError:
            code = _reader_gone()
        except ModuleNotFoundError as error:
            command = next((name for name in sys.argv[1:] if name in COMMANDS), "viewsync")
            try:
                _missing_package(command, error)
            except click.ClickException as known:
                _fail(2, known.format_message())
        except Exception as error:  # noqa: BLE001 (the last stop: everything becomes a line and an exit code)
            line = explain(error)
            if line is None:
                _log.critical("this is a bug in viewsync; please report it with these lines", exc_info=error)
                sys.exit(1)
            _fail(1 if isinstance(error, InternalError) else 2, line)
        sys.exit(code if isinstance(code, int) else 0)


def explain(error: Exception) -> str | None:
    """The one line that says what, where and what to do, or None where only a traceback helps."""
    from calib.errors import CalibError

    if isinstance(error, (ViewsyncError, CalibError)):
        return str(error)
    # libzmq's errors are no OSError, but carry its number.
    number = getattr(error, "errno", None)
    advice = _MACHINE.get(number) if isinstance(number, int) else None
    if advice is None:
        return None
    filename = getattr(error, "filename", None)
    text = "" if filename is not None else getattr(error, "strerror", None) or str(error)
    return f"{filename or text}: {advice}"


def _reader_gone() -> int:
    """The reader of our output (head, less) went away: nobody's mistake, exit 0."""
    # The interpreter's own flush at exit would complain again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _missing_package(command: str, error: ModuleNotFoundError) -> NoReturn:
    package = (error.name or "").partition(".")[0]
    if not package or package in _OURS:
        raise error
    extra = COMMANDS[command].extra if command in COMMANDS else "demo"
    raise click.UsageError(
        f"{command} needs the package {package!r}, which is not installed; "
        f"run: pip install -c constraints.txt -e '.[{extra}]'"
    ) from None


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    if context is None:
        return error.format_message()
    return f"{error.format_message().rstrip('.')}; see `{context.command_path} --help`"


def _fail(code: int, message: str) -> NoReturn:
    click.echo(f"viewsync: {redact(' '.join(message.split()))}", err=True)
    sys.exit(code)


@click.group(
    name="viewsync",
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[_log_level_option()],
)
@click.version_option(viewsync.__version__, package_name="viewsync", message="viewsync %(version)s")
def main() -> None:
    """One trustworthy ground-plane count from a few cheap, unsynchronised, low-frame-rate cameras."""
