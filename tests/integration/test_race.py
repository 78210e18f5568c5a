"""Several addresses of one node, over real loopback sockets: the first that answers as that node wins (RFC 8305)."""

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from guts.addresses import Address, BootstrapAddress
from guts.effects import Dial
from guts.errors import PeerFault, Unavailable
from guts.identity import SigningKey
from guts.ids import PeerId
from guts.net.dial import DialRefused, dial
from guts.net.listener import Listener
from guts.net.race import STAGGER, interleaved, race
from guts.net.tcp import TcpConnection
from guts.node.dials import MAX_RESOLVED, NoAnswer, Unresolvable, reach, resolve
from guts.noise.keys import KeyPair
from tests.support.channels import ALICE, BOB, EVE

NETWORK = "test"


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@asynccontextmanager
async def node(key: SigningKey, ip: str) -> AsyncIterator[Address]:
    """Run what answers as ``key`` at ``ip``; enter with its address."""

    async def serve(connection: TcpConnection) -> None:
        await connection.run(lambda _: None)

    async with asyncio.TaskGroup() as tasks:
        listener = await Listener.start(
            Address(ip, 0), key=key, network=NETWORK, static=KeyPair.generate(), on_connection=serve
        )
        running = tasks.create_task(listener.run())
        yield listener.address
        listener.close()
        running.cancel()


@asynccontextmanager
async def silence(ip: str) -> AsyncIterator[tuple[Address, list[asyncio.StreamWriter]]]:
    """Run what takes connections and never says anything; enter with its address and those who came."""
    came: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: came.append(writer), ip, 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Address(ip, port), came
    finally:
        for writer in came:
            writer.close()
        server.close()


def closed(ip: str) -> Address:
    """Return an address at which nobody listens."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        probe.bind((ip, 0))
        return Address(ip, probe.getsockname()[1])


async def alice(address: Address, *, expected: PeerId | None = None) -> TcpConnection:
    return await dial(address, key=ALICE, network=NETWORK, static=KeyPair.generate(), expected=expected)


def target(address: Address, peer: PeerId | None = None) -> BootstrapAddress:
    return BootstrapAddress(address.ip, address.port, peer)


@needs_ipv6
async def test_dead_ipv4_costs_a_quarter_of_a_second_and_ipv6_wins() -> None:
    async with silence("127.0.0.1") as (dead, came), node(BOB, "::1") as alive:
        begun = time.monotonic()
        connection = await reach(Dial(target(dead, BOB.peer_id), (alive,)), alice, 10.0)
        took = time.monotonic() - begun
        assert (connection.peer, connection.remote) == (BOB.peer_id, alive)
        assert STAGGER <= took < STAGGER + 2.0
        assert len(came) == 1
        await connection.close()


@needs_ipv6
async def test_refused_ipv4_costs_nothing_and_ipv6_wins() -> None:
    async with node(BOB, "::1") as alive:
        begun = time.monotonic()
        connection = await reach(Dial(target(closed("127.0.0.1"), BOB.peer_id), (alive,)), alice, 10.0)
        assert connection.remote == alive
        assert time.monotonic() - begun < STAGGER
        await connection.close()


async def test_address_at_which_somebody_else_lives_now_loses() -> None:
    async with node(EVE, "127.0.0.1") as other, node(BOB, "127.0.0.1") as right:
        connection = await reach(Dial(target(other, BOB.peer_id), (right,)), alice, 10.0)
        assert (connection.peer, connection.remote) == (BOB.peer_id, right)
        await connection.close()


async def test_first_failure_is_told_where_nobody_answers() -> None:
    async with node(EVE, "127.0.0.1") as other:
        with pytest.raises(DialRefused):
            await reach(Dial(target(closed("127.0.0.1"), BOB.peer_id), (other,)), alice, 10.0)
        with pytest.raises(PeerFault):
            await reach(Dial(target(other, BOB.peer_id), (closed("127.0.0.1"),)), alice, 10.0)


async def test_all_addresses_together_have_the_time_of_one_dial() -> None:
    async with silence("127.0.0.1") as (one, _), silence("127.0.0.1") as (other, came):
        with pytest.raises(NoAnswer):
            await reach(Dial(target(one), (other,)), alice, 1.0)
        assert len(came) == 1


async def test_losers_leave_no_connection() -> None:
    """Both answer at once; one of the two is closed again."""
    ready = asyncio.Event()
    async with node(BOB, "127.0.0.1") as one, node(BOB, "127.0.0.1") as other:
        made: list[TcpConnection] = []

        async def both(address: Address) -> TcpConnection:
            connection = await alice(address, expected=BOB.peer_id)
            made.append(connection)
            if len(made) == 2:
                ready.set()
            await ready.wait()
            return connection

        won = await race([one, other], both, 0.0)
        assert len(made) == 2
        [lost] = [connection for connection in made if connection is not won]
        assert lost._closed.is_set()
        assert not won._closed.is_set()
        await won.close()


def test_families_take_turns() -> None:
    a, b, c, d = Address("1.1.1.1", 1), Address("1.1.1.2", 1), Address("::1", 1), Address("::2", 1)
    assert interleaved([a, b, c, d, a]) == [a, c, b, d]
    assert interleaved([c, a, b]) == [c, a, b]
    assert interleaved([a]) == [a]


async def test_name_leads_to_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Address("127.0.0.1", 9000) in await resolve(BootstrapAddress("localhost", 9000))

    async def many(*_: object, **__: object) -> list[tuple[object, ...]]:
        found = [(2, 1, 6, "", (f"192.0.2.{n}", 9000)) for n in range(20)]
        return [found[0], *found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", many)
    assert await resolve(BootstrapAddress("many.example", 9000)) == [
        Address(f"192.0.2.{n}", 9000) for n in range(MAX_RESOLVED)
    ]


async def test_name_that_leads_nowhere_is_told() -> None:
    with pytest.raises(Unresolvable):
        await reach(Dial(BootstrapAddress("nowhere.invalid", 9000)), functools.partial(alice), 10.0)
    assert issubclass(Unresolvable, Unavailable)
