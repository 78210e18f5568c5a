"""Files that are whole or absent after a crash: write, fsync, rename, fsync the directory."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final

from guts.crash import crash_point
from guts.errors import DiskFull, StorageFault

TEMPORARY_PREFIX: Final = "tmp_guts_"


class DiskFault(StorageFault):
    """The disk refused: full, read-only, an I/O error, or a permission."""

    code: ClassVar[str] = "DISK"


@contextlib.contextmanager
def disk_faults() -> Iterator[None]:
    """Turn an ``OSError`` of the body into ``DiskFull`` or ``DiskFault``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{error.strerror}: {error.filename or 'repository'}") from error
        raise DiskFault(f"{error.strerror or error}: {error.filename or 'repository'}") from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_files(directory: Path, files: Mapping[str, bytes], *, durable: bool = True) -> None:
    """Replace files of ``directory``, each one atomically, in the order given; durable on return.

    All are written and synced before the first is renamed, so a full disk changes nothing.

    Args:
        durable: ``False``: nothing is synced. After a power cut each may be old, new, or neither.

    Raises:
        DiskFault: the disk refused; temporary files are gone.
    """
    with disk_faults(), contextlib.ExitStack() as undo:
        temporaries: list[tuple[str, str]] = []
        for name, data in files.items():
            descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=directory)
            undo.callback(_remove, temporary)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporaries.append((temporary, name))
        crash_point("files-written")
        for temporary, name in temporaries:
            os.replace(temporary, directory / name)
            crash_point("file-renamed")
        if durable:
            sync_directory(directory)


def remove_files(directory: Path, names: Iterable[str]) -> None:
    """Remove files of ``directory``, where they are there; durable on return. Raises: ``DiskFault``."""
    with disk_faults():
        for name in names:
            (directory / name).unlink(missing_ok=True)
        sync_directory(directory)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
