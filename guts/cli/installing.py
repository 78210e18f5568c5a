"""Files that a command puts into the user's folders, and takes away again: only ever its own.

Each carries a line of ``MARK`` at its beginning. Whatever else has that name, a file without it, a link, a pipe, is
somebody else's, and neither replaced nor removed.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Final

from guts.errors import ExitStatus, UsageError
from guts.git.files import disk_faults, write_files

MARK: Final = "made by guts install"
_OURS: Final = re.compile(rf"""(?:(?:#compdef|\.|'\\")[^\n]*\n)?(?:#|\.\\") {MARK} [a-z]+(?:\n|\Z)""")
"""The mark is the first line, or the second after one that a program takes for its own there (zsh, man)."""

MAX_LOOK_BYTES: Final = 1 << 20
"""A larger file is nobody's man page or completion, and not ours."""


class ForeignFile(UsageError):
    """There is something where a file should be installed, and it was not made by ``guts install``."""

    code: ClassVar[str] = "FOREIGN_FILE"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was not made by guts install", hint=f"move it away first: mv {path} {path}.old")


def install_files(files: Mapping[Path, str], *, dry_run: bool) -> list[Path]:
    """Write those of ``files`` (each begins with a line of ``MARK``) that are not there already; return which.

    Args:
        dry_run: write nothing.

    Raises:
        ForeignFile: somebody else's file is in the way; nothing was written.
        DiskFault, DiskFull: the disk refused.
    """
    with disk_faults():
        there = {path: _text(path) for path in files}
        for path, text in there.items():
            if text is not None and not _OURS.match(text):
                raise ForeignFile(path)
        changed = [path for path, text in files.items() if there[path] != text]
        for path in () if dry_run else changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, files[path])
    return changed


def uninstall_files(paths: Iterable[Path], *, dry_run: bool) -> list[Path]:
    """Remove those of ``paths`` that are there and ours; return which. Raises: ``DiskFault``."""
    with disk_faults():
        ours = [path for path in paths if _OURS.match(_text(path) or "")]
        for path in () if dry_run else ours:
            path.unlink()
    return ours


def _text(path: Path) -> str | None:
    """Return what is there; of anything but a file, nothing, which is nobody's mark; ``None``: there is nothing."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return ""
        # Should it be replaced right now: no link is followed, and no pipe waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_LOOK_BYTES).decode(errors="replace")


def _replace(path: Path, text: str) -> None:
    write_files(path.parent, {path.name: text.encode()})
    path.chmod(0o644)  # for everybody, as programs install them
