"""Whom to dial and when: doors, last-good addresses, claims, holders; who hangs up at once is dialled less and less."""

import math
import random
from collections import Counter

from guts.addresses import Address, BootstrapAddress
from guts.effects import Dial
from guts.ids import PeerId
from guts.peers.backoff import MAX_DELAY
from guts.peers.book import AddressBook, StoredPeer
from guts.peers.dialling import (
    DOOR_SPREAD,
    MAX_CLAIMED_DIALS,
    MAX_CLAIMED_PER_PLACE,
    MAX_DIALS,
    MAX_RACED,
    MAX_UNANSWERED,
    MAX_WAITING_CLAIMS,
    RESTART_WINDOW,
    STABLE_AFTER,
    Around,
    Dialling,
    Purpose,
)
from guts.peers.networks import Surroundings
from guts.peers.state import PeerState
from tests.support.peers import IDS, WALL, address, repository, target

ME = 11
R = repository(1)


class Longest(random.Random):
    """Always draws the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


def where(number: int) -> Address:
    """Return an address in a network of its own."""
    return Address(f"45.{number}.0.1", 9000)


def stored(number: int, *, reached: bool = True, last_good: int = 0) -> StoredPeer:
    return StoredPeer(IDS[number], (where(number),), WALL - number, reached, last_good)


def dialling(*doors: BootstrapAddress, known: tuple[StoredPeer, ...] = ()) -> tuple[Dialling, AddressBook]:
    surroundings = Surroundings()
    book = AddressBook(IDS[ME], known, surroundings)
    return Dialling(doors, book, surroundings, Longest()), book


def around(
    *connected: int,
    scarce: tuple[int, ...] = (),
    lonely: bool = True,
    refused: tuple[PeerId, ...] = (),
    shut: tuple[str, ...] = (),
) -> Around:
    return Around(
        {IDS[n] for n in connected},
        set(),
        Counter(),
        lambda p: p in refused,
        lambda _, address: address.ip in shut,
        {repository(n) for n in scarce},
        lonely,
    )


def due(d: Dialling, now: float, *connected: int, lonely: bool = True) -> tuple[list[str], float]:
    dials, following = d.due(around(*connected, lonely=lonely), 8, 0, now)
    return [dial.target.host for dial in dials], following


def test_door_that_hangs_up_at_once_is_dialled_less_and_less() -> None:
    door = target(1)
    d, _ = dialling(door)
    waits = []
    for _ in range(6):
        d.greeted(door, IDS[1])
        d.failed(door, None, 0.0, lasted=1.0)
        waits.append(due(d, 0.0)[1])
    assert waits == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_long_connection_forgets_failures() -> None:
    door = target(1)
    d, _ = dialling(door)
    for _ in range(5):
        d.failed(door, None, 0.0)
    d.failed(door, None, 0.0, lasted=STABLE_AFTER - 0.001)
    assert due(d, 0.0) == ([], 30.0)
    d.failed(door, None, 0.0, lasted=STABLE_AFTER)
    assert due(d, 0.0) == ([], 2.0)


def test_full_door_is_left_alone_for_as_long_as_it_asks_within_bounds() -> None:
    door = target(1)
    d, _ = dialling(door)
    d.failed(door, None, 10.0, at_least=60)
    assert due(d, 99.9) == ([], 100.0), "half as long again, at the most"
    assert due(d, 100.0) == (["192.0.2.1"], math.inf)
    d.failed(door, None, 100.0, at_least=7 * 24 * 3600)
    assert due(d, 100.0) == ([], 100.0 + 1.5 * MAX_DELAY)
    waits = []
    for seed in range(200):
        d = Dialling((door,), AddressBook(IDS[ME], (), Surroundings()), Surroundings(), random.Random(seed))
        d.failed(door, None, 10.0, at_least=60)
        waits.append(due(d, 10.0)[1] - 10.0)
    assert 60.0 <= min(waits) < 62.0
    assert 88.0 < max(waits) <= 90.0


def test_peer_that_restarts_is_dialled_within_the_window_that_it_names() -> None:
    door = target(1)
    d, book = dialling(door, known=(stored(2),))
    for _ in range(5):
        d.failed(door, book.peers[IDS[2]], 0.0)
    d.restarting(door, book.peers[IDS[2]], 0.0, 75.0)
    assert book.peers[IDS[2]].backoff.not_before == 75.0
    d.restarting(door, book.peers[IDS[2]], 0.0, 0.0)
    assert book.peers[IDS[2]].backoff.not_before == RESTART_WINDOW
    d.restarting(door, book.peers[IDS[2]], 0.0, 1e9)
    assert book.peers[IDS[2]].backoff.not_before == MAX_DELAY


def test_good_holder_of_what_we_follow_is_knocked_at_more_often() -> None:
    d, _ = dialling()
    holder, other = PeerState(IDS[1], (address(1),)), PeerState(IDS[2], (address(2),))
    for _ in range(12):
        d.failed(None, holder, 0.0, worthy=True)
        d.failed(target(9), other, 0.0)
    assert (holder.backoff.not_before, other.backoff.not_before) == (30.0, 3600.0)


def test_anchors_then_doors_then_last_good_then_claims() -> None:
    known = (
        stored(1),
        stored(2, last_good=5),
        stored(3, last_good=9),
        stored(4, last_good=2),
        stored(5, reached=False),
    )
    d, _ = dialling(target(20), known=known)
    assert due(d, 0.0)[0] == ["45.3.0.1", "45.2.0.1", "45.1.0.1", "45.4.0.1", "45.5.0.1"], "the door has its time"
    assert due(d, DOOR_SPREAD)[0] == ["45.3.0.1", "45.2.0.1", "192.0.2.20", "45.1.0.1", "45.4.0.1", "45.5.0.1"]
    assert due(d, DOOR_SPREAD, lonely=False)[0][-2:] == ["192.0.2.20", "45.5.0.1"]


def test_last_good_addresses_of_many_networks_come_before_more_of_one() -> None:
    crowd = [StoredPeer(IDS[n], (Address(f"46.0.0.{n}", 9000),), WALL, True) for n in range(5)]
    d, _ = dialling(known=(*crowd, stored(6), stored(7)))
    hosts = due(d, 0.0)[0]
    assert [host for host in hosts if not host.startswith("46.")] == ["45.6.0.1", "45.7.0.1"]
    assert sum(host.startswith("46.") for host in hosts) == 2
    assert hosts[0].startswith("46."), "the one that was seen last"


def test_only_addresses_that_mean_the_same_here_are_dialled() -> None:
    book = AddressBook(IDS[ME], (), Surroundings(("10.0.0.1",)))
    d = Dialling((), book, Surroundings(("10.0.0.1",)), Longest())
    state = book.state(IDS[1])
    private = [Address(ip, 9000) for ip in ("127.0.0.1", "192.168.1.1", "169.254.169.254", "224.0.0.1", "::1")]
    state.addresses = (*private, Address("10.9.9.9", 9000), where(3), Address("45.3.0.2", 1023))
    [dial], _ = d.due(around(), 8, 0, 0.0)
    assert dial == Dial(BootstrapAddress("10.9.9.9", 9000, IDS[1]), (where(3),))
    state.addresses = tuple(private)
    assert d.due(around(), 8, 0, 0.0) == ([], math.inf)
    # Where it was reached before, by the operator's word, is another matter.
    state.good, state.reached = private[0], True
    [dial], _ = d.due(around(), 8, 0, 0.0)
    assert dial == Dial(BootstrapAddress("127.0.0.1", 9000, IDS[1]))


def test_four_addresses_of_a_peer_are_tried_at_once_and_the_others_in_turn() -> None:
    d, book = dialling()
    state = book.state(IDS[1])
    state.addresses = tuple(where(n) for n in range(6))
    tried = set()
    for turn in range(3):
        state.misses = turn
        [dial], _ = d.due(around(), 8, 0, 0.0)
        assert len(dial.others) == MAX_RACED - 1
        tried |= {dial.target.host, *(a.ip for a in dial.others)}
    assert len(tried) == 6


def test_holders_have_places_of_their_own_and_take_none_of_the_others() -> None:
    d, book = dialling(known=tuple(stored(n) for n in range(4)))
    book.peers[IDS[3]].holds(R)
    dials, _ = d.due(around(scarce=(1,)), 2, 1, 0.0)
    assert [dial.target.host for dial in dials] == ["45.3.0.1", "45.0.0.1", "45.1.0.1"]
    for dial in dials:
        assert d.begin(dial) == [dial]
    assert list(d.under_way.values()) == [Purpose.HOLDER, Purpose.PEER, Purpose.PEER]
    # Who only says so gets no place that is not for holders.
    d, book = dialling(known=tuple(stored(n, reached=False) for n in range(4)))
    for state in book.peers.values():
        state.holds(R)
    assert len(d.due(around(scarce=(1,)), 0, 2, 0.0)[0]) == 2


def test_connected_banned_and_dialled_peers_are_left_alone() -> None:
    d, _ = dialling(target(1, IDS[1]), known=(stored(3), stored(4)))
    assert [x.target.peer for x in d.due(around(1, refused=(IDS[3],)), 8, 0, 99.0)[0]] == [IDS[4]]
    [dial], _ = d.due(around(1, refused=(IDS[3],)), 8, 0, 99.0)
    assert d.begin(dial) == [dial]
    assert d.begin(dial) == []
    assert d.due(around(1, refused=(IDS[3],)), 8, 0, 99.0) == ([], math.inf)
    d.end(dial.target)
    assert d.begin(dial) == [dial]


def test_bare_door_is_left_alone_while_its_node_is_connected_some_other_way() -> None:
    d, _ = dialling(target(1))
    d.greeted(target(9), IDS[9])
    d.greeted(target(1), IDS[1])
    assert due(d, 0.0, 1, 9) == ([], math.inf)
    assert due(d, 0.0, 9) == (["192.0.2.1"], math.inf)


def test_feeler_goes_to_a_claim_of_any_source_and_becomes_more_where_more_is_wanted() -> None:
    d, book = dialling(known=(stored(1),))
    assert d.feeler(around(), 0.0) == []
    for number in (2, 3, 4):
        state = book.state(IDS[number], "many" if number < 4 else "few")
        state.addresses = (where(number),)
    drawn = Counter(d.feeler(around(), 0.0)[0].target.host for _ in range(400))
    assert set(drawn) == {"45.2.0.1", "45.3.0.1", "45.4.0.1"}
    assert drawn["45.4.0.1"] > 150, "whoever makes the most claims is not tried the most"
    [dial] = d.feeler(around(), 0.0)
    assert d.begin(dial) == [dial]
    assert d.under_way[dial.target] is Purpose.FEELER
    assert d.feeler(around(2, 3, 4), 0.0) == []
    assert d.begin(Dial(dial.target)) == []
    assert d.end(dial.target)[0] is Purpose.HOLDER


def test_waiting_dials_begin_in_their_order_and_leave_no_room_for_others() -> None:
    d, _ = dialling()
    for number in range(MAX_DIALS):
        assert d.room == MAX_DIALS - number
        d.plan(target(number), Purpose.PEER)
        assert d.begin(Dial(target(number))) != []
    for number in (50, 51, 50):
        d.plan(target(number), Purpose.PEER)
        assert d.begin(Dial(target(number))) == []
    assert d.end(target(0)) == (Purpose.PEER, [Dial(target(50))])
    assert d.begin(Dial(target(50))) == [Dial(target(50))]
    assert d.room == 0
    assert d.end(target(1))[1] == [Dial(target(51))]


def claim(number: int, ip: str | None = None) -> Dial:
    """Return the dial that a stranger's claim leads to."""
    return Dial(BootstrapAddress(ip or where(number).ip, 9000 + number))


def test_claims_have_half_of_the_dials_and_the_operator_goes_first() -> None:
    d, _ = dialling()
    for number in range(MAX_CLAIMED_DIALS):
        assert d.begin(claim(number)) == [claim(number)]
    assert d.begin(claim(20)) == []
    assert d.room == MAX_DIALS - MAX_CLAIMED_DIALS, "what is kept for us"
    assert d.room_for_claims == 0
    for number in range(30, 34):
        d.plan(target(number), Purpose.PEER)
        assert d.begin(Dial(target(number))) == [Dial(target(number))]
    d.plan(target(40), Purpose.PEER)
    assert d.begin(Dial(target(40))) == []
    d.plan(target(41), Purpose.NAMED)
    assert d.begin(Dial(target(41))) == []
    assert d.begin(Dial(target(42), hinted=True)) == []
    _, following = d.end(claim(0).target)
    assert following == [Dial(target(41))]
    assert d.begin(following[0]) == following
    _, following = d.end(claim(1).target)
    assert following == [Dial(target(42))]
    assert d.begin(following[0]) == following
    assert d.under_way[target(42)] is Purpose.HINT
    assert d.end(claim(2).target)[1] == [Dial(target(40))]


def test_two_claims_of_one_network_are_dialled_at_a_time_and_not_three() -> None:
    d, _ = dialling()
    for number in range(MAX_CLAIMED_PER_PLACE):
        assert d.begin(claim(number, f"45.9.0.{number}")) != []
    third = claim(9, "45.9.0.9")
    assert d.begin(third) == []
    assert d.begin(claim(3)) == [claim(3)], "nobody else waits for it"
    assert d.end(claim(0, "45.9.0.0").target)[1] == [third]


def test_address_where_nobody_answers_is_left_alone_whatever_key_is_claimed() -> None:
    d, _ = dialling()
    for number, waits in enumerate((2.0, 4.0, 8.0)):
        dial = Dial(BootstrapAddress("45.1.0.1", 9000, IDS[number]))
        assert d.refusal(dial, 100.0 * number) is None
        d.unanswered(dial.target, 100.0 * number)
        again = Dial(BootstrapAddress("45.1.0.1", 9000, IDS[9]))
        assert d.refusal(again, 100.0 * number + waits - 0.01) is not None
        assert d.refusal(again, 100.0 * number + waits) is None
    d.unanswered(target(1), 300.0)
    assert d.refusal(Dial(target(1), hinted=True), 300.0) is None, "the operator knows better"
    d.plan(target(1), Purpose.PEER)
    assert d.refusal(Dial(target(1)), 300.0) is None, "our own accord has its own time"
    d.greeted(BootstrapAddress("45.1.0.1", 9000, IDS[0]), IDS[0])
    assert d.refusal(Dial(BootstrapAddress("45.1.0.1", 9000, IDS[9])), 200.0) is None


def test_addresses_without_an_answer_and_waiting_claims_are_bounded() -> None:
    d, _ = dialling()
    for number in range(MAX_UNANSWERED + 1):
        d.unanswered(BootstrapAddress("45.1.0.1", 2000 + number), 0.0)
    assert d.refusal(Dial(BootstrapAddress("45.1.0.1", 2000)), 1.0) is None
    assert d.refusal(Dial(BootstrapAddress("45.1.0.1", 2001)), 1.0) is not None
    for number in range(MAX_CLAIMED_PER_PLACE + MAX_WAITING_CLAIMS):
        assert d.refusal(claim(number, "45.9.0.9"), 0.0) is None
        d.begin(claim(number, "45.9.0.9"))
    assert d.refusal(claim(MAX_WAITING_CLAIMS + 9, "45.9.0.9"), 0.0) is not None


def test_three_hundred_who_want_back_to_one_node_come_less_than_five_a_second() -> None:
    """It has said for how long (``PeerManager.stop``): 100 s for 300."""
    times = []
    for seed in range(300):
        door = target(1)
        book = AddressBook(IDS[ME], (), Surroundings())
        d = Dialling((door,), book, Surroundings(), random.Random(seed))
        d.restarting(door, None, 0.0, 100.0)
        times.append(due(d, 0.0)[1] if due(d, 0.0)[1] < math.inf else 0.0)
    assert max(times) <= 100.0
    busiest = max(sum(begin <= time < begin + 10 for time in times) for begin in range(100)) / 10
    assert busiest < 5.0, busiest


def test_door_is_no_anchor_and_comes_at_its_own_time() -> None:
    def row(number: int, *capabilities: str) -> StoredPeer:
        return StoredPeer(IDS[number], (where(number),), WALL - number, True, 9, capabilities=capabilities)

    named = BootstrapAddress(where(3).ip, 9000)
    d, book = dialling(named, known=(row(1, "bootstrap"), row(2), row(3)))
    assert IDS[1] not in book.anchors
    assert due(d, 0.0)[0] == ["45.2.0.1", "45.1.0.1"]
    assert due(d, DOOR_SPREAD)[0] == ["45.2.0.1", "45.3.0.1", "45.1.0.1"]
    assert [d.is_door(book.peers[IDS[n]]) for n in (1, 2, 3)] == [True, False, True]
