"""Reading a bundle's files by plain name, from its folder or in place from a .zip.

No member of an archive is ever written to disk, and none is read under a name that reaches outside.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from viewsync.errors import BundleError

MAX_FILE_BYTES: Final = 2 * 1024**3  # protobuf's own limit for one ONNX file
EXPORT_AGAIN: Final = "export the bundle again or fetch an undamaged copy"


class BundleFiles:
    """Reads members of a bundle by plain name, from a folder or in place from a .zip."""

    def __init__(self, path: Path, members: Mapping[str, str] | None) -> None:
        self._path = path
        self._members = members  # of a .zip: plain name -> name in the archive

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises BundleError where it is missing, damaged or too large."""
        try:
            if self._members is None:
                file = self._path / name
                if file.stat().st_size > MAX_FILE_BYTES:
                    raise BundleError(f"{file} is over {MAX_FILE_BYTES} bytes; {EXPORT_AGAIN}")
                return file.read_bytes()
            with zipfile.ZipFile(self._path) as archive:
                member = archive.getinfo(self._members[name])
                if member.file_size > MAX_FILE_BYTES:
                    raise BundleError(f"{self._path}: {name} is over {MAX_FILE_BYTES} bytes; {EXPORT_AGAIN}")
                return archive.read(member)
        except (FileNotFoundError, KeyError):
            raise BundleError(f"{self._path} has no {name}; {EXPORT_AGAIN}") from None
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise BundleError(f"{self._path}: {name} cannot be read ({error}); {EXPORT_AGAIN}") from error


def open_files(path: Path) -> BundleFiles:
    """The files of the bundle at `path`, a folder or .zip. Raises BundleError where it is neither."""
    if path.is_dir():
        return BundleFiles(path, None)
    if not path.is_file():
        raise BundleError(f"there is no bundle at {path}; give a bundle's folder or .zip")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise BundleError(
            f"{path} is neither a folder nor a readable .zip ({error}); {EXPORT_AGAIN}"
        ) from error
    folders = set()
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or ".." in parts:
            raise BundleError(f"{path}: member {name!r} points outside the archive; do not use this file")
        folders.add(PurePosixPath(*parts[:-1]))
    # The folder itself may have been zipped: then everything lies under one name.
    prefix = folders.pop() if len(folders) == 1 else PurePosixPath()
    if len(prefix.parts) > 1:
        raise BundleError(f"{path}: manifest.yaml is not at the top; zip the bundle's folder itself")
    members: dict[str, str] = {}
    for name in names:
        if PurePosixPath(name).parent == prefix:
            if PurePosixPath(name).name in members:
                raise BundleError(f"{path}: member {name!r} is there twice; {EXPORT_AGAIN}")
            members[PurePosixPath(name).name] = name
    return BundleFiles(path, members)
