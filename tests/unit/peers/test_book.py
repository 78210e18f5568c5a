"""The address book: its bound, and who goes when it is full."""

import random
from collections import Counter
from typing import NoReturn

import pytest

from guts.addresses import Address
from guts.identity import SigningKey
from guts.ids import PeerId
from guts.peers import book as book_module
from guts.peers.book import MAX_ADDRESS_BOOK, MAX_ANCHORS, MAX_MISSES, AddressBook, StoredPeer
from guts.peers.claims import SLACK
from guts.peers.networks import Surroundings
from guts.peers.state import PeerConnection, PeerState
from guts.records import PeerRecord
from guts.wire.secure import Direction
from tests.support.peers import IDS, KEYS, WALL, inbound, repository

ME = IDS[0]


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def where(number: int) -> Address:
    return Address(f"45.{number // 250}.{number % 250}.1", 9000)


def book(*stored: StoredPeer, own: tuple[str, ...] = ()) -> AddressBook:
    return AddressBook(ME, stored, Surroundings(own))


def record(key: SigningKey, *addresses: Address, seq: int = 1) -> PeerRecord:
    return PeerRecord.sign(key, addresses, ("seed",), seq, WALL + 3_600_000)


def connected(full: AddressBook, state: PeerState) -> None:
    event = inbound(1, 1)
    state.connection = PeerConnection(event.connection, Direction.INBOUND, state.id, event.address, None, 0.0, 0.0)
    full.changed(state)


def keys(count: int) -> list[SigningKey]:
    return [SigningKey(number.to_bytes(32, "little")) for number in range(1, count + 1)]


def test_thousand_are_remembered_and_not_one_more() -> None:
    full = book(*[StoredPeer(peer(n), (where(n),), n) for n in range(1, MAX_ADDRESS_BOOK + 2)])
    assert len(full.peers) == MAX_ADDRESS_BOOK
    assert peer(1) not in full.peers, "seen the longest ago"
    full.state(peer(5000))
    assert len(full.peers) == MAX_ADDRESS_BOOK
    assert peer(2) not in full.peers


def test_connected_peers_are_never_forgotten_and_trimmed_when_they_are_gone() -> None:
    full = book()
    for number in range(MAX_ADDRESS_BOOK + 5):
        connected(full, full.state(peer(number)))
    assert len(full.peers) == MAX_ADDRESS_BOOK + 5
    for state in list(full.peers.values())[:50]:
        state.connection = None
        full.changed(state)
    full.trim()
    assert len(full.peers) == MAX_ADDRESS_BOOK


def test_claims_push_out_claims_of_whoever_made_the_most_and_no_peer_that_was_reached() -> None:
    full = book(*[StoredPeer(peer(n), (where(n),), n, reached=True) for n in range(500)])
    for number, key in enumerate(keys(50)):
        full.claim(record(key, where(number)), f"46.{number}.0.1")
    for number, key in enumerate(keys(1600)[50:]):
        full.claim(record(key, where(number % 250)), "66.6.6.6")
    assert len(full.peers) == MAX_ADDRESS_BOOK
    assert sum(state.reached for state in full.peers.values()) == 500
    sources = Counter(state.source for state in full.peers.values() if not state.reached)
    assert sources.pop("66.6.6.0/24") == 450
    assert sorted(sources.values()) == [1] * 50


def test_book_full_of_peers_that_were_reached_takes_no_claim_and_keeps_many_networks() -> None:
    rows = [
        StoredPeer(peer(n), (Address(f"45.0.0.{n % 250}", 9000),), n, reached=True) for n in range(MAX_ADDRESS_BOOK)
    ]
    full = book(*rows[:-1], StoredPeer(peer(9999), (where(777),), 0, reached=True))
    full.claim(record(keys(1)[0], where(1)), "46.0.0.1")
    assert len(full.peers) == MAX_ADDRESS_BOOK
    state = full.state(peer(5000))
    state.reached = True
    full.changed(state)
    assert len(full.peers) == MAX_ADDRESS_BOOK + 1
    full.trim()
    assert len(full.peers) == MAX_ADDRESS_BOOK
    assert peer(9999) in full.peers, "it is alone in its network, though it was seen the longest ago"


def test_most_recently_reached_are_the_anchors() -> None:
    rows = [StoredPeer(peer(n), (where(n),), n, reached=True, last_good=n) for n in range(1, 9)]
    assert book(*rows, StoredPeer(peer(99), (where(99),), 99)).anchors == [peer(8), peer(7)]
    assert len(book(*rows).anchors) == MAX_ANCHORS
    assert book(StoredPeer(peer(1), (where(1),), 1)).anchors == []


def test_more_were_stored_than_fit_then_all_networks_have_one() -> None:
    crowd = [StoredPeer(peer(n), (Address(f"45.0.0.{n % 250}", 9000),), WALL, reached=True) for n in range(2000)]
    few = [StoredPeer(peer(5000 + n), (where(500 + n),), 1, reached=True) for n in range(100)]
    full = book(*crowd, *few)
    assert len(full.peers) == MAX_ADDRESS_BOOK
    assert all(row.peer in full.peers for row in few)


def test_claim_is_taken_where_it_is_news_of_another_that_can_be_dialled_here() -> None:
    mine = book()
    mine.claim(record(KEYS[0], where(1)), "46.0.0.1")
    mine.claim(record(KEYS[1], Address("127.0.0.1", 9000)), "46.0.0.1")
    mine.claim(record(KEYS[2], where(2), seq=5), "46.0.0.1")
    assert list(mine.peers) == [IDS[2]]
    state = mine.peers[IDS[2]]
    assert (state.addresses, state.reached, state.source, state.record_seq) == ((where(2),), False, "46.0.0.0/24", 5)
    mine.claim(record(KEYS[2], where(3), seq=4), "46.0.0.1")
    assert [*state.addresses] == [where(2)], "older"
    mine.claim(record(KEYS[2], where(3), seq=6), "46.0.0.1")
    assert [*state.addresses] == [where(3)]
    state.good = where(2)
    mine.claim(record(KEYS[2], where(4), seq=7), "46.0.0.1")
    assert [*state.addresses] == [where(2), where(4)], "where it was reached stays the best"
    connected(mine, state)
    mine.claim(record(KEYS[2], where(5), seq=8), "46.0.0.1")
    assert [*state.addresses] == [where(2), where(4)], "who is connected speaks for itself"


def test_claim_that_comes_to_nothing_three_times_is_forgotten_and_others_not() -> None:
    mine = book(StoredPeer(peer(1), (where(1),), 1, reached=True))
    claimed, holder = mine.state(peer(2)), mine.state(peer(3))
    holder.holds(repository(1))
    for _ in range(MAX_MISSES - 1):
        mine.missed(claimed)
    assert peer(2) in mine.peers
    for state in (claimed, holder, *[mine.peers[peer(1)]] * MAX_MISSES, holder, holder):
        mine.missed(state)
    assert set(mine.peers) == {peer(1), peer(3)}


# --- the choice is cheap --------------------------------------------------------------------------------------


def goes_first(full: AddressBook) -> PeerState | None:
    """Return which claim goes first, by looking at all of them."""
    claims = [state for state in full.peers.values() if state.connection is None and not state.reached]
    made = Counter(state.source for state in claims)
    return min(claims, key=lambda state: (-made[state.source], state.last_seen), default=None)


@pytest.mark.parametrize("seed", range(5))
def test_c1_claim_that_goes_first_is_the_one_that_a_look_at_all_would_find(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    monkeypatch.setattr(book_module, "MAX_ADDRESS_BOOK", 30)
    rng = random.Random(seed)
    full = book(*[StoredPeer(peer(n), (where(n),), rng.randrange(9), reached=n % 4 == 0) for n in range(1, 25)])
    for step in range(2000):
        assert full._least_use() is goes_first(full)
        state = rng.choice(list(full.peers.values()))
        match rng.randrange(6):
            case 0 | 1 | 2:
                full.state(peer(1000 + step), rng.choice("aaabbcdefgh"))
            case 3:
                state.connection = None
                state.last_seen = rng.randrange(9)
                full.changed(state)
            case 4:
                connected(full, state)
                full.trim()
            case _:
                full.missed(state)
        if rng.randrange(100) == 0:
            state.reached = True
            full.changed(state)


class Watched(dict[PeerId, PeerState]):
    """Peers that nobody may look at one after the other."""

    def values(self) -> NoReturn:
        raise AssertionError("all peers are looked at")


def test_c1_claims_are_taken_without_a_look_at_all_peers_and_what_is_kept_of_them_is_bounded() -> None:
    full = book(*[StoredPeer(peer(n), (where(n),), n) for n in range(MAX_ADDRESS_BOOK)])
    full.peers = Watched(full.peers)
    signed = [record(key, where(number % 250)) for number, key in enumerate(keys(500))]
    for number, each in enumerate(signed):
        full.claim(each, f"66.{number % 200}.6.6")
    last = full.peers[signed[-1].peer]
    for _ in range(5000):
        connected(full, last)
        last.connection = None
        full.changed(last)
    assert len(full.peers) == MAX_ADDRESS_BOOK
    claims = full._claims
    assert len(claims._ranking) <= 2 * len(claims._sources) + SLACK
    assert sum(len(source.heap) for source in claims._sources.values()) <= 2 * MAX_ADDRESS_BOOK + SLACK * 201
