"""`viewsync doctor`: what this machine has, what is missing, and the command that brings it."""

import importlib.metadata
import json
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

from viewsync.errors import UserError

# name, [extras], least version, and the extra it belongs to, as in "av>=18.1; extra == 'edge'"
_NAME, _EXTRAS, _LEAST = r"([\w.-]+)", r"(?:\[[^]]*\])?", r"(?:>=([0-9.]+))?"
_REQUIREMENT = re.compile(rf"""^{_NAME}{_EXTRAS}{_LEAST}[^;]*(?:;.*extra == ['"]([^'"]+)['"])?$""")
_PURPOSES = ("edge", "hub", "sim", "train", "dev")
_PORTS = {5555: "hub: features", 5556: "hub: predictions"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. advice: what to do, if anything. fatal: viewsync cannot work so."""

    what: str
    found: str
    advice: str = ""
    fatal: bool = False


@click.command()
@click.option(
    "--for",
    "purposes",
    type=click.Choice(_PURPOSES),
    multiple=True,
    default=("edge", "hub", "sim"),
    show_default=True,
    help="What this machine is to do; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding.")
def command(purposes: tuple[str, ...], as_json: bool) -> None:
    """Check this machine and say what is missing. Exit code 2 where something is."""
    findings = [_python(), *_packages(purposes), *_runtimes(purposes), *_video(purposes), *_ports(purposes)]
    for finding in findings:
        if as_json:
            click.echo(json.dumps(asdict(finding)))
        else:
            mark = "MISSING" if finding.fatal else "note" if finding.advice else "ok"
            click.echo(
                f"{mark:8}{finding.what}: {finding.found}{'; ' if finding.advice else ''}{finding.advice}"
            )
    missing = [finding.what for finding in findings if finding.fatal]
    if missing:
        raise UserError(f"doctor: missing: {', '.join(missing)}; see the advice on stdout")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.platform != "linux":
        return Finding("platform", f"Python {version} on {sys.platform}", "only Linux is tested")
    return Finding("platform", f"Python {version} on Linux")


def _packages(purposes: tuple[str, ...]) -> Iterator[Finding]:
    """Every requirement of the base and of the asked-for extras, beside the installed version."""
    wanted: dict[str, str] = {}
    for requirement in importlib.metadata.requires("viewsync") or []:
        match = _REQUIREMENT.match(requirement)
        if match and match[3] in (None, *purposes) and match[1].lower() != "viewsync":
            wanted[match[1]] = match[2] or "0"
    # The GPU build has the same import name and does as well.
    if _version("onnxruntime-gpu"):
        wanted.pop("onnxruntime", None)
    install = f"run: pip install -c constraints.txt -e '.[{','.join(purposes)}]'"
    for name, least in sorted(wanted.items()):
        version = _version(name)
        if version is None:
            yield Finding(name, "not installed", install, fatal=True)
        elif _numbers(version) < _numbers(least):
            yield Finding(name, f"{version} is older than {least}", install, fatal=True)
        else:
            yield Finding(name, version)


def _runtimes(purposes: tuple[str, ...]) -> Iterator[Finding]:
    if not {"edge", "hub"}.intersection(purposes):
        return
    cpu, gpu = _version("onnxruntime"), _version("onnxruntime-gpu")
    if cpu and gpu:
        yield Finding(
            "ONNX Runtime", "onnxruntime and onnxruntime-gpu overwrite each other",
            "run: pip uninstall -y onnxruntime onnxruntime-gpu, then install the one you want", fatal=True,
        )  # fmt: skip
    elif gpu:
        # What onnxruntime says about its providers proves nothing; only a session does.
        yield Finding(
            "ONNX Runtime", f"GPU build {gpu}", "a hub with model.provider: cuda checks it when it starts"
        )


def _video(purposes: tuple[str, ...]) -> Iterator[Finding]:
    if not {"edge", "sim"}.intersection(purposes) or not _version("av"):
        return
    import av

    install = "run: pip install --force-reinstall --only-binary av -c constraints.txt av"
    if "edge" in purposes:
        for name in ("h264", "hevc"):
            known = name in av.codecs_available
            yield Finding(
                f"{name} decoder", "in PyAV" if known else "not in PyAV", "" if known else install, not known
            )
    if "sim" in purposes:
        known = "libx264" in av.codecs_available
        yield Finding(
            "libx264 encoder", "in PyAV" if known else "not in PyAV", "" if known else install, not known
        )


def _ports(purposes: tuple[str, ...]) -> Iterator[Finding]:
    for port, use in _PORTS.items() if "hub" in purposes else ():
        with socket.socket() as probe:
            # As libzmq binds: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                yield Finding(
                    f"port {port} ({use})", "in use", "stop the other program, or configure another port"
                )
            else:
                yield Finding(f"port {port} ({use})", "free")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
