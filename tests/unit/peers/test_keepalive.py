"""Timers of many connections: each is pinged, and let go of, at its own time, and asking when costs nothing."""

import math
import random
from collections.abc import Iterator, Mapping

import pytest

from guts.addresses import Address
from guts.effects import Disconnect, Send
from guts.events import ConnectionId
from guts.ids import PeerId
from guts.peers.keepalive import DEAD_AFTER, HELLO_TIMEOUT, TOGETHER, KeepAlive
from guts.peers.state import PeerConnection
from guts.wire.messages import Ping
from guts.wire.secure import Direction

INTERVAL = 30.0


class Counted(Mapping[ConnectionId, PeerConnection]):
    """Connections, and how often one was looked at."""

    def __init__(self, count: int) -> None:
        self.looks = 0
        self._connections = {
            ConnectionId(number): PeerConnection(
                ConnectionId(number),
                Direction.INBOUND,
                PeerId(number.to_bytes(32, "big")),
                Address("192.0.2.1", 9000),
                None,
                0.0,
                0.0,
            )
            for number in range(count)
        }

    def __getitem__(self, key: ConnectionId) -> PeerConnection:
        self.looks += 1
        return self._connections[key]

    def __iter__(self) -> Iterator[ConnectionId]:
        return iter(self._connections)

    def __len__(self) -> int:
        return len(self._connections)


def kept(count: int, *, ready: bool = True) -> tuple[Counted, KeepAlive]:
    connections = Counted(count)
    keepalive = KeepAlive(connections, INTERVAL, random.Random(1))
    for connection in connections.values():
        connection.ready = ready
        keepalive.opened(connection, 0.0)
    return connections, keepalive


def test_each_of_many_is_pinged_about_every_30_seconds_and_asking_when_costs_little() -> None:
    connections, keepalive = kept(1000)
    connections.looks = 0
    pings: dict[ConnectionId, list[float]] = {number: [] for number in connections}
    rng, events, now = random.Random(2), 0, 0.0
    while (now := keepalive.deadline()) < 300.0:
        for effect in keepalive.tick(now):
            assert isinstance(effect, Send)
            assert isinstance(effect.message, Ping)
            pings[effect.connection].append(now)
            events += 1
            connections._connections[effect.connection].last_heard = now
        # Somebody says something, and the driver asks again.
        connections._connections[ConnectionId(rng.randrange(1000))].last_heard = now
        keepalive.deadline()
        events += 1
    gaps = [b - a for times in pings.values() for a, b in zip([0.0, *times], times, strict=False)]
    assert 24.0 <= min(gaps) <= max(gaps) <= 36.0
    assert all(len(times) >= 8 for times in pings.values())
    assert connections.looks / events < 10


def test_pings_of_a_second_go_out_in_one_turn() -> None:
    connections, keepalive = kept(1000)
    turns, pings, now = 0, 0, 0.0
    while (now := keepalive.deadline()) < 300.0:
        effects = keepalive.tick(now)
        assert effects
        turns, pings = turns + 1, pings + len(effects)
        for connection in connections.values():
            connection.last_heard = now
    assert pings / turns > 15
    due = keepalive.deadline()
    assert keepalive.tick(math.nextafter(due, 0.0)) == []


class Planned(random.Random):
    """Pings come when the test says."""

    def __init__(self, *intervals: float) -> None:
        super().__init__(1)
        self._next = iter(intervals)

    def uniform(self, a: float, b: float) -> float:
        return next(self._next, b)


@pytest.mark.parametrize(("seconds", "pinged"), [(-0.001, True), (0.001, False)])
def test_ping_is_early_by_so_much_and_no_more(seconds: float, pinged: bool) -> None:
    connections = Counted(2)
    late = 0.9 + TOGETHER + seconds / INTERVAL
    keepalive = KeepAlive(connections, INTERVAL, Planned(0.9, late))
    for connection in connections.values():
        connection.ready = True
        keepalive.opened(connection, 0.0)
    sends = [effect for effect in keepalive.tick(0.9 * INTERVAL) if isinstance(effect, Send)]
    assert [send.connection for send in sends] == ([0, 1] if pinged else [0])


def test_nobody_is_let_go_of_early_with_the_pings_of_others() -> None:
    connections = Counted(2)
    mute, other = connections.values()
    other.ready = True
    keepalive = KeepAlive(connections, INTERVAL, Planned(1.0, (HELLO_TIMEOUT - 0.001) / INTERVAL))
    keepalive.opened(mute, 0.0)
    keepalive.opened(other, 0.0)
    [ping] = keepalive.tick(HELLO_TIMEOUT - 0.001)
    assert isinstance(ping, Send)
    assert ping.connection == other.id
    [end] = keepalive.tick(HELLO_TIMEOUT)
    assert isinstance(end, Disconnect)
    assert end.connection == mute.id


def test_silent_connection_is_let_go_of_after_three_intervals_from_its_last_word() -> None:
    connections, keepalive = kept(1)
    connections[ConnectionId(0)].last_heard = 12.5
    while True:
        now = keepalive.deadline()
        effects = keepalive.tick(now)
        if any(isinstance(effect, Disconnect) for effect in effects):
            break
    assert now == 12.5 + DEAD_AFTER * INTERVAL
    assert keepalive.deadline() == float("inf")


def test_connection_without_a_hello_is_let_go_of_after_five_seconds_and_not_before() -> None:
    _, keepalive = kept(1, ready=False)
    assert keepalive.deadline() == HELLO_TIMEOUT
    assert keepalive.tick(HELLO_TIMEOUT - 0.001) == []
    (effect,) = keepalive.tick(HELLO_TIMEOUT)
    assert isinstance(effect, Disconnect)


def test_what_is_closing_or_gone_has_no_time() -> None:
    connections, keepalive = kept(3)
    connections[ConnectionId(0)].closing = True
    del connections._connections[ConnectionId(1)]
    connections[ConnectionId(2)].closing = True
    assert keepalive.deadline() == float("inf")
    assert keepalive.tick(1e9) == []


def test_who_has_said_hello_is_pinged_at_its_time_and_not_at_the_end_of_the_time_for_that() -> None:
    connections, keepalive = kept(1, ready=False)
    connections[ConnectionId(0)].ready = True
    assert keepalive.tick(HELLO_TIMEOUT) == []
    assert 24.0 <= keepalive.deadline() <= 36.0
    (effect,) = keepalive.tick(keepalive.deadline())
    assert isinstance(effect, Send)


def test_who_says_something_is_not_pinged_once_the_round_trip_is_known() -> None:
    connections, keepalive = kept(1)
    connection = connections[ConnectionId(0)]
    # The first Ping comes whatever is said: nobody knows yet how far the peer is.
    connection.last_heard = keepalive.deadline()
    (effect,) = keepalive.tick(connection.last_heard)
    assert isinstance(effect, Send)
    connection.rtt = 0.05
    for heard in range(40, 400, 20):
        connection.last_heard = float(heard)
        assert keepalive.tick(heard + 19.9) == []
    silent = keepalive.deadline() - connection.last_heard
    assert 24.0 <= silent <= 36.0
    (effect,) = keepalive.tick(keepalive.deadline())
    assert isinstance(effect, Send)
    # Not answered: the next one comes after as long, and the end when three intervals have passed.
    assert 24.0 <= keepalive.deadline() - connection.pinged_at <= 36.0


def test_of_two_idle_nodes_one_pings_and_both_do_so_in_turn() -> None:
    """Two ends of one connection, 50 ms apart; what one sends the other has heard."""
    ends = [kept(1) for _ in range(2)]
    for number, (_, keepalive) in enumerate(ends):
        keepalive._rng.seed(number)
    sides = [connections[ConnectionId(0)] for connections, _ in ends]
    for side in sides:
        side.rtt = 0.05
    pings = [0, 0]
    while min(keepalive.deadline() for _, keepalive in ends) < 3600.0:
        turn = min((0, 1), key=lambda number: ends[number][1].deadline())
        now = ends[turn][1].deadline()
        (effect,) = ends[turn][1].tick(now)
        assert isinstance(effect, Send)
        pings[turn] += 1
        sides[1 - turn].last_heard, sides[turn].last_heard = now + 0.025, now + 0.05
    assert 100 <= sum(pings) <= 150
    assert min(pings) >= 10
