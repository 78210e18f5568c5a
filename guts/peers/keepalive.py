"""Keep-alive: Pings for those who are silent, and the end of those who stay so or never said hello.

Whoever has just said something is alive, so no Ping goes there, but for the first, which measures the round trip. Of
two idle nodes the one whose time comes first pings, and the other puts its own Ping off: half of what it costs when
both do it by the clock, with a thousand peers most of what an idle node does.
"""

import heapq
import math
import random
from collections.abc import Mapping
from typing import Final

from guts.effects import Disconnect, Effect, Send
from guts.events import ConnectionId
from guts.peers.state import PeerConnection
from guts.wire.messages import Goodbye, GoodbyeCode, Ping, Pong

HELLO_TIMEOUT: Final = 5.0
"""Seconds from the end of the handshake to the end of the hello; an honest peer needs one round trip."""

DEAD_AFTER: Final = 3.0
"""Silent keep-alive intervals after which a peer is dead: two lost Pings are bad luck, three are not."""

PING_JITTER: Final = 0.2

TOGETHER: Final = 0.03
"""Part of an interval by which a Ping may be early, so that those of a second go out in one turn: to wake up costs a
node as much as to ping does."""


class KeepAlive:
    """The timers of every connection, in a heap: a thousand idle peers cost nothing per event. Times are monotonic
    seconds.

    What a connection is due for only ever becomes later, as it says something. So what the heap has is never too late;
    where it is too early, that shows when it comes to the top.
    """

    def __init__(self, connections: Mapping[ConnectionId, PeerConnection], interval: float, rng: random.Random) -> None:
        """Args: ``connections``: a live view; ``interval``: seconds of silence before a Ping, ± a fifth."""
        self._connections = connections
        self._interval = interval
        self._rng = rng
        self._due: list[tuple[float, ConnectionId]] = []

    def opened(self, connection: PeerConnection, now: float) -> None:
        """Begin with ``connection``, which has just been opened."""
        self._plan_ping(connection, now)
        heapq.heappush(self._due, (min(now + connection.ping_after, self._due_at(connection)), connection.id))

    def deadline(self) -> float:
        """Return when ``tick`` is due next; infinity for never."""
        while self._due:
            planned, connection_id = self._due[0]
            connection = self._connections.get(connection_id)
            if connection is None or connection.closing:
                heapq.heappop(self._due)
            elif (due := self._due_at(connection)) > planned:
                heapq.heapreplace(self._due, (due, connection_id))
            else:
                return planned
        return math.inf

    def tick(self, now: float) -> list[Effect]:
        """Send the Pings that are due, and those that soon are; let go of the dead and the mute."""
        if self.deadline() > now:
            return []
        effects: list[Effect] = []
        waiting: list[tuple[float, ConnectionId]] = []
        while self.deadline() <= now + TOGETHER * self._interval:
            due, connection_id = heapq.heappop(self._due)
            connection = self._connections[connection_id]
            if now >= connection.last_heard + DEAD_AFTER * self._interval:
                effects.append(Disconnect(connection.id, Goodbye(GoodbyeCode.IDLE, "silent for too long", 0)))
            elif connection.ready and self._ping_at(connection) <= due:
                nonce = self._rng.getrandbits(64)
                connection.ping = nonce, now
                self._plan_ping(connection, now)
                heapq.heappush(self._due, (self._due_at(connection), connection_id))
                effects.append(Send(connection.id, Ping(nonce)))
            elif due > now:
                # Nobody is let go of early.
                waiting.append((due, connection_id))
            else:
                effects.append(Disconnect(connection.id, Goodbye(GoodbyeCode.IDLE, "no hello in time", 0)))
        for entry in waiting:
            heapq.heappush(self._due, entry)
        return effects

    def _plan_ping(self, connection: PeerConnection, now: float) -> None:
        connection.pinged_at = now
        connection.ping_after = self._interval * self._rng.uniform(1 - PING_JITTER + TOGETHER, 1 + PING_JITTER)

    def _due_at(self, connection: PeerConnection) -> float:
        due = self._ping_at(connection) if connection.ready else connection.opened_at + HELLO_TIMEOUT
        return min(due, connection.last_heard + DEAD_AFTER * self._interval)

    def _ping_at(self, connection: PeerConnection) -> float:
        heard = connection.last_heard if connection.rtt is not None else -math.inf
        return max(connection.pinged_at, heard) + connection.ping_after


def pong(connection: PeerConnection, message: Pong, now: float) -> None:
    """Take the answer to our Ping; one that answers nothing is an old one, and harmless."""
    if connection.ping is not None and connection.ping[0] == message.nonce:
        connection.rtt = now - connection.ping[1]
        connection.ping = None
