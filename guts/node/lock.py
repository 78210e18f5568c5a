"""One node per data directory."""

import fcntl
import os
from pathlib import Path
from typing import ClassVar, Self

from guts.errors import UsageError

LOCK_FILE = "node.lock"


class AlreadyRunning(UsageError):
    """Another process uses the data directory."""

    code: ClassVar[str] = "ALREADY_RUNNING"


class DataDirectoryLock:
    """An exclusive ``flock`` on a file in the data directory; the kernel gives it back when the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, data: Path) -> Self:
        """Lock ``data``, which is made (0700) where it does not exist.

        Raises:
            AlreadyRunning: another process holds the lock; the error names it.
        """
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = data / LOCK_FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise AlreadyRunning(
                f"another node (pid {holder}) uses {data}", hint="guts node stop, or another GUTS_HOME"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return cls(descriptor)

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)


def holder(data: Path) -> int | None:
    """Return the process that has locked ``data``, or ``None`` where none has.

    A lock whose holder has ended is never tried, so that looking seldom gets in the way of a node that starts.
    """
    try:
        descriptor = os.open(data / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        pid = int(os.read(descriptor, 32))
        os.kill(pid, 0)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return pid
    except (OSError, ValueError, OverflowError):
        return None
    finally:
        os.close(descriptor)
    return None
