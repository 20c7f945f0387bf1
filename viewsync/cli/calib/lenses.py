"""What --lens CAMERA=FILE gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from calib.camera import Camera


def read_lenses(given: tuple[str, ...]) -> dict[str, Camera]:
    """By camera, its intrinsics. Raises UsageError, CalibError."""
    from calib.boards.lens_file import load_lens

    known: dict[str, Camera] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or not name or not file:
            raise click.UsageError(f"--lens {text}: write CAMERA=FILE, such as north=lens.yaml")
        if name in known:
            raise click.UsageError(f"--lens {text}: {name} has a lens already; give one each")
        known[name] = load_lens(Path(file), name)
    return known
