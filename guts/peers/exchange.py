"""Peer exchange: nodes tell each other of nodes (GetPeers, Peers; docs/protocol.md §4).

What is passed on are signed PeerRecords of nodes that the teller has reached itself or is connected to, few of one
network. Who is told takes them for claims: they push out no peer that it has reached, and whoever tells the most loses
the most of them when there are too many (``book``). A node asks the peers that it dialled rather than those that
dialled it, one connection at a time, soon while it misses connections and every five minutes otherwise; it answers one
connection once a minute, which is often enough for all who keep to that.
"""

import math
import random
from collections.abc import Callable
from typing import ClassVar, Final

from guts.clock import Now
from guts.effects import Effect, Send
from guts.errors import PeerFault, Severity
from guts.events import ConnectionId
from guts.peers.manager import PeerManager
from guts.peers.networks import diversely, means_the_same
from guts.peers.state import PeerConnection, PeerState
from guts.records import ExpiredRecord, PeerRecord
from guts.wire.limits import MAX_PEER_RECORDS
from guts.wire.messages import Error, ErrorCode, GetPeers, Peers
from guts.wire.secure import Direction

ASK_INTERVAL: Final = 300.0
"""Seconds between two GetPeers of a node that misses no connection, ± half."""

HUNGRY_INTERVAL: Final = 10.0
"""Seconds between two GetPeers of a node that misses connections, each to another peer; ± half."""

ASK_AGAIN_AFTER: Final = 180.0
"""Seconds before the same connection is asked again: what a peer knows changes slowly."""

ANSWER_INTERVAL: Final = 60.0
"""Seconds between two answers on one connection, a third of what any node waits."""

MAX_TOLD_PER_PLACE: Final = 2
"""Records in one answer of one /24 or /48."""

FIRST_ASK: Final = 1.0
"""Seconds after a hello, at the most, until a node that misses connections asks."""


class UnsolicitedPeers(PeerFault):
    """A Peers to which no GetPeers is open."""

    code: ClassVar[str] = "UNSOLICITED_ANSWER"
    severity: ClassVar[Severity] = Severity.SERIOUS


class PeerExchange:
    """Who was asked for peers, and who has asked."""

    def __init__(self, peers: PeerManager, next_request: Callable[[], int], rng: random.Random) -> None:
        """Args: ``next_request``: returns an id for a request, one that is not under way with any peer."""
        self._peers = peers
        self._next_request = next_request
        self._rng = rng
        self._next = math.inf
        self._open: dict[ConnectionId, int] = {}
        self._asked: dict[ConnectionId, float] = {}
        self._answered: dict[ConnectionId, float] = {}

    def deadline(self) -> float:
        """Return when ``tick`` is due (monotonic seconds); infinity for never."""
        return self._next

    # --- asking ---------------------------------------------------------------------------------------------

    def ready(self, now: float) -> None:
        """Note that a peer is ready."""
        # A node without capabilities lives for one command.
        if self._peers.me.capabilities:
            soon = FIRST_ASK * self._rng.random() if self._peers.wants_more else self._jittered(ASK_INTERVAL)
            self._next = min(self._next, now + soon)

    def gone(self, connection: ConnectionId) -> None:
        """Forget a connection."""
        for noted in (self._open, self._asked, self._answered):
            noted.pop(connection, None)

    def tick(self, now: float) -> list[Effect]:
        """Ask one peer, where that is due."""
        if now < self._next:
            return []
        grey = self._peers.scores.grey
        ready = [c for c in self._peers.ready() if c.id not in self._open and not grey(c.peer, now)]
        dialled = [connection for connection in ready if connection.direction is Direction.OUTBOUND]
        able = {c.id: self._asked.get(c.id, -math.inf) + ASK_AGAIN_AFTER for c in dialled or ready}
        due = [connection for connection, time in able.items() if time <= now]
        if not due:
            self._next = min(able.values(), default=math.inf)
            return []
        self._next = now + self._jittered(HUNGRY_INTERVAL if self._peers.wants_more else ASK_INTERVAL)
        chosen = self._rng.choice(due)
        request = self._next_request()
        self._open[chosen], self._asked[chosen] = request, now
        return [Send(chosen, GetPeers(request))]

    def told(self, connection: PeerConnection, message: Peers, now: Now) -> None:
        """Take the answer to a GetPeers.

        Raises:
            UnsolicitedPeers: nothing was asked under that id.
            PeerFault: a record in it is not one that its node signed.
        """
        if self._open.get(connection.id) != message.request:
            raise UnsolicitedPeers("Peers for a request that is not open")
        del self._open[connection.id]
        records = []
        have = {state.record for state in self._peers.book.peers.values()}
        for encoded in message.records:
            if encoded in have:
                continue
            try:
                records.append(PeerRecord.verify(encoded, now.wall))
            except ExpiredRecord:
                # Clocks differ, and time has passed.
                continue
        for record in records:
            if not self._peers.scores.banned(record.peer, now.mono):
                self._peers.book.claim(record, connection.address.ip)
        self._peers.upkeep.due_at = now.mono

    def refused(self, connection: ConnectionId, request: int) -> None:
        """Note that a GetPeers is not answered."""
        if self._open.get(connection) == request:
            del self._open[connection]

    # --- answering ------------------------------------------------------------------------------------------

    def asked(self, connection: PeerConnection, message: GetPeers, now: Now) -> list[Effect]:
        """Answer a GetPeers, or say when to ask again; a peer with faults is told of nobody."""
        if self._peers.scores.grey(connection.peer, now.mono):
            return [Send(connection.id, Error(message.request, ErrorCode.REFUSED, "not told to you"))]
        wait = self._answered.get(connection.id, -math.inf) + ANSWER_INTERVAL - now.mono
        if wait > 0:
            busy = Error(message.request, ErrorCode.BUSY, "asked too often", math.ceil(wait))
            return [Send(connection.id, busy)]
        self._answered[connection.id] = now.mono
        return [Send(connection.id, Peers(message.request, tuple(self._worth_telling(connection, now))))]

    def _worth_telling(self, asker: PeerConnection, now: Now) -> list[bytes]:
        known = [
            state
            for state in self._peers.book.peers.values()
            if (state.reached or state.connection is not None)
            and self._means_something(state, asker)
            and not self._peers.scores.grey(state.id, now.mono)
        ]
        self._rng.shuffle(known)
        place = self._peers.book.place
        told: list[bytes] = []
        turns: dict[str, int] = {}
        for state in diversely(known, place):
            turns[place(state)] = turns.get(place(state), 0) + 1
            if len(told) == MAX_PEER_RECORDS or turns[place(state)] > MAX_TOLD_PER_PLACE:
                break
            if state.record_expires > now.wall or _still_good(state.record, now.wall):
                told.append(state.record)
        return told

    def _means_something(self, state: PeerState, asker: PeerConnection) -> bool:
        return (
            bool(state.record)
            and state.id != asker.peer
            and any(means_the_same(asker.address.ip, address.ip) for address in state.addresses)
        )

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(0.5, 1.5)


def _still_good(record: bytes, wall: int) -> bool:
    """Tell whether what a database kept is still a record, and its time is not over."""
    try:
        PeerRecord.verify(record, wall)
    except PeerFault:
        return False
    return True
