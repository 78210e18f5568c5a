"""``PeerManager``: dial, greet, keep alive, let go."""

import math
import random
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from guts.addresses import Address, BootstrapAddress
from guts.clock import Now
from guts.effects import Dial, Disconnect, Effect, PeerSeen, Persist, Send
from guts.errors import GutsError, PeerFault, Severity
from guts.events import Connected, ConnectionId
from guts.ids import PeerId, RepositoryId
from guts.peers.dialling import Dialling
from guts.peers.score import Scores
from guts.peers.state import MAX_REPOSITORIES_PER_PEER, PeerConnection, PeerState, SaidGoodbye
from guts.records import InvalidRecord, PeerRecord
from guts.wire.limits import MAX_RETRY_AFTER_S, PROTOCOL_VERSION
from guts.wire.messages import Goodbye, GoodbyeCode, Hello, HelloAck, Message, Ping, Pong, Subscribe
from guts.wire.secure import Direction

HELLO_TIMEOUT: Final = 5.0
"""Seconds from the end of the handshake to the end of the hello; an honest peer needs one round trip."""

DEAD_AFTER: Final = 3.0
"""Silent keep-alive intervals after which a peer is dead: two lost Pings are bad luck, three are not."""

PING_JITTER: Final = 0.2
TARGET_OUTBOUND: Final = 8
"""Connections we dial ourselves: who dials chooses, and so cannot be surrounded by those who dial us."""

UPKEEP_INTERVAL: Final = 60.0
"""Seconds between two looks at whom to dial where nothing happens: a ban may have ended."""

FULL_RETRY_AFTER: Final = 60
"""Seconds that a peer is asked to wait when every connection is taken."""

MAX_ADDRESS_BOOK: Final = 1000
"""Peers whose addresses are remembered in memory."""


class UnexpectedMessage(PeerFault):
    """A message came that no state of the connection allows."""

    code: ClassVar[str] = "UNEXPECTED_MESSAGE"


@dataclass(frozen=True, slots=True)
class Self:
    """What this node says of itself in its hello.

    Attributes:
        start_nonce: 8 random bytes, drawn once per process.
    """

    peer: PeerId
    software: str
    capabilities: tuple[str, ...]
    start_nonce: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's choices; see ``NetworkConfig``. Times are seconds."""

    max_connections: int
    keepalive_interval: float


@dataclass(frozen=True, slots=True)
class StoredPeer:
    """A peer as the database remembers it; ``reached``: as in ``PeerState``."""

    peer: PeerId
    addresses: tuple[Address, ...]
    last_seen: int
    reached: bool = False


class PeerManager:
    """Every peer and every connection of this node; see the package's docstring."""

    def __init__(
        self,
        me: Self,
        peer_record: bytes,
        limits: Limits,
        scores: Scores,
        stored: Iterable[StoredPeer],
        bootstrap: tuple[BootstrapAddress, ...],
        rng: random.Random,
    ) -> None:
        self.me = me
        self.peer_record = peer_record
        self.scores = scores
        best = sorted((row for row in stored if row.peer != me.peer), key=lambda row: (not row.reached, -row.last_seen))
        self.peers: dict[PeerId, PeerState] = {
            row.peer: PeerState(row.peer, row.addresses, last_seen=row.last_seen, reached=row.reached)
            for row in best[:MAX_ADDRESS_BOOK]
        }
        self.connections: dict[ConnectionId, PeerConnection] = {}
        self._limits = limits
        self._rng = rng
        self._dialling = Dialling(bootstrap, rng)
        self._upkeep_at = -math.inf

    # --- questions ------------------------------------------------------------------------------------------

    @property
    def knows_nobody(self) -> bool:
        """Tell whether nobody is connected, and there is neither a door nor a peer of before to dial."""
        return not (self.connections or self.peers or self._dialling.has_doors)

    def ready(self) -> Iterator[PeerConnection]:
        """Yield the ready connections, in the order in which they were opened."""
        return (connection for connection in self._open() if connection.ready)

    def _open(self) -> Iterator[PeerConnection]:
        return (connection for connection in self.connections.values() if not connection.closing)

    def state(self, peer: PeerId) -> PeerState:
        """Return what is known of ``peer``, beginning to know it where nothing is."""
        known = self.peers.get(peer)
        if known is None:
            if len(self.peers) >= MAX_ADDRESS_BOOK:
                self._forget_one()
            known = self.peers[peer] = PeerState(peer)
        return known

    def peers_with_repository(self, repository: RepositoryId) -> list[PeerState]:
        """Return the ready peers known to hold ``repository``."""
        return [state for c in self.ready() if (state := self.peers[c.peer]) and repository in state.repositories]

    def subscribers(self, repository: RepositoryId) -> list[PeerState]:
        """Return the ready peers that want the news of ``repository``."""
        return [state for c in self.ready() if (state := self.peers[c.peer]) and repository in state.subscriptions]

    def connection_to(self, peer: PeerId) -> PeerConnection | None:
        """Return the ready connection to ``peer``."""
        state = self.peers.get(peer)
        connection = state.connection if state is not None else None
        return connection if connection is not None and not connection.closing else None

    def broadcast(self, message: Message) -> list[Effect]:
        """Return one ``Send`` of ``message`` for every ready peer."""
        return [Send(connection.id, message) for connection in self.ready()]

    def clock_offset(self, now: Now) -> int | None:
        """Return by how many milliseconds the peers' clocks are ahead of ours, the median; ``None``: nobody is here.

        Where we dialled anybody, only those are asked: whoever dials us could otherwise outvote them.
        """
        ready = list(self.ready())
        asked = [connection for connection in ready if connection.direction is Direction.OUTBOUND] or ready
        offsets = [connection.clock_at_zero + int(now.mono * 1000) - now.wall for connection in asked]
        return statistics.median_low(offsets) if offsets else None

    def deadline(self, now: float) -> float:
        """Return when ``tick`` is due next (monotonic seconds); infinity where nothing is pending."""
        times = [c.next_ping if c.ready else c.opened_at + HELLO_TIMEOUT for c in self._open()]
        times += [c.last_heard + self._dead_after for c in self._open()]
        return max(now, min(self._upkeep_at, *times)) if times else max(now, self._upkeep_at)

    # --- connections ----------------------------------------------------------------------------------------

    def closing(self, effect: Disconnect) -> list[Effect]:
        """Note that a connection is being closed; once is enough."""
        connection = self.connections.get(effect.connection)
        if connection is None or connection.closing:
            return []
        connection.closing = True
        if effect.goodbye is not None:
            connection.farewell = SaidGoodbye("this node", effect.goodbye)
        return [effect]

    def goodbye(self, connection: PeerConnection, goodbye: Goodbye) -> list[Effect]:
        """Take the peer's last message."""
        connection.farewell = SaidGoodbye("the peer", goodbye)
        return [Disconnect(connection.id, None)]

    def connect(self, target: BootstrapAddress) -> list[Effect]:
        """Dial ``target`` unless that is under way already."""
        return [Dial(target)] if self._dialling.begin(target) else []

    def dial_failed(self, target: BootstrapAddress, now: Now) -> None:
        """Note a failed dial; a node that answered under a wrong id is nobody's fault yet."""
        self._dialling.end(target)
        self._dialling.failed(target, self.peers.get(target.peer) if target.peer is not None else None, now.mono)
        self._upkeep_at = now.mono

    def connected(self, event: Connected, now: Now) -> list[Effect]:
        """Take a new connection in, or say goodbye to it."""
        if event.dialled is not None:
            self._dialling.end(event.dialled)
        connection = PeerConnection(
            event.connection, event.direction, event.peer, event.address, event.dialled, now.mono, now.mono
        )
        connection.next_ping = now.mono + self._ping_interval()
        refusal = self._refusal(event, now.mono)
        self.connections[event.connection] = connection
        if refusal is not None:
            return [Disconnect(event.connection, refusal)]
        if event.direction is Direction.INBOUND:
            return []
        hello = Hello(
            PROTOCOL_VERSION,
            PROTOCOL_VERSION,
            self.me.software,
            self.me.capabilities,
            self.peer_record,
            now.wall,
            self.me.start_nonce,
        )
        return [Send(event.connection, hello)]

    def hello(self, connection: PeerConnection, hello: Hello, now: Now) -> list[Effect]:
        """Answer the dialler's Hello; afterwards ``connection.ready`` tells whether it stays.

        Raises:
            PeerFault: it came from the side that was dialled, or carries an invalid record.
        """
        if connection.direction is Direction.OUTBOUND:
            raise UnexpectedMessage("Hello from the side that was dialled")
        if not hello.version_min <= PROTOCOL_VERSION <= hello.version_max:
            text = f"this node speaks version {PROTOCOL_VERSION}"
            return [Disconnect(connection.id, Goodbye(GoodbyeCode.NO_COMMON_VERSION, text))]
        ack = HelloAck(
            PROTOCOL_VERSION,
            self.me.software,
            self.me.capabilities,
            self.peer_record,
            now.wall,
            self.me.start_nonce,
        )
        return self._introduced(connection, hello, [Send(connection.id, ack)], now)

    def hello_ack(self, connection: PeerConnection, ack: HelloAck, now: Now) -> list[Effect]:
        """Take the answer to our Hello; afterwards ``connection.ready`` tells whether it stays.

        Raises:
            PeerFault: it came from the side that dialled, names a version that was not offered, or carries an
                invalid record.
        """
        if connection.direction is Direction.INBOUND:
            raise UnexpectedMessage("HelloAck from the side that dialled")
        if ack.version != PROTOCOL_VERSION:
            raise UnexpectedMessage("HelloAck names a version that was not offered")
        return self._introduced(connection, ack, [], now)

    def _introduced(
        self, connection: PeerConnection, hello: Hello | HelloAck, answer: list[Effect], now: Now
    ) -> list[Effect]:
        # Its time is not looked at: it came from the node itself, just now, and clocks differ.
        record = PeerRecord.decode(hello.peer_record)
        if record.peer != connection.peer:
            raise InvalidRecord("the hello carries another node's record")
        connection.start_nonce = hello.start_nonce
        connection.software = hello.software
        connection.clock_at_zero = hello.time_ms - int(now.mono * 1000)
        if connection.dialled is not None:
            self._dialling.greeted(connection.dialled, connection.peer)
        state = self.state(connection.peer)
        goodbye = Goodbye(GoodbyeCode.DUPLICATE, "another connection of ours stays")
        effects: list[Effect] = []
        if (old := state.connection) is not None:
            if not old.closing and not self._replaces(connection, old):
                return [Disconnect(connection.id, goodbye)]
            old.ready = False
            effects.append(Disconnect(old.id, goodbye))
        connection.ready = connection.was_ready = True
        reached = connection.address if connection.direction is Direction.OUTBOUND else None
        state.connection = connection
        state.addresses = tuple(dict.fromkeys((reached, *record.addresses) if reached else record.addresses))
        state.reached = state.reached or reached is not None
        state.capabilities = hello.capabilities
        state.last_seen = now.wall
        state.subscriptions.clear()
        self._upkeep_at = now.mono
        seen = PeerSeen(connection.peer, reached, hello.peer_record, hello.capabilities, now.wall)
        return [*effects, *answer, Persist(seen)]

    def _replaces(self, new: PeerConnection, old: PeerConnection) -> bool:
        """Tell whether ``new`` takes the place of ``old`` to the same peer (docs/protocol.md §4).

        Of two that one side dialled, the one that was dialled decides: it keeps the older one, and answers a Hello
        on another with Goodbye. So a HelloAck on a second one means that the other side lost the first.
        """
        if new.start_nonce != old.start_nonce:
            return True
        if new.direction is old.direction:
            return new.direction is Direction.OUTBOUND
        return (new.direction is Direction.OUTBOUND) == (self.me.peer < new.peer)

    def disconnected(
        self, connection_id: ConnectionId, error: GutsError | None, now: Now
    ) -> tuple[PeerConnection, list[Effect]]:
        """Forget a connection; count the fault where its end was one."""
        connection = self.connections.pop(connection_id)
        effects = self.fault(connection.peer, error, now) if isinstance(error, PeerFault) else []
        state = self.peers.get(connection.peer)
        if state is not None and state.connection is connection:
            state.connection = None
            state.last_seen = now.wall
            state.subscriptions.clear()
        if state is None or state.connection is None:
            goodbye = connection.farewell.goodbye if connection.farewell is not None else None
            self._dialling.failed(
                connection.dialled,
                state,
                now.mono,
                lasted=now.mono - connection.opened_at if connection.was_ready else 0.0,
                at_least=goodbye.retry_after_s if goodbye is not None else 0.0,
            )
        self._upkeep_at = now.mono
        return connection, effects

    def fault(self, peer: PeerId, error: PeerFault, now: Now) -> list[Effect]:
        """Count ``error`` against ``peer``; close its connections where it has had enough faults."""
        effects: list[Effect] = [*self.scores.count(peer, error, now)]
        if not (self.scores.banned(peer, now.mono) or error.severity is Severity.FATAL):
            return effects
        goodbye = Goodbye(GoodbyeCode.PROTOCOL_FAULT, "too many faults", self._ban_seconds(peer, now.mono))
        return effects + [Disconnect(connection.id, goodbye) for connection in self._open() if connection.peer == peer]

    # --- messages -------------------------------------------------------------------------------------------

    def pong(self, connection: PeerConnection, pong: Pong, now: float) -> None:
        """Take the answer to our Ping; one that answers nothing is an old one, and harmless."""
        if connection.ping is not None and connection.ping[0] == pong.nonce:
            connection.rtt = now - connection.ping[1]
            connection.ping = None

    def subscribe(self, connection: PeerConnection, message: Subscribe) -> None:
        """Note whose news the peer wants; past the bound nothing more is noted."""
        subscriptions = self.state(connection.peer).subscriptions
        subscriptions.difference_update(message.removed)
        subscriptions.update(message.added[: MAX_REPOSITORIES_PER_PEER - len(subscriptions)])

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, now: Now) -> list[Effect]:
        """Send the Pings that are due, let go of the dead and the mute, dial where connections are missing."""
        effects: list[Effect] = []
        for connection in self._open():
            silent = now.mono - connection.last_heard
            if silent >= self._dead_after:
                effects.append(Disconnect(connection.id, Goodbye(GoodbyeCode.IDLE, "silent for too long", 0)))
            elif not connection.ready and now.mono >= connection.opened_at + HELLO_TIMEOUT:
                effects.append(Disconnect(connection.id, Goodbye(GoodbyeCode.IDLE, "no hello in time", 0)))
            elif connection.ready and now.mono >= connection.next_ping:
                nonce = self._rng.getrandbits(64)
                connection.ping = nonce, now.mono
                connection.next_ping = now.mono + self._ping_interval()
                effects.append(Send(connection.id, Ping(nonce)))
        return effects + self._upkeep(now)

    def _upkeep(self, now: Now) -> list[Effect]:
        if now.mono < self._upkeep_at:
            return []
        missing = self._outbound_missing()
        if missing <= 0:
            # A connection or a dial has to end first, and that brings us here again.
            self._upkeep_at = math.inf
            return []
        due, next_due = self._dialling.due(
            self.peers.values(),
            {connection.peer for connection in self.connections.values()} | {self.me.peer},
            {connection.dialled for connection in self.connections.values()},
            lambda peer: self.scores.banned(peer, now.mono),
            now.mono,
        )
        self._upkeep_at = min(next_due, now.mono + UPKEEP_INTERVAL)
        return [Dial(target) for target in due[:missing]]

    def _outbound_missing(self) -> int:
        outbound = sum(1 for c in self.connections.values() if c.direction is Direction.OUTBOUND)
        free = self._limits.max_connections - len(self.connections)
        return min(TARGET_OUTBOUND - outbound, free) - len(self._dialling.under_way)

    @property
    def _dead_after(self) -> float:
        return DEAD_AFTER * self._limits.keepalive_interval

    def _ping_interval(self) -> float:
        return self._limits.keepalive_interval * self._rng.uniform(1 - PING_JITTER, 1 + PING_JITTER)

    def _refusal(self, event: Connected, now: float) -> Goodbye | None:
        if self.scores.banned(event.peer, now):
            return Goodbye(GoodbyeCode.BANNED, "banned", self._ban_seconds(event.peer, now))
        maximum = self._limits.max_connections
        if event.direction is Direction.INBOUND:
            # Room is kept for those that we dial; a small table keeps half.
            maximum -= min(TARGET_OUTBOUND, maximum // 2)
            taken = sum(1 for c in self.connections.values() if c.direction is Direction.INBOUND)
        else:
            taken = len(self.connections)
        return Goodbye(GoodbyeCode.FULL, "no free connection", FULL_RETRY_AFTER) if taken >= maximum else None

    def _ban_seconds(self, peer: PeerId, now: float) -> int:
        return min(math.ceil(self.scores.ban_left(peer, now)), MAX_RETRY_AFTER_S)

    def _forget_one(self) -> None:
        """Forget the peer that is least use: not connected, never reached, seen the longest ago.

        Any number of identities may come and claim addresses; they push out nobody that this node has reached itself.
        """
        idle = [state for state in self.peers.values() if state.connection is None]
        if idle:
            del self.peers[min(idle, key=lambda state: (state.reached, state.last_seen)).id]
