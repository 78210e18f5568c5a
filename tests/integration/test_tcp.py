"""Connections over real loopback sockets: who is there, what passes, what breaks."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest

from guts.addresses import Address
from guts.errors import PeerFault
from guts.identity import SigningKey
from guts.ids import PeerId
from guts.net.dial import DialRefused, DialTimedOut, HandshakeClosed, dial
from guts.net.listener import CannotListen, Listener, PortBusy
from guts.net.stream import Stream, StreamFailed
from guts.net.tcp import MAX_UNCLAIMED_STREAMS, ConnectionLost, TcpConnection
from guts.noise.keys import HandshakeFailed, KeyPair
from guts.wire.codec import UnknownMessage
from guts.wire.connection import MAX_QUEUED_STREAM_BYTES, SendQueueFull
from guts.wire.limits import INITIAL_WINDOW
from guts.wire.messages import (
    Error,
    ErrorCode,
    Goodbye,
    GoodbyeCode,
    Gossip,
    Message,
    Ping,
    Pong,
    ResetCode,
)
from guts.wire.secure import Direction, MetSelf, UnexpectedPeer
from guts.wire.streams import BadStream
from tests.support.channels import ALICE, BOB, EVE

LOOPBACK: Final = Address("127.0.0.1", 0)
NETWORK: Final = "test"
PATIENCE: Final = 20.0
"""Seconds after which a test that hangs fails."""

Received = Message | UnknownMessage


@dataclass
class End:
    """One end of a connection, running, with what it received."""

    connection: TcpConnection
    inbox: asyncio.Queue[Received] = field(default_factory=asyncio.Queue)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        await self.connection.run(self.inbox.put_nowait)
        self.ended.set()


@dataclass
class Pair:
    alice: End
    bob: End
    listener: Listener


@asynccontextmanager
async def listening(
    on_connection: Callable[[TcpConnection], Awaitable[None]],
    *,
    key: SigningKey = BOB,
) -> AsyncIterator[Listener]:
    listener = await Listener.start(
        LOOPBACK,
        key=key,
        network=NETWORK,
        static=KeyPair.generate(),
        on_connection=on_connection,
    )
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run())
        try:
            yield listener
        finally:
            listener.close()


async def dial_as(
    listener: Listener, *, key: SigningKey = ALICE, network: str = NETWORK, expected: PeerId | None = None
) -> TcpConnection:
    return await dial(listener.address, key=key, network=network, static=KeyPair.generate(), expected=expected)


@asynccontextmanager
async def connected() -> AsyncIterator[Pair]:
    accepted: asyncio.Queue[End] = asyncio.Queue()

    async def serve(connection: TcpConnection) -> None:
        end = End(connection)
        accepted.put_nowait(end)
        await end.run()

    async with listening(serve) as listener, asyncio.TaskGroup() as tasks:
        alice = End(await dial_as(listener, expected=BOB.peer_id))
        tasks.create_task(alice.run())
        bob = await accepted.get()
        try:
            yield Pair(alice, bob, listener)
        finally:
            await alice.connection.close()
            await bob.connection.close()


async def ignore(connection: TcpConnection) -> None:
    await connection.close()


# Who is there


async def test_both_ends_know_who_is_at_the_other() -> None:
    async with connected() as pair:
        alice, bob = pair.alice.connection, pair.bob.connection
        assert (alice.peer, bob.peer) == (BOB.peer_id, ALICE.peer_id)
        assert (alice.direction, bob.direction) == (Direction.OUTBOUND, Direction.INBOUND)
        assert alice.remote == pair.listener.address
        assert bob.remote.ip == "127.0.0.1"
        assert bob.remote.port != pair.listener.port


async def test_messages_pass_both_ways_in_order() -> None:
    async with connected() as pair:
        for n in range(100):
            pair.alice.connection.send(Error(n, ErrorCode.BUSY))
            pair.bob.connection.send(Gossip("repositories", b"%d" % n))
        assert [await pair.bob.inbox.get() for _ in range(100)] == [Error(n, ErrorCode.BUSY) for n in range(100)]
        assert [await pair.alice.inbox.get() for _ in range(100)] == [
            Gossip("repositories", b"%d" % n) for n in range(100)
        ]


async def test_dialler_refuses_another_peer_than_expected() -> None:
    async with listening(ignore) as listener:
        with pytest.raises(UnexpectedPeer) as caught:
            await dial_as(listener, expected=EVE.peer_id)
        assert caught.value.actual == BOB.peer_id


async def test_dialler_notices_that_it_met_itself() -> None:
    async with listening(ignore) as listener:
        with pytest.raises(MetSelf):
            await dial_as(listener, key=BOB)


async def test_dialler_of_another_network_is_told_so() -> None:
    async with listening(ignore) as listener:
        with pytest.raises(HandshakeFailed, match="other network"):
            await dial_as(listener, network="elsewhere")


async def test_dial_of_a_port_where_nobody_listens_is_refused() -> None:
    async with listening(ignore) as listener:
        pass
    with pytest.raises(DialRefused):
        await dial_as(listener)


async def test_dial_of_a_silent_listener_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(DialTimedOut):
            await dial(address, key=ALICE, network=NETWORK, static=KeyPair.generate(), handshake_timeout=0.05)


async def test_dial_of_a_listener_that_hangs_up_says_what_it_may_be() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        with pytest.raises(HandshakeClosed):
            await dial(address, key=ALICE, network=NETWORK, static=KeyPair.generate())


async def test_dial_of_something_else_is_a_peer_fault() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        await writer.drain()
        await done.wait()
        writer.close()
        await writer.wait_closed()

    done = asyncio.Event()
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        with pytest.raises(PeerFault):
            await dial(address, key=ALICE, network=NETWORK, static=KeyPair.generate())
        done.set()


# Listening


async def test_second_listener_on_a_port_is_told_that_it_is_busy() -> None:
    async with listening(ignore) as listener:
        with pytest.raises(PortBusy) as caught:
            await Listener.start(
                listener.address, key=EVE, network=NETWORK, static=KeyPair.generate(), on_connection=ignore
            )
        assert caught.value.code == "PORT_BUSY"
        assert str(listener.address) in str(caught.value)
        assert caught.value.hint


async def test_listener_at_an_address_of_another_machine_is_told_so() -> None:
    with pytest.raises(CannotListen) as caught:
        await Listener.start(
            Address("192.0.2.1", 9000),
            key=EVE,
            network=NETWORK,
            static=KeyPair.generate(),
            on_connection=ignore,
        )
    assert not isinstance(caught.value, PortBusy)


async def test_listener_keeps_connections_when_it_closes() -> None:
    async with connected() as pair:
        pair.listener.close()
        pair.alice.connection.send(Ping(1))
        assert await pair.bob.inbox.get() == Ping(1)


# Streams


async def fill(stream: Stream, total: int) -> None:
    piece = bytes(range(256)) * 256
    for at in range(0, total, len(piece)):
        await stream.write(piece[: total - at])
    await stream.end()


async def drain(stream: Stream) -> int:
    total = 0
    while data := await stream.read(100_000):
        assert data[:2] == bytes([total % 256, (total + 1) % 256])[: len(data)]
        total += len(data)
    return total


async def test_bulk_passes_both_ways_at_once_while_pings_pass() -> None:
    total = 20_000_001
    async with connected() as pair, asyncio.TaskGroup() as tasks:
        ours = pair.alice.connection.open_stream()
        theirs = pair.bob.connection.stream(ours.id)
        for writer in (ours, theirs):
            tasks.create_task(fill(writer, total))
        counts = [tasks.create_task(drain(reader)) for reader in (ours, theirs)]
        for n in range(20):
            pair.alice.connection.send(Ping(n))
            assert await pair.bob.inbox.get() == Ping(n)
        assert [await count for count in counts] == [total, total]


async def test_stream_reads_exactly_what_was_asked() -> None:
    async with connected() as pair:
        ours = pair.alice.connection.open_stream()
        theirs = pair.bob.connection.stream(ours.id)
        for byte in b"abcdefgh":
            await ours.write(bytes([byte]))
        await ours.end()
        assert await theirs.readexactly(3) == b"abc"
        assert await theirs.readexactly(5) == b"defgh"
        assert await theirs.read(5) == b""
        with pytest.raises(StreamFailed):
            await theirs.readexactly(1)


async def test_reader_that_does_not_read_stops_the_writer() -> None:
    async with connected() as pair:
        ours = pair.alice.connection.open_stream()
        theirs = pair.bob.connection.stream(ours.id)
        written = 0

        async def write() -> None:
            nonlocal written
            while True:
                await ours.write(bytes(10_000))
                written += 10_000

        writing = asyncio.create_task(write())
        # A window and our own queue fill; pings, which pass beside, say when everything has settled.
        before = -1
        while written > before:
            before = written
            for n in range(5):
                pair.alice.connection.send(Ping(n))
                await pair.bob.inbox.get()
        limit = INITIAL_WINDOW + MAX_QUEUED_STREAM_BYTES
        assert limit - 20_000 < written <= limit
        await theirs.readexactly(INITIAL_WINDOW)
        pair.bob.connection.send(Ping(0))
        await theirs.readexactly(200_000)
        assert written > limit
        writing.cancel()


@pytest.mark.parametrize("resetter", [0, 1])
async def test_reset_fails_reads_and_writes_on_both_ends(resetter: int) -> None:
    async with connected() as pair:
        ours = pair.alice.connection.open_stream()
        theirs = pair.bob.connection.stream(ours.id)
        streams = (ours, theirs)
        streams[resetter].reset(ResetCode.REFUSED)
        with pytest.raises(StreamFailed) as caught:
            await streams[1 - resetter].read(1)
        assert caught.value.reset == ResetCode.REFUSED
        for stream in streams:
            with pytest.raises(StreamFailed):
                await stream.read(1)
            with pytest.raises(StreamFailed):
                await stream.write(b"x")
        pair.alice.connection.send(Ping(1))
        assert await pair.bob.inbox.get() == Ping(1)


async def test_streams_that_no_message_names_are_limited() -> None:
    async with connected() as pair:
        streams = [pair.alice.connection.open_stream() for _ in range(MAX_UNCLAIMED_STREAMS + 1)]
        for stream in streams:
            await stream.write(b"x")
        with pytest.raises(StreamFailed) as caught:
            await streams[-1].read(1)
        assert caught.value.reset == ResetCode.LIMIT
        for stream in streams[:-1]:
            assert await pair.bob.connection.stream(stream.id).read(1) == b"x"
        with pytest.raises(StreamFailed):
            pair.bob.connection.stream(streams[-1].id)
        with pytest.raises(BadStream):
            pair.bob.connection.stream(2)


# The end


async def test_goodbye_arrives_before_the_connection_closes() -> None:
    async with connected() as pair:
        goodbye = Goodbye(GoodbyeCode.SHUTTING_DOWN, "restarting", 5)
        # Bytes that Bob's side has not read must not turn the close into a reset.
        await pair.alice.connection.open_stream().write(bytes(100_000))
        await pair.bob.connection.close(goodbye)
        assert await pair.alice.inbox.get() == goodbye
        await pair.alice.ended.wait()
        assert isinstance(pair.alice.connection.closed_by, ConnectionLost)
        await pair.bob.ended.wait()
        assert pair.bob.connection.closed_by is None


async def test_lost_connection_fails_streams_but_for_what_had_arrived_whole() -> None:
    async with connected() as pair:
        whole, half = (pair.alice.connection.open_stream() for _ in range(2))
        await whole.write(b"whole")
        await half.write(b"half")
        await whole.end()
        received = [pair.bob.connection.stream(stream.id) for stream in (whole, half)]
        pair.alice.connection.send(Error(0, ErrorCode.BUSY))
        await pair.bob.inbox.get()
        assert await received[1].read(10) == b"half"
        await pair.alice.connection.close()
        await pair.bob.ended.wait()
        assert await received[0].read(10) == b"whole"
        assert await received[0].read(10) == b""
        with pytest.raises(StreamFailed):
            await received[1].read(10)
        for stream in (whole, half):
            with pytest.raises(StreamFailed):
                await stream.read(1)


async def test_handler_that_waits_stops_its_peer_until_the_queue_is_full() -> None:
    release = asyncio.Event()
    handled: list[Received] = []
    served = asyncio.Event()

    async def slow(message: Received) -> None:
        await release.wait()
        handled.append(message)

    async def serve(connection: TcpConnection) -> None:
        await connection.run(slow)
        served.set()

    async with listening(serve) as listener, asyncio.TaskGroup() as tasks:
        alice = End(await dial_as(listener))
        tasks.create_task(alice.run())
        # One window passes; then the queue of 8 MiB fills, drops gossip, and at last gives up.
        sent = 0
        while not alice.ended.is_set() and sent < 2_000:
            alice.connection.send(Error(0, ErrorCode.BUSY, "t" * 256))
            sent += 1
            if sent % 100 == 0:
                await asyncio.sleep(0)
        if not alice.ended.is_set():
            for _ in range(300):
                alice.connection.send(Error(0, ErrorCode.BUSY, "t" * 256))
        await alice.ended.wait()
        assert isinstance(alice.connection.closed_by, SendQueueFull)
        assert handled == []
        release.set()
        await served.wait()


async def test_messages_that_wait_when_the_peer_closes_are_still_handled() -> None:
    release = asyncio.Event()
    handled: list[Received] = []

    async def slow(message: Received) -> None:
        await release.wait()
        handled.append(message)

    async def serve(connection: TcpConnection) -> None:
        await connection.run(slow)

    async with listening(serve) as listener, asyncio.TaskGroup() as tasks:
        alice = End(await dial_as(listener))
        tasks.create_task(alice.run())
        for n in range(3):
            alice.connection.send(Error(n, ErrorCode.BUSY))
        await alice.connection.close(Goodbye(GoodbyeCode.IDLE))
        release.set()
    # The listener has waited for its connection.
    assert set(handled) == {*(Error(n, ErrorCode.BUSY) for n in range(3)), Goodbye(GoodbyeCode.IDLE)}


async def test_fault_of_a_peer_ends_its_connection_and_no_other() -> None:
    async with connected() as pair, connected() as other:
        raw = pair.alice.connection
        raw._connection._channel.send(b"\x09\0\0\0\0\0\0")
        raw._to_send.set()
        await pair.bob.ended.wait()
        assert isinstance(pair.bob.connection.closed_by, PeerFault)
        other.alice.connection.send(Pong(3))
        assert await other.bob.inbox.get() == Pong(3)


async def test_connection_never_run_closes_at_once() -> None:
    async with listening(ignore) as listener:
        connection = await dial_as(listener)
        async with asyncio.timeout(0.5):
            await connection.close()
        with pytest.raises(StreamFailed):
            await connection.open_stream().read(1)


async def test_connection_turned_away_before_it_ran_gets_its_goodbye() -> None:
    full = Goodbye(GoodbyeCode.FULL, "all places are taken", 60)

    async def turn_away(connection: TcpConnection) -> None:
        await connection.close(full)

    async with listening(turn_away) as listener:
        alice = End(await dial_as(listener))
        await alice.run()
        assert alice.inbox.get_nowait() == full


async def test_cancelled_run_closes_the_socket() -> None:
    async with connected() as pair:
        ended = asyncio.Event()

        async def serve(connection: TcpConnection) -> None:
            await connection.run(lambda _: None)
            ended.set()

        async with listening(serve) as listener:
            connection = await dial_as(listener)
            running = asyncio.create_task(connection.run(lambda _: None))
            await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await ended.wait()
        assert pair.alice.connection.closed_by is None


@pytest.mark.parametrize("turns", range(5))
async def test_listener_that_closes_lets_nobody_wait_whom_it_has_just_accepted(turns: int) -> None:
    async with listening(ignore) as listener:
        for _ in range(5):  # until it waits for somebody
            await asyncio.sleep(0)
        with socket.create_connection((listener.address.ip, listener.port), PATIENCE) as caller:
            # However far the loop has come with it.
            for _ in range(turns):
                await asyncio.sleep(0)
            listener.close()
            for _ in range(5):
                await asyncio.sleep(0)
            gc.collect()  # what nobody has closed says so now
            with contextlib.suppress(ConnectionResetError):
                assert caller.recv(1) == b""


async def test_listener_closes_what_it_drops_before_the_handshake_has_begun() -> None:
    async with asyncio.timeout(PATIENCE):
        listener = await Listener.start(
            LOOPBACK, key=BOB, network=NETWORK, static=KeyPair.generate(), on_connection=ignore
        )
        reader, writer = await asyncio.open_connection(listener.address.ip, listener.port)
        async with asyncio.TaskGroup() as tasks:
            await listener._accept_one(tasks)
            listener.close()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
