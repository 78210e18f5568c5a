"""When something is due: asked after every event, so answered without a look at every connection."""

import random

import pytest

from guts.effects import Disconnect, Send
from guts.events import ConnectionId
from guts.peers.keepalive import DEAD_AFTER, HELLO_TIMEOUT, PING_JITTER, KeepAlive
from guts.peers.state import PeerConnection
from guts.wire.messages import Ping
from guts.wire.secure import Direction
from tests.support.peers import IDS, address


def connection(now: float, *, ready: bool) -> PeerConnection:
    return PeerConnection(ConnectionId(1), Direction.OUTBOUND, IDS[1], address(1), None, now, now, ready=ready)


@pytest.mark.parametrize("interval", [1.0, 30.0])
def test_ping_is_due_in_time_whenever_the_hello_came(interval: float) -> None:
    keepalive = KeepAlive(interval, random.Random(1))
    peer = connection(0.0, ready=False)
    keepalive.opened(peer, 0.0)
    peer.ready = True
    pinged: list[float] = []
    while len(pinged) < 5:
        now = keepalive.due_at
        effects = keepalive.tick([peer], now)
        assert keepalive.due_at > now
        if effects:
            assert isinstance(effects[0], Send)
            assert isinstance(effects[0].message, Ping)
            pinged.append(now)
        # It answers; nothing is due earlier for that, and nobody asks again.
        peer.last_heard = now
    waits = [later - sooner for sooner, later in zip([0.0, *pinged], pinged, strict=False)]
    assert all(interval * (1 - PING_JITTER) <= wait <= interval * (1 + PING_JITTER) for wait in waits)


def test_who_says_no_hello_and_who_is_silent_are_let_go_in_time() -> None:
    keepalive = KeepAlive(30.0, random.Random(1))
    mute, silent = connection(0.0, ready=False), connection(0.0, ready=True)
    for peer in (mute, silent):
        keepalive.opened(peer, 0.0)
    assert keepalive.due_at == HELLO_TIMEOUT
    [end] = keepalive.tick([mute, silent], HELLO_TIMEOUT)
    assert isinstance(end, Disconnect)
    ends: list[float] = []
    while not ends:
        now = keepalive.due_at
        ends += [now for effect in keepalive.tick([silent], now) if isinstance(effect, Disconnect)]
    assert ends == [DEAD_AFTER * 30.0]


def test_nothing_is_due_where_nobody_is() -> None:
    keepalive = KeepAlive(30.0, random.Random(1))
    keepalive.opened(connection(0.0, ready=True), 0.0)
    assert keepalive.tick([], 40.0) == []
    assert keepalive.due_at == float("inf")
