"""Files that a command puts into the user's folders, and takes away again: only ever its own.

Each carries ``MARK``. A file of that name without it is somebody else's, and neither replaced nor removed.
"""

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Final

from guts.errors import ExitStatus, UsageError
from guts.git.files import disk_faults

MARK: Final = "made by guts install"
MAX_LOOK_BYTES: Final = 1 << 20
"""A larger file is nobody's man page or completion, and not ours."""


class ForeignFile(UsageError):
    """There is a file where one should be installed, and it was not made by ``guts install``."""

    code: ClassVar[str] = "FOREIGN_FILE"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was not made by guts install", hint=f"move it away first: mv {path} {path}.old")


def install_files(files: Mapping[Path, str], *, dry_run: bool) -> list[Path]:
    """Write those of ``files`` (each carries ``MARK``) that are not there already; return which.

    Args:
        dry_run: write nothing.

    Raises:
        ForeignFile: somebody else's file is in the way; nothing was written.
        DiskFault, DiskFull: the disk refused.
    """
    with disk_faults():
        there = {path: _text(path) for path in files}
        for path, text in there.items():
            if text is not None and MARK not in text:
                raise ForeignFile(path)
        changed = [path for path, text in files.items() if there[path] != text]
        for path in () if dry_run else changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, files[path])
    return changed


def uninstall_files(paths: Iterable[Path], *, dry_run: bool) -> list[Path]:
    """Remove those of ``paths`` that are there and ours; return which. Raises: ``DiskFault``."""
    with disk_faults():
        ours = [path for path in paths if MARK in (_text(path) or "")]
        for path in () if dry_run else ours:
            path.unlink()
    return ours


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_LOOK_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return None


def _replace(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # for everybody, as programs install them
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
