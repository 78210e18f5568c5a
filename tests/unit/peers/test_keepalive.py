"""Timers of many connections: each is pinged, and let go of, at its own time, and asking when costs nothing."""

import random
from collections.abc import Iterator, Mapping

from guts.addresses import Address
from guts.effects import Disconnect, Send
from guts.events import ConnectionId
from guts.ids import PeerId
from guts.peers.keepalive import DEAD_AFTER, HELLO_TIMEOUT, KeepAlive
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
            connections._connections[effect.connection].last_heard = now
        # Somebody says something, and the driver asks again.
        connections._connections[ConnectionId(rng.randrange(1000))].last_heard = now
        keepalive.deadline()
        events += 2
    gaps = [b - a for times in pings.values() for a, b in zip([0.0, *times], times, strict=False)]
    assert 24.0 <= min(gaps) <= max(gaps) <= 36.0
    assert all(len(times) >= 8 for times in pings.values())
    assert connections.looks / events < 10


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
