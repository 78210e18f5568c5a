"""Peers, addresses, scores, the ledger and bans."""

from dataclasses import replace

from guts.addresses import Address
from guts.ids import PeerId
from guts.store import peers, scores
from guts.store.database import Database
from guts.store.peers import KEPT_ADDRESSES, GoodAddress, StoredPeer
from guts.store.scores import KEPT_CHANGES, RunningTime, ScoreChange, StoredBan, StoredScore

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
        await database.write(
            scores.save_score, StoredScore(peer_id(number), 100, number, barred_until=1_000, banned=True)
        )
    assert await database.write(scores.prune_scores, 500, 0, 4) == 0
    assert await database.write(scores.prune_scores, 500, 0, 3) == 1
    assert [s.peer for s in await database.read(scores.load_scores)] == [peer_id(n) for n in (1, 2, 3)]


async def test_score_and_ledger_are_read_back(database: Database) -> None:
    first = StoredScore(peer_id(1), 5.0, 100)
    second = StoredScore(peer_id(1), 48.75, 200, 30_000, 630_000, False, 1, 2, 900_000)
    changes = [ScoreChange(100, 7, 5.0, 5.0, "MINOR_THING"), ScoreChange(200, 9, 25.0, 29.75, "SERIOUS_THING", 600_000)]
    await database.write(scores.save_score, first, changes[0])
    await database.write(scores.save_score, second, changes[1])
    assert await database.read(scores.load_scores) == [second]
    assert await database.read(scores.load_ledger, peer_id(1)) == changes
    assert await database.read(scores.load_ledger, peer_id(2)) == []


async def test_ledger_keeps_the_newest_changes_of_each_peer(database: Database) -> None:
    await database.write(scores.save_score, StoredScore(peer_id(2), 1, 1), ScoreChange(1, 1, 1, 1, "OTHER"))
    for at in range(KEPT_CHANGES):
        await database.write(scores.save_score, StoredScore(peer_id(1), 1, at), ScoreChange(at, at, 1, 1, "X"))
    assert len(await database.read(scores.load_ledger, peer_id(1))) == KEPT_CHANGES
    await database.write(scores.save_score, StoredScore(peer_id(1), 1, 999), ScoreChange(999, 999, 1, 1, "X"))
    kept = await database.read(scores.load_ledger, peer_id(1))
    assert [change.at for change in kept] == [*range(1, KEPT_CHANGES), 999]
    assert len(await database.read(scores.load_ledger, peer_id(2))) == 1


async def test_score_survives_the_peers_row(database: Database) -> None:
    banned = StoredScore(peer_id(1), 100, 0, barred_until=1_000, banned=True)
    await database.write(peers.save_peer, peer(1))
    await database.write(scores.save_score, banned)
    await database.write(peers.prune_peers, 0)
    assert await database.read(scores.load_scores) == [banned]


async def test_bans_of_the_operator_are_kept_replaced_and_forgotten(database: Database) -> None:
    network, key = StoredBan("192.0.2.0/24", None, 5, "spam"), StoredBan(str(peer_id(1)), 1_000, 6, "")
    for ban in (key, network, StoredBan(key.subject, 9, 9, "first")):
        await database.write(scores.save_ban, ban)
    await database.write(scores.save_ban, key)
    assert await database.read(scores.load_bans) == [network, key]
    await database.write(scores.delete_ban, network.subject)
    await database.write(scores.delete_ban, "never banned")
    assert await database.read(scores.load_bans) == [key]


async def test_running_time_starts_at_nothing_and_is_kept(database: Database) -> None:
    assert await database.read(scores.load_running_time) == RunningTime(0, "", 0)
    await database.write(scores.save_running_time, RunningTime(1, "a", 2))
    await database.write(scores.save_running_time, RunningTime(1 << 40, "b", 3))
    assert await database.read(scores.load_running_time) == RunningTime(1 << 40, "b", 3)


async def test_pruning_scores_never_lifts_a_ban(database: Database) -> None:
    await database.write(
        scores.save_score,
        StoredScore(peer_id(0), 100, 0, barred_until=1_000, banned=True),
        ScoreChange(0, 0, 100, 100, "BAD"),
    )
    for number in range(1, 5):
        await database.write(scores.save_score, StoredScore(peer_id(number), 1, number))
    assert await database.write(scores.prune_scores, 500, 4) == 0
    assert await database.write(scores.prune_scores, 500, 3) == 1
    assert [s.peer for s in await database.read(scores.load_scores)] == [peer_id(n) for n in (0, 2, 3, 4)]
    assert await database.write(scores.prune_scores, 1_000, 3) == 1
    assert await database.read(scores.load_ledger, peer_id(0)) == []
