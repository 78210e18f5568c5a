"""``TcpConnection``: one authenticated connection over TCP."""

import asyncio
import contextlib
import inspect
import socket
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final, final

from guts.addresses import Address
from guts.errors import GutsError, PeerFault, Unavailable
from guts.ids import PeerId
from guts.net.pending import Pending
from guts.net.reader import PeerSilent, SocketReader
from guts.net.stream import Stream, StreamFailed
from guts.noise.cipher import TAG_LENGTH
from guts.wire.codec import UnknownMessage
from guts.wire.connection import (
    Connection,
    Event,
    HandshakeCompleted,
    MessageReceived,
    SendQueueFull,
    StreamData,
    StreamEnded,
    StreamReset,
)
from guts.wire.limits import KIB, MAX_PLAINTEXT
from guts.wire.messages import Goodbye, Message, ResetCode
from guts.wire.secure import LENGTH_BYTES, Direction
from guts.wire.streams import BadStream, NoFreeStream

READ_BYTES: Final = 4 * (LENGTH_BYTES + MAX_PLAINTEXT + TAG_LENGTH)
"""One read of the socket: four transport messages of the longest kind, so that a busy stream's reads end with one."""

WRITE_BYTES: Final = 128 * KIB
"""Bytes asked of the Connection at a time: what a ping waits for in this process; as much again waits in the
kernel (``sockets.py``)."""

WRITE_STALL_TIMEOUT: Final = 20.0
"""Seconds in which a peer takes nothing of what we write before the connection is given up."""

SILENCE_TIMEOUT: Final = 90.0
"""Seconds without a byte from a peer before it counts as dead: three pings (docs/protocol.md §4)."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for a Goodbye to leave and for the other side to close."""

MAX_PENDING_CONTROL: Final = 256
"""Pings, pongs and goodbyes waiting for their handler; beyond, the socket is not read. Other messages have credit."""

MAX_UNCLAIMED_STREAMS: Final = 8
"""Streams that a peer opened and no message has named yet. A message overtakes its stream or follows at once,
so more than a few are open for nothing, and each may hold a window of 1 MiB."""

MessageHandler = Callable[[Message | UnknownMessage], Awaitable[None] | None]


class ConnectionLost(Unavailable):
    """The connection ended: closed by the other side or by the network."""

    code: ClassVar[str] = "CONNECTION_LOST"


@final
class TcpConnection:
    """An authenticated connection. Made by ``dial`` or ``Listener``; lives while ``run`` runs.

    Attributes:
        direction: who opened it.
        peer: who is at the other end, proved.
        remote: the other end's address.
        closed_by: after ``run``: what ended it; ``None`` if we closed it.
    """

    def __init__(
        self,
        sock: socket.socket,
        connection: Connection,
        *,
        direction: Direction,
        peer: PeerId,
        remote: Address,
        early: list[Event],
    ) -> None:
        """Take over an established connection; ``early`` is what arrived together with the handshake."""
        self.direction = direction
        self.peer = peer
        self.remote = remote
        self.closed_by: GutsError | None = None
        self._socket = sock
        self._reader = SocketReader(sock, READ_BYTES, SILENCE_TIMEOUT)
        self._running = False
        self._connection = connection
        self._early = early
        self._streams: dict[int, Stream] = {}
        self._unclaimed: set[int] = set()
        self._pending = Pending()
        self._handling = False
        self._pending_changed = asyncio.Event()
        self._charge = 0
        self._withheld_until = 0.0
        self._paused_until = 0.0
        self._to_send = asyncio.Event()
        self._closing = False
        self._failure: Unavailable | None = None  # why send gave the connection up
        self._closed = asyncio.Event()

    # Sending and streams

    def send(self, message: Message) -> None:
        """Queue ``message``; never blocks. A full queue closes the connection, or drops the message if gossip."""
        if self._closing or self._closed.is_set():
            return
        try:
            self._connection.send_message(message)
        except SendQueueFull as full:
            # The writer is stalled, so it could not say so itself.
            self._failure = full
            self._hang_up()
        self._to_send.set()

    def open_stream(self) -> Stream:
        """Open a stream.

        Raises:
            guts.wire.streams.NoFreeStream: 64 of ours are open.
        """
        return self._add_stream(self._connection.open_stream())

    def stream(self, stream_id: int) -> Stream:
        """Return the stream that a message of the peer names, whether or not its first bytes are here.

        Raises:
            guts.wire.streams.BadStream: the peer may not use this id, or has named it before: a stream has one use.
            StreamFailed: it is closed already.
        """
        stream = self._streams.get(stream_id)
        if stream is not None:
            if stream_id not in self._unclaimed:
                raise BadStream(f"stream {stream_id} is in use already")
            self._unclaimed.discard(stream_id)
            return stream
        try:
            self._connection.expect_stream(stream_id)
        except NoFreeStream as closed:
            raise StreamFailed(str(closed)) from None
        return self._add_stream(stream_id)

    # Rates

    def withhold(self, seconds: float, *, pause: bool = False) -> None:
        """Give the handler no message for so long, but those outside credit; ``pause``: read nothing at all either.

        What comes in the meantime is held with its credit, so the peer can send a window more and then has to wait.
        """
        until = asyncio.get_running_loop().time() + seconds
        self._withheld_until = max(self._withheld_until, until)
        if pause:
            self._paused_until = max(self._paused_until, until)

    def take_charge(self) -> int:
        """Return the bytes of the message being handled, with what came meanwhile on streams that the peer opened."""
        charge, self._charge = self._charge, 0
        return charge

    def _add_stream(self, stream_id: int) -> Stream:
        stream = Stream(stream_id, self._connection, self._to_send.set)
        self._streams[stream_id] = stream
        if self._closed.is_set():
            stream.fail(StreamFailed("the connection is closed"), keep=True)
        return stream

    # Life

    async def run(self, on_message: MessageHandler) -> None:
        """Serve the connection until it ends; then ``closed_by`` says why.

        ``on_message`` gets every message in order; while it is awaited, the peer's credit for messages is
        held back. What it raises passes through, but for ``PeerFault`` and ``Unavailable``, which close.
        """
        if self._closing:  # before it ran
            await self._closed.wait()
            return
        self._running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read())
                tasks.create_task(self._dispatch(on_message))
                tasks.create_task(self._write())
        except* (PeerFault, Unavailable, OSError, TimeoutError) as failures:
            if not self._closing:
                self.closed_by = self._failure or _first(failures)
        finally:
            self._end()

    async def close(self, goodbye: Goodbye | None = None) -> None:
        """Say ``goodbye``, close, and return when closed: at most ``CLOSE_TIMEOUT`` (1 s) later."""
        if goodbye is not None:
            self.send(goodbye)
        self._closing = True
        self._to_send.set()
        self._pending_changed.set()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if self._running:
                    await self._closed.wait()
                elif not self._closed.is_set():
                    await self._send_all(self._connection.data_to_send(WRITE_BYTES))
        except (Unavailable, OSError):  # TimeoutError is one
            pass
        finally:
            if self._running:
                self._hang_up()
            else:
                self._end()

    def _hang_up(self) -> None:
        """Let every read and write of the socket end at once."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _end(self) -> None:
        self._reader.close()
        self._socket.close()
        self._closed.set()
        for stream in self._streams.values():
            stream.fail(StreamFailed("the connection is closed"), keep=True)
        self._streams.clear()

    # Tasks

    async def _read(self) -> None:
        self._handle(self._early)
        while True:
            while self._pending.outside_credit > MAX_PENDING_CONTROL and not self._closing:
                self._pending_changed.clear()
                await self._pending_changed.wait()
            if (pause := self._paused_until - asyncio.get_running_loop().time()) > 0.0:
                await asyncio.sleep(pause)
            data = await self._reader.read()
            if not data:
                break
            self._handle(self._connection.receive_data(data))
            if self._connection.wants_to_send():
                self._to_send.set()
        # A Goodbye, or an answer, may be the last thing that came. Who is gone is not waited for, though.
        while (self._handling or self._pending.outside_credit or (self._pending and not self._withheld)) and (
            not self._closing
        ):
            self._pending_changed.clear()
            await self._pending_changed.wait()
        raise ConnectionLost("the other side closed the connection")

    def _handle(self, events: list[Event]) -> None:
        if self._closing:
            return
        for event in events:
            match event:
                case MessageReceived():
                    self._pending.put(event)
                    self._pending_changed.set()
                case StreamData(stream_id, data):
                    # The dialler opens odd ids.
                    if (stream_id % 2 == 1) == (self.direction is Direction.INBOUND):
                        self._charge += len(data)
                    self._incoming(stream_id).feed(data)
                case StreamEnded(stream_id):
                    stream = self._incoming(stream_id)
                    stream.feed_end()
                    self._drop_if_done(stream)
                case StreamReset(stream_id, code):
                    stream = self._incoming(stream_id)
                    stream.fail(StreamFailed(f"the other side gave stream {stream_id} up", reset=code), keep=False)
                    self._drop_if_done(stream)
                case HandshakeCompleted():
                    raise AssertionError("the handshake was done before")

    def _incoming(self, stream_id: int) -> Stream:
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._add_stream(stream_id)
            self._unclaimed.add(stream_id)
            if len(self._unclaimed) > MAX_UNCLAIMED_STREAMS:
                stream.reset(ResetCode.LIMIT)
                self._drop_if_done(stream)
        return stream

    def _drop_if_done(self, stream: Stream) -> None:
        if stream.done:
            self._streams.pop(stream.id, None)
            self._unclaimed.discard(stream.id)

    @property
    def _withheld(self) -> bool:
        return asyncio.get_running_loop().time() < self._withheld_until

    async def _next_pending(self) -> MessageReceived:
        while (event := self._pending.take(withheld=self._withheld)) is None:
            self._pending_changed.clear()
            if not self._pending:
                await self._pending_changed.wait()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._withheld_until):
                    await self._pending_changed.wait()
        return event

    async def _dispatch(self, on_message: MessageHandler) -> None:
        while True:
            event = await self._next_pending()
            self._charge += len(event.data)
            self._handling = True
            handled = on_message(event.decode())
            if inspect.isawaitable(handled):
                await handled
            self._handling = False
            self._pending_changed.set()
            if self._connection.consumed(0, event.charge):
                self._to_send.set()
            if self._pending:
                await asyncio.sleep(0)  # thousands of messages may wait: others get their turn between any two

    async def _write(self) -> None:
        while True:
            closing = self._closing
            data = self._connection.data_to_send(WRITE_BYTES)
            if data:
                await self._send_all(data)
                for stream in list(self._streams.values()):
                    stream.socket_took_some()
                    self._drop_if_done(stream)
                if self._connection.wants_to_send():
                    await asyncio.sleep(0)  # a socket that takes all would never let another task run
            if closing:
                # Half-closed: a socket closed with unread bytes would reset, and could lose the Goodbye.
                self._socket.shutdown(socket.SHUT_WR)
                return
            if not data:
                self._to_send.clear()
                await self._to_send.wait()

    async def _send_all(self, data: bytes) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        try:
            async with asyncio.timeout(WRITE_STALL_TIMEOUT):
                await asyncio.get_running_loop().sock_sendall(self._socket, memoryview(data)[sent:])
        except TimeoutError:
            raise PeerSilent(f"the other side took nothing for {WRITE_STALL_TIMEOUT:.0f} s") from None


def _first(failures: BaseExceptionGroup[BaseException]) -> GutsError:
    """Return the first leaf of ``failures`` as one of our errors."""
    leaf: BaseException = failures
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    if isinstance(leaf, GutsError):
        return leaf
    return ConnectionLost(f"the connection broke: {leaf}")
