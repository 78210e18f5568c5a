"""Keep-alive: Pings at their time, and the end of those who are silent or never said hello."""

import math
import random
from collections.abc import Iterable
from typing import Final

from guts.effects import Disconnect, Effect, Send
from guts.peers.state import PeerConnection
from guts.wire.messages import Goodbye, GoodbyeCode, Ping, Pong

HELLO_TIMEOUT: Final = 5.0
"""Seconds from the end of the handshake to the end of the hello; an honest peer needs one round trip."""

DEAD_AFTER: Final = 3.0
"""Silent keep-alive intervals after which a peer is dead: two lost Pings are bad luck, three are not."""

PING_JITTER: Final = 0.2


class KeepAlive:
    """The timers of every connection. Times are monotonic seconds.

    Attributes:
        due_at: when ``tick`` is due at the latest. Whatever happens in between only puts off what is due then: nobody
            has to look at every connection after each message.
    """

    def __init__(self, interval: float, rng: random.Random) -> None:
        """Args: ``interval``: seconds between two Pings, ± a fifth."""
        self.due_at = math.inf
        self._interval = interval
        self._rng = rng

    def opened(self, connection: PeerConnection, now: float) -> None:
        """Set the time of the first Ping."""
        self._next_ping(connection, now)
        self.due_at = min(self.due_at, *self._times(connection))

    def _next_ping(self, connection: PeerConnection, now: float) -> None:
        connection.next_ping = now + self._interval * self._rng.uniform(1 - PING_JITTER, 1 + PING_JITTER)

    def _times(self, connection: PeerConnection) -> tuple[float, float, float]:
        # The hello may come at any moment, and then the Ping is due at its time.
        mute = math.inf if connection.ready else connection.opened_at + HELLO_TIMEOUT
        return connection.next_ping, mute, connection.last_heard + DEAD_AFTER * self._interval

    def tick(self, connections: Iterable[PeerConnection], now: float) -> list[Effect]:
        """Send the Pings that are due, let go of the dead and the mute."""
        effects: list[Effect] = []
        self.due_at = math.inf
        for connection in connections:
            if now - connection.last_heard >= DEAD_AFTER * self._interval:
                effects.append(Disconnect(connection.id, Goodbye(GoodbyeCode.IDLE, "silent for too long", 0)))
                continue
            if not connection.ready and now >= connection.opened_at + HELLO_TIMEOUT:
                effects.append(Disconnect(connection.id, Goodbye(GoodbyeCode.IDLE, "no hello in time", 0)))
                continue
            if now >= connection.next_ping:
                if connection.ready:
                    nonce = self._rng.getrandbits(64)
                    connection.ping = nonce, now
                    effects.append(Send(connection.id, Ping(nonce)))
                self._next_ping(connection, now)
            self.due_at = min(self.due_at, *self._times(connection))
        return effects


def pong(connection: PeerConnection, message: Pong, now: float) -> None:
    """Take the answer to our Ping; one that answers nothing is an old one, and harmless."""
    if connection.ping is not None and connection.ping[0] == message.nonce:
        connection.rtt = now - connection.ping[1]
        connection.ping = None
