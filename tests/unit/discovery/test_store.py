import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guts.addresses import Address
from guts.clock import Now
from guts.discovery.contact import AddressPolicy
from guts.discovery.keys import Key, node_key, repository_key
from guts.discovery.store import (
    NEWCOMER_PLACES,
    STALE_SECONDS,
    PutStatus,
    RecordStore,
    StoredRecord,
    record_key,
    verify_record,
)
from guts.errors import PeerFault
from guts.identity import SigningKey
from guts.ids import RepositoryId
from guts.records import MAX_RECORD_LIFE_MS, RECORD_LIFE_MS, PeerRecord, ProviderRecord
from tests.support.dht import global_ip

START = 1_800_000_000_000
REPOSITORY = RepositoryId(b"r" * 32)
KEY = repository_key(REPOSITORY)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> Now:
        return Now(self.seconds, START + int(self.seconds * 1000))


def new_store(clock: Clock | None = None, salt: bytes = b"s" * 16) -> RecordStore:
    return RecordStore(clock or Clock(), salt, AddressPolicy(lambda _: "10.0.0.1"))


def record(
    publisher: int, *, repository: RepositoryId = REPOSITORY, seq: int = 1, life_ms: int = RECORD_LIFE_MS
) -> ProviderRecord:
    key = SigningKey(publisher.to_bytes(32, "big"))
    return ProviderRecord.sign(key, repository, (Address("20.0.0.1", 9000),), seq, START + life_ms)


def peers(store: RecordStore, key: Key = KEY) -> set[bytes]:
    return {r.peer for r in store.records(key)}


def test_newest_seq_wins_and_the_old_one_is_refused() -> None:
    store = new_store()
    assert store.put(record(1, seq=5), "20.0.0.1") is PutStatus.STORED
    assert store.put(record(1, seq=4), "20.0.0.1") is PutStatus.OUTDATED
    assert store.put(record(1, seq=5), "20.0.0.1") is PutStatus.STORED
    assert store.put(record(1, seq=5, life_ms=RECORD_LIFE_MS + 1), "20.0.0.1") is PutStatus.OUTDATED
    assert store.put(record(1, seq=6), "20.0.0.1") is PutStatus.STORED
    assert store.records(KEY) == [record(1, seq=6)]
    assert len(store) == 1


def test_64_records_per_key_and_not_65() -> None:
    # Salt and publishers are fixed, so that the 65th is one whom the salt does not favour.
    store = new_store()
    ranked = sorted(range(1, 66), key=lambda i: store._favour(record(i).peer))
    for index, publisher in enumerate(ranked):
        status = store.put(record(publisher), global_ip(index))
        assert status is (PutStatus.STORED if index < 64 else PutStatus.FULL)
    assert len(store) == 64


def test_8_records_per_key_and_network_and_not_9() -> None:
    store = new_store()
    for publisher in range(1, 10):
        status = store.put(record(publisher), f"20.0.0.{publisher}")
        assert status is (PutStatus.STORED if publisher <= 8 else PutStatus.FULL)
    assert store.put(record(10), "20.0.1.1") is PutStatus.STORED
    six = new_store()
    for publisher in range(1, 10):
        status = six.put(record(publisher), f"2a00:1:2:{publisher}::1")
        assert status is (PutStatus.STORED if publisher <= 8 else PutStatus.FULL)


def test_a_publisher_can_not_move_into_a_crowded_network() -> None:
    store = new_store()
    for publisher in range(1, 9):
        store.put(record(publisher), f"20.0.0.{publisher}")
    store.put(record(9), "20.0.1.1")
    assert store.put(record(9, seq=2), "20.0.0.9") is PutStatus.FULL
    assert store.put(record(8, seq=2), "20.0.0.9") is PutStatus.STORED
    assert store.put(record(9, seq=2), "20.0.1.9") is PutStatus.STORED


def test_networks_do_not_count_inside_the_own_private_range() -> None:
    store = new_store()
    for publisher in range(1, 31):
        assert store.put(record(publisher), "10.0.0.9") is PutStatus.STORED


def test_so_many_in_all_and_then_only_what_is_nearer() -> None:
    # The limit is one number; 50 of them take the same path in less time.
    store = RecordStore(Clock(), b"s" * 16, AddressPolicy(lambda _: "10.0.0.1"), max_records=50)
    own = Key(b"\x55" * 20)
    store.centre(own)
    rng = random.Random(1)
    repositories = [RepositoryId(rng.randbytes(32)) for _ in range(52)]
    repositories.sort(key=lambda r: own.distance(repository_key(r)))
    for index, repository in enumerate(repositories[1:51]):
        assert store.put(record(1, repository=repository), global_ip(index)) is PutStatus.STORED
    assert store.put(record(1, repository=repositories[51]), global_ip(60)) is PutStatus.FULL
    assert store.put(record(1, repository=repositories[0]), global_ip(61)) is PutStatus.STORED
    assert len(store) == 50
    assert store.get(repository_key(repositories[50])) is None


def test_who_renews_stays_and_who_is_stale_gives_way() -> None:
    clock = Clock()
    store = new_store(clock)
    ranked = sorted(range(1, 67), key=lambda i: store._favour(record(i).peer))
    for index, publisher in enumerate(ranked[:64]):
        store.put(record(publisher), global_ip(index))
    clock.seconds = STALE_SECONDS / 2
    for index, publisher in enumerate(ranked[1:64], start=1):
        assert store.put(record(publisher, seq=2), global_ip(index)) is PutStatus.STORED
    clock.seconds = STALE_SECONDS + 1
    assert store.put(record(ranked[64]), global_ip(64)) is PutStatus.STORED
    assert store.put(record(ranked[65]), global_ip(65)) is PutStatus.FULL
    assert record(ranked[0]).peer not in peers(store)


def test_a_crowd_that_came_first_keeps_three_quarters_and_no_more() -> None:
    store = new_store()
    crowd = set()
    for publisher in range(1, 65):
        store.put(record(publisher), global_ip(publisher))
        crowd.add(record(publisher).peer)
    for publisher in range(65, 465):
        store.put(record(publisher), global_ip(publisher))
    held = peers(store)
    assert len(held) == 64
    assert 64 - NEWCOMER_PLACES <= len(held & crowd) < 64 - NEWCOMER_PLACES // 2


def test_holders_favour_different_newcomers() -> None:
    held = []
    for salt in (b"a" * 16, b"b" * 16):
        store = new_store(salt=salt)
        for publisher in range(1, 265):
            store.put(record(publisher), global_ip(publisher))
        held.append(peers(store))
    assert held[0] != held[1]


def test_expired_records_are_neither_taken_nor_returned_nor_kept() -> None:
    clock = Clock()
    store = new_store(clock)
    assert store.put(record(1, life_ms=0), "20.0.0.1") is PutStatus.INVALID
    assert store.put(record(1, life_ms=MAX_RECORD_LIFE_MS + 1), "20.0.0.1") is PutStatus.INVALID
    assert store.put(record(1, life_ms=MAX_RECORD_LIFE_MS), "20.0.0.1") is PutStatus.STORED
    assert store.put(record(2, life_ms=10_000), "20.0.0.1") is PutStatus.STORED
    clock.seconds = 9.999
    assert len(store.records(KEY)) == 2
    clock.seconds = 10.0
    assert store.records(KEY) == [record(1, life_ms=MAX_RECORD_LIFE_MS)]
    assert len(store) == 2
    store.sweep()
    assert len(store) == 1


def test_restores_what_it_stored_and_drops_what_has_expired_since() -> None:
    clock = Clock()
    store = new_store(clock)
    store.put(record(1), "20.0.0.1")
    store.put(record(2, life_ms=1000))
    saved = store.stored()
    clock.seconds = 2.0
    again = new_store(clock)
    assert again.restore(saved) == 1
    assert again.stored() == [StoredRecord(record(1), "20.0.0.1")]


def test_the_packages_interface_checks_too() -> None:
    store = new_store()
    forged = record(1).encoded[:-1] + bytes([record(1).encoded[-1] ^ 1])
    bad = ProviderRecord(REPOSITORY, record(1).peer, (), 1, record(1).expires, forged)
    with pytest.raises(PeerFault):
        store[KEY] = bad
    with pytest.raises(KeyError):
        store[Key(bytes(20))] = record(1)
    store[KEY] = record(1)
    assert store[KEY] == [record(1)]
    assert list(store) == [(KEY, record(1))]
    assert list(store.iter_older_than(0)) == [(KEY, record(1))]
    assert list(store.iter_older_than(1)) == []
    with pytest.raises(KeyError):
        store[bytes(20)]
    with pytest.raises(KeyError):
        store[KEY] = record(1, seq=0)


def test_a_record_has_one_key() -> None:
    key = SigningKey(b"k" * 32)
    peer = PeerRecord.sign(key, (), (), 1, START + 1000)
    assert record_key(peer) == node_key(key.peer_id)
    assert record_key(record(1)) == KEY
    assert verify_record(0, peer.encoded, START) == peer
    assert verify_record(1, record(1).encoded, START) == record(1)
    with pytest.raises(PeerFault):
        verify_record(1, peer.encoded, START)


PUTS = st.lists(
    st.tuples(st.integers(1, 90), st.integers(0, 3), st.integers(0, 12), st.integers(0, 4), st.integers(0, 9000)),
    max_size=200,
)
RECORDS = {
    (publisher, repository, seq): record(publisher, repository=RepositoryId(bytes([repository]) * 32), seq=seq)
    for publisher in range(1, 91)
    for repository in range(2)
    for seq in range(2)
}


@settings(max_examples=40, deadline=None)
@given(PUTS)
def test_quotas_hold_whatever_is_put(puts: list[tuple[int, int, int, int, int]]) -> None:
    clock = Clock()
    store = new_store(clock)
    sources: dict[bytes, str] = {}
    for publisher, repository, network, seq, pause in puts:
        clock.seconds += pause
        item = RECORDS[publisher, repository % 2, seq % 2]
        source = f"20.0.{network}.1"
        if store.put(item, source) is PutStatus.STORED:
            sources[item.peer + item.repository] = source
    stored = store.stored()
    assert len(store) == len(stored)
    for repository in range(2):
        records = store.records(repository_key(RepositoryId(bytes([repository]) * 32)))
        assert len(records) <= 64
        assert all(r.expires > clock().wall for r in records)
    by_network: dict[tuple[Key, str], int] = {}
    for item_stored in stored:
        place = (record_key(item_stored.record), item_stored.source)
        by_network[place] = by_network.get(place, 0) + 1
    assert all(count <= 8 for count in by_network.values())
