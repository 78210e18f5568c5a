"""``SocketReader``: what comes from a socket, piece by piece, and the end of one that is silent for too long.

The loop watches the socket from the first wait to the end, not from wait to wait, and one timer outlives many pieces:
a message on an idle connection costs few calls of the kernel.
"""

import asyncio
import socket
from typing import ClassVar, final

from guts.errors import Unavailable


class PeerSilent(Unavailable):
    """The other side sent nothing, or took nothing, for too long."""

    code: ClassVar[str] = "PEER_SILENT"


@final
class SocketReader:
    """The reading side of a connected, non-blocking socket; one task reads at a time."""

    def __init__(self, sock: socket.socket, size: int, silence: float) -> None:
        """Take a socket.

        Args:
            size: bytes of the longest piece.
            silence: seconds without a byte, while one is waited for, after which the other side counts as dead.
        """
        self._socket = sock
        self._size = size
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[bytes] | None = None
        self._waiting_since = 0.0
        self._watched = False
        self._timer: asyncio.TimerHandle | None = None

    async def read(self) -> bytes:
        """Return the next piece; empty: the other side has ended its stream.

        Raises:
            PeerSilent: nothing came for too long.
            OSError: the connection broke.
        """
        try:
            piece = self._socket.recv(self._size)
        except BlockingIOError:
            pass
        else:
            await asyncio.sleep(0)  # a socket that always has bytes would never let another task run
            return piece
        self._waiter = self._loop.create_future()
        self._waiting_since = self._loop.time()
        if not self._watched:
            self._loop.add_reader(self._socket, self._readable)
            self._watched = True
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence, self._check)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """Watch the socket no longer; before it is closed."""
        self._unwatch()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _readable(self) -> None:
        if self._waiter is None or self._waiter.done():
            # Whoever reads is busy with what came before: the kernel keeps the rest, and tells nobody.
            self._unwatch()
            return
        try:
            piece = self._socket.recv(self._size)
        except BlockingIOError:
            return
        except OSError as error:
            self._waiter.set_exception(error)
        else:
            self._waiter.set_result(piece)

    def _unwatch(self) -> None:
        if self._watched:
            self._loop.remove_reader(self._socket)
            self._watched = False

    def _check(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return  # the next wait begins anew
        left = self._waiting_since + self._silence - self._loop.time()
        if left > 0.0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._waiter.set_exception(PeerSilent(f"nothing came for {self._silence:.0f} s"))
