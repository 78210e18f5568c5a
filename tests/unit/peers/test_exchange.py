"""Peer exchange: who is asked when, what is told, what is believed."""

import random
from collections import Counter

import pytest

from guts.addresses import Address
from guts.clock import Now
from guts.effects import Dial, Disconnect, Effect, Send
from guts.errors import PeerFault, Severity
from guts.events import ConnectionId
from guts.identity import SigningKey
from guts.peers.book import StoredPeer
from guts.peers.exchange import (
    ANSWER_INTERVAL,
    ASK_AGAIN_AFTER,
    ASK_INTERVAL,
    FIRST_ASK,
    HUNGRY_INTERVAL,
    MAX_TOLD_PER_PLACE,
    PeerExchange,
    UnsolicitedPeers,
)
from guts.peers.greeting import Self
from guts.peers.manager import Limits, PeerManager
from guts.peers.score import Scores
from guts.peers.state import PeerConnection
from guts.records import InvalidRecord, PeerRecord
from guts.wire.limits import MAX_PEER_RECORDS
from guts.wire.messages import Error, ErrorCode, GetPeers, Peers
from tests.support.peers import IDS, KEYS, WALL, ack_of, at, hello_of, inbound, outbound, record_of, target

ME = 5
HOUR_MS = 3_600_000


class Bench:
    """A manager with its exchange, whose request ids count from 1."""

    def __init__(
        self, *stored: StoredPeer, own: tuple[str, ...] = (), capabilities: tuple[str, ...] = ("seed",)
    ) -> None:
        rng = random.Random(1)
        me = Self(IDS[ME], "guts/test", capabilities, b"my start")
        self.peers = PeerManager(me, record_of(ME), Limits(50, 30.0), Scores([], at(0)), stored, (), rng, own)
        self.requests = iter(range(1, 10_000))
        self.exchange = PeerExchange(self.peers, lambda: next(self.requests), rng)

    def accept(self, number: int, peer: int, now: Now) -> PeerConnection:
        self.peers.connected(inbound(number, peer), now)
        connection = self.peers.connections[ConnectionId(number)]
        self.peers.hello(connection, hello_of(peer), now)
        self.exchange.ready(now.mono)
        return connection

    def reach(self, number: int, peer: int, now: Now) -> PeerConnection:
        self.peers.connected(outbound(number, peer, target(peer, IDS[peer])), now)
        connection = self.peers.connections[ConnectionId(number)]
        self.peers.hello_ack(connection, ack_of(peer), now)
        self.exchange.ready(now.mono)
        return connection

    def asks(self, now: float) -> list[Effect]:
        return self.exchange.tick(now)


def key(number: int) -> SigningKey:
    return SigningKey(number.to_bytes(32, "little"))


def signed(number: int, *addresses: str, expires: int = WALL + HOUR_MS, seq: int = 1) -> PeerRecord:
    where = tuple(Address(ip, 9000) for ip in addresses or (f"45.{number // 200}.{number % 200}.1",))
    return PeerRecord.sign(key(number), where, ("seed",), seq, expires)


def stored(number: int, *addresses: str, reached: bool = True, expires: int = WALL + HOUR_MS) -> StoredPeer:
    record = signed(number, *addresses, expires=expires)
    return StoredPeer(record.peer, record.addresses, WALL, reached, WALL, 0, record.encoded)


def told(bench: Bench, connection: PeerConnection, now: float = 0.0) -> list[PeerRecord]:
    [answer] = bench.exchange.asked(connection, GetPeers(9), at(now))
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Peers)
    assert answer.message.request == 9
    return [PeerRecord.verify(encoded, at(now).wall) for encoded in answer.message.records]


# --- asking -------------------------------------------------------------------------------------------------


def test_node_that_misses_connections_asks_soon_and_one_peer_after_the_other() -> None:
    bench = Bench()
    for number in (1, 2, 3):
        bench.reach(number, number, at(0))
    assert bench.exchange.deadline() <= FIRST_ASK
    asked = []
    time = 0.0
    for _ in range(3):
        time = bench.exchange.deadline()
        [effect] = bench.asks(time)
        assert isinstance(effect, Send)
        asked.append(effect.connection)
        assert bench.asks(time) == []
        assert 0.5 * HUNGRY_INTERVAL <= bench.exchange.deadline() - time <= 1.5 * HUNGRY_INTERVAL
    assert sorted(asked) == [1, 2, 3]
    # All have been asked, and none has answered: each has one request open.
    assert bench.asks(time + 10_000) == []
    bench.exchange.refused(asked[0], 1)
    bench.exchange.refused(asked[1], 77)
    assert bench.asks(time + 20_000) == []
    bench.exchange.ready(time + 20_000)
    assert bench.asks(time + 30_000) == [Send(asked[0], GetPeers(4))]


def test_no_connection_is_asked_again_before_its_time() -> None:
    bench = Bench()
    connection = bench.reach(1, 1, at(0))
    time = bench.exchange.deadline()
    assert bench.asks(time) == [Send(ConnectionId(1), GetPeers(1))]
    bench.exchange.told(connection, Peers(1, ()), at(time))
    assert bench.asks(time + ASK_AGAIN_AFTER - 0.01) == []
    assert bench.exchange.deadline() == pytest.approx(time + ASK_AGAIN_AFTER)
    assert bench.asks(time + ASK_AGAIN_AFTER) == [Send(ConnectionId(1), GetPeers(2))]


def test_those_that_we_dialled_are_asked_and_others_where_there_are_none() -> None:
    bench = Bench()
    bench.accept(1, 1, at(0))
    assert bench.asks(bench.exchange.deadline()) == [Send(ConnectionId(1), GetPeers(1))]
    bench.accept(2, 2, at(1))
    bench.reach(3, 3, at(1))
    assert bench.asks(bench.exchange.deadline()) == [Send(ConnectionId(3), GetPeers(2))]


def test_node_that_misses_nothing_asks_now_and_then() -> None:
    bench = Bench()
    for number in range(8):
        peer = number if number < ME else number + 1
        where = target(peer, IDS[peer])
        bench.peers.prefer(where)
        bench.peers.connect(Dial(where))
        bench.peers.connected(outbound(number, peer, where), at(0))
    bench.exchange.ready(0.0)
    assert 0.5 * ASK_INTERVAL <= bench.exchange.deadline() <= 1.5 * ASK_INTERVAL


def test_node_that_lives_for_one_command_asks_nobody() -> None:
    bench = Bench(capabilities=())
    bench.reach(1, 1, at(0))
    assert bench.asks(1e9) == []


def test_connection_that_is_gone_leaves_nothing() -> None:
    bench = Bench()
    connection = bench.reach(1, 1, at(0))
    bench.asks(bench.exchange.deadline())
    told(bench, connection)
    bench.exchange.gone(ConnectionId(1))
    assert [bench.exchange._open, bench.exchange._asked, bench.exchange._answered] == [{}, {}, {}]


# --- believing ----------------------------------------------------------------------------------------------


def _asked(bench: Bench) -> PeerConnection:
    connection = bench.reach(1, 1, at(0))
    assert bench.asks(bench.exchange.deadline()) == [Send(ConnectionId(1), GetPeers(1))]
    return connection


def test_answer_that_was_not_asked_for_is_a_fault() -> None:
    bench = Bench()
    connection = _asked(bench)
    other = bench.reach(2, 2, at(0))
    for where, request in ((connection, 2), (other, 1)):
        with pytest.raises(UnsolicitedPeers) as caught:
            bench.exchange.told(where, Peers(request, ()), at(1))
        assert caught.value.severity is Severity.SERIOUS
    bench.exchange.told(connection, Peers(1, ()), at(1))
    with pytest.raises(UnsolicitedPeers):
        bench.exchange.told(connection, Peers(1, ()), at(1))


def test_what_is_told_is_claimed_and_dialled_when_somebody_is_missing() -> None:
    bench = Bench()
    connection = _asked(bench)
    records = [signed(n) for n in range(1, 4)]
    bench.exchange.told(connection, Peers(1, tuple(record.encoded for record in records)), at(1))
    for record in records:
        state = bench.peers.peers[record.peer]
        assert (state.addresses, state.reached, state.last_seen) == (record.addresses, False, 0)
    dials = [effect for effect in bench.peers.tick(at(1)) if not isinstance(effect, Send | Disconnect)]
    assert len(dials) == 3


def test_expired_record_is_passed_over_and_a_forged_one_is_a_fault_that_leaves_nothing() -> None:
    bench = Bench()
    connection = _asked(bench)
    good, old = signed(1), signed(2, expires=WALL)
    bench.exchange.told(connection, Peers(1, (old.encoded, good.encoded)), at(1))
    assert good.peer in bench.peers.peers
    assert old.peer not in bench.peers.peers
    bench = Bench()
    connection = _asked(bench)
    forged = good.encoded[:-1] + bytes([good.encoded[-1] ^ 1])
    for bad in (forged, b"x", old.encoded[:-1]):
        bench.exchange._open[connection.id] = 7
        with pytest.raises(PeerFault) as caught:
            bench.exchange.told(connection, Peers(7, (good.encoded, bad)), at(1))
        assert caught.value.severity is Severity.FATAL
    assert isinstance(caught.value, PeerFault | InvalidRecord)
    assert good.peer not in bench.peers.peers


def test_banned_peers_and_ourselves_are_not_claimed() -> None:
    bench = Bench()
    connection = _asked(bench)
    bench.peers.scores.count(signed(1).peer, PeerFault("x"), at(0))
    mine = PeerRecord.sign(KEYS[ME], (Address("45.9.9.9", 9000),), ("seed",), 9, WALL + HOUR_MS)
    bench.exchange.told(connection, Peers(1, (signed(1).encoded, mine.encoded)), at(1))
    assert set(bench.peers.peers) == {IDS[1]}


def test_stranger_from_elsewhere_names_no_private_address() -> None:
    """We are in 10/8, and who tells is not: it can't know who is there, and may want us to knock."""
    bench = Bench(own=("10.0.0.1",))
    connection = _asked(bench)
    bench.exchange.told(connection, Peers(1, (signed(1, "10.0.0.9").encoded, signed(2, "127.0.0.1").encoded)), at(1))
    assert set(bench.peers.peers) == {IDS[1]}


# --- telling ------------------------------------------------------------------------------------------------


def test_32_are_told_and_not_33_once_a_minute() -> None:
    bench = Bench(*[stored(n) for n in range(100)])
    connection = bench.accept(1, 1, at(0))
    records = told(bench, connection)
    assert len(records) == MAX_PEER_RECORDS == len({record.peer for record in records})
    [busy] = bench.exchange.asked(connection, GetPeers(10), at(1))
    assert busy == Send(ConnectionId(1), Error(10, ErrorCode.BUSY, "asked too often", 59))
    [busy] = bench.exchange.asked(connection, GetPeers(10), at(ANSWER_INTERVAL - 0.001))
    assert isinstance(busy, Send)
    assert isinstance(busy.message, Error)
    assert len(told(bench, connection, ANSWER_INTERVAL)) == MAX_PEER_RECORDS


def test_told_are_those_that_were_reached_or_are_here_and_two_of_one_network() -> None:
    crowd = [stored(n, f"46.0.0.{n}") for n in range(1, 50)]
    claims = [stored(n, reached=False) for n in range(50, 99)]
    bench = Bench(*crowd, *claims, stored(100), stored(101))
    asker, here = bench.accept(1, 1, at(0)), bench.accept(2, 2, at(0))
    records = told(bench, asker)
    assert {signed(100).peer, signed(101).peer, here.peer} <= {record.peer for record in records}
    assert asker.peer not in {record.peer for record in records}
    places = Counter(record.addresses[0].ip.rpartition(".")[0] for record in records)
    assert places == {"46.0.0": MAX_TOLD_PER_PLACE, "45.0.100": 1, "45.0.101": 1, "192.0.2": 1}


def test_expired_records_and_addresses_that_mean_nothing_to_the_asker_are_not_told() -> None:
    known = (stored(1), stored(2, expires=WALL), stored(3, "10.0.0.3"), stored(4, "10.0.0.4", "45.7.7.7"))
    bench = Bench(*known, own=("10.0.0.1",))
    records = told(bench, bench.accept(1, 1, at(0)))
    assert {record.peer for record in records} == {known[0].peer, known[3].peer}


def test_inside_a_range_of_ones_own_all_are_told() -> None:
    records = [PeerRecord.sign(key(n), (Address("127.0.0.1", 9000 + n),), (), 1, WALL + HOUR_MS) for n in range(20)]
    known = [StoredPeer(r.peer, r.addresses, WALL, reached=True, record=r.encoded) for r in records]
    bench = Bench(*known, own=("127.0.0.1",))
    connection = bench.accept(1, 1, at(0))
    connection.address = Address("127.0.0.1", 40_000)
    assert len(told(bench, connection)) == 20
