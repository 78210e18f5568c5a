"""``PeerManager``: dial, greet, keep alive, let go."""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from guts.addresses import Address, BootstrapAddress
from guts.clock import Now
from guts.effects import Dial, Disconnect, Effect, PeerSeen, Persist, Send
from guts.errors import GutsError, PeerFault, Severity
from guts.events import Connected, ConnectionId
from guts.ids import PeerId, RepositoryId
from guts.peers.backoff import MAX_DELAY, MAX_DELAY_FOR_HOLDER, Backoff
from guts.peers.score import DISCONNECT_AT, Scores
from guts.peers.state import MAX_REPOSITORIES_PER_PEER, PeerConnection, PeerState
from guts.records import InvalidRecord, PeerRecord
from guts.wire.limits import PROTOCOL_VERSION
from guts.wire.messages import Goodbye, GoodbyeCode, Hello, HelloAck, Message, Ping, Pong, Subscribe
from guts.wire.secure import Direction

HELLO_TIMEOUT: Final = 5.0
"""Seconds from the end of the handshake to the end of the hello; an honest peer needs one round trip."""

DEAD_AFTER: Final = 3.0
"""Silent keep-alive intervals after which a peer is dead: two lost Pings are bad luck, three are not."""

PING_JITTER: Final = 0.2
TARGET_OUTBOUND: Final = 8
"""Connections we dial ourselves: who dials chooses, and so cannot be surrounded by those who dial us."""

MAX_CONCURRENT_DIALS: Final = 8
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
    """A peer as the database remembers it."""

    peer: PeerId
    addresses: tuple[Address, ...]
    last_seen: int


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
        self.peers: dict[PeerId, PeerState] = {
            row.peer: PeerState(row.peer, row.addresses, last_seen=row.last_seen) for row in stored
        }
        self.connections: dict[ConnectionId, PeerConnection] = {}
        self._limits = limits
        self._bootstrap = bootstrap
        self._rng = rng
        self._dialling: set[BootstrapAddress] = set()
        self._backoffs: dict[BootstrapAddress, Backoff] = {}
        self._doors: dict[BootstrapAddress, PeerId] = {}

    # --- questions ------------------------------------------------------------------------------------------

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

    def random_peers(self, count: int, among: Iterable[PeerId], exclude: PeerId | None = None) -> list[PeerId]:
        """Return at most ``count`` of the peers ``among``, drawn without repetition."""
        candidates = sorted(peer for peer in among if peer != exclude)
        return self._rng.sample(candidates, min(count, len(candidates)))

    def peers_with_repository(self, repository: RepositoryId) -> list[PeerState]:
        """Return the ready peers known to hold ``repository``."""
        return [state for c in self.ready() if (state := self.peers[c.peer]) and repository in state.repositories]

    def subscribers(self, repository: RepositoryId) -> list[PeerState]:
        """Return the ready peers that want the news of ``repository``."""
        return [state for c in self.ready() if (state := self.peers[c.peer]) and repository in state.subscriptions]

    def connection_to(self, peer: PeerId) -> PeerConnection | None:
        """Return the ready connection to ``peer``."""
        state = self.peers.get(peer)
        return state.connection if state else None

    def broadcast(self, message: Message) -> list[Effect]:
        """Return one ``Send`` of ``message`` for every ready peer."""
        return [Send(connection.id, message) for connection in self.ready()]

    def deadline(self, now: float) -> float:
        """Return when ``tick`` is due next (monotonic seconds); infinity where nothing is pending."""
        times = [c.next_ping if c.ready else c.opened_at + HELLO_TIMEOUT for c in self._open()]
        times += [c.last_heard + self._dead_after for c in self._open()]
        if self._outbound_missing() > 0:
            times += [max(now, backoff.not_before) for _, backoff in self._candidates()]
        return min(times, default=math.inf)

    # --- connections ----------------------------------------------------------------------------------------

    def closing(self, connection_id: ConnectionId, effect: Disconnect) -> list[Effect]:
        """Note that a connection is being closed; once is enough."""
        connection = self.connections.get(connection_id)
        if connection is None or connection.closing:
            return []
        connection.closing = True
        return [effect]

    def connect(self, target: BootstrapAddress) -> list[Effect]:
        """Dial ``target`` unless that is under way already."""
        if target in self._dialling:
            return []
        self._dialling.add(target)
        return [Dial(target)]

    def dial_failed(self, target: BootstrapAddress, error: GutsError, now: Now) -> list[Effect]:
        """Note a failed dial; a node that answered under a wrong id is nobody's fault yet."""
        self._dialling.discard(target)
        if target.peer is not None and (state := self.peers.get(target.peer)) is not None:
            cap = MAX_DELAY_FOR_HOLDER if state.repositories else MAX_DELAY
            state.backoff.failed(now.mono, self._rng, cap)
        self._door_failed(target, now.mono)
        return []

    def _door_failed(self, target: BootstrapAddress | None, now: float) -> None:
        if target in self._bootstrap:
            self._backoffs.setdefault(target, Backoff()).failed(now, self._rng, MAX_DELAY_FOR_HOLDER)

    def connected(self, event: Connected, now: Now) -> list[Effect]:
        """Take a new connection in, or say goodbye to it."""
        if event.dialled is not None:
            self._dialling.discard(event.dialled)
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
        return [
            Send(
                event.connection,
                Hello(
                    PROTOCOL_VERSION,
                    PROTOCOL_VERSION,
                    self.me.software,
                    self.me.capabilities,
                    self.peer_record,
                    now.wall,
                    self.me.start_nonce,
                ),
            )
        ]

    def hello(self, connection: PeerConnection, hello: Hello, now: Now) -> list[Effect]:
        """Answer the dialler's Hello; afterwards ``connection.ready`` tells whether it stays.

        Raises:
            PeerFault: a Hello that no state allows, or one with an invalid record.
        """
        if connection.ready or connection.direction is Direction.OUTBOUND:
            raise UnexpectedMessage("Hello twice, or from the side that was dialled")
        if not hello.version_min <= PROTOCOL_VERSION <= hello.version_max:
            text = f"no common version: this node speaks {PROTOCOL_VERSION}"
            return [Disconnect(connection.id, Goodbye(GoodbyeCode.NO_COMMON_VERSION, text, 0))]
        ack = HelloAck(
            PROTOCOL_VERSION,
            self.me.software,
            self.me.capabilities,
            self.peer_record,
            now.wall,
            self.me.start_nonce,
        )
        effects: list[Effect] = [Send(connection.id, ack)]
        return effects + self._introduced(connection, hello, now)

    def hello_ack(self, connection: PeerConnection, ack: HelloAck, now: Now) -> list[Effect]:
        """Take the answer to our Hello; afterwards ``connection.ready`` tells whether it stays.

        Raises:
            PeerFault: a HelloAck that no state allows, or one with an invalid record.
        """
        if connection.ready or connection.direction is Direction.INBOUND:
            raise UnexpectedMessage("HelloAck twice, or from the side that dialled")
        if ack.version != PROTOCOL_VERSION:
            raise UnexpectedMessage("HelloAck names a version that was not offered")
        return self._introduced(connection, ack, now)

    def _introduced(self, connection: PeerConnection, hello: Hello | HelloAck, now: Now) -> list[Effect]:
        record = PeerRecord.verify(hello.peer_record, now.wall)
        if record.peer != connection.peer:
            raise InvalidRecord("the hello carries another node's record")
        connection.start_nonce = hello.start_nonce
        connection.software = hello.software
        state = self.state(connection.peer)
        if connection.dialled is not None:
            self._backoffs.pop(connection.dialled, None)
            if connection.dialled in self._bootstrap:
                self._doors[connection.dialled] = connection.peer
        effects: list[Effect] = []
        if state.connection is not None:
            keep, close = self._settle(state.connection, connection)
            close.ready = False
            effects.append(Disconnect(close.id, Goodbye(GoodbyeCode.DUPLICATE, "another connection of ours stays", 0)))
            if keep is not connection:
                return effects
        connection.ready = connection.was_ready = True
        reached = (connection.address,) if connection.direction is Direction.OUTBOUND else ()
        state.connection = connection
        state.addresses = tuple(dict.fromkeys((*reached, *record.addresses)))
        state.capabilities = hello.capabilities
        state.last_seen = now.wall
        state.backoff.succeeded()
        state.subscriptions.clear()
        seen = PeerSeen(
            connection.peer, reached[0] if reached else None, hello.peer_record, hello.capabilities, now.wall
        )
        return [*effects, Persist(seen)]

    def _settle(self, old: PeerConnection, new: PeerConnection) -> tuple[PeerConnection, PeerConnection]:
        """Return which of two connections to one peer stays, and which goes (docs/protocol.md §4)."""
        if new.start_nonce != old.start_nonce:
            return new, old
        if new.direction is old.direction:
            return old, new
        ours_stays = self.me.peer < new.peer
        outbound, inbound = (new, old) if new.direction is Direction.OUTBOUND else (old, new)
        return (outbound, inbound) if ours_stays else (inbound, outbound)

    def disconnected(
        self, connection_id: ConnectionId, error: GutsError | None, now: Now
    ) -> tuple[PeerConnection, list[Effect]]:
        """Forget a connection; count the fault where its end was one."""
        connection = self.connections.pop(connection_id)
        state = self.peers.get(connection.peer)
        effects: list[Effect] = []
        if isinstance(error, PeerFault):
            effects += self.scores.count(connection.peer, error, now)
        self._door_failed(connection.dialled, now.mono)
        if state is not None and state.connection is connection:
            state.connection = None
            state.last_seen = now.wall
            state.subscriptions.clear()
            if error is not None:
                cap = MAX_DELAY_FOR_HOLDER if state.repositories else MAX_DELAY
                state.backoff.failed(now.mono, self._rng, cap)
        return connection, effects

    def fault(self, connection: PeerConnection, error: PeerFault, now: Now) -> list[Effect]:
        """Count ``error`` against the peer; close the connection where it has had enough of them."""
        effects: list[Effect] = [*self.scores.count(connection.peer, error, now)]
        if error.severity >= Severity.FATAL or self.scores.value(connection.peer, now.mono) >= DISCONNECT_AT:
            goodbye = Goodbye(GoodbyeCode.PROTOCOL_FAULT, "protocol fault", 0)
            effects.append(Disconnect(connection.id, goodbye))
        return effects

    # --- messages -------------------------------------------------------------------------------------------

    def pong(self, connection: PeerConnection, pong: Pong, now: float) -> None:
        """Take the answer to our Ping; one that answers nothing is an old one, and harmless."""
        if connection.ping is not None and connection.ping[0] == pong.nonce:
            connection.rtt = now - connection.ping[1]
            connection.ping = None

    def subscribe(self, connection: PeerConnection, message: Subscribe) -> None:
        """Note whose news the peer wants; who wants them holds them, or soon will.

        Raises:
            UnexpectedMessage: more subscriptions than a peer may have.
        """
        state = self.state(connection.peer)
        state.subscriptions.difference_update(message.removed)
        state.subscriptions.update(message.added)
        if len(state.subscriptions) > MAX_REPOSITORIES_PER_PEER:
            raise UnexpectedMessage("more subscriptions than a peer may have")

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
        missing = self._outbound_missing()
        due = [target for target, backoff in self._candidates() if backoff.not_before <= now.mono]
        return [Dial(target) for target in due[: max(0, missing)]]

    def _outbound_missing(self) -> int:
        outbound = sum(1 for c in self.connections.values() if c.direction is Direction.OUTBOUND)
        wanted = min(TARGET_OUTBOUND, self._limits.max_connections)
        return min(wanted - outbound, MAX_CONCURRENT_DIALS) - len(self._dialling)

    def _candidates(self) -> list[tuple[BootstrapAddress, Backoff]]:
        """Return whom to dial: operator's doors first, then last-good addresses, the most recent first."""
        connected = {c.peer for c in self.connections.values()}
        dialled = {c.dialled for c in self.connections.values()}
        doors = [
            (target, self._backoffs.get(target, Backoff()))
            for target in self._bootstrap
            if target not in self._dialling
            and target not in dialled
            and (target.peer or self._doors.get(target)) not in connected
        ]
        known = [
            (target, state.backoff)
            for state in sorted(self.peers.values(), key=lambda state: -state.last_seen)
            if state.addresses and state.last_seen and state.id not in connected and state.id != self.me.peer
            if (target := _target(state)) not in self._dialling
        ]
        return doors + known

    @property
    def _dead_after(self) -> float:
        return DEAD_AFTER * self._limits.keepalive_interval

    def _ping_interval(self) -> float:
        return self._limits.keepalive_interval * self._rng.uniform(1 - PING_JITTER, 1 + PING_JITTER)

    def _refusal(self, event: Connected, now: float) -> Goodbye | None:
        if self.scores.banned(event.peer, now):
            return Goodbye(GoodbyeCode.BANNED, "banned", int(self.scores.ban_left(event.peer, now)) + 1)
        maximum = self._limits.max_connections
        if event.direction is Direction.INBOUND:
            # Room is kept for those that we dial; a small table keeps half.
            maximum -= min(TARGET_OUTBOUND, maximum // 2)
            taken = sum(1 for c in self.connections.values() if c.direction is Direction.INBOUND)
        else:
            taken = len(self.connections)
        return Goodbye(GoodbyeCode.FULL, "no free connection", 60) if taken >= maximum else None

    def _forget_one(self) -> None:
        """Forget the peer that is least use: not connected, seen the longest ago."""
        idle = [state for state in self.peers.values() if state.connection is None]
        if idle:
            del self.peers[min(idle, key=lambda state: state.last_seen).id]


def _target(state: PeerState) -> BootstrapAddress:
    address = state.addresses[state.backoff.failures % len(state.addresses)]
    return BootstrapAddress(address.ip, address.port, state.id)
