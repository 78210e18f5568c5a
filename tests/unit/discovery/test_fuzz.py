"""Whatever arrives, nothing reaches the loop and the node still answers (faults 3 and 11)."""

import asyncio
import random

import msgpack

from guts.discovery.datagrams import open_answer, parse_request, sign_answer
from guts.errors import PeerFault
from tests.support.dht import RawPeer, SimNode, global_ip, joined, repository_id, request_bytes
from tests.support.sim_network import SimAddress, SimNetwork
from tests.support.virtual_time import run_virtual

MUTATIONS = 30_000
SEED = 11


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\x90"


def mutate(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed)) if rng.random() < 0.5 else rng.randrange(min(90, len(changed)))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randrange(1, 20)]
            case 2:
                changed[at:at] = rng.randbytes(rng.randrange(1, 20))
            case _:
                changed[at] ^= 1 << rng.randrange(8)
        if not changed:
            return b""
    return bytes(changed)


def test_mutated_datagrams_leave_a_node_in_working_order() -> None:
    print(f"seed {SEED}")

    async def world() -> None:
        rng = random.Random(SEED)
        net = SimNetwork(random.Random(SEED), latency=(0.001, 0.002))
        corpus: list[tuple[bytes, SimAddress]] = []
        net.watch = lambda data, source, _: corpus.append((data, source))
        nodes = await joined(net, 6)
        for node in nodes:
            await node.discovery.provide(node.provider_record(repository_id(rng)))
            await node.discovery.find_peer(node.key.peer_id)
        net.watch = None
        victim = nodes[0]
        receiver = victim.transport.receiver
        assert receiver is not None
        for index in range(MUTATIONS):
            data, source = rng.choice(corpus)
            # Many sources, so that the rate limiter lets the parser do its work.
            receiver.datagram_received(mutate(rng, data), (global_ip(rng.randrange(60_000)), source[1]))
            if index % 500 == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(10)
        for data in (b"", b"\0", b"\1", b"\2" * 400, b"\0" * 22, b"\0" * 1152, b"\xff" * 1152):
            receiver.datagram_received(data, ("99.0.0.1", 9000))
        for depth in (5, 300, 1000):
            receiver.datagram_received((b"\0" * 21 + nested(depth)).ljust(384, b"\0"), ("99.0.0.1", 9000))
        repository = repository_id(rng)
        assert await nodes[3].discovery.provide(nodes[3].provider_record(repository)) >= 6
        assert [r.peer async for r in victim.discovery.find_providers(repository)] == [nodes[3].key.peer_id]
        fresh = RawPeer(net, global_ip(61_000), "fresh")
        fresh.request(victim, "ping", b"")
        await asyncio.sleep(1)
        assert len(fresh.received) == 1

    run_virtual(world())


def test_mutated_answers_to_real_requests_break_nothing() -> None:
    print(f"seed {SEED}")

    async def world() -> None:
        rng = random.Random(SEED)
        net = SimNetwork(random.Random(SEED), latency=(0.001, 0.002))
        node = SimNode(net, 1, global_ip(1))
        liars = [RawPeer(net, global_ip(10 + i), f"liar {i}") for i in range(8)]

        def garbage(rng: random.Random, depth: int = 3) -> object:
            match rng.randrange(9 if depth else 6):
                case 0:
                    return rng.choice((0, 1, -1, 2**63, 2**64 - 1))
                case 1:
                    return rng.randbytes(rng.choice((0, 8, 20, 26, 38, 52, 99)))
                case 2:
                    return rng.choice(("", "x" * 17))
                case 3:
                    return rng.choice((None, True, 1.5, {}, {1: 2}))
                case 4:
                    return [rng.randbytes(8), rng.randbytes(52), b""]
                case 5:
                    return [rng.randbytes(8), b"", rng.randbytes(38), rng.randrange(70), [rng.randbytes(200)]]
                case _:
                    return [garbage(rng, depth - 1) for _ in range(rng.randrange(6))]

        class Garbler(RawPeer):
            def datagram_received(self, data: bytes, addr: SimAddress) -> None:
                body = msgpack.packb([bytes(6), garbage(rng)] if rng.random() < 0.9 else garbage(rng))
                if rng.random() < 0.1:
                    body = mutate(rng, body)
                answer = sign_answer(b"\x01" + data[1:21] + body[:1000], self.key)
                self.send(mutate(rng, answer) if rng.random() < 0.1 else answer, node)

        garblers = [Garbler(net, global_ip(100 + i), f"garbler {i}") for i in range(20)]
        for liar in liars:
            liar.answer = lambda method, _: "nil" if method == "ping" else [bytes(8), b"", b""]
        for _ in range(40):
            await node.discovery.join([peer.door for peer in (*liars, *garblers)])
            assert [r async for r in node.discovery.find_providers(repository_id(rng))] == []
            await node.discovery.provide(node.provider_record(repository_id(rng)))
        assert node.discovery.counters["nonsense"] > 50

    run_virtual(world())


def test_any_bytes_parse_or_are_a_peer_fault() -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    good = request_bytes(bytes(20), "get_records", bytes(20), bytes(20), 3, bytes(8))
    parsed = 0
    for _ in range(MUTATIONS):
        data = mutate(rng, good) if rng.random() < 0.9 else rng.randbytes(rng.randrange(1500))
        for parse in (parse_request, open_answer):
            try:
                parse(data)
            except PeerFault:
                continue
            parsed += 1
    assert parsed
