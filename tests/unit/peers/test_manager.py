"""Greeting, duplicates, room, keep-alive and upkeep, as exact lists of effects."""

import dataclasses
import math
import random

import pytest

from guts.addresses import Address, BootstrapAddress, parse_subject
from guts.clock import Now
from guts.effects import Dial, Disconnect, Effect, PeerSeen, Persist, Send
from guts.errors import PeerFault, Severity
from guts.events import Connected, ConnectionId
from guts.net.tcp import ConnectionLost
from guts.peers.bans import OperatorBan
from guts.peers.book import StoredPeer
from guts.peers.greeting import Self, UnexpectedMessage
from guts.peers.keepalive import HELLO_TIMEOUT, pong
from guts.peers.manager import FULL_RETRY_AFTER, Limits, PeerManager
from guts.peers.mass_fault import MIN_PEERS
from guts.peers.score import Scores
from guts.peers.state import MAX_REPOSITORIES_PER_PEER, PeerConnection, SaidGoodbye
from guts.peers.upkeep import UPKEEP_INTERVAL
from guts.records import InvalidRecord
from guts.wire.messages import Goodbye, GoodbyeCode, Hello, HelloAck, Ping, Pong, Subscribe
from guts.wire.secure import Direction
from tests.support.peers import (
    IDS,
    NEW,
    OLD,
    WALL,
    ack_of,
    address,
    at,
    hello_of,
    inbound,
    outbound,
    record_of,
    repository,
    score_changed,
    target,
)

ME = 5
START = at(0)
MY_RECORD = record_of(ME)
ACK = HelloAck(1, "guts/test", ("seed",), MY_RECORD, WALL, b"my start")
HELLO = Hello(1, 1, "guts/test", ("seed",), MY_RECORD, WALL, b"my start")
DUPLICATE = Goodbye(GoodbyeCode.DUPLICATE, "another connection of ours stays")


class Fatal(PeerFault):
    code = "FATAL"


class Minor(PeerFault):
    code = "MINOR"
    severity = Severity.MINOR


def manager(
    *,
    maximum: int = 50,
    stored: tuple[StoredPeer, ...] = (),
    doors: tuple[BootstrapAddress, ...] = (),
    seed: int = 1,
    own_ips: tuple[str, ...] = (),
) -> PeerManager:
    me = Self(IDS[ME], "guts/test", ("seed",), b"my start")
    return PeerManager(
        me, MY_RECORD, Limits(maximum, 30.0), Scores([], at(0)), stored, doors, random.Random(seed), own_ips
    )


def run(peers: PeerManager, effects: list[Effect]) -> list[Effect]:
    """Let the manager see its own dials and disconnections, as the service does."""
    seen: list[Effect] = []
    for effect in effects:
        match effect:
            case Dial():
                seen += peers.connect(effect)
            case Disconnect():
                seen += peers.closing(effect)
            case _:
                seen.append(effect)
    return seen


def connect(peers: PeerManager, event: Connected, now: Now) -> PeerConnection:
    run(peers, peers.connected(event, now))
    return peers.connections[event.connection]


def chosen(peers: PeerManager, number: int, ip: str) -> PeerConnection:
    """Dial ``number`` at ``ip`` of our own accord; it has not said hello yet."""
    where = BootstrapAddress(ip, 9000, IDS[number])
    peers.prefer(where)
    run(peers, peers.connect(Dial(where)))
    event = Connected(ConnectionId(number), Direction.OUTBOUND, IDS[number], Address(ip, 9000), where)
    return connect(peers, event, START)


def accept(peers: PeerManager, number: int, peer: int, now: Now = START, nonce: bytes = OLD) -> PeerConnection:
    """Let ``peer`` dial us and say hello."""
    connection = connect(peers, inbound(number, peer), now)
    run(peers, peers.hello(connection, hello_of(peer, nonce=nonce), now))
    return connection


def reach(
    peers: PeerManager,
    number: int,
    peer: int,
    now: Now = START,
    nonce: bytes = OLD,
    dialled: BootstrapAddress | None = None,
) -> PeerConnection:
    """Dial ``peer`` and take its answer."""
    connection = connect(peers, outbound(number, peer, dialled), now)
    run(peers, peers.hello_ack(connection, ack_of(peer, nonce=nonce), now))
    return connection


# --- greeting -----------------------------------------------------------------------------------------------


def test_dialler_says_hello_first_and_is_ready_at_the_answer() -> None:
    peers = manager()
    assert peers.connected(outbound(1, 2), at(0)) == [Send(ConnectionId(1), HELLO)]
    connection = peers.connections[ConnectionId(1)]
    assert not connection.ready
    assert peers.hello_ack(connection, ack_of(2), at(1)) == [
        Persist(PeerSeen(IDS[2], address(2), record_of(2), ("seed",), WALL + 1000))
    ]
    assert connection.ready
    state = peers.state(IDS[2])
    assert (state.addresses, state.capabilities, state.last_seen) == ((address(2),), ("seed",), WALL + 1000)
    assert (connection.software, connection.start_nonce) == ("guts/0.1.0", OLD)
    assert peers.connection_to(IDS[2]) is connection
    assert peers.connection_to(IDS[3]) is None


def test_dialled_side_waits_for_the_hello_and_answers_it() -> None:
    peers = manager()
    assert peers.connected(inbound(1, 2), at(0)) == []
    connection = peers.connections[ConnectionId(1)]
    assert peers.hello(connection, hello_of(2), at(0)) == [
        Send(ConnectionId(1), ACK),
        Persist(PeerSeen(IDS[2], None, record_of(2), ("seed",), WALL)),
    ]
    assert connection.ready
    # Where the call came from is nowhere to dial; what it says of itself is.
    assert peers.state(IDS[2]).addresses == (address(2),)


@pytest.mark.parametrize(("versions", "common"), [((1, 1), True), ((1, 9), True), ((2, 9), False)])
def test_version_range_must_hold_ours(versions: tuple[int, int], common: bool) -> None:
    peers = manager()
    connection = connect(peers, inbound(1, 2), at(0))
    effects = run(peers, peers.hello(connection, hello_of(2, versions=versions), at(0)))
    assert connection.ready is common
    if not common:
        assert effects == [
            Disconnect(ConnectionId(1), Goodbye(GoodbyeCode.NO_COMMON_VERSION, "this node speaks version 1"))
        ]


def test_hello_from_the_wrong_side_is_a_fault() -> None:
    peers = manager()
    dialled = connect(peers, outbound(1, 2), at(0))
    with pytest.raises(UnexpectedMessage):
        peers.hello(dialled, hello_of(2), at(0))
    came = connect(peers, inbound(2, 3), at(0))
    with pytest.raises(UnexpectedMessage):
        peers.hello_ack(came, ack_of(3), at(0))


def test_answer_in_a_version_that_was_not_offered_is_a_fault() -> None:
    peers = manager()
    connection = connect(peers, outbound(1, 2), at(0))
    with pytest.raises(UnexpectedMessage):
        peers.hello_ack(connection, ack_of(2, version=2), at(0))
    assert not connection.ready


@pytest.mark.parametrize("record", [record_of(3), b"", record_of(2)[:-1]])
def test_hello_with_a_record_that_is_not_the_peers_own_is_a_fault(record: bytes) -> None:
    peers = manager()
    connection = connect(peers, inbound(1, 2), at(0))
    with pytest.raises(PeerFault) as caught:
        peers.hello(connection, hello_of(2, record=record), at(0))
    assert caught.value.severity is Severity.FATAL
    assert not connection.ready
    if record == record_of(3):
        assert isinstance(caught.value, InvalidRecord)


@pytest.mark.parametrize("expires", [0, WALL, WALL + 10 * 365 * 24 * 3_600_000])
def test_peer_whose_clock_differs_is_welcome(expires: int) -> None:
    peers = manager()
    connection = connect(peers, inbound(1, 2), at(0))
    peers.hello(connection, hello_of(2, record=record_of(2, expires=expires)), at(0))
    assert connection.ready
    assert peers.state(IDS[2]).addresses == (address(2),)
    assert peers.scores.value(IDS[2], 0) == 0.0


# --- duplicates ---------------------------------------------------------------------------------------------


def test_of_crossing_dials_the_one_by_the_smaller_id_stays() -> None:
    """Node 5 meets node 2, who is smaller, and node 8, who is larger; both orders of arrival."""
    for first, second, peer, staying in (
        (accept, reach, 2, 1),
        (reach, accept, 2, 2),
        (accept, reach, 8, 2),
        (reach, accept, 8, 1),
    ):
        peers = manager()
        first(peers, 1, peer)
        second(peers, 2, peer)
        leaving = 3 - staying
        kept, gone = peers.connections[ConnectionId(staying)], peers.connections[ConnectionId(leaving)]
        assert (kept.ready, kept.closing, gone.ready, gone.closing) == (True, False, False, True)
        assert peers.connection_to(IDS[peer]) is kept
        assert [connection.id for connection in peers.ready()] == [staying]


def test_refused_duplicate_gets_goodbye_instead_of_an_answer() -> None:
    peers = manager()
    reach(peers, 1, 8)
    connection = connect(peers, inbound(2, 8), at(0))
    assert run(peers, peers.hello(connection, hello_of(8), at(0))) == [Disconnect(ConnectionId(2), DUPLICATE)]


def test_second_call_of_the_same_peer_is_refused_while_the_first_lives() -> None:
    peers = manager()
    first = accept(peers, 1, 2)
    connection = connect(peers, inbound(2, 2), at(0))
    assert run(peers, peers.hello(connection, hello_of(2), at(0))) == [Disconnect(ConnectionId(2), DUPLICATE)]
    assert first.ready


def test_connection_that_is_closing_keeps_nobody_out() -> None:
    peers = manager()
    accept(peers, 1, 2)
    run(peers, [Disconnect(ConnectionId(1), None)])
    assert peers.connection_to(IDS[2]) is None
    second = accept(peers, 2, 2)
    assert peers.connection_to(IDS[2]) is second


def test_second_answer_of_the_same_peer_means_that_it_lost_the_first() -> None:
    peers = manager()
    first = reach(peers, 1, 2)
    connection = connect(peers, outbound(2, 2, target(20)), at(0))
    assert run(peers, peers.hello_ack(connection, ack_of(2), at(0))) == [
        Disconnect(ConnectionId(1), DUPLICATE),
        Persist(PeerSeen(IDS[2], address(2), record_of(2), ("seed",), WALL)),
    ]
    assert (first.ready, connection.ready) == (False, True)


@pytest.mark.parametrize("peer", [2, 8])
@pytest.mark.parametrize("first", [accept, reach])
def test_restarted_peer_replaces_its_old_connection(first: object, peer: int) -> None:
    peers = manager()
    (accept if first is accept else reach)(peers, 1, peer)
    peers.state(IDS[peer]).subscriptions.add(repository(1))
    connection = connect(peers, inbound(2, peer), at(0))
    assert run(peers, peers.hello(connection, hello_of(peer, nonce=NEW), at(0))) == [
        Disconnect(ConnectionId(1), DUPLICATE),
        Send(ConnectionId(2), ACK),
        Persist(PeerSeen(IDS[peer], None, record_of(peer), ("seed",), WALL)),
    ]
    assert connection.ready
    assert peers.state(IDS[peer]).subscriptions == set()
    # The end of the old one changes nothing.
    assert peers.disconnected(ConnectionId(1), None, at(1))[1] == []
    assert peers.connection_to(IDS[peer]) is connection
    assert peers.state(IDS[peer]).backoff.failures == 0


# --- room and bans ------------------------------------------------------------------------------------------


def test_room_is_kept_for_those_that_we_dial() -> None:
    """Of 10, 5 may come in; the last of the rest are for us, and there is no eleventh."""
    peers = manager(maximum=10)
    full = Goodbye(GoodbyeCode.FULL, "no free connection", FULL_RETRY_AFTER)
    for number in range(5):
        accept(peers, number, number)
        peers.connections[ConnectionId(number)].rtt = 0.01
    assert run(peers, peers.connected(inbound(5, 6), at(0))) == [Disconnect(ConnectionId(5), full)]
    for number in range(6, 11):
        assert peers.connected(outbound(number, 7), at(0)) == [Send(ConnectionId(number), HELLO)]
    assert peers.connected(outbound(11, 7), at(0)) == [Disconnect(ConnectionId(11), full)]


def test_newcomer_takes_the_place_of_one_that_nothing_speaks_for() -> None:
    peers = manager(maximum=20)
    full = Goodbye(GoodbyeCode.FULL, "no free connection", FULL_RETRY_AFTER)
    for number in range(12):
        connect(peers, inbound(number, number if number < 5 else number - 1), at(number / 10))
    assert run(peers, peers.connected(inbound(99, 11), at(3))) == [Disconnect(ConnectionId(99), full)], "all so young"
    peers.disconnected(ConnectionId(99), None, at(3))
    # All are without a round trip, four are of networks that chance keeps, and half of the rest has been here longer.
    [gone] = run(peers, peers.connected(inbound(12, 11), at(20)))
    assert isinstance(gone, Disconnect)
    assert gone.goodbye == full
    assert gone.connection >= 6
    assert not peers.connections[ConnectionId(12)].closing
    assert sum(not c.closing for c in peers.connections.values()) == 12


def test_host_has_four_connections_and_not_five() -> None:
    peers = manager()
    for number in range(4):
        assert peers.connected(inbound(number, 2), at(0)) == []
    full = Goodbye(GoodbyeCode.FULL, "no free connection", FULL_RETRY_AFTER)
    assert run(peers, peers.connected(inbound(4, 2), at(0))) == [Disconnect(ConnectionId(4), full)]
    peers.disconnected(ConnectionId(0), None, at(0))
    assert peers.connected(inbound(5, 2), at(0)) == []


def test_banned_peer_is_told_for_how_long_and_not_let_in() -> None:
    peers = manager()
    peers.scores.count(IDS[2], Fatal("x"), at(0))
    assert peers.connected(inbound(1, 2), at(0.5)) == [
        Disconnect(ConnectionId(1), Goodbye(GoodbyeCode.BANNED, "banned", 86_400))
    ]
    assert peers.connected(inbound(2, 2), at(86_400)) == []


def test_fatal_fault_closes_every_connection_of_the_peer() -> None:
    peers = manager()
    accept(peers, 1, 2)
    connect(peers, inbound(2, 2), at(0))
    accept(peers, 3, 3)
    goodbye = Goodbye(GoodbyeCode.PROTOCOL_FAULT, "too many faults", 86_400)
    assert run(peers, peers.fault(IDS[2], Fatal("x"), at(0))) == [
        score_changed(2, 100.0, 100.0, "FATAL", barred=86_400),
        Disconnect(ConnectionId(1), goodbye),
        Disconnect(ConnectionId(2), goodbye),
    ]
    assert run(peers, [Disconnect(ConnectionId(1), None)]) == []
    assert run(peers, [Disconnect(ConnectionId(99), None)]) == []


def test_node_whose_disk_is_broken_bans_nobody() -> None:
    """What most of the peers that it dialled send looks damaged: more likely it is this node."""
    peers = manager()
    for number in range(6, 12):
        run(peers, peers.hello_ack(chosen(peers, number, f"192.0.{number}.1"), ack_of(number), START))
    faulty = [IDS[number] for number in range(6, 10)]
    for peer in faulty:
        effects = run(peers, peers.fault(peer, Fatal("x"), at(1)))
        assert [effect for effect in effects if isinstance(effect, Disconnect)]
    assert peers.scores.guard.up(1)
    assert not [peer for peer in faulty if peers.scores.banned(peer, 1) or peers.scores.value(peer, 1)]


def test_small_fault_is_counted_and_nothing_else() -> None:
    peers = manager()
    accept(peers, 1, 2)
    assert peers.fault(IDS[2], Minor("x"), at(0)) == [score_changed(2, 5.0, 5.0, "MINOR")]


def test_connection_that_ended_in_a_fault_is_counted() -> None:
    peers = manager()
    first = accept(peers, 1, 2)
    assert peers.disconnected(ConnectionId(1), Fatal("x"), at(0)) == (
        first,
        [score_changed(2, 100.0, 100.0, "FATAL", barred=86_400)],
    )


def test_goodbye_of_the_peer_is_kept_as_the_reason() -> None:
    peers = manager()
    connection = accept(peers, 1, 2)
    assert peers.goodbye(connection, Goodbye(GoodbyeCode.FULL, "lies", 60)) == [Disconnect(ConnectionId(1), None)]
    assert str(connection.farewell) == "the node has no free connection"
    for code in GoodbyeCode:
        assert str(SaidGoodbye(Goodbye(code), by_this_node=False)).startswith("the node ")


# --- keep-alive ---------------------------------------------------------------------------------------------


def test_silent_peer_is_pinged_every_thirty_seconds_give_or_take_a_fifth() -> None:
    peers = manager()
    connection = accept(peers, 1, 2)
    peers.tick(at(0))
    for _ in range(50):
        due = connection.pinged_at + connection.ping_after
        assert peers.deadline(connection.last_heard) <= due
        assert 24.0 <= due - connection.last_heard <= 36.0
        assert peers.tick(at(due - 0.001)) == []
        [ping] = peers.tick(at(due))
        assert isinstance(ping, Send)
        assert isinstance(ping.message, Ping)
        connection.last_heard = due


def test_pong_to_the_last_ping_tells_the_round_trip_and_others_nothing() -> None:
    peers = manager()
    connection = accept(peers, 1, 2)
    pong(connection, Pong(0), 1.0)
    due = connection.ping_after
    peers.tick(at(due))
    assert connection.ping is not None
    pong(connection, Pong(connection.ping[0] ^ 1), due + 0.1)
    assert connection.rtt is None
    pong(connection, Pong(connection.ping[0]), due + 0.25)
    assert connection.rtt == pytest.approx(0.25)
    assert connection.ping is None


def test_silent_peer_is_dead_after_ninety_seconds() -> None:
    peers = manager()
    connection = accept(peers, 1, 2)
    connection.ping_after = math.inf
    peers.tick(at(0))
    assert peers.tick(at(89.9)) == []
    assert peers.deadline(89.9) == 90.0
    idle = Disconnect(ConnectionId(1), Goodbye(GoodbyeCode.IDLE, "silent for too long"))
    assert run(peers, peers.tick(at(90))) == [idle]
    # Closing: no more timers of its own.
    assert peers.tick(at(91)) == []
    assert 91.0 < peers.deadline(91.0) <= 91.0 + UPKEEP_INTERVAL


def test_mute_peer_has_five_seconds_for_its_hello() -> None:
    peers = manager()
    connect(peers, inbound(1, 2), at(10))
    peers.tick(at(10))
    assert peers.deadline(10.0) == 10.0 + HELLO_TIMEOUT
    assert peers.tick(at(14.9)) == []
    assert run(peers, peers.tick(at(15))) == [
        Disconnect(ConnectionId(1), Goodbye(GoodbyeCode.IDLE, "no hello in time"))
    ]


# --- upkeep -------------------------------------------------------------------------------------------------


def _everywhere(number: int) -> Address:
    """Return an address in a network of its own."""
    return Address(f"45.{number}.0.1", 9000)


def _stored(number: int, *, reached: bool = True) -> StoredPeer:
    return StoredPeer(IDS[number], (_everywhere(number),), WALL - number, reached)


def _dial(number: int) -> Dial:
    return Dial(BootstrapAddress(_everywhere(number).ip, 9000, IDS[number]))


def test_dials_doors_and_last_good_addresses_up_to_eight() -> None:
    stored = tuple(_stored(n) for n in range(12))
    peers = manager(stored=stored, doors=(target(20),))
    # Those that it was connected to, the last one first; the door, which all nodes know, a little later.
    expected = [_dial(n) for n in (0, 1, 2, 3, 4, 6, 7, 8)]
    assert run(peers, peers.tick(at(0))) == expected
    assert [effect for effect in run(peers, peers.tick(at(1))) if isinstance(effect, Dial)] == []
    peers.dial_failed(expected[0].target, at(30))
    assert run(peers, peers.tick(at(30))) == [Dial(target(20))]
    peers.dial_failed(expected[1].target, at(31))
    assert run(peers, peers.tick(at(31))) in ([_dial(9)], [_dial(0)])


def test_node_that_knows_nobody_dials_its_doors_at_once() -> None:
    peers = manager(doors=(target(20), target(21)))
    assert run(peers, peers.tick(at(0))) == [Dial(target(20)), Dial(target(21))]


@pytest.mark.parametrize(("maximum", "dials"), [(1, 1), (2, 1), (3, 1), (4, 2), (15, 7), (16, 8), (17, 8)])
def test_eight_are_dialled_or_as_many_as_half_of_a_small_table(maximum: int, dials: int) -> None:
    # Else who has few places would knock everywhere for ever: everybody dials more than there are places to let in.
    peers = manager(maximum=maximum, stored=tuple(_stored(n) for n in range(12)))
    assert len(run(peers, peers.tick(at(0)))) == dials


def test_who_came_in_leaves_no_room_to_dial_where_there_is_one_place() -> None:
    peers = manager(maximum=1, stored=(_stored(0),))
    accept(peers, 1, 9)
    assert run(peers, peers.tick(at(0))) == []


def test_two_of_one_network_are_dialled_and_not_three() -> None:
    peers = manager(stored=tuple(StoredPeer(IDS[n], (address(n),), WALL - n, True) for n in range(4)))
    assert run(peers, peers.tick(at(0))) == [Dial(target(n, IDS[n])) for n in (0, 1)]
    lan = tuple(StoredPeer(IDS[n], (Address(f"10.0.0.{n}", 9000),), WALL - n, True) for n in range(1, 5))
    assert len(run(manager(stored=lan), manager(stored=lan).tick(at(0)))) == 2
    neighbour = manager(stored=lan, own_ips=("10.9.9.9",))
    assert len(run(neighbour, neighbour.tick(at(0)))) == 4


def test_eight_dials_are_under_way_and_the_ninth_waits_for_one_to_end() -> None:
    peers = manager()
    for number in range(30, 40):
        peers.prefer(target(number))
    for number in range(30, 38):
        assert run(peers, [Dial(target(number))]) == [Dial(target(number))]
    assert run(peers, [Dial(target(38)), Dial(target(38)), Dial(target(39))]) == []
    assert run(peers, peers.dial_failed(target(30), at(1))) == [Dial(target(38))]
    assert run(peers, peers.connected(outbound(1, 2, target(31)), at(1)))[:1] == [Dial(target(39))]


def test_stopping_node_dials_nobody_lets_nobody_in_and_says_when_to_come_back() -> None:
    peers = manager(doors=(target(20),))
    for number in range(3):
        accept(peers, number, number)
    assert peers.stop() == Goodbye(GoodbyeCode.SHUTTING_DOWN, "shutting down", 1)
    assert [effect for effect in peers.tick(at(0)) if isinstance(effect, Dial)] == []
    assert run(peers, [Dial(target(9))]) == []
    refusal = Goodbye(GoodbyeCode.SHUTTING_DOWN, "shutting down")
    assert run(peers, peers.connected(inbound(9, 9), at(0))) == [Disconnect(ConnectionId(9), refusal)]
    assert not peers.wants_more


def test_dial_under_way_is_not_begun_again() -> None:
    peers = manager()
    assert peers.connect(Dial(target(2))) == [Dial(target(2))]
    assert peers.connect(Dial(target(2))) == []
    peers.dial_failed(target(2), at(0))
    assert peers.connect(Dial(target(2))) == [Dial(target(2))]


def test_full_door_is_not_dialled_again_before_its_time() -> None:
    peers = manager(doors=(target(2),))
    assert run(peers, peers.tick(at(0))) == [Dial(target(2))]
    connection = connect(peers, outbound(1, 2, target(2)), at(0))
    run(peers, peers.goodbye(connection, Goodbye(GoodbyeCode.FULL, "", 60)))
    peers.disconnected(ConnectionId(1), None, at(0))
    assert peers.tick(at(0)) == []
    due = peers.deadline(0.0)
    assert due == 60.0, "it looks, and it is not time"
    assert run(peers, peers.tick(at(90))) == [Dial(target(2))]


def test_known_peer_that_hangs_up_before_the_hello_is_backed_off() -> None:
    peers = manager(stored=(StoredPeer(IDS[2], (address(2),), WALL),))
    dials = 0
    time = 0.0
    for _ in range(100):
        if run(peers, peers.tick(at(time))) == [Dial(target(2, IDS[2]))]:
            dials += 1
            connect(peers, outbound(dials, 2), at(time))
            peers.disconnected(ConnectionId(dials), ConnectionLost("gone"), at(time))
        time = peers.deadline(time)
    assert time > 600.0
    assert 5 <= dials <= 50


def test_banned_peer_is_not_dialled() -> None:
    peers = manager(stored=(StoredPeer(IDS[2], (address(2),), WALL),))
    peers.scores.count(IDS[2], Fatal("x"), at(0))
    assert peers.tick(at(0)) == []
    assert peers.tick(at(86_399)) == []
    assert run(peers, peers.tick(at(86_459))) == [Dial(target(2, IDS[2]))]


def test_bare_door_whose_node_is_connected_otherwise_is_dialled_once_and_no_more() -> None:
    peers = manager(doors=(target(20),))
    accept(peers, 1, 2)
    assert run(peers, peers.tick(at(0))) == [Dial(target(20))]
    second = connect(peers, outbound(2, 2, target(20)), at(0))
    # Node 2 is smaller, so the connection that it dialled stays.
    assert run(peers, peers.hello_ack(second, ack_of(2), at(0))) == [Disconnect(ConnectionId(2), DUPLICATE)]
    peers.disconnected(ConnectionId(2), None, at(0))
    for seconds in range(0, 80, 10):
        assert [effect for effect in peers.tick(at(seconds)) if isinstance(effect, Dial)] == []
    peers.disconnected(ConnectionId(1), ConnectionLost("gone"), at(80))
    assert run(peers, peers.tick(at(82))) in ([Dial(target(20))], [Dial(target(20)), Dial(target(2, IDS[2]))])


# --- who is there -------------------------------------------------------------------------------------------


def test_names_subscribers_and_holders_among_the_ready() -> None:
    peers = manager()
    for number, peer in enumerate((1, 2, 3)):
        accept(peers, number, peer)
    peers.subscribe(peers.connections[ConnectionId(0)], Subscribe((repository(1), repository(2))))
    peers.subscribe(peers.connections[ConnectionId(0)], Subscribe((), (repository(2),)))
    peers.state(IDS[2]).holds(repository(1))
    peers.state(IDS[9]).holds(repository(1))
    assert [state.id for state in peers.subscribers(repository(1))] == [IDS[1]]
    assert peers.subscribers(repository(2)) == []
    assert [state.id for state in peers.peers_with_repository(repository(1))] == [IDS[2]]
    assert peers.broadcast(Ping(1)) == [Send(ConnectionId(number), Ping(1)) for number in range(3)]


def test_offset_of_the_clock_is_the_median_of_what_ready_peers_said() -> None:
    peers = manager()
    assert peers.clock_offset(START) is None
    for number, offset in ((1, 90_000), (2, -5), (3, 10**15)):
        connection = chosen(peers, number, f"192.0.{number}.1")
        if number == 3:
            assert peers.clock_offset(START) == -5, "of two the lower one"
        run(peers, peers.hello_ack(connection, dataclasses.replace(ack_of(number), time_ms=WALL + offset), START))
    assert peers.clock_offset(at(0)) == 90_000
    # Ours is set back by a minute: then theirs are ahead by as much more.
    assert peers.clock_offset(dataclasses.replace(at(500), wall=at(440).wall)) == 150_000


def test_offset_of_the_clock_is_not_moved_by_strangers() -> None:
    peers = manager()
    for number in (1, 2, 3):
        connection = connect(peers, inbound(number, number), START)
        run(peers, peers.hello(connection, dataclasses.replace(hello_of(number), time_ms=WALL + 10**9), START))
    # Dialled for what it says that it holds.
    claimant = connect(peers, outbound(6, 6), START)
    run(peers, peers.hello_ack(claimant, dataclasses.replace(ack_of(6), time_ms=WALL + 10**9), START))
    dialled = chosen(peers, 4, "192.0.4.1")
    assert peers.clock_offset(START) is None, "who has not answered does not count"
    run(peers, peers.hello_ack(dialled, dataclasses.replace(ack_of(4), time_ms=WALL + 7), START))
    for number in (7, 8):
        # Two more of its network do not outvote it.
        neighbour = chosen(peers, number, f"192.0.4.{number}")
        run(peers, peers.hello_ack(neighbour, dataclasses.replace(ack_of(number), time_ms=WALL + 10**9), START))
    assert peers.clock_offset(START) == 7


def test_claims_to_hold_something_and_who_dials_in_bring_no_guard_up() -> None:
    peers = manager()
    for number in (1, 2, 3):
        run(peers, peers.hello_ack(chosen(peers, number, f"192.0.{number}.1"), ack_of(number), START))
    for number in (6, 7, 8, 9):
        late = dataclasses.replace(ack_of(number), time_ms=WALL - 10**7)
        run(peers, peers.hello_ack(connect(peers, outbound(number, number), START), late, START))
    accept(peers, 10, 10)
    run(peers, peers.tick(at(1)))
    for number in (6, 7, 8, 9, 10):
        peers.fault(IDS[number], Fatal("x"), at(2))
    assert not peers.scores.guard.up(2)
    assert all(peers.scores.banned(IDS[number], 2) for number in (6, 7, 8, 9, 10))


def test_subscriptions_and_holdings_are_noted_up_to_a_bound() -> None:
    peers = manager()
    connection = accept(peers, 1, 2)
    state = peers.state(IDS[2])
    for start in range(0, MAX_REPOSITORIES_PER_PEER, 1000):
        peers.subscribe(connection, Subscribe(tuple(repository(n) for n in range(start, start + 1000))))
    assert len(state.subscriptions) == MAX_REPOSITORIES_PER_PEER
    peers.subscribe(connection, Subscribe((repository(10**6),)))
    assert len(state.subscriptions) == MAX_REPOSITORIES_PER_PEER
    peers.subscribe(connection, Subscribe((repository(10**6),), (repository(0),)))
    assert repository(10**6) in state.subscriptions
    for number in range(MAX_REPOSITORIES_PER_PEER + 1):
        state.holds(repository(number))
    assert len(state.repositories) == MAX_REPOSITORIES_PER_PEER


def test_peer_that_was_never_introduced_leaves_nothing() -> None:
    peers = manager()
    connect(peers, inbound(1, 2), at(0))
    peers.disconnected(ConnectionId(1), ConnectionLost("gone"), at(0))
    assert peers.peers == {}


@pytest.mark.parametrize("dialled", [0, MIN_PEERS - 1, MIN_PEERS])
def test_whoever_dials_us_has_no_say_about_our_clock(dialled: int) -> None:
    peers, enough = manager(), dialled == MIN_PEERS
    for number in (number for number in range(len(IDS)) if number != ME):
        if dialled > 0:
            connection = chosen(peers, number, f"192.0.{number}.1")
            run(peers, peers.hello_ack(connection, ack_of(number), START))
        else:
            connection = accept(peers, number, number)
        dialled -= 1
        connection.clock_at_zero += 3_600_000
    peers.tick(at(1))
    assert peers.scores.guard.up(1) is enough


def test_our_own_ban_puts_nobody_off_beyond_its_end_and_is_not_knocked_at_before() -> None:
    peers = manager()
    connection = reach(peers, 1, 2)
    network = parse_subject(f"{connection.address.ip}/32")
    peers.scores.ban(OperatorBan(network, 50.0, WALL, ""), 1.0, merge=False)
    [closed] = run(peers, peers.close_banned(1.0))
    assert isinstance(closed, Disconnect)
    assert closed.goodbye == Goodbye(GoodbyeCode.BANNED, "banned", 49)
    peers.disconnected(ConnectionId(1), None, at(1))

    def dials(time: float) -> list[Effect]:
        return [effect for effect in run(peers, peers.tick(at(time))) if isinstance(effect, Dial)]

    assert [dials(float(time)) for time in range(2, 50)] == [[]] * 48
    assert peers.deadline(49.0) == 50.0
    assert len(dials(50.0)) == 1
