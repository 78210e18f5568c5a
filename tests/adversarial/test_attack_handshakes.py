"""Rows A1 to A4, A6 and A7 of docs/threats.md: strangers who only connect, against listeners and nodes on real sockets.

All of them come from loopback, so the nodes are told to spare nobody there. Where a test is about seconds, they are
virtual (the bytes pass through the kernel, the clock jumps).
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from guts.addresses import Address
from guts.identity import SigningKey
from guts.net.dial import HandshakeClosed, dial
from guts.net.handshake_limits import HandshakeLimits
from guts.net.listener import Listener, refuses_nobody
from guts.net.tcp import TcpConnection
from guts.noise.keys import KeyPair
from guts.wire.messages import Ping, Pong
from tests.support.bad_peer import RawPeer, intruder
from tests.support.banners import BANNERS
from tests.support.bombs import bombs
from tests.support.channels import ALICE, BOB
from tests.support.flood import addresses
from tests.support.node_by_hand import NodeByHand, frame
from tests.support.nodes import NETWORK, World, eventually
from tests.support.virtual_time import run_virtual

STRICT: Final = HandshakeLimits(spare_neighbours=False)
FRAME: Final = 2 + 65_535
"""Bytes of the longest Noise message with its length."""

FUZZ_PREFIXES: Final = int(os.environ.get("GUTS_FUZZ_PREFIXES", "2000"))
"""Beginnings of random conversations; a million by hand (docs/testing.md)."""

EDGES: Final = (
    0, 1, 2, 15, 16, 31, 33, 34, 127, 128, 255, 256, 1023, 1025, 16_384, 32_767, 32_768, 65_519, 65_534, 65_535,
)  # fmt: skip


@contextlib.asynccontextmanager
async def listening(
    limits: HandshakeLimits = STRICT,
    on_connection: Callable[[TcpConnection], Awaitable[None]] | None = None,
    refuses: Callable[[Address], bool] = refuses_nobody,
) -> AsyncIterator[Listener]:
    async def close(connection: TcpConnection) -> None:
        await connection.close()

    listener = await Listener.start(
        Address("127.0.0.1", 0),
        key=BOB,
        network=NETWORK,
        static=KeyPair.generate(),
        on_connection=on_connection or close,
        limits=limits,
        refuses=refuses,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run())
        try:
            yield listener
        finally:
            listener.close()


async def knock(listener: Listener, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", listener.port, local_addr=(source, 0))


async def gone(reader: asyncio.StreamReader) -> bytes:
    """Return what came until the other side closed, by FIN or RST."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def enter(listener: Listener) -> None:
    """Do an honest handshake."""
    connection = await dial(listener.address, key=ALICE, network=NETWORK, static=KeyPair.generate())
    assert connection.peer == BOB.peer_id
    await connection.close()


@contextlib.asynccontextmanager
async def flooded(port: int, count: int, sources: int, words: bytes = b"") -> AsyncIterator[asyncio.Event]:
    """Enter while another process opens ``count`` connections; the event says that it has done so, and holds them."""
    arguments = [str(port), str(count), str(sources), words.hex()]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.flood",
        *arguments,
        cwd=Path(__file__).parents[2],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    output, opened = process.stdout, asyncio.Event()

    async def wait() -> None:
        if await output.readline() == b"open %d\n" % count:
            opened.set()

    waiting = asyncio.create_task(wait())
    try:
        yield opened
    finally:
        process.stdin.close()
        await waiting
        assert await process.wait() == 0


def resident_bytes() -> int:
    """Return the memory of this process that is in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# --- A1: many, and silent ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_a1_node_lets_an_honest_dialler_in_while_5000_say_nothing(world: World) -> None:
    node = await world.node("node", handshakes=STRICT)
    async with intruder(node):  # what the first connection of all costs is no attacker's
        pass
    before = resident_bytes()
    slowest = most = 0.0
    async with flooded(node.address.port, 5000, 50) as opened:
        for _ in range(4):
            started = time.monotonic()
            async with intruder(node):
                slowest = max(slowest, time.monotonic() - started)
            most = max(most, resident_bytes() - before)
            await asyncio.wait([asyncio.create_task(opened.wait())], timeout=0.2)
        await opened.wait()
        most = max(most, resident_bytes() - before)
    print(f"slowest dial {slowest:.3f} s, memory {most / 2**20:.1f} MiB")
    assert slowest < 2.0
    assert most < 20 * 2**20


def test_a1_places_of_the_silent_are_free_after_five_seconds() -> None:
    async def attack() -> None:
        async with listening() as listener:
            loop = asyncio.get_running_loop()
            silent = [await knock(listener, source) for source in addresses(64)]
            await eventually(lambda: len(listener._handshakes) == 64)
            assert [await gone(reader) for reader, _ in silent] == [b""] * 64
            assert loop.time() == pytest.approx(5.0, abs=0.5)
            assert len(listener._gate) == 0
            assert not listener._handshakes
            assert listener.counts.dropped == 0
            for _, writer in silent:
                writer.close()
            await enter(listener)

    run_virtual(attack())


async def test_a1_network_with_most_handshakes_loses_one_to_who_comes_next() -> None:
    async with listening(HandshakeLimits(in_progress=8, per_prefix=6, spare_neighbours=False)) as listener:
        few = [await knock(listener, f"127.1.1.{number}") for number in (1, 2)]
        many = [await knock(listener, f"127.1.2.{number}") for number in range(1, 7)]
        await enter(listener)
        assert await gone(many[0][0]) == b""
        assert listener.counts.dropped == 1
        for _, writer in [*few, *many]:
            writer.close()


async def test_a1_address_has_four_handshakes_and_not_five() -> None:
    async with listening() as listener:
        knocks = [await knock(listener) for _ in range(5)]
        assert await gone(knocks[0][0]) == b""
        assert len(listener._gate) == 4
        for _, writer in knocks:
            writer.close()


async def test_a1_address_that_is_refused_gets_no_place() -> None:
    asked: list[Address] = []

    def refuses(address: Address) -> bool:
        asked.append(address)
        return address.ip == "127.1.1.1"

    async with listening(refuses=refuses) as listener:
        reader, writer = await knock(listener, "127.1.1.1")
        assert await gone(reader) == b""
        assert (listener.counts.refused, listener.counts.begun) == (1, 0)
        assert asked[0].port == writer.get_extra_info("sockname")[1]
        writer.close()
        await enter(listener)


# --- A2: a byte a second ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"\x00\x20" + bytes(range(32)), b""])
def test_a2_who_drips_a_byte_a_second_is_cut_after_five_seconds(first: bytes) -> None:
    """Of the first message, and of the third."""

    async def attack() -> None:
        async with listening() as listener:
            loop = asyncio.get_running_loop()
            reader, writer = await knock(listener)
            drip = first
            if not first:
                by_hand = NodeByHand(initiator=True, seed=os.urandom(32), network=NETWORK)
                writer.write(by_hand.hello())
                length = await reader.readexactly(2)
                by_hand.meet(length + await reader.readexactly(int.from_bytes(length, "big")))
                drip = by_hand.introduce()
            cut = asyncio.create_task(gone(reader))
            for byte in drip:
                writer.write(bytes([byte]))
                await asyncio.wait([cut], timeout=1.0)
                if cut.done():
                    break
            assert await cut == b""
            assert loop.time() == pytest.approx(5.0, abs=0.5)
            writer.close()

    run_virtual(attack())


# --- A3: what is computed for strangers -------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[KeyPair]:
    """The ephemeral keys that were made: one for each handshake for which anything was computed."""
    keys: list[KeyPair] = []
    generate = KeyPair.generate

    def counted() -> KeyPair:
        keys.append(generate())
        return keys[-1]

    monkeypatch.setattr(KeyPair, "generate", counted)
    return keys


@pytest.mark.parametrize("sources", [1, 20, 400])
def test_a3_first_messages_of_a_flood_cost_few_key_exchanges(sources: int, made: list[KeyPair]) -> None:
    """2,000 a second, for two seconds: an address has six, and everybody together 50 a second after the first 50."""

    async def attack() -> None:
        async with listening() as listener:
            made.clear()
            rng, held = random.Random(7), list[socket.socket]()
            for number in range(4000):
                sock = socket.socket()
                sock.bind((addresses(sources)[number % sources], 0))
                sock.setblocking(False)
                held.append(sock)
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", listener.port))
                with contextlib.suppress(OSError):
                    sock.send(b"\x00\x20" + rng.randbytes(32))
                await asyncio.sleep(1 / 2000)
            await asyncio.sleep(10.0)
            counts = listener.counts
            print(counts)
            assert counts.begun + counts.refused == 4000
            assert counts.begun <= sources * 6
            assert len(made) == counts.computed <= min(counts.begun, 50 + 50 * 12)
            assert counts.computed >= min(sources, 100)  # the limit holds back, it does not shut
            assert counts.authenticated == 0
            for sock in held:
                sock.close()
            await enter(listener)

    run_virtual(attack())


async def test_a3_another_length_than_32_costs_no_key_exchange(made: list[KeyPair]) -> None:
    async with listening(HandshakeLimits()) as listener:
        made.clear()
        for length in EDGES:
            reader, writer = await knock(listener)
            writer.write(length.to_bytes(2, "big") + bytes(40))
            assert await gone(reader) == b""
            writer.close()
        assert made == []
        assert (listener.counts.begun, listener.counts.computed) == (len(EDGES), 0)
        await enter(listener)


def test_a3_who_comes_again_and_again_is_refused_until_a_place_in_its_minute_is_free() -> None:
    async def attack() -> None:
        async with listening() as listener:
            for _ in range(6):
                await enter(listener)
            with pytest.raises(HandshakeClosed):
                await enter(listener)
            await asyncio.sleep(10.0)
            await enter(listener)
            await eventually(lambda: listener.counts.authenticated == 7)
            assert listener.counts.refused == 1

    run_virtual(attack())


# --- A4: other protocols ----------------------------------------------------------------------------------------


async def say(listener: Listener, data: bytes, source: str = "127.0.0.1") -> bytes:
    """Say ``data`` and no more; return all that comes back."""
    reader, writer = await knock(listener, source)
    with contextlib.suppress(OSError):
        writer.write(data)
        writer.write_eof()
    answer = await gone(reader)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return answer


async def test_a4_no_banner_gets_an_answer_or_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert len(BANNERS) >= 50
    with caplog.at_level(logging.DEBUG):
        async with listening(HandshakeLimits()) as listener:
            for banner in BANNERS:
                assert await say(listener, banner) == b""
            assert (listener.counts.begun, listener.counts.computed) == (len(BANNERS), 0)
            await enter(listener)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_a4_no_beginning_of_a_conversation_gets_an_answer_or_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seed = random.SystemRandom().getrandbits(64)
    print(f"seed {seed}, {FUZZ_PREFIXES} prefixes")
    rng = random.Random(seed)

    def prefix() -> bytes:
        banner = bytearray(rng.choice(BANNERS))
        for _ in range(rng.randrange(4)):
            banner[rng.randrange(len(banner))] = rng.randrange(256)
        whole = rng.choice([bytes(banner), rng.randbytes(rng.randrange(200)), frame(rng.randbytes(rng.randrange(70)))])
        data = whole[: rng.randrange(len(whole) + 1)]
        # 32 bytes in a frame are a first message, and the node may answer that.
        return data[:33] if data.startswith(b"\x00\x20") else data

    with caplog.at_level(logging.INFO):  # a million lines of DEBUG would be kept
        async with listening(HandshakeLimits()) as listener:

            async def fuzz(count: int) -> None:
                for _ in range(count):
                    data = prefix()
                    # Of one address there are 28,000 ports, and each rests for a minute.
                    source = f"127.0.{rng.randrange(256)}.{rng.randrange(1, 255)}"
                    assert await say(listener, data, source) == b"", data.hex()

            async with asyncio.TaskGroup() as tasks:
                for number in range(16):
                    tasks.create_task(fuzz(FUZZ_PREFIXES // 16 + (number < FUZZ_PREFIXES % 16)))
            assert (listener.counts.begun, listener.counts.computed) == (FUZZ_PREFIXES, 0)
            await enter(listener)
    assert caplog.records == []


# --- A6: lengths that lie ---------------------------------------------------------------------------------------


async def test_a6_length_of_a_handshake_message_allocates_nothing() -> None:
    """Of the first, and of the third. The attacker's side is as small as can be, for both are measured."""
    loop = asyncio.get_running_loop()
    hello = NodeByHand(initiator=True, seed=bytes(32), network=NETWORK).hello()
    async with listening(HandshakeLimits()) as listener:
        await enter(listener)
        tracemalloc.start()
        try:
            for said in (b"", hello):
                for length in EDGES:
                    with socket.socket() as sock:
                        sock.setblocking(False)
                        await loop.sock_connect(sock, ("127.0.0.1", listener.port))
                        if said:
                            await loop.sock_sendall(sock, said)
                            assert await loop.sock_recv(sock, 1100)
                        before, _ = tracemalloc.get_traced_memory()
                        tracemalloc.reset_peak()
                        await loop.sock_sendall(sock, length.to_bytes(2, "big") + bytes(min(length, 20)))
                        sock.shutdown(socket.SHUT_WR)
                        with contextlib.suppress(ConnectionResetError):
                            assert await loop.sock_recv(sock, 1100) == b""
                    assert tracemalloc.get_traced_memory()[1] - before < 2 * FRAME, length
        finally:
            tracemalloc.stop()
        await enter(listener)


async def test_a6_length_of_a_transport_message_or_a_frame_allocates_nothing(world: World) -> None:
    """Beside one read of the socket, which an honest message costs as well."""
    node = await world.node("node")
    async with intruder(node):
        pass

    async def peak(say_it: Callable[[RawPeer], None]) -> int:
        async with RawPeer.meet(node) as peer:
            tracemalloc.start()
            try:
                say_it(peer)
                peer.hang_up()
                await eventually(lambda: not node.node.control._service.peers.connections)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    honest = await peak(lambda peer: peer.send(b"\x04" + bytes(5) + b"\x01\x00"))
    for length in EDGES:
        claimed = length.to_bytes(2, "big")
        message = await peak(lambda peer, claimed=claimed: peer.send_bytes(claimed + bytes(20)))  # type: ignore[misc]
        framed = await peak(lambda peer, claimed=claimed: peer.send(bytes(5) + claimed + b"x"))  # type: ignore[misc]
        print(length, honest, message, framed)
        assert max(message, framed) < honest + 2 * FRAME, length


# --- A7: bombs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", bombs())
async def test_a7_node_drops_who_sends_a_bomb_and_stays_small(world: World, name: str) -> None:
    node, bomb = await world.node("node"), bombs()[name]
    async with RawPeer.meet(node) as peer, intruder(node, SigningKey.generate()) as neighbour:
        tracemalloc.start()
        try:
            peer.send_message(bomb)
            await peer.is_dropped()
            await eventually(lambda: len(node.node.control._service.peers.connections) == 1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        print(f"{name}: {len(bomb)} bytes, peak {peak / 2**20:.2f} MiB")
        neighbour.send(Ping(7))
        assert await neighbour.expect(Pong) == Pong(7)
    assert peak < 6 * 2**20 + 2 * len(bomb)  # of which two copies are the sender's, plain and encrypted
