"""What many identities of one attacker can push out of a node, or make it keep."""

import functools
import random
import time

import pytest

from guts.addresses import Address
from guts.clock import Now
from guts.effects import KeptScore
from guts.ids import PeerId
from guts.node import persistence
from guts.peers.book import MAX_ADDRESS_BOOK, StoredPeer
from guts.peers.greeting import Self
from guts.peers.manager import Limits, PeerManager
from guts.peers.score import MAX_TRACKED, Scores
from guts.store import peers as peer_table
from tests.support.bad_peer import intruder
from tests.support.nodes import World

ME = PeerId(b"\xff" * 32)
HONEST = PeerId(bytes(32))
WALL = 1_790_000_000_000


def stranger(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def book(*stored: StoredPeer) -> PeerManager:
    me = Self(ME, "guts/1", (), bytes(8))
    return PeerManager(me, b"", Limits(50, 30.0), Scores([], Now(0.0, WALL)), stored, (), random.Random(1))


def test_strangers_push_nobody_out_of_the_address_book_who_was_reached() -> None:
    honest = StoredPeer(HONEST, (Address("192.0.2.1", 9000),), 1, reached=True)
    manager = book(honest, *[StoredPeer(stranger(n), (), n) for n in range(2, MAX_ADDRESS_BOOK + 2)])
    for number in range(2 * MAX_ADDRESS_BOOK):
        manager.state(stranger(10_000 + number)).last_seen = WALL + number
    assert len(manager.peers) == MAX_ADDRESS_BOOK
    assert HONEST in manager.peers
    (first, *_) = manager.tick(Now(0.0, WALL))
    assert "192.0.2.1" in str(first)


def test_node_with_50_000_stored_bans_starts_at_once() -> None:
    rows = [KeptScore(stranger(n), 100.0, 0, 60_000, banned=True) for n in range(50_000)]
    begun = time.process_time()
    scores = Scores(rows, Now(0.0, WALL))
    assert time.process_time() - begun < 5.0
    assert sum(scores.banned(row.peer, 0.0) for row in rows) == MAX_TRACKED


async def test_database_forgets_identities_past_its_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await world.node("node")
    prune = functools.partial(peer_table.prune_peers, keep=2)
    monkeypatch.setattr(peer_table, "prune_peers", prune)
    monkeypatch.setattr(persistence, "PRUNE_EVERY", 4)
    for _ in range(5):
        async with intruder(node):
            pass
    await node.node.control._persistence.drain()
    assert len(await node.node.repositories.database.read(peer_table.load_peers)) == 2
