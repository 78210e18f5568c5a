"""A connection whose messages are withheld: what passes, what waits, and for whom."""

import asyncio

from guts.net.tcp import MAX_PENDING_CONTROL, TcpConnection
from guts.wire.messages import Error, ErrorCode, Goodbye, GoodbyeCode, Message, Ping
from tests.integration.test_tcp import End, Received, connected, dial_as, listening
from tests.support.nodes import eventually

LONG = 3600.0


def error(number: int) -> Message:
    return Error(number, ErrorCode.BUSY)


async def test_pings_and_goodbyes_pass_while_messages_are_withheld() -> None:
    async with connected() as pair:
        pair.alice.connection.send(error(1))
        assert await pair.bob.inbox.get() == error(1)
        pair.bob.connection.withhold(LONG)
        for number in range(2, 5):
            pair.alice.connection.send(error(number))
        pair.alice.connection.send(Ping(7))
        assert await pair.bob.inbox.get() == Ping(7)
        await pair.alice.connection.close(Goodbye(GoodbyeCode.IDLE))
        assert await pair.bob.inbox.get() == Goodbye(GoodbyeCode.IDLE)
        # Who has gone is not waited for.
        await pair.bob.ended.wait()
        assert pair.bob.inbox.empty()


async def test_pings_and_streams_pass_a_flood_of_messages_that_are_withheld() -> None:
    async with connected() as pair:
        pair.bob.connection.withhold(LONG)
        for number in range(5000):
            pair.alice.connection.send(error(number))
            if number % 100 == 0:
                await asyncio.sleep(0.001)
        stream = pair.alice.connection.open_stream()
        await stream.write(b"x" * 100_000)
        assert await pair.bob.connection.stream(stream.id).readexactly(100_000) == b"x" * 100_000
        pair.alice.connection.send(Ping(7))
        assert await pair.bob.inbox.get() == Ping(7)
        assert pair.bob.inbox.empty()


async def test_streams_go_on_while_messages_are_withheld() -> None:
    async with connected() as pair:
        pair.bob.connection.withhold(LONG)
        stream = pair.alice.connection.open_stream()
        pair.alice.connection.send(error(1))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stream.write(b"x" * 3_000_000))
            assert await pair.bob.connection.stream(stream.id).readexactly(3_000_000) == b"x" * 3_000_000
        assert pair.bob.inbox.empty()


async def test_withheld_messages_come_in_order_when_the_time_is_over() -> None:
    times: list[float] = []
    handled: list[Received] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def serve(connection: TcpConnection) -> None:
        def handle(message: Received) -> None:
            times.append(loop.time())
            handled.append(message)
            if len(handled) == 3:
                connection.withhold(0.2)
            if len(handled) == 5:
                done.set()

        await connection.run(handle)

    async with listening(serve) as listener, asyncio.TaskGroup() as tasks:
        alice = End(await dial_as(listener))
        tasks.create_task(alice.run())
        for number in range(5):
            alice.connection.send(error(number))
        await done.wait()
        await alice.connection.close()
    assert handled == [error(number) for number in range(5)]
    assert times[3] - times[2] >= 0.2
    assert times[4] - times[3] < 0.2


async def test_paused_connection_is_not_read_for_so_long_and_then_goes_on() -> None:
    async with connected() as pair:
        loop = asyncio.get_running_loop()
        start = loop.time()
        pair.bob.connection.withhold(0.2, pause=True)
        # One read may be under way.
        pair.alice.connection.send(Ping(0))
        assert await pair.bob.inbox.get() == Ping(0)
        pair.alice.connection.send(Ping(1))
        assert await pair.bob.inbox.get() == Ping(1)
        assert loop.time() - start >= 0.2


async def test_what_a_peer_sends_while_it_is_withheld_is_its_own_window_and_no_more() -> None:
    async with connected() as pair:
        pair.bob.connection.withhold(LONG)
        text = "t" * 200
        for number in range(20_000):
            pair.alice.connection.send(Error(number, ErrorCode.BUSY, text))
            if number % 100 == 0:
                await asyncio.sleep(0)
            if pair.alice.ended.is_set():
                break
        await pair.alice.ended.wait()
        assert len(pair.bob.connection._pending) > 4000
        assert len(pair.bob.connection._pending._packed) <= 2 << 20
        assert pair.bob.inbox.empty()


async def test_charge_is_that_of_the_message_and_of_the_peers_own_streams() -> None:
    charges: list[int] = []
    came = asyncio.Event()

    async def serve(connection: TcpConnection) -> None:
        def handle(message: Received) -> None:
            charges.append(connection.take_charge())
            came.set()

        ours = connection.open_stream()
        connection.send(error(ours.id))
        await connection.run(handle)

    async with listening(serve) as listener, asyncio.TaskGroup() as tasks:
        alice = End(await dial_as(listener))
        tasks.create_task(alice.run())
        first = await alice.inbox.get()
        assert isinstance(first, Error)
        mine, theirs = alice.connection.open_stream(), alice.connection.stream(first.request)
        await mine.write(b"m" * 1000)
        # What the node asked for itself is bounded by its own limits.
        await theirs.write(b"t" * 500)
        alice.connection.send(error(1))
        await came.wait()
        came.clear()
        alice.connection.send(error(1))
        await came.wait()
        await alice.connection.close()
    size = charges[1]
    assert 4 <= size <= 10
    assert charges[0] == size + 1000


async def test_socket_is_not_read_while_more_pings_wait_than_may() -> None:
    release = asyncio.Event()
    served: list[TcpConnection] = []

    async def serve(connection: TcpConnection) -> None:
        served.append(connection)

        async def handle(message: Received) -> None:
            await release.wait()

        await connection.run(handle)

    async with listening(serve) as listener, asyncio.TaskGroup() as tasks:
        alice = End(await dial_as(listener))
        tasks.create_task(alice.run())
        # One is being handled, and so many may wait.
        for number in range(MAX_PENDING_CONTROL + 1):
            alice.connection.send(Ping(number))
            await asyncio.sleep(0)
        await eventually(lambda: bool(served) and len(served[0]._pending) == MAX_PENDING_CONTROL)
        alice.connection.send(Ping(0))
        await eventually(lambda: len(served[0]._pending) == MAX_PENDING_CONTROL + 1)
        for number in range(50):
            alice.connection.send(Ping(number))
            await asyncio.sleep(0)
        assert len(served[0]._pending) == MAX_PENDING_CONTROL + 1
        release.set()
        await eventually(lambda: len(served[0]._pending) == 0)
        await alice.connection.close()
