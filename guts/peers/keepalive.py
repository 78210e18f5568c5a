"""Keep-alive: Pings at their time, and the end of those who are silent or never said hello."""

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
    """The timers of every connection. Times are monotonic seconds."""

    def __init__(self, interval: float, rng: random.Random) -> None:
        """Args: ``interval``: seconds between two Pings, ± a fifth."""
        self._interval = interval
        self._rng = rng

    def opened(self, connection: PeerConnection, now: float) -> None:
        """Set the time of the first Ping."""
        connection.next_ping = now + self._interval * self._rng.uniform(1 - PING_JITTER, 1 + PING_JITTER)

    def times(self, connections: Iterable[PeerConnection]) -> Iterable[float]:
        """Yield when something is due for each of the open ``connections``."""
        for connection in connections:
            yield connection.next_ping if connection.ready else connection.opened_at + HELLO_TIMEOUT
            yield connection.last_heard + DEAD_AFTER * self._interval

    def tick(self, connections: Iterable[PeerConnection], now: float) -> list[Effect]:
        """Send the Pings that are due, let go of the dead and the mute."""
        effects: list[Effect] = []
        for connection in connections:
            if now - connection.last_heard >= DEAD_AFTER * self._interval:
                effects.append(Disconnect(connection.id, Goodbye(GoodbyeCode.IDLE, "silent for too long", 0)))
            elif not connection.ready and now >= connection.opened_at + HELLO_TIMEOUT:
                effects.append(Disconnect(connection.id, Goodbye(GoodbyeCode.IDLE, "no hello in time", 0)))
            elif connection.ready and now >= connection.next_ping:
                nonce = self._rng.getrandbits(64)
                connection.ping = nonce, now
                self.opened(connection, now)
                effects.append(Send(connection.id, Ping(nonce)))
        return effects


def pong(connection: PeerConnection, message: Pong, now: float) -> None:
    """Take the answer to our Ping; one that answers nothing is an old one, and harmless."""
    if connection.ping is not None and connection.ping[0] == message.nonce:
        connection.rtt = now - connection.ping[1]
        connection.ping = None
