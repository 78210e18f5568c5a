"""Row B2 of docs/threats.md on real sockets: who asks for packs without end and reads nothing of what it is sent."""

import asyncio
import contextlib
import os
import statistics
import time
from typing import Final

import pytest

from guts.net import tcp
from guts.net.reader import PeerSilent
from guts.net.stream import Stream, StreamFailed
from guts.node.limits import Patience
from guts.records import PeerRecord
from guts.wire import codec
from guts.wire.messages import GetObjects, Hello, HelloAck, Message, ResetCode
from tests.adversarial.test_bad_asker import ask, server, still_serves
from tests.integration.test_tcp import dial_as, listening
from tests.support.bad_peer import CAPABILITIES, DAY_MS, RawPeer, intruder, now_ms
from tests.support.nodes import Maintainer, RunningNode, World, eventually

GREEDY: Final = min(int(os.environ.get("GUTS_GREEDY", "3000")), 12_000)
"""What fits in the first window of messages; whoever sends more than that has broken a rule and is gone at once."""

ROUNDS: Final = 12
"""At the most: on a machine that others use too, what counts is the median ratio of two runs after one another."""

PACKS: Final = 4
ALL: Final = b"\xff" * 8


def resident() -> int:
    """Return the memory of this process, in which the node is, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def seconds_for_packs(node: RunningNode, maintainer: Maintainer) -> float:
    """Return how long an honest peer, a new one, takes for so many packs, one after the other."""
    async with intruder(node) as honest:
        started = time.monotonic()
        for _ in range(PACKS):
            _, pack = await ask(honest, maintainer.repository, [maintainer.tip()], [])
            assert pack[:4] == b"PACK"
        return time.monotonic() - started


def waiting(node: RunningNode) -> int:
    """Return how many messages wait at the node, of the peer of whom most do."""
    return max((len(connection._pending) for connection in node.node.control._driver._connections.values()), default=0)


async def introduce(raw: RawPeer) -> None:
    """Say hello, and hear no more than the answer."""
    record = PeerRecord.sign(raw.key, (), ("seed",), now_ms(), now_ms() + DAY_MS).encoded
    raw.send_message(codec.encode(Hello(1, 1, "bad/1", CAPABILITIES, record, now_ms(), os.urandom(8))))
    assert isinstance((await raw.messages(1))[0], HelloAck)


def flood(maintainer: Maintainer) -> list[Message]:
    return [GetObjects(number + 1, maintainer.repository, 2 * number + 1, ALL, "", 1, 0) for number in range(GREEDY)]


async def test_b2_who_asks_without_end_and_reads_nothing_neither_slows_others_nor_fills_memory(world: World) -> None:
    node, maintainer = await server(world)
    # A pack that takes longer than its place does to be free again: the last free place is for who has none.
    maintainer.commit("large", os.urandom(8 << 20))
    await maintainer.publish(node)
    await seconds_for_packs(node, maintainer)
    ratios: list[float] = []
    grown = 0
    while len(ratios) < ROUNDS and (len(ratios) < 3 or statistics.median(ratios) < 0.8):
        alone = await seconds_for_packs(node, maintainer)
        before = resident()
        async with RawPeer.meet(node) as greedy:
            await introduce(greedy)
            for message in flood(maintainer):
                greedy.send_message(codec.encode(message))
            # All of it is at the node, which takes ten a second: this is how it stays.
            await eventually(lambda: waiting(node) > GREEDY * 9 // 10)
            beside = await seconds_for_packs(node, maintainer)
            grown = max(grown, resident() - before)
        ratios.append(alone / beside)
    print(f"{PACKS} packs, speed beside the greedy one / alone: {ratios}; memory +{grown / 2**20:.1f} MiB")
    assert statistics.median(ratios) >= 0.8
    assert grown < 16 << 20
    await still_serves(world, node, maintainer)


async def test_b2_who_takes_a_pack_slowly_gives_its_place_up_once_others_wait_and_is_not_blamed(world: World) -> None:
    node, maintainer = await server(world, Patience(stall=600.0, contended=0.5))
    maintainer.commit("large", os.urandom(8 << 20))
    await maintainer.publish(node)
    admission = node.node.control._service.serving.admission
    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(intruder(node)) for _ in range(3)]
        streams = []
        for peer, request in ((slow[0], 1), (slow[0], 2), (slow[1], 1), (slow[2], 1)):
            stream = peer.connection.open_stream()
            peer.send(GetObjects(request, maintainer.repository, stream.id, ALL, "", 1, 0))
            await stream.write(maintainer.tip())
            await stream.end()
            assert (await stream.read(4))[:1] == b"P"
            streams.append(stream)
        assert sum(admission._serves.values()) == 4
        # Nobody waits: they may be as slow as they like, or slower than they may be with others.
        await asyncio.sleep(1.0)
        assert sum(admission._serves.values()) == 4
        await asyncio.wait_for(still_serves(world, node, maintainer), 15.0)
        assert sum(admission._serves.values()) < 4
        resets = 0
        for stream in streams:
            if stream.done:
                with pytest.raises(StreamFailed) as failed:
                    await stream.readexactly(8 << 20)
                assert failed.value.reset == ResetCode.LIMIT
                resets += 1
        assert resets >= 1
        for peer in slow:
            assert await node.reasons(peer.id) == []


async def test_b2_socket_that_takes_nothing_is_closed_and_its_streams_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tcp.WRITE_STALL_TIMEOUT == 20.0
    monkeypatch.setattr(tcp, "WRITE_STALL_TIMEOUT", 0.5)
    ended = asyncio.Event()

    async def serve(connection: tcp.TcpConnection) -> None:
        async def write(stream: Stream) -> None:
            with contextlib.suppress(StreamFailed):
                # More than the buffers of both sockets hold, together.
                await stream.write(bytes(1 << 20))
                await stream.read(1)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(32):
                tasks.create_task(write(connection.open_stream()))
            await connection.run(lambda _: None)
        assert isinstance(connection.closed_by, PeerSilent)
        ended.set()

    async with listening(serve) as listener:
        # It is never run, so nothing reads it.
        idle = await dial_as(listener)
        await ended.wait()
        await idle.close()
