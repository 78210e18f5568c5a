"""The faults that were proven of the package as shipped, each with its number; none of them is left.

Faults 1 (a crafted contact closes the socket) and 11 on real sockets: tests/integration/test_discovery_udp.py.
Fault 2 (storms): tests/simulation/test_discovery_storm.py. Fault 7 (inexact neighbours): test_routing.py.
"""

import asyncio
import contextlib
import random

import pytest

from guts.canonical import Value
from guts.discovery.contact import Contact, encode_contacts
from guts.discovery.keys import Key, node_key, repository_key
from guts.discovery.store import PutStatus, RecordKind
from guts.records import ProviderRecord
from tests.support.dht import RawPeer, SimNode, global_ip, joined, repository_id
from tests.support.sim_network import SimNetwork
from tests.support.virtual_time import run_virtual

TOKEN = b"12345678"


def network(seed: int) -> SimNetwork:
    print(f"seed {seed}")
    return SimNetwork(random.Random(seed))


async def found(node: SimNode, repository: object) -> list[ProviderRecord]:
    assert isinstance(repository, bytes)
    return [record async for record in node.discovery.find_providers(repository)]  # type: ignore[arg-type]


MALFORMED: list[Value] = [
    [],
    "nil",
    0,
    "text",
    [TOKEN, b"", b"", b""],
    [b"short", b"", b""],
    [TOKEN, b"x" * 25, b""],
    [TOKEN, b"x" * 26 * 21, b""],
    [TOKEN, b"", b"x" * 39],
    [TOKEN, b"", b"", 65, []],
    [TOKEN, b"", b"", -1, []],
    [TOKEN, b"", b"", 0, [b"more than there are"]],
    [TOKEN, b"", b"", 1, [1]],
    [TOKEN, b"", b"", 1, [b"not a record"]],
    [TOKEN, b"", b"", 1, b"not a list"],
    [TOKEN, [[b"x" * 20, "127.0.0.1", 70_000]], b""],
    [[b"x" * 20, "host.example", 9000]],
    [TOKEN, b"x" * 20 + bytes([8, 8, 8, 8]) + b"\0\0", b""],
]


@pytest.mark.parametrize("result", MALFORMED)
def test_fault_3_no_responder_breaks_a_lookup(result: Value) -> None:
    async def world() -> None:
        net = network(3)
        nodes = await joined(net, 4)
        liar = RawPeer(net, global_ip(900), "liar")
        liar.answer = lambda method, _: "nil" if method == "ping" else result
        rng = random.Random(3)
        repository = repository_id(rng)
        assert await nodes[1].discovery.provide(nodes[1].provider_record(repository)) == 4
        reader = nodes[2]
        await reader.discovery.join([liar.door])
        await reader.discovery.join([liar.door])
        assert [r.peer for r in await found(reader, repository)] == [nodes[1].key.peer_id]
        assert await reader.discovery.provide(reader.provider_record(repository)) == 4
        assert await reader.discovery.find_peer(nodes[1].key.peer_id) is None

    run_virtual(world())


def test_fault_4_nobody_replaces_another_nodes_record() -> None:
    async def world() -> None:
        net = network(4)
        nodes = await joined(net, 6)
        thief = RawPeer(net, global_ip(900), "thief")
        repository = repository_id(random.Random(4))
        record = nodes[1].provider_record(repository)
        assert await nodes[1].discovery.provide(record) == 6
        for victim in nodes:
            asked = thief.request(victim, "find_node", b"", repository_key(repository))
            await asyncio.sleep(1)
            match thief.answers(asked):
                case [[_, [bytes(token), *_]]]:
                    pass
                case _:
                    pytest.fail("no token")
            mine = ProviderRecord.sign(thief.key, repository, record.addresses, 99, record.expires)
            forged = mine.encoded.replace(thief.key.public, nodes[1].key.public)
            put = thief.request(victim, "put_record", b"", token, RecordKind.PROVIDER, forged)
            await asyncio.sleep(1)
            match thief.answers(put):
                case [[_, [int(status), *_]]]:
                    assert status == PutStatus.INVALID
                case _:
                    pytest.fail("no outcome")
        for reader in nodes:
            assert await found(reader, repository) == [record]

    run_virtual(world())


def test_fault_5_invented_ids_next_to_the_key_hide_nothing() -> None:
    async def world() -> None:
        net = network(5)
        nodes = await joined(net, 16)
        rng = random.Random(5)
        repository = repository_id(rng)
        target = repository_key(repository)
        liars = [RawPeer(net, global_ip(900 + i), f"liar {i}") for i in range(5)]

        def invented(method: str, _: list[Value]) -> Value:
            if method == "ping":
                return "nil"
            liar = rng.choice(liars)
            near = [
                Contact(Key((target.number ^ rng.getrandbits(32)).to_bytes(20, "big")), liar.ip, 9000)
                for _ in range(20)
            ]
            v4, v6 = encode_contacts(near)
            return [TOKEN, v4, v6, 0, []] if method == "get_records" else [TOKEN, v4, v6]

        for liar in liars:
            liar.answer = invented
        for node in nodes:
            await node.discovery.join([liar.door for liar in liars])
        assert await nodes[0].discovery.provide(nodes[0].provider_record(repository)) >= 8
        for reader in nodes:
            assert [r.peer for r in await found(reader, repository)] == [nodes[0].key.peer_id]
        assert nodes[0].discovery.counters["dropped_imposter"] > 0

    run_virtual(world())


def test_fault_6_nobody_takes_a_victims_id() -> None:
    async def world() -> None:
        net = network(6)
        victim, fresh = await joined(net, 2)
        thief = RawPeer(net, global_ip(900), "thief")
        thief.answer = lambda method, _: "nil"
        # Asked with the victim's id expected, and asking with the victim's id claimed.
        assert await fresh.discovery.join([(thief.ip, thief.port, victim.key.peer_id)]) == 1
        thief.request(fresh, "ping", node_key(victim.key.peer_id))
        await asyncio.sleep(3)
        assert [(c.ip, c.peer) for c in fresh.discovery.contacts()] == [(victim.ip, victim.key.peer_id)]
        assert fresh.discovery.counters["dropped_imposter"] > 0

    run_virtual(world())


def test_fault_8_publishing_alone_stores_here_and_to_nobody_counts_nothing() -> None:
    async def world() -> None:
        net = network(8)
        alone = SimNode(net, "alone", global_ip(800))
        repository = repository_id(random.Random(8))
        assert await alone.discovery.provide(alone.provider_record(repository)) == 1
        assert [r.peer for r in await found(alone, repository)] == [alone.key.peer_id]

        others = await joined(net, 3, seed=8)
        client = SimNode(net, "client", global_ip(801), client_mode=True)
        assert await client.discovery.join([others[0].door]) == 3
        await alone.discovery.join([others[0].door])
        for other in others:
            await other.discovery.close()
        # All neighbours dead: no error, and only what is true is counted.
        assert await client.discovery.provide(client.provider_record(repository)) == 0
        assert await alone.discovery.provide(alone.provider_record(repository, seq=2)) == 1

    run_virtual(world())


def test_fault_9_and_10_a_ping_with_a_fresh_id_draws_one_answer_and_one_probe() -> None:
    async def world() -> None:
        net = network(9)
        nodes = await joined(net, 3)
        rng = random.Random(9)
        for _ in range(50):
            await nodes[0].discovery.provide(nodes[0].provider_record(repository_id(rng)))
        spoofed = RawPeer(net, global_ip(900), "spoofed")
        for _ in range(20):
            spoofed.request(nodes[1], "ping", rng.randbytes(20))
        await asyncio.sleep(60)
        sent = sum(len(data) for data, _ in spoofed.received)
        assert sent <= 20 * 3 * 384
        # One probe at a time goes to one place, and none for a minute after one that failed.
        assert sum(data[:1] == b"\x00" for data, _ in spoofed.received) == 1

    run_virtual(world())


def test_fault_12_a_cancelled_search_leaves_nothing_behind() -> None:
    async def world() -> None:
        net = network(12)
        nodes = await joined(net, 10)
        dead = [RawPeer(net, global_ip(900 + i), f"dead {i}") for i in range(3)]
        repository = repository_id(random.Random(12))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await found(nodes[3], repository)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await nodes[3].discovery.join([d.door for d in dead])
        await asyncio.sleep(5)
        protocol = nodes[3].transport.receiver
        assert protocol._outstanding == {}  # type: ignore[union-attr]
        assert protocol.transport._pending == {}  # type: ignore[union-attr]

    run_virtual(world())
