"""Peers, addresses, scores, the ledger and bans."""

from dataclasses import replace

from guts.addresses import Address
from guts.ids import PeerId
from guts.store import peers, scores
from guts.store.database import Database
from guts.store.peers import KEPT_ADDRESSES, GoodAddress, StoredPeer
from guts.store.scores import KEPT_CHANGES, Ban, ScoreChange, StoredScore

HOME = Address("192.0.2.1", 9000)
AWAY = Address("2001:db8::1", 9001)
MOVED = Address("198.51.100.7", 9000)


def peer_id(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def peer(number: int, *addresses: Address, last_seen: int = 5, record: bytes | None = None) -> StoredPeer:
    return StoredPeer(peer_id(number), last_seen, ("seed", "bootstrap"), addresses, record)


async def test_peer_is_read_back_most_recent_first(database: Database) -> None:
    old, young = peer(1, HOME, last_seen=1), peer(2, last_seen=2, record=b"signed")
    await database.write(peers.save_peer, old)
    await database.write(peers.save_peer, young)
    assert await database.read(peers.load_peers) == [young, old]
    assert await database.read(peers.load_peers, 1) == [young]


async def test_saving_again_replaces_the_peer_but_keeps_addresses_that_worked(database: Database) -> None:
    await database.write(peers.save_peer, peer(1, HOME, AWAY))
    await database.write(peers.mark_good, peer_id(1), HOME, 100)
    await database.write(peers.mark_failed, peer_id(1), HOME)

    await database.write(peers.save_peer, peer(1, MOVED, last_seen=300, record=b"newer"))
    assert await database.read(peers.load_peers) == [
        replace(peer(1, HOME, MOVED, last_seen=300, record=b"newer"), reached=True)
    ]
    assert await database.read(peers.load_good_addresses, 10) == [GoodAddress(peer_id(1), HOME, 100, 1)]


async def test_address_that_worked_is_kept_though_the_peer_never_named_it(database: Database) -> None:
    await database.write(peers.save_peer, peer(1, HOME))
    await database.write(peers.mark_good, peer_id(1), AWAY, 100)
    assert await database.read(peers.load_good_addresses, 10) == [GoodAddress(peer_id(1), AWAY, 100, 0)]


async def test_addresses_past_the_limit_go_those_that_worked_last_stay(database: Database) -> None:
    await database.write(peers.save_peer, peer(2, HOME))
    await database.write(peers.save_peer, peer(1, HOME))
    for number in range(KEPT_ADDRESSES - 1):
        await database.write(peers.mark_good, peer_id(1), Address("192.0.2.2", 9_000 + number), 100 + number)
    stored = {p.id: p.addresses for p in await database.read(peers.load_peers)}
    assert len(stored[peer_id(1)]) == KEPT_ADDRESSES
    assert stored[peer_id(1)][-1] == HOME

    await database.write(peers.mark_good, peer_id(1), AWAY, 999)
    stored = {p.id: p.addresses for p in await database.read(peers.load_peers)}
    assert len(stored[peer_id(1)]) == KEPT_ADDRESSES
    assert stored[peer_id(1)][0] == AWAY
    assert HOME not in stored[peer_id(1)]
    assert stored[peer_id(2)] == (HOME,)


async def test_addresses_that_worked_last_come_first(database: Database) -> None:
    await database.write(peers.save_peer, peer(1, HOME, AWAY))
    await database.write(peers.save_peer, peer(2, MOVED))
    await database.write(peers.mark_good, peer_id(1), AWAY, 100)
    await database.write(peers.mark_good, peer_id(2), MOVED, 200)
    good = await database.read(peers.load_good_addresses, 10)
    assert [(g.address, g.last_good) for g in good] == [(MOVED, 200), (AWAY, 100)]
    assert len(await database.read(peers.load_good_addresses, 1)) == 1
    loaded = await database.read(peers.load_peers)
    assert {p.id: p.addresses for p in loaded}[peer_id(1)] == (AWAY, HOME)


async def test_failures_count_until_the_address_works_again(database: Database) -> None:
    await database.write(peers.save_peer, peer(1, HOME))
    await database.write(peers.mark_good, peer_id(1), HOME, 1)
    for _ in range(3):
        await database.write(peers.mark_failed, peer_id(1), HOME)
    assert (await database.read(peers.load_good_addresses, 1))[0].failures == 3
    await database.write(peers.mark_good, peer_id(1), HOME, 2)
    assert (await database.read(peers.load_good_addresses, 1))[0].failures == 0


async def test_pruning_keeps_the_most_recently_seen(database: Database) -> None:
    for number in range(5):
        await database.write(peers.save_peer, peer(number, HOME, last_seen=number))
    assert await database.write(peers.prune_peers, 5) == 0
    assert await database.write(peers.prune_peers, 4) == 1
    assert [p.last_seen for p in await database.read(peers.load_peers)] == [4, 3, 2, 1]


async def test_peer_that_was_reached_outlives_any_number_that_only_came(database: Database) -> None:
    for number in range(5):
        await database.write(peers.save_peer, peer(number, HOME, last_seen=number))
    await database.write(peers.mark_good, peer_id(0), HOME, 1)
    assert await database.write(peers.prune_peers, 3) == 2
    assert [p.last_seen for p in await database.read(peers.load_peers)] == [0, 4, 3]
    assert [p.reached for p in await database.read(peers.load_peers)] == [True, False, False]


async def test_bans_are_kept_up_to_a_number_and_the_newest_stay(database: Database) -> None:
    for number in range(4):
        await database.write(scores.save_score, StoredScore(peer_id(number), 100, number, banned_until=1_000))
    assert await database.write(scores.prune_scores, 500, 0, 4) == 0
    assert await database.write(scores.prune_scores, 500, 0, 3) == 1
    assert [s.peer for s in await database.read(scores.load_scores)] == [peer_id(n) for n in (1, 2, 3)]


async def test_score_and_ledger_are_read_back(database: Database) -> None:
    first = StoredScore(peer_id(1), 5.0, 100)
    second = StoredScore(peer_id(1), 29.75, 200)
    await database.write(scores.save_score, first, ScoreChange(100, 5.0, "MINOR_THING"))
    await database.write(scores.save_score, second, ScoreChange(200, 25.0, "SERIOUS_THING"))
    assert await database.read(scores.load_scores) == [second]
    assert await database.read(scores.load_ledger, peer_id(1)) == [
        ScoreChange(100, 5.0, "MINOR_THING"),
        ScoreChange(200, 25.0, "SERIOUS_THING"),
    ]
    assert await database.read(scores.load_ledger, peer_id(2)) == []


async def test_ledger_keeps_the_newest_changes_of_each_peer(database: Database) -> None:
    await database.write(scores.save_score, StoredScore(peer_id(2), 1, 1), ScoreChange(1, 1, "OTHER"))
    for at in range(KEPT_CHANGES):
        await database.write(scores.save_score, StoredScore(peer_id(1), 1, at), ScoreChange(at, 1, "X"))
    assert len(await database.read(scores.load_ledger, peer_id(1))) == KEPT_CHANGES
    await database.write(scores.save_score, StoredScore(peer_id(1), 1, 999), ScoreChange(999, 1, "X"))
    kept = await database.read(scores.load_ledger, peer_id(1))
    assert [change.at for change in kept] == [*range(1, KEPT_CHANGES), 999]
    assert len(await database.read(scores.load_ledger, peer_id(2))) == 1


async def test_ban_is_in_force_until_its_end_and_survives_the_peers_row(database: Database) -> None:
    await database.write(peers.save_peer, peer(1))
    await database.write(scores.save_score, StoredScore(peer_id(1), 100, 0, banned_until=1_000))
    await database.write(peers.prune_peers, 0)
    assert await database.read(scores.load_bans, 999) == [Ban(peer_id(1), 1)]
    assert await database.read(scores.load_bans, 1_000) == []


async def test_pruning_scores_never_lifts_a_ban(database: Database) -> None:
    await database.write(
        scores.save_score, StoredScore(peer_id(0), 100, 0, banned_until=1_000), ScoreChange(0, 100, "BAD")
    )
    for number in range(1, 5):
        await database.write(scores.save_score, StoredScore(peer_id(number), 1, number))
    assert await database.write(scores.prune_scores, 500, 4) == 0
    assert await database.write(scores.prune_scores, 500, 3) == 1
    assert [s.peer for s in await database.read(scores.load_scores)] == [peer_id(n) for n in (0, 2, 3, 4)]
    assert await database.write(scores.prune_scores, 1_000, 3) == 1
    assert await database.read(scores.load_ledger, peer_id(0)) == []
