"""``Stream``: one bulk stream of a connection, for whoever reads or writes it with ``await``."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final, final

from guts.errors import Unavailable
from guts.wire.connection import MAX_QUEUED_STREAM_BYTES, Connection
from guts.wire.messages import ResetCode

_SMALL: Final = 4096
"""Pieces below this are put together as they arrive, so that a stream of single bytes costs no more memory
than its window."""


class StreamFailed(Unavailable):
    """The stream was reset by either side, ended too early, or its connection is gone.

    Attributes:
        reset: the code of the other side's RESET, or ``None``.
    """

    code: ClassVar[str] = "STREAM_FAILED"

    def __init__(self, message: str, *, reset: int | None = None) -> None:
        super().__init__(message)
        self.reset = reset


@final
class Stream:
    """Bytes both ways beside the messages; made by ``TcpConnection``, for one reader and one writer.

    No wait here has a deadline of its own: use ``asyncio.timeout`` with what the work at hand allows.

    Attributes:
        id: odd if the dialler opened it.
    """

    def __init__(self, stream_id: int, connection: Connection, wake: Callable[[], None]) -> None:
        self.id = stream_id
        self._connection = connection
        self._wake = wake
        self._pieces: deque[bytes] = deque()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._received_end = False
        self._sent_end = False
        self._failure: StreamFailed | None = None

    async def read(self, max_bytes: int) -> bytes:
        """Return 1..``max_bytes`` bytes as soon as there are any; ``b""`` at the end.

        Raises:
            StreamFailed: reset, or the connection was lost before the end.
        """
        while not self._pieces:
            if self._received_end:
                return b""
            if self._failure is not None:
                raise self._failure
            self._readable.clear()
            await self._readable.wait()
        data = self._take(max_bytes)
        if self._connection.consumed(self.id, len(data)):
            self._wake()
        return data

    def _take(self, max_bytes: int) -> bytes:
        """Return what waits, together as far as it fits: a reader with a cost per read then has fewer."""
        parts: list[bytes] = []
        while self._pieces and max_bytes:
            piece = self._pieces.popleft()
            if len(piece) > max_bytes:
                self._pieces.appendleft(piece[max_bytes:])
                piece = piece[:max_bytes]
            max_bytes -= len(piece)
            parts.append(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def readexactly(self, count: int) -> bytes:
        """Return exactly ``count`` bytes.

        Raises:
            StreamFailed: as ``read``, or the stream ends before.
        """
        parts: list[bytes] = []
        while count:
            part = await self.read(count)
            if not part:
                raise StreamFailed(f"stream {self.id} ended {count} bytes too early")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    async def write(self, data: bytes) -> None:
        """Send ``data``; returns when all of it is queued, which waits for credit and for the socket.

        Raises:
            StreamFailed: reset, or the connection was lost; also when the other side reset while we wrote.
        """
        if self._sent_end:
            raise AssertionError("write after end")
        at = 0
        while at < len(data):
            room = await self._room()
            # The common case, a piece that fits, is queued as it is, without a copy.
            piece = data if at == 0 and len(data) <= room else data[at : at + room]
            self._connection.send_stream(self.id, piece)
            at += len(piece)
            self._wake()
        if self._failure is not None:
            raise self._failure

    async def _room(self) -> int:
        while True:
            if self._failure is not None:
                raise self._failure
            room = self._connection.stream_room(self.id)
            if room:
                return room
            self._writable.clear()
            await self._writable.wait()

    async def end(self) -> None:
        """Send END after what was written; returns when the socket has taken it all.

        Raises:
            StreamFailed: reset, or the connection was lost before that.
        """
        if not self._sent_end:
            self._sent_end = True
            self._connection.end_stream(self.id)
            self._wake()
        while self._failure is None and not self._connection.stream_flushed(self.id):
            self._writable.clear()
            await self._writable.wait()
        if self._failure is not None:
            raise self._failure

    def reset(self, code: ResetCode = ResetCode.CANCELLED) -> None:
        """Give the stream up; both sides' reads and writes fail. After the end, nothing happens."""
        self._connection.reset_stream(self.id, code)
        self.fail(StreamFailed(f"stream {self.id} was given up here ({code.name.lower()})"), keep=False)
        self._wake()

    # For TcpConnection

    @property
    def done(self) -> bool:
        """Whether nothing more happens on it."""
        if self._failure is not None:
            return True
        return self._received_end and self._sent_end and self._connection.stream_flushed(self.id)

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived."""
        if len(data) < _SMALL and self._pieces and len(self._pieces[-1]) < _SMALL:
            self._pieces[-1] += data
        else:
            self._pieces.append(data)
        self._readable.set()

    def feed_end(self) -> None:
        """The other side sent END."""
        self._received_end = True
        self._readable.set()

    def fail(self, failure: StreamFailed, *, keep: bool) -> None:
        """Let reads and writes raise ``failure``; with ``keep``, after what has arrived was read."""
        if self._failure is None:
            self._failure = failure
        if not keep:
            self._pieces.clear()
            self._received_end = False
        self._readable.set()
        self._writable.set()

    def socket_took_some(self) -> None:
        """Wake the writer if there is room for a good piece."""
        if not self._writable.is_set() and (
            self._connection.stream_room(self.id) >= MAX_QUEUED_STREAM_BYTES // 2
            or self._connection.stream_flushed(self.id)
        ):
            self._writable.set()
