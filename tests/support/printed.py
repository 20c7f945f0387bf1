"""The commands that README, CHANGELOG and docs print, with the page and line of each."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from viewsync.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_SHELL = ("", "sh", "bash", "console")


@dataclass(frozen=True, slots=True)
class Printed:
    """A command at a line of a page; inline: between backticks; elided: "…" stands for a part of it."""

    where: str
    words: tuple[str, ...]
    inline: bool = False
    elided: bool = False

    @property
    def path(self) -> tuple[str, ...]:
        """The names of command and sub-command."""
        return resolve(self.words)[1]

    @property
    def options(self) -> set[str]:
        return {word.partition("=")[0] for word in self.words if word.startswith("-")}


def printed(text: str, page: str) -> Iterator[Printed]:
    """The commands in blocks of shell and between backticks."""

    def at(offset: int) -> str:
        return f"{page}:{text.count(chr(10), 0, offset) + 1}"

    prose = text
    for block in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if block[1] not in _SHELL:
            continue
        # What stands in its place is as long, so that places in `prose` are places in `text`.
        prose = prose[: block.start()] + re.sub(r"[^\n]", " ", block[0]) + prose[block.end() :]
        for line in re.finditer(r"(?:[^\n]*\\\n)*[^\n]+", block[2]):
            if block[1] or re.match(r"(viewsync|make|pip|[A-Z_]+=\S+ viewsync) ", line[0]):
                yield from _command(line[0].replace("\\\n", " "), at(block.start(2) + line.start()))
    for span in re.finditer(r"`((?:viewsync|make)\s[^`]+)`", prose.replace("```", "   ")):
        yield from _command(span[1], at(span.start()), inline=True)


def _command(text: str, where: str, inline: bool = False) -> Iterator[Printed]:
    words = shlex.split(text, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    if words:
        words[0] = words[0].removeprefix(".venv/bin/")
        yield Printed(where, tuple(word for word in words if word != "…"), inline, "…" in words)


def on_the_pages() -> list[Printed]:
    found = [p for page in PAGES for p in printed(page.read_text("utf-8"), str(page.relative_to(ROOT)))]
    return [*found, *(demo_of(p) for p in found if p.words[:2] == ("make", "demo"))]


def demo_of(command: Printed) -> Printed:
    """What `make demo ARGS="…"` runs."""
    given = [word.removeprefix("ARGS=") for word in command.words if word.startswith("ARGS=")]
    return Printed(command.where, ("viewsync", "demo", *shlex.split(" ".join(given))), command.inline)


def in_the_help() -> list[Printed]:
    """Examples in the commands' own help."""
    return [
        printed_there
        for path, command in commands()
        for line in (command.help or "").splitlines()
        if line.startswith("viewsync ")
        for printed_there in _command(line, f"viewsync {' '.join(path)} --help")
    ]


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group below `viewsync`, with its names."""

    def below(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            assert command is not None
            yield (*path, name), command
            if isinstance(command, click.Group):
                yield from below(command, (*path, name))

    yield from below(main, ())


def resolve(words: Sequence[str]) -> tuple[click.Command, tuple[str, ...], list[str]]:
    """The click command, its names, and what is left for it."""
    command: click.Command = main
    names, rest = [], list(words[1:])
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        inner = command.get_command(click.Context(command), rest[0])
        assert inner is not None, f"{' '.join(words)}: there is no command {rest[0]!r}"
        command = inner
        names.append(rest.pop(0))
    return command, tuple(names), rest
