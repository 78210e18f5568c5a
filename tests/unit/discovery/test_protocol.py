"""What a node answers, to whom, and how much: threats A5, D2 and D3."""

import asyncio
import contextlib
import random
from collections import Counter

import pytest

from guts import canonical
from guts.canonical import Value
from guts.discovery.contact import Contact, decode_contacts, encode_contacts
from guts.discovery.datagrams import open_answer, sign_answer
from guts.discovery.keys import Key, node_key, repository_key
from guts.discovery.limiter import BURST
from guts.discovery.limits import (
    AMPLIFICATION,
    DATAGRAM_BYTES,
    GIVE_UP_SECONDS,
    MAX_LOOKUP_PER_GROUP,
    MAX_LOOKUP_RPCS,
    MAX_LOOKUP_SECONDS,
    MAX_PROBES,
    REQUEST_BYTES,
)
from guts.discovery.store import PutStatus, RecordKind, StoredRecord
from guts.ids import RepositoryId
from guts.records import RECORD_LIFE_MS, ProviderRecord
from tests.support.dht import RawPeer, SimNode, global_ip, joined, repository_id, request_bytes
from tests.support.sim_network import SimAddress, SimNetwork
from tests.support.virtual_time import run_virtual, virtual_now


async def crowded(net: SimNetwork, repository: RepositoryId) -> SimNode:
    """Return a node with 24 contacts and 24 provider records for ``repository``."""
    node = SimNode(net, "crowded", global_ip(0))
    contacts = [RawPeer(net, global_ip(1 + i), f"contact {i}") for i in range(24)]
    for contact in contacts:
        contact.answer = lambda method, _: "nil" if method == "ping" else [bytes(8), b"", b""]
    assert await node.discovery.join([contact.door for contact in contacts]) == 24
    address = node.provider_record(repository).addresses
    expires = virtual_now().wall + RECORD_LIFE_MS
    records = [ProviderRecord.sign(contact.key, repository, address, 1, expires) for contact in contacts]
    assert node.discovery.restore([StoredRecord(record) for record in records]) == 24
    return node


@pytest.mark.parametrize("length", [REQUEST_BYTES - 1, REQUEST_BYTES, 500, DATAGRAM_BYTES, DATAGRAM_BYTES + 1])
def test_no_unproven_address_is_sent_more_than_three_times_what_it_sent(length: int) -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        rng = random.Random(length)
        repository = repository_id(rng)
        node = await crowded(net, repository)
        key = repository_key(repository)
        record = node.provider_record(repository).encoded
        requests: list[tuple[str, list[Value]]] = [
            ("ping", []),
            ("find_node", [key]),
            ("get_records", [key, 0, b""]),
            ("get_records", [key, 3, b""]),
            ("get_records", [key, 0, rng.randbytes(8)]),
            ("put_record", [rng.randbytes(8), RecordKind.PROVIDER, record]),
        ]
        for index, (method, arguments) in enumerate(requests * 2):
            ip = global_ip(600 + index)
            unproven = RawPeer(net, ip, f"unproven {index}")
            sender = rng.randbytes(20) if index < len(requests) else unproven.node_key
            data = request_bytes(rng.randbytes(20), method, sender, *arguments).ljust(length, b"\0")
            unproven.send(data, node)
            await asyncio.sleep(30)
            got = sum(len(d) for d, _ in unproven.received)
            assert got <= AMPLIFICATION * len(data), method
            assert all(len(d) <= DATAGRAM_BYTES for d, _ in unproven.received)
            kinds = Counter(d[0] for d, _ in unproven.received)
            assert kinds[1] == (1 if REQUEST_BYTES <= len(data) <= DATAGRAM_BYTES else 0), method

    run_virtual(world())


def test_a_whole_network_never_sends_a_datagram_above_the_limit() -> None:
    async def world() -> None:
        sizes: list[int] = []
        net = SimNetwork(random.Random(5), watch=lambda data, *_: sizes.append(len(data)))
        repository = repository_id(random.Random(1))
        nodes = await joined(net, 21)
        for node in nodes:
            assert await node.discovery.provide(node.provider_record(repository)) >= 20
        providers = [r.peer async for r in nodes[0].discovery.find_providers(repository)]
        assert len(providers) == len(set(providers)) == 21
        assert max(sizes) <= DATAGRAM_BYTES
        assert min(sizes) > 21

    run_virtual(world())


def test_pages_bring_every_record_and_a_token_makes_them_larger() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        repository = repository_id(random.Random(1))
        node = await crowded(net, repository)
        asker = RawPeer(net, global_ip(900), "asker")
        seen: list[Value] = []
        token = b""
        pages = []
        total = 1
        while len(seen) < total:
            asked = asker.request(node, "get_records", b"", repository_key(repository), len(seen), token)
            await asyncio.sleep(1)
            match asker.answers(asked):
                case [[bytes(observed), [bytes(token), bytes(v4), bytes(), int(total), list(page)]]]:
                    pages.append((len(v4) // 26, len(page)))
                    seen += page
                case other:
                    pytest.fail(repr(other))
        assert observed == bytes([20, 3, 132, 7, 0x23, 0x28])
        assert len(seen) == total == 24
        assert len({bytes(r) for r in seen if isinstance(r, bytes)}) == total
        assert pages[0][0] == 12
        assert pages[0][1] < pages[1][1]

    run_virtual(world())


def test_a_put_needs_the_token_of_its_own_address() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        node = SimNode(net, 1, global_ip(1))
        honest = SimNode(net, 2, global_ip(2))
        repository = repository_id(random.Random(1))
        record = honest.provider_record(repository)
        one, other = RawPeer(net, global_ip(3), "one"), RawPeer(net, global_ip(4), "other")

        async def put(by: RawPeer, token: bytes, encoded: bytes) -> Value:
            asked = by.request(node, "put_record", b"", token, RecordKind.PROVIDER, encoded)
            await asyncio.sleep(1)
            match by.answers(asked):
                case [[_, [status, key, expires, time_ms]]]:
                    return [status, key, expires, time_ms]
                case answer:
                    pytest.fail(repr(answer))

        asked = one.request(node, "find_node", b"", bytes(20))
        await asyncio.sleep(1)
        match one.answers(asked):
            case [[_, [bytes(token), *_]]]:
                pass
        refused: Value = [int(PutStatus.BAD_TOKEN), b"", 0]
        match await put(other, token, record.encoded):
            case [*start, int()]:
                assert start == refused
        match await put(one, bytes(8), record.encoded):
            case [*start, int()]:
                assert start == refused
        match await put(one, token, record.encoded):
            case [status, key, expires, int()]:
                assert [status, key, expires] == [0, repository_key(repository), record.expires]
        match await put(one, token, record.encoded[:-1] + b"x"):
            case [status, *_]:
                assert status == PutStatus.INVALID
        assert [s.record for s in node.discovery.records()] == [record]
        assert [s.source for s in node.discovery.records()] == [one.ip]

    run_virtual(world())


def test_a_stranger_enters_the_table_only_after_a_signed_answer() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        node = SimNode(net, 1, global_ip(1))
        silent = RawPeer(net, global_ip(3), "silent")
        silent.request(node, "ping", silent.node_key)
        other_id = RawPeer(net, global_ip(4), "other id")
        other_id.answer = lambda *_: "nil"
        other_id.request(node, "ping", silent.node_key)
        client = RawPeer(net, global_ip(5), "client")
        client.answer = lambda *_: "nil"
        client.request(node, "find_node", b"", bytes(20))
        await asyncio.sleep(3)
        assert node.discovery.contacts() == []
        client.request(node, "ping", client.node_key)
        await asyncio.sleep(3)
        assert [c.peer for c in node.discovery.contacts()] == [client.key.peer_id]

    run_virtual(world())


def test_a_crowd_of_strangers_is_probed_four_at_a_time() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        node = SimNode(net, 1, global_ip(1))
        strangers = [RawPeer(net, global_ip(300 + i), f"stranger {i}") for i in range(30)]
        for stranger in strangers:
            stranger.request(node, "ping", stranger.node_key)
        await asyncio.sleep(3)
        probed = sum(d[:1] == b"\x00" for s in strangers for d, _ in s.received)
        assert probed == MAX_PROBES

    run_virtual(world())


def test_a_client_answers_nothing_and_enters_no_table() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        nodes = await joined(net, 5)
        client = SimNode(net, "client", global_ip(900), client_mode=True)
        assert await client.discovery.join([nodes[0].door]) == 5
        repository = repository_id(random.Random(1))
        await nodes[1].discovery.provide(nodes[1].provider_record(repository))
        assert [r.peer async for r in client.discovery.find_providers(repository)] == [nodes[1].key.peer_id]
        assert await client.discovery.provide(client.provider_record(repository)) == 5
        raw = RawPeer(net, global_ip(901), "raw")
        raw.request(client, "ping", raw.node_key)
        await asyncio.sleep(5)
        assert raw.received == []
        assert all(client.ip not in [c.ip for c in node.discovery.contacts()] for node in nodes)
        assert client.discovery.records() == []
        assert client.discovery.counters["dropped_kind"] == 1, "asked by nobody but the raw peer"

    run_virtual(world())


def test_a_source_above_its_rate_is_not_answered() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5), latency=(0.01, 0.01))
        node = SimNode(net, 1, global_ip(1))
        flood = RawPeer(net, global_ip(3), "flood")
        neighbour = RawPeer(net, global_ip(4), "neighbour")
        for _ in range(int(BURST) + 10):
            flood.request(node, "ping", b"")
        neighbour.request(node, "ping", b"")
        await asyncio.sleep(0.1)
        assert len(flood.received) == BURST
        assert len(neighbour.received) == 1
        assert node.discovery.counters["dropped_rate"] == 10

    run_virtual(world())


def test_answers_from_elsewhere_or_to_nobody_are_dropped() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        node, other = await joined(net, 2)
        sent: list[bytes] = []
        net.watch = lambda data, _, to: sent.append(data) if to == (node.ip, node.port) else None
        await node.discovery.join([other.door])
        answers = [data for data in sent if data[:1] == b"\x01"]
        elsewhere = RawPeer(net, global_ip(9), "elsewhere")
        before = Counter(node.discovery.counters)
        for data in answers:
            elsewhere.send(data, node)
        await asyncio.sleep(1)
        dropped = node.discovery.counters - before
        assert dropped["dropped_unasked"] == len(answers) > 0

    run_virtual(world())


def test_an_observer_sees_its_own_address_and_the_proof_of_who_answers() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        node = SimNode(net, 1, global_ip(1))
        asker = RawPeer(net, global_ip(3), "asker")
        asker.request(node, "ping", b"")
        await asyncio.sleep(1)
        [(data, _)] = asker.received
        peer, body = open_answer(data)
        assert peer == node.key.peer_id
        assert canonical.decode(body, canonical.Bounds(1152)) == [bytes([20, 0, 3, 7, 0x23, 0x28]), None]

    run_virtual(world())


@pytest.mark.parametrize(("at_a_time", "latency"), [(2, 0.01), (1, 0.8)])
def test_endlessly_nearer_nodes_cost_bounded_requests_and_time(at_a_time: int, latency: float) -> None:
    async def world() -> None:
        asked: Counter[SimAddress] = Counter()
        net = SimNetwork(random.Random(5), latency=(latency, latency))
        node = SimNode(net, 1, global_ip(1))
        repository = repository_id(random.Random(2))
        target = repository_key(repository)
        liars = [RawPeer(net, global_ip(1000 + i), f"liar {i}") for i in range(300)]
        liars.sort(key=lambda liar: liar.node_key.distance(target), reverse=True)
        given = 1

        def nearer(method: str, _: list[Value]) -> Value:
            nonlocal given
            if method != "get_records":
                return "nil" if method == "ping" else [bytes(8), b"", b""]
            fresh = liars[given : given + at_a_time]
            given += at_a_time
            return [bytes(8), *encode_contacts(Contact(f.node_key, f.ip, f.port) for f in fresh), 0, []]

        for liar in liars:
            liar.answer = nearer
        assert await node.discovery.join([liars[0].door]) == 1
        net.watch = lambda data, source, to: asked.update([to]) if source == (node.ip, node.port) else None
        assert [r async for r in node.discovery.find_providers(repository)] == []
        stats = node.discovery.last_lookup
        assert len(asked) == stats.rpcs == stats.asked
        if at_a_time == 1:
            assert stats.seconds == pytest.approx(MAX_LOOKUP_SECONDS)
        else:
            assert stats.rpcs == MAX_LOOKUP_RPCS

    run_virtual(world())


def test_silent_contacts_end_a_search_in_time() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5), latency=(0.01, 0.02))
        node = SimNode(net, 1, global_ip(1))
        door = RawPeer(net, global_ip(2), "door")
        rng = random.Random(3)

        def invented(method: str, _: list[Value]) -> Value:
            if method == "ping":
                return "nil"
            dead = [Contact(Key(rng.randbytes(20)), global_ip(rng.randrange(5000, 60_000)), 9000) for _ in range(20)]
            return [rng.randbytes(8), *encode_contacts(dead), 0, []]

        door.answer = invented
        await node.discovery.join([door.door])
        assert [r async for r in node.discovery.find_providers(repository_id(rng))] == []
        # 20 silent nodes, 6 at a time: half a second each for their places, and 1.8 s for the last of them.
        assert node.discovery.last_lookup.asked == 21
        assert node.discovery.last_lookup.seconds < 5.0

    run_virtual(world())


def test_a_liar_can_not_aim_a_lookup_at_one_network_or_at_private_addresses() -> None:
    async def world() -> None:
        asked: Counter[str] = Counter()
        net = SimNetwork(random.Random(5), latency=(0.01, 0.02))
        node = SimNode(net, 1, global_ip(1))
        node.discovery._policy._own_address_towards = lambda ip: ip  # an interface in every range
        doors = [RawPeer(net, global_ip(2 + i), f"door {i}") for i in range(6)]
        rng = random.Random(3)

        def aimed(method: str, _: list[Value]) -> Value:
            if method == "ping":
                return "nil"
            victims = [f"99.9.9.{rng.randrange(1, 255)}" for _ in range(14)]
            victims += ["127.0.0.1", "10.1.1.1", "169.254.169.254", "192.168.1.1", "224.0.0.1", "99.8.8.8"]
            contacts = [Contact(Key(rng.randbytes(20)), ip, rng.randrange(1024, 60_000)) for ip in victims]
            contacts[-1] = Contact(contacts[-1].key, "99.8.8.8", 80)
            return [rng.randbytes(8), *encode_contacts(contacts), 0, []]

        for door in doors:
            door.answer = aimed
        await node.discovery.join([door.door for door in doors])
        await asyncio.sleep(GIVE_UP_SECONDS)  # joining asks the same, and asks again whoever is silent
        net.watch = lambda data, source, to: asked.update([to[0]]) if source == (node.ip, node.port) else None
        assert [r async for r in node.discovery.find_providers(repository_id(rng))] == []
        private = [ip for ip in asked if not ip.startswith(("20.", "99.9.9."))]
        assert private == []
        # Each is asked twice: once more when the first datagram may have been lost.
        assert 0 < sum(n for ip, n in asked.items() if ip.startswith("99.9.9.")) <= 2 * MAX_LOOKUP_PER_GROUP

    run_virtual(world())


def test_a_door_with_an_id_must_prove_it_and_without_one_tells_it() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        door = SimNode(net, 1, global_ip(1))
        wrong, right, bare = (SimNode(net, i, global_ip(i)) for i in (2, 3, 4))
        await wrong.discovery.join([(door.ip, door.port, bare.key.peer_id)])
        # The door may have made itself known by asking, but by no name except its own.
        assert bare.key.peer_id not in [c.peer for c in wrong.discovery.contacts()]
        assert wrong.discovery.counters["dropped_imposter"] > 0
        assert await wrong.discovery.join([(door.ip, door.port, wrong.key.peer_id)]) <= 1
        assert await right.discovery.join([(door.ip, door.port, door.key.peer_id)]) >= 1
        assert await bare.discovery.join([door.door]) >= 1
        assert door.key.peer_id in [c.peer for c in bare.discovery.contacts()]

    run_virtual(world())


def test_one_lost_datagram_is_sent_again() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        node, other = SimNode(net, 1, global_ip(1)), SimNode(net, 2, global_ip(2))
        lost: list[SimAddress] = []

        def first(source: SimAddress, to: SimAddress) -> bool:
            if source == (node.ip, node.port) and not lost:
                lost.append(to)
                return True
            return False

        net.cut = first
        assert await node.discovery.join([other.door]) == 1
        assert lost
        assert node.discovery.counters["retransmitted"] == 1

    run_virtual(world())


def test_find_peer_returns_the_newest_record() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        nodes = await joined(net, 12)
        assert await nodes[1].discovery.announce(nodes[1].peer_record(seq=1)) == 12
        newer = nodes[1].peer_record(seq=2)
        assert await nodes[1].discovery.announce(newer) == 12
        assert await nodes[7].discovery.find_peer(nodes[1].key.peer_id) == newer
        assert await nodes[7].discovery.find_peer(nodes[2].key.peer_id) is None
        assert node_key(nodes[1].key.peer_id) != repository_key(RepositoryId(nodes[1].key.public))

    run_virtual(world())


def test_records_that_a_liar_made_up_never_come_out() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        nodes = await joined(net, 4)
        repository = repository_id(random.Random(1))
        good = nodes[1].provider_record(repository)
        elsewhere = nodes[1].provider_record(repository_id(random.Random(2)), seq=5)
        expired = ProviderRecord.sign(nodes[1].key, repository, good.addresses, 9, 1)
        liar = RawPeer(net, global_ip(900), "liar")
        lies: list[Value] = [
            elsewhere.encoded,
            expired.encoded,
            good.encoded[:-1] + b"x",
            b"",
            nodes[1].peer_record().encoded,
        ]
        liar.answer = lambda method, _: "nil" if method == "ping" else [b"12345678", b"", b"", len(lies), lies]
        await nodes[2].discovery.join([liar.door])
        await nodes[1].discovery.provide(good)
        assert [r async for r in nodes[2].discovery.find_providers(repository)] == [good]

    run_virtual(world())


def test_joining_does_not_wait_for_the_silent() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        nodes = await joined(net, 6)
        gone = {(node.ip, node.port) for node in nodes[3:5]}
        net.cut = lambda source, destination: source in gone or destination in gone
        repository = repository_id(random.Random(1))
        record = nodes[1].provider_record(repository)
        await nodes[1].discovery.provide(record)
        client = SimNode(net, "client", global_ip(500), client_mode=True)
        clock = asyncio.get_running_loop().time
        begun = clock()
        assert await client.discovery.join([nodes[3].door, nodes[0].door]) == 4
        assert clock() - begun < GIVE_UP_SECONDS
        async with contextlib.aclosing(client.discovery.find_providers(repository)) as found:
            assert await anext(found) == record
        assert clock() - begun < GIVE_UP_SECONDS + 0.3

    run_virtual(world())


def test_joining_waits_for_doors_that_are_slow_where_none_is_quick() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5), latency=(0.3, 0.4))
        doors = [SimNode(net, index, global_ip(index)) for index in range(2)]
        client = SimNode(net, "client", global_ip(500), client_mode=True)
        assert await client.discovery.join([(global_ip(900), 9000, None), doors[0].door]) == 1

    run_virtual(world())


def test_a_node_that_knows_nobody_knocks_again() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        node = SimNode(net, 1, global_ip(1))
        assert await node.discovery.join([(global_ip(2), 9000, None)]) == 0
        late = SimNode(net, 2, global_ip(2))
        async with asyncio.TaskGroup() as tasks:
            upkeep = tasks.create_task(node.discovery.run())
            await asyncio.sleep(60)
            upkeep.cancel()
        assert [c.peer for c in node.discovery.contacts()] == [late.key.peer_id]

    run_virtual(world())


def test_upkeep_evicts_the_dead_and_forgets_the_expired() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        nodes = await joined(net, 8)
        short = nodes[1].provider_record(repository_id(random.Random(1)), life_ms=600_000)
        await nodes[1].discovery.provide(short)
        assert len(nodes[0].discovery.records()) == 1
        await nodes[7].discovery.close()
        interval = nodes[0].discovery.republish_interval()
        assert 1800 * 0.8 <= interval <= 6 * 3600 * 1.2
        async with asyncio.TaskGroup() as tasks:
            upkeep = tasks.create_task(nodes[0].discovery.run())
            await asyncio.sleep(3 * 3600)
            upkeep.cancel()
        assert nodes[7].ip not in [c.ip for c in nodes[0].discovery.contacts()]
        assert len(nodes[0].discovery.contacts()) == 6
        assert nodes[0].discovery.records() == []

    run_virtual(world())


def test_a_stranger_that_did_not_answer_is_left_alone_for_a_minute() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        node = SimNode(net, 1, global_ip(1))
        silent = RawPeer(net, global_ip(3), "silent")

        async def probes() -> int:
            silent.request(node, "ping", silent.node_key)
            await asyncio.sleep(3)
            return sum(data[:1] == b"\x00" for data, _ in silent.received)

        assert await probes() == 1
        assert await probes() == 1
        await asyncio.sleep(60)
        assert await probes() == 2

    run_virtual(world())


def test_a_true_answer_from_another_address_is_dropped() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5), latency=(0.1, 0.1))
        node = SimNode(net, 1, global_ip(1))
        asked = RawPeer(net, global_ip(2), "asked")
        elsewhere = RawPeer(net, global_ip(3), "elsewhere")

        def relay(data: bytes, source: SimAddress, _: SimAddress) -> None:
            if source == (node.ip, node.port) and data[:1] == b"\x00":
                body = canonical.encode([bytes(6), None])
                elsewhere.send(sign_answer(b"\x01" + data[1:21] + body, asked.key), node)

        net.watch = relay
        assert await node.discovery.join([(asked.ip, asked.port, asked.key.peer_id)]) == 0
        assert node.discovery.counters["dropped_unasked"] == 2

    run_virtual(world())


def test_private_contacts_are_not_told_to_the_world() -> None:
    async def world() -> None:
        net = SimNetwork(random.Random(5))
        node = SimNode(net, 1, "10.0.0.1")
        mates = [SimNode(net, 2, "10.0.0.2"), SimNode(net, 3, global_ip(3))]
        assert await node.discovery.join([mate.door for mate in mates]) == 2
        outside, inside = RawPeer(net, global_ip(4), "outside"), RawPeer(net, "10.0.0.9", "inside")
        told = []
        for asker in (outside, inside):
            asked = asker.request(node, "find_node", b"", bytes(20))
            await asyncio.sleep(1)
            match asker.answers(asked):
                case [[_, [_, bytes(v4), b""]]]:
                    told.append(sorted(c.ip for c in decode_contacts(v4, b"")))
        assert told == [[global_ip(3)], ["10.0.0.2", global_ip(3)]]

    run_virtual(world())
