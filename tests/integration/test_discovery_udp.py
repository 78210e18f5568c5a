"""The DHT over real loopback sockets."""

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections.abc import AsyncIterator

import pytest

from guts import canonical
from guts.addresses import Address
from guts.canonical import Value
from guts.clock import Now
from guts.discovery.contact import encode_address
from guts.discovery.datagrams import parse_request, sign_answer
from guts.discovery.endpoint import BadListenAddress, PortBusy, route_source
from guts.discovery.server import Discovery
from guts.errors import ExitStatus, UsageError
from guts.identity import SigningKey
from guts.ids import RepositoryId
from guts.records import RECORD_LIFE_MS, PeerRecord, ProviderRecord

LOOPBACK = "127.0.0.1"


def clock() -> Now:
    return Now(time.monotonic(), time.time_ns() // 1_000_000)


def new_node(key: SigningKey | None = None) -> Discovery:
    return Discovery(key=key or SigningKey.generate(), clock=clock, rng=random.SystemRandom())


def provider(key: SigningKey, repository: RepositoryId, port: int) -> ProviderRecord:
    return ProviderRecord.sign(key, repository, (Address(LOOPBACK, port),), 1, clock().wall + RECORD_LIFE_MS)


@contextlib.asynccontextmanager
async def listening(count: int, host: str = LOOPBACK) -> AsyncIterator[list[Discovery]]:
    nodes = [new_node() for _ in range(count)]
    try:
        for node in nodes:
            await node.listen(host, 0)
        yield nodes
    finally:
        for node in nodes:
            await node.close()


async def test_two_nodes_find_what_one_of_them_provides() -> None:
    key = SigningKey.generate()
    async with listening(1) as [door]:
        node = new_node(key)
        await node.listen(LOOPBACK, 0)
        repository = RepositoryId(random.randbytes(32))
        record = provider(key, repository, node.port)
        assert await node.join([(LOOPBACK, door.port, None)]) == 1
        assert await node.provide(record) == 2
        assert [r async for r in door.find_providers(repository)] == [record]
        await node.close()
        assert [r async for r in door.find_providers(repository)] == [record]


async def test_20_nodes_publish_and_find_everything() -> None:
    keys = [SigningKey.generate() for _ in range(20)]
    nodes = [new_node(key) for key in keys]
    for node in nodes:
        await node.listen(LOOPBACK, 0)
    for node in nodes[1:]:
        assert await node.join([(LOOPBACK, nodes[0].port, keys[0].peer_id)]) >= 1
    repositories = [RepositoryId(random.randbytes(32)) for _ in range(20)]
    for node, key, repository in zip(nodes, keys, repositories, strict=True):
        assert await node.provide(provider(key, repository, node.port)) == 20
        expires = clock().wall + RECORD_LIFE_MS
        peer = PeerRecord.sign(key, (Address(LOOPBACK, node.port),), ("seed",), 1, expires)
        assert await node.announce(peer) == 20
    for index, reader in enumerate(nodes):
        for key, repository in zip(keys, repositories, strict=True):
            assert [r.peer async for r in reader.find_providers(repository)] == [key.peer_id]
        assert reader.last_lookup.rpcs <= 25
        found = await reader.find_peer(keys[index - 1].peer_id)
        assert found is not None
        assert found.addresses == (Address(LOOPBACK, nodes[index - 1].port),)
    for node in nodes:
        await node.close()


async def test_a_restarted_node_joins_by_its_last_good_contacts() -> None:
    async with listening(5) as nodes:
        for node in nodes[1:]:
            await node.join([(LOOPBACK, nodes[0].port, None)])
        key = SigningKey.generate()
        first = new_node(key)
        await first.listen(LOOPBACK, 0)
        await first.join([(LOOPBACK, nodes[0].port, None)])
        repository = RepositoryId(random.randbytes(32))
        await first.provide(provider(key, repository, first.port))
        contacts, records = first.contacts(), first.records()
        assert len(contacts) == 5
        assert len(records) == 1
        await first.close()
        await nodes[0].close()
        again = new_node(key)
        await again.listen(LOOPBACK, 0)
        assert again.restore(records) == 1
        assert await again.join(contacts) == 4
        await again.close()


async def test_a_busy_port_is_a_usage_error() -> None:
    async with listening(1) as [node]:
        with pytest.raises(PortBusy) as busy:
            await new_node().listen(LOOPBACK, node.port)
        assert isinstance(busy.value, UsageError)
        assert busy.value.code == "PORT_BUSY"
        assert busy.value.exit_status is ExitStatus.USAGE
        assert str(node.port) in str(busy.value)
        with pytest.raises(BadListenAddress):
            await new_node().listen("203.0.113.1", 0)


async def test_a_node_on_every_ipv6_and_ipv4_address_meets_both() -> None:
    probe = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    finally:
        probe.close()
    async with listening(1, "::") as [both], listening(1, "0.0.0.0") as [four], listening(1, "::1") as [six]:
        assert await four.join([(LOOPBACK, both.port, None)]) == 1
        assert await six.join([("::1", both.port, None)]) == 1
        await asyncio.sleep(0.2)
        assert {(c.ip, c.port) for c in both.contacts()} == {(LOOPBACK, four.port), ("::1", six.port)}


class Hostile(asyncio.DatagramProtocol):
    """Signs whatever it is told to answer; the contacts that killed nodes of the package among them."""

    def __init__(self, results: list[Value]) -> None:
        self.key = SigningKey.generate()
        self.results = results
        self.asked = 0
        self.transport: asyncio.DatagramTransport | None = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data[:1] != b"\x00" or self.transport is None:
            return
        ping = parse_request(data).method == "ping"
        result = None if ping else self.results[self.asked % len(self.results)]
        self.asked += not ping
        body = canonical.encode([encode_address(*addr), result])
        self.transport.sendto(sign_answer(b"\x01" + data[1:21] + body, self.key), addr)


async def test_fault_1_and_11_no_answer_closes_the_socket_or_fills_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    reached: list[object] = []
    loop.set_exception_handler(lambda _, context: reached.append(context))
    token = bytes(8)
    key = bytes(20)
    results: list[Value] = [
        [token, [[key, LOOPBACK, 70_000]], b""],
        [token, [[key, LOOPBACK, -1], [key, 7, 9000], [key, "a\0b", 9000], [key, LOOPBACK, "x"]], b""],
        [[key, LOOPBACK, 70_000]],
        [token, key + bytes([127, 0, 0, 1, 0, 0]), b""],
        [token, key + bytes([255, 255, 255, 255, 35, 40]) + key + bytes([224, 0, 0, 1, 35, 40]), b""],
        [token, b"", key + bytes(16) + bytes([35, 40])],
    ]
    async with listening(2) as [node, friend]:
        transport, hostile = await loop.create_datagram_endpoint(lambda: Hostile(results), local_addr=(LOOPBACK, 0))
        hostile.transport = transport
        door = (LOOPBACK, transport.get_extra_info("sockname")[1], None)
        for _ in results:
            await node.join([door])
            [_ async for _ in node.find_providers(RepositoryId(random.randbytes(32)))]
        assert hostile.asked >= len(results)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
            for junk in (b"", b"x", b"\x00" * 30, b"\x01" * 200, b"\x00" * 21 + b"\x91" * 900, b"\xc1" * 1400):
                raw.sendto(junk, (LOOPBACK, node.port))
        assert await friend.join([(LOOPBACK, node.port, None)]) >= 1
        assert node.counters["nonsense"] > 0
        transport.close()
    assert reached == []
    loud = [r for r in caplog.records if r.levelno > logging.DEBUG and not r.name.startswith("asyncio")]
    assert loud == []


async def test_a_silent_door_is_given_up_in_time_and_below_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with listening(1) as [node]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind((LOOPBACK, 0))
            started = time.monotonic()
            assert await node.join([(LOOPBACK, silent.getsockname()[1], None)]) == 0
            assert 1.7 < time.monotonic() - started < 5.0
    assert [r for r in caplog.records if r.name.startswith(("kademlia", "rpcudp"))] == []


async def test_an_address_of_the_wrong_family_or_out_of_reach_harms_nothing() -> None:
    assert route_source(LOOPBACK) == LOOPBACK
    assert route_source("255.255.255.255") is None
    reached: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reached.append(context))
    async with listening(2) as [node, friend]:
        assert await node.join([("::1", friend.port, None), ("255.255.255.255", 9000, None)]) == 0
        assert await node.join([(LOOPBACK, friend.port, None)]) == 1
    assert reached == []
