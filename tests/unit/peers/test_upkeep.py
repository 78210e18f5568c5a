"""How many connections are wanted, for what; feelers, anchors, holders, and who goes when there are too many."""

import random

from guts.addresses import Address, BootstrapAddress
from guts.effects import Dial, Disconnect, Effect, PeerMissed, PeerSeen, Persist
from guts.errors import Unavailable
from guts.events import Connected, ConnectionId
from guts.identity import SigningKey
from guts.peers.book import MAX_ANCHORS, StoredPeer
from guts.peers.greeting import Self
from guts.peers.manager import Limits, PeerManager
from guts.peers.score import Scores
from guts.peers.slots import MAX_OUTBOUND, TARGET_OUTBOUND
from guts.peers.state import PeerConnection
from guts.peers.upkeep import FEELER_INTERVAL, SCARCE_INTERVAL, WANTED_HOLDERS
from guts.records import PeerRecord
from guts.wire.messages import Goodbye, GoodbyeCode, HelloAck
from guts.wire.secure import Direction
from tests.support.peers import IDS, WALL, at, record_of, repository

ME = 5
KEYS = [SigningKey(number.to_bytes(32, "little")) for number in range(1, 61)]
R = repository(1)


def where(number: int) -> Address:
    return Address(f"45.{number}.0.1", 9000)


def target(number: int) -> BootstrapAddress:
    return BootstrapAddress(where(number).ip, 9000, KEYS[number].peer_id)


def record(number: int) -> bytes:
    return PeerRecord.sign(KEYS[number], (where(number),), ("seed",), 1, WALL + 3_600_000).encoded


class Bench:
    """A manager whose dials all succeed, when a test says so."""

    def __init__(self, *stored: StoredPeer, seed: int = 1, capabilities: tuple[str, ...] = ("seed",)) -> None:
        me = Self(IDS[ME], "guts/test", capabilities, b"my start")
        scores, rng = Scores([], at(0)), random.Random(seed)
        self.peers = PeerManager(me, record_of(ME), Limits(50, 30.0), scores, stored, (), rng)
        self.last = 0

    def run(self, effects: list[Effect]) -> list[Effect]:
        seen: list[Effect] = []
        for effect in effects:
            match effect:
                case Dial():
                    seen += self.peers.connect(effect)
                case Disconnect():
                    seen += self.peers.closing(effect)
                case _:
                    seen.append(effect)
        return seen

    def tick(self, now: float) -> list[int]:
        """Return whom it dials now."""
        return [int(e.target.host.split(".")[1]) for e in self.run(self.peers.tick(at(now))) if isinstance(e, Dial)]

    def answer(self, number: int, now: float) -> list[Effect]:
        """Let the dial of a node succeed."""
        self.last += 1
        event = Connected(
            ConnectionId(self.last), Direction.OUTBOUND, KEYS[number].peer_id, where(number), target(number)
        )
        self.run(self.peers.connected(event, at(now)))
        ack = HelloAck(1, "guts/test", ("seed",), record(number), WALL, b"start--1")
        return self.run(self.peers.hello_ack(self.peers.connections[event.connection], ack, at(now)))

    def connection(self, number: int) -> PeerConnection | None:
        return self.peers.connection_to(KEYS[number].peer_id)

    def full(self, *, now: float = 0.0, first: int = 0) -> None:
        """Let it have the connections that it wants."""
        for number in range(first, first + TARGET_OUTBOUND):
            self.peers.prefer(target(number))
            self.run(self.peers.connect(Dial(target(number))))
            self.answer(number, now)


def stored(number: int, *, reached: bool = True) -> StoredPeer:
    return StoredPeer(KEYS[number].peer_id, (where(number),), WALL, reached, int(reached), 0, record(number))


def test_eight_are_dialled_and_no_ninth() -> None:
    bench = Bench(*[stored(n) for n in range(20)])
    dialled = bench.tick(0)
    assert len(dialled) == TARGET_OUTBOUND
    for number in dialled:
        bench.answer(number, 0)
    assert bench.peers.upkeep.missing() == 0
    assert not bench.peers.wants_more
    assert bench.tick(1) == []
    bench.peers.disconnected(ConnectionId(1), Unavailable("gone"), at(2))
    assert bench.peers.wants_more
    assert len(bench.tick(2)) == 1


def test_feeler_goes_every_two_minutes_and_leaves_again() -> None:
    bench = Bench(*[stored(n, reached=False) for n in range(20, 40)])
    bench.full()
    assert bench.tick(0) == []
    times: list[float] = []
    time = 0.0
    while len(times) < 10:
        time = bench.peers.deadline(time + 0.01)
        for connection in bench.peers.ready():
            connection.last_heard = time
        dialled = bench.tick(time)
        if not dialled:
            continue
        times.append(time)
        [number] = dialled
        goodbye = Goodbye(GoodbyeCode.FULL, "this address works")
        effects = bench.answer(number, time)
        assert effects[-1] == Disconnect(ConnectionId(bench.last), goodbye)
        assert isinstance(effects[0], Persist)
        bench.peers.disconnected(ConnectionId(bench.last), None, at(time))
        state = bench.peers.peers[KEYS[number].peer_id]
        assert (state.reached, state.connection, state.backoff.failures) == (True, None, 0)
    between = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    assert all(0.5 * FEELER_INTERVAL <= wait <= 1.5 * FEELER_INTERVAL for wait in between), between


def test_feeler_stays_where_a_connection_was_lost_meanwhile() -> None:
    bench = Bench(stored(20, reached=False))
    bench.full()
    bench.tick(0)
    time = 0.0
    while not (dialled := bench.tick(time)):
        time = bench.peers.deadline(time + 0.01)
        for connection in bench.peers.ready():
            connection.last_heard = time
    bench.peers.disconnected(ConnectionId(1), Unavailable("gone"), at(time))
    bench.answer(dialled[0], time)
    assert bench.connection(20) is not None
    assert bench.peers.upkeep.missing() == 0


def test_node_that_lives_for_one_command_sends_no_feeler() -> None:
    bench = Bench(stored(20, reached=False), capabilities=())
    bench.full()
    assert [bench.tick(time) for time in range(0, 80, 20)] == [[]] * 4
    for connection in bench.peers.ready():
        connection.last_heard = 1000.0
    assert bench.tick(1000.0) == []


def test_holders_of_what_is_scarce_are_dialled_beyond_the_eight_up_to_sixteen() -> None:
    bench = Bench(*[stored(n) for n in range(20, 50)])
    bench.peers.upkeep.followed = {repository(number) for number in range(20, 50)}
    for number in range(20, 50):
        bench.peers.peers[KEYS[number].peer_id].holds(repository(number))
    bench.full()
    dialled = []
    for step in range(4):
        now = step * (SCARCE_INTERVAL + 1)
        bench.peers.upkeep.due_at = now
        for connection in bench.peers.ready():
            connection.last_heard = now
        found = bench.tick(now)
        dialled += found
        for number in found:
            bench.answer(number, now)
    assert len(dialled) == MAX_OUTBOUND - TARGET_OUTBOUND
    assert all(connection.extra for connection in bench.peers.ready() if connection.id > TARGET_OUTBOUND)
    assert bench.peers.upkeep.missing() == 0


def test_three_holders_are_enough() -> None:
    for count in (WANTED_HOLDERS - 1, WANTED_HOLDERS):
        bench = Bench(stored(20))
        bench.peers.upkeep.followed = {R}
        bench.peers.peers[KEYS[20].peer_id].holds(R)
        bench.full()
        for number in range(count):
            bench.peers.peers[KEYS[number].peer_id].holds(R)
        assert bench.tick(0) == ([20] if count < WANTED_HOLDERS else [])


def test_seventeenth_takes_the_place_of_one_that_was_dialled_for_what_it_holds() -> None:
    """Of those the one that holds nothing that is followed, and then the longest here, has had its turn."""
    bench = Bench()
    bench.peers.upkeep.followed = {R}
    bench.full()
    for number in range(20, 28):
        bench.run(bench.peers.connect(Dial(target(number))))
        assert not [e for e in bench.answer(number, number) if isinstance(e, Disconnect)]
        if number != 23:
            bench.peers.peers[KEYS[number].peer_id].holds(R)
    for number, leaves in ((28, 23), (29, 28), (30, 29)):
        bench.run(bench.peers.connect(Dial(target(number))))
        [gone] = [e for e in bench.answer(number, number) if isinstance(e, Disconnect)]
        assert bench.peers.connections[gone.connection].peer == KEYS[leaves].peer_id
        bench.peers.disconnected(gone.connection, None, at(number))
    bench.peers.peers[KEYS[30].peer_id].holds(R)
    bench.run(bench.peers.connect(Dial(target(31))))
    [gone] = [e for e in bench.answer(31, 31) if isinstance(e, Disconnect)]
    assert bench.peers.connections[gone.connection].peer == KEYS[20].peer_id


def test_two_that_were_connected_longest_are_kept_as_the_last_that_were_reached() -> None:
    bench = Bench()
    bench.full()
    anchors = [connection.peer for connection in bench.peers.upkeep.anchors()]
    assert anchors == [KEYS[0].peer_id, KEYS[1].peer_id]
    assert len(anchors) == MAX_ANCHORS
    bench.run(bench.peers.connect(Dial(target(20))))
    effects = bench.answer(20, 5)
    seen = [e.change for e in effects if isinstance(e, Persist) and isinstance(e.change, PeerSeen)]
    assert [(change.peer, change.wall - WALL) for change in seen] == [
        (KEYS[20].peer_id, 5000),
        (KEYS[0].peer_id, 5001),
        (KEYS[1].peer_id, 5001),
    ]
    assert [change.address for change in seen] == [where(20), where(0), where(1)]


def test_failed_dial_of_a_good_address_is_kept_unless_our_own_line_may_be_cut() -> None:
    bench = Bench(stored(20))
    missed = Persist(PeerMissed(KEYS[20].peer_id, where(20), WALL + 1000))
    bench.run(bench.peers.connect(Dial(target(20))))
    assert bench.peers.dial_failed(target(20), at(0)) == []
    bench.full()
    bench.run(bench.peers.connect(Dial(target(20))))
    assert bench.peers.dial_failed(target(20), at(1)) == [missed]
    bench.peers.disconnected(ConnectionId(1), Unavailable("gone"), at(1))
    assert bench.peers.dial_failed(target(40), at(1)) == [], "a stranger"
