"""The Unix socket that the control API is served on."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar, Final

from aiohttp import web

from guts.api.routes import Control, application
from guts.errors import ExitStatus, UsageError

STOP_GRACE: Final = 2.0
"""Seconds that open requests get when the node stops: an answer to ``stop`` itself is among them."""

PROBE_TIMEOUT: Final = 1.0
"""Seconds for the connect that finds out whether a node is alive; a local connect takes microseconds."""

BACKLOG: Final = 64


class SocketBusy(UsageError):
    """A running node answers on this control socket already."""

    code: ClassVar[str] = "NODE_RUNNING"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


class SocketUnusable(UsageError):
    """The control socket can't be made where it should be."""

    code: ClassVar[str] = "CONTROL_SOCKET"
    exit_status: ClassVar[ExitStatus] = ExitStatus.CONFIG


@contextlib.asynccontextmanager
async def control_server(control: Control, path: Path) -> AsyncIterator[None]:
    """Serve ``control`` on a Unix socket at ``path`` for as long as the context lasts.

    Raises:
        SocketBusy: a live node has the socket. One that a dead node left behind is replaced.
        SocketUnusable: the folder is open to others or belongs to somebody else, or the path is too long.
    """
    listening = _bind(path)
    inode = os.stat(path).st_ino
    # Requests are as long as the work they ask for; a command that goes away doesn't undo what it asked for.
    runner = web.AppRunner(application(control), access_log=None, shutdown_timeout=STOP_GRACE)
    try:
        await runner.setup()
        await web.SockSite(runner, listening, backlog=BACKLOG).start()
        yield
    finally:
        await runner.cleanup()
        listening.close()
        _remove(path, inode)


def _bind(path: Path) -> socket.socket:
    _private_folder(path.parent)
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.setblocking(False)
    try:
        listening.bind(os.fspath(path))
        # Nobody else can reach into the folder, and nobody at all can connect before listen: this is no moment
        # too late. A umask would be, for whatever another thread makes meanwhile: it is the whole process's.
        path.chmod(0o600)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise SocketBusy(f"another node has just taken {path}") from None
        raise SocketUnusable(f"can't make the control socket {path}: {error.strerror or error}") from None
    return listening


def _private_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise SocketUnusable(f"can't make the folder {folder}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise SocketUnusable(f"{folder} is not a folder of this user's own")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise SocketUnusable(f"the folder {folder} is open to others", hint=f"chmod 700 {folder}")


def _remove_stale(path: Path) -> None:
    """Make way for a new socket. Raises: ``SocketBusy``, ``SocketUnusable``."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketUnusable(f"{path} is not a socket; it is left as it is")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT)
        refused = probe.connect_ex(os.fspath(path)) == errno.ECONNREFUSED
    if not refused:
        raise SocketBusy(f"a node answers on {path} already", hint="guts node status")
    path.unlink(missing_ok=True)


def _remove(path: Path, inode: int) -> None:
    """Remove our own socket, and not one that another node has put in its place."""
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_ino == inode:
            path.unlink()
