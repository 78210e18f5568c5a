"""``PeerManager``: dial, greet, keep alive, let go."""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from guts.addresses import Address, BanSubject, BootstrapAddress
from guts.clock import Now
from guts.effects import Dial, Disconnect, Effect, PeerMissed, PeerSeen, Persist, Send
from guts.errors import GutsError, PeerFault, Severity
from guts.events import Connected, ConnectionId
from guts.ids import PeerId, RepositoryId
from guts.peers.book import AddressBook, StoredPeer
from guts.peers.dialling import OF_OUR_OWN_ACCORD, Dialling, NotDialled, Purpose
from guts.peers.greeting import Self, UnexpectedMessage, clock_offset, introduce
from guts.peers.keepalive import KeepAlive
from guts.peers.mass_fault import MIN_PEERS, Evidence
from guts.peers.networks import Surroundings, host, prefix
from guts.peers.penalties import stayed
from guts.peers.score import Scores
from guts.peers.slots import Slots
from guts.peers.state import MAX_REPOSITORIES_PER_PEER, PeerConnection, PeerState, SaidGoodbye
from guts.peers.upkeep import Upkeep
from guts.peers.usefulness import UNKNOWN_RATE
from guts.wire.limits import MAX_RETRY_AFTER_S, PROTOCOL_VERSION
from guts.wire.messages import Goodbye, GoodbyeCode, Hello, HelloAck, Message, Subscribe
from guts.wire.secure import Direction

FULL_RETRY_AFTER: Final = 60
"""Seconds that a peer is asked to wait when every connection is taken."""

GUARD_INTERVAL: Final = 1.0
"""Seconds between two looks at whether this node itself is the broken one: each goes through every connection, and a
node with many of them wakes fifty times a second."""

RETURNS_PER_SECOND: Final = 3
"""Peers that are to come back to this node after its restart, in each second."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's choices; see ``NetworkConfig``. Times are seconds."""

    max_connections: int
    keepalive_interval: float


class PeerManager:
    """Every peer and every connection of this node; see the package's docstring.

    Attributes:
        book: whom it knows.
        upkeep: whom it dials of its own accord.
    """

    def __init__(
        self,
        me: Self,
        peer_record: bytes,
        limits: Limits,
        scores: Scores,
        stored: Iterable[StoredPeer],
        bootstrap: tuple[BootstrapAddress, ...],
        rng: random.Random,
        own_ips: Iterable[str] = (),
    ) -> None:
        """Args: ``own_ips``: addresses of this node, which tell what non-global ranges it is in."""
        self.me = me
        self.peer_record = peer_record
        self.scores = scores
        self.surroundings = Surroundings(own_ips)
        self.book = AddressBook(me.peer, stored, self.surroundings)
        self.connections: dict[ConnectionId, PeerConnection] = {}
        self.rng = rng
        self._slots = Slots(limits.max_connections, self.surroundings, rng.randbytes(16))
        self._keepalive = KeepAlive(self.connections, limits.keepalive_interval, rng)
        self._dialling = Dialling(bootstrap, self.book, self.surroundings, rng)
        self.upkeep = Upkeep(
            me.peer,
            self.connections,
            self.book,
            self._dialling,
            self._slots,
            self.surroundings,
            scores,
            rng,
            feelers=bool(me.capabilities),
        )
        self._stopping = False
        self._guard_at = -math.inf

    # --- questions ------------------------------------------------------------------------------------------

    @property
    def peers(self) -> dict[PeerId, PeerState]:
        """What is known of every peer."""
        return self.book.peers

    @property
    def knows_nobody(self) -> bool:
        """Tell whether nobody is connected, and there is neither a door nor a peer of before to dial."""
        return not (self.connections or self.peers or self._dialling.has_doors)

    @property
    def wants_more(self) -> bool:
        """Tell whether there are fewer connections than this node wants to have dialled."""
        return not self._stopping and self.upkeep.missing() > 0

    def offer(self, capability: str) -> None:
        """Name ``capability`` too in every hello from now on."""
        if capability not in self.me.capabilities:
            self.me = replace(self.me, capabilities=(*self.me.capabilities, capability))

    def ready(self) -> Iterator[PeerConnection]:
        """Yield the ready connections, in the order in which they were opened."""
        return (connection for connection in self.upkeep.opened() if connection.ready)

    def state(self, peer: PeerId, source: str = "") -> PeerState:
        """Return what is known of ``peer``, beginning to know it where nothing is; ``source``: who told of it."""
        return self.book.state(peer, source)

    def peers_with_repository(self, repository: RepositoryId) -> list[PeerState]:
        """Return the ready peers known to hold ``repository``."""
        return [state for c in self.ready() if (state := self.peers[c.peer]) and repository in state.repositories]

    def preference(self, peer: PeerId, now: float) -> float:
        """Return how gladly ``peer`` is asked for something; below 0: only where nobody else has it."""
        if self.scores.grey(peer, now):
            return -1.0
        state = self.peers.get(peer)
        return state.usefulness.value if state is not None else UNKNOWN_RATE

    def penalty(self, peer: PeerId, ip: str, now: float) -> float:
        """Return how many times as much everything costs for ``peer``, who speaks to us from ``ip``."""
        state = self.peers.get(peer)
        connection = state.connection if state is not None else None
        since = connection.opened_at if connection is not None else now
        stay = state.stay if state is not None else None
        if stay is not None and stay.host == host(ip) and not self.scores.value(peer, now):
            since = min(since, stay.since)
        return 1.0 if peer in self.scores.trusted else self.scores.penalty(ip, since, now)

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
        """Return by how many milliseconds the clocks of whom we chose are ahead, the median; ``None``: nobody's."""
        # Of one network the connection that has lasted longest speaks.
        voters = {place: c for c in reversed([*self.ready()]) if (place := self._vote_of(c)) is not None}
        return clock_offset(voters.values(), now)

    def deadline(self, now: float) -> float:
        """Return when ``tick`` is due next (monotonic seconds); infinity where nothing is pending."""
        return max(now, min(self.upkeep.due_at, self._keepalive.deadline(), self.scores.bans.next_end))

    # --- connections ----------------------------------------------------------------------------------------

    def closing(self, effect: Disconnect) -> list[Effect]:
        """Note that a connection is being closed; once is enough."""
        connection = self.connections.get(effect.connection)
        if connection is None or connection.closing:
            return []
        connection.closing = True
        if effect.goodbye is not None:
            connection.farewell = SaidGoodbye(effect.goodbye, by_this_node=True)
        return [effect]

    def goodbye(self, connection: PeerConnection, goodbye: Goodbye) -> list[Effect]:
        """Take the peer's last message."""
        connection.farewell = SaidGoodbye(goodbye, by_this_node=False)
        return [Disconnect(connection.id, None)]

    def stop(self) -> Goodbye:
        """Dial nobody and let nobody in from now on; return what every peer is told.

        It names the seconds over which they are to come back, so that they do not do so all at once.
        """
        self._stopping = True
        seconds = math.ceil(len(self.connections) / RETURNS_PER_SECOND)
        return Goodbye(GoodbyeCode.SHUTTING_DOWN, "shutting down", seconds)

    def prefer(self, target: BootstrapAddress) -> None:
        """Note that the operator asks for the next dial of ``target``: it counts as one of our own accord."""
        self._dialling.plan(target, Purpose.NAMED)

    def refusal(self, dial: Dial, now: float) -> NotDialled | None:
        """Tell why ``dial`` is not begun: a stranger named an address that is not dialled on another's word, or now."""
        return self._dialling.refusal(dial, now)

    def nobody_at(self, target: BootstrapAddress, now: float) -> None:
        """Note that nobody answered at ``target``."""
        self._dialling.unanswered(target, now)

    def connect(self, dial: Dial) -> list[Effect]:
        """Begin ``dial``, unless its target is being dialled already; past 8 at a time it waits."""
        return [] if self._stopping else [*self._dialling.begin(dial)]

    def dial_failed(self, target: BootstrapAddress, now: Now) -> list[Effect]:
        """Note a failed dial; a node that answered under a wrong id is nobody's fault yet."""
        _, waiting = self._dialling.end(target)
        effects: list[Effect] = [*waiting]
        state = self.peers.get(target.peer) if target.peer is not None else None
        self._dialling.failed(target, state, now.mono, worthy=self.upkeep.worthy(state))
        if state is not None:
            self.book.missed(state)
            # Where nobody at all is here our own line may be cut: that says nothing about addresses.
            if state.good is not None and any(True for _ in self.ready()):
                effects.append(Persist(PeerMissed(state.id, state.good, now.wall)))
        self.upkeep.due_at = now.mono
        return effects

    def connected(self, event: Connected, now: Now) -> list[Effect]:
        """Take a new connection in, or say goodbye to it."""
        connection = PeerConnection(
            event.connection, event.direction, event.peer, event.address, event.dialled, now.mono, now.mono
        )
        effects: list[Effect] = []
        if event.dialled is not None:
            purpose, waiting = self._dialling.end(event.dialled)
            effects += waiting
            connection.extra = purpose not in (*OF_OUR_OWN_ACCORD, Purpose.FEELER)
            connection.feeler = purpose is Purpose.FEELER
        self._keepalive.opened(connection, now.mono)
        verdict = self._admitted(event, now.mono)
        self.connections[event.connection] = connection
        if isinstance(verdict, Goodbye):
            return [*effects, Disconnect(event.connection, verdict)]
        if event.direction is Direction.OUTBOUND:
            verdict.append(Send(event.connection, self.me.hello(self.peer_record, now)))
        return effects + verdict

    def _admitted(self, event: Connected, now: float) -> Goodbye | list[Effect]:
        """Tell why ``event`` gets no place; or who goes for it, if anybody."""
        if self._stopping:
            return Goodbye(GoodbyeCode.SHUTTING_DOWN, "shutting down")
        if (banned := self._banned(event.peer, event.address, now)) is not None:
            return banned
        full = Goodbye(GoodbyeCode.FULL, "no free connection", FULL_RETRY_AFTER)
        taken = list(self.upkeep.opened())
        if event.direction is Direction.OUTBOUND:
            return full if self._slots.free(len(taken)) <= 0 else []
        inbound = [connection for connection in taken if connection.direction is Direction.INBOUND]
        if self._slots.crowded(event.address.ip, inbound):
            return full
        if len(inbound) < self._slots.inbound_maximum and self._slots.free(len(taken)) > 0:
            return []
        victim = self._slots.least_wanted(
            inbound,
            lambda c: self.upkeep.holds_something(self.peers.get(c.peer)),
            lambda c: self._reached(c.peer),
            now,
            stranger=not self._reached(event.peer),
        )
        return full if victim is None else [Disconnect(victim.id, full)]

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
        return self._introduced(connection, hello, [Send(connection.id, self.me.ack(self.peer_record, now))], now)

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
        record = introduce(connection, hello, now)
        if connection.dialled is not None:
            self._dialling.greeted(connection.dialled, connection.peer)
        reached = connection.address if connection.direction is Direction.OUTBOUND else None
        state = self.book.state(connection.peer, prefix(connection.address.ip))
        effects: list[Effect] = []
        if (old := state.connection) is not None:
            goodbye = Goodbye(GoodbyeCode.DUPLICATE, "another connection of ours stays")
            if not old.closing and (connection.feeler or not self.me.replaces(connection, old)):
                return [Disconnect(connection.id, goodbye)]
            old.ready = False
            effects.append(Disconnect(old.id, goodbye))
        self.book.introduced(state, record, connection.address.ip, reached or state.good)
        state.reached = state.reached or reached is not None
        state.misses = 0
        state.capabilities = hello.capabilities
        state.last_seen = now.wall
        self.book.changed(state)
        self.upkeep.due_at = now.mono
        seen = self._seen(state, reached, now.wall)
        if connection.feeler and self.upkeep.missing() <= 0:
            return [*effects, *seen, Disconnect(connection.id, Goodbye(GoodbyeCode.FULL, "this address works"))]
        connection.feeler = False
        connection.ready = connection.was_ready = True
        state.connection = connection
        self.book.changed(state)
        state.subscriptions.clear()
        goes = self.upkeep.surplus(connection)
        turn = Goodbye(GoodbyeCode.FULL, "others have their turn", FULL_RETRY_AFTER)
        return [*effects, *answer, *seen, *([Disconnect(goes.id, turn)] if goes is not None else [])]

    def _seen(self, state: PeerState, reached: Address | None, wall: int) -> list[Effect]:
        """Have a meeting kept; where the peer was reached, let those that are anchors have been so a moment later."""
        effects: list[Effect] = [Persist(PeerSeen(state.id, reached, state.record, state.capabilities, wall))]
        if reached is not None:
            for connection in self.upkeep.anchors():
                kept = self.peers[connection.peer]
                if kept is not state:
                    seen = PeerSeen(kept.id, connection.address, kept.record, kept.capabilities, wall + 1)
                    effects.append(Persist(seen))
        return effects

    def disconnected(
        self, connection_id: ConnectionId, error: GutsError | None, now: Now
    ) -> tuple[PeerConnection, list[Effect]]:
        """Forget a connection; count the fault where its end was one."""
        connection = self.connections.pop(connection_id)
        effects = self.fault(connection.peer, error, now, connection) if isinstance(error, PeerFault) else []
        state = self.peers.get(connection.peer)
        if state is not None and state.connection is connection:
            state.connection = None
            state.stay = stayed(state.stay, connection.address.ip, connection.opened_at, now.mono)
            state.last_seen = now.wall
            self.book.changed(state)
            state.subscriptions.clear()
        if (state is None or state.connection is None) and not connection.feeler:
            self._put_off(connection, state, now.mono)
        self.book.trim()
        self.upkeep.due_at = now.mono
        return connection, effects

    def _put_off(self, connection: PeerConnection, state: PeerState | None, now: float) -> None:
        farewell = connection.farewell
        # Whom this node bans is not dialled while the ban lasts, and no longer.
        ours = farewell is not None and farewell.by_this_node and farewell.goodbye is GoodbyeCode.BANNED
        after = farewell.retry_after_s if farewell is not None and not ours else 0.0
        if farewell is not None and farewell.goodbye is GoodbyeCode.SHUTTING_DOWN:
            self._dialling.restarting(connection.dialled, state, now, after)
            return
        lasted = now - connection.opened_at if connection.was_ready else 0.0
        worthy = self.upkeep.worthy(state)
        self._dialling.failed(connection.dialled, state, now, worthy=worthy, lasted=lasted, at_least=after)

    def fault(self, peer: PeerId, error: PeerFault, now: Now, ended: PeerConnection | None = None) -> list[Effect]:
        """Count ``error`` against ``peer``; close its connections where it has had enough faults.

        Args:
            ended: the connection of the peer that ended in it.
        """
        everywhere = [*self.connections.values(), *([ended] if ended is not None else [])]
        addresses = {connection.address for connection in everywhere if connection.peer == peer}
        effects: list[Effect] = [*self.scores.count(peer, error, now, self._evidence(everywhere, now), addresses)]
        if not (self.scores.banned(peer, now.mono) or error.severity is Severity.FATAL):
            return effects
        goodbye = Goodbye(GoodbyeCode.PROTOCOL_FAULT, "too many faults", self._ban_seconds(peer, now.mono))
        return effects + [
            Disconnect(connection.id, goodbye) for connection in self.upkeep.opened() if connection.peer == peer
        ]

    def close_banned(self, now: float) -> list[Effect]:
        """Say goodbye to everybody who is connected and is not to be: the operator has banned somebody."""
        return [
            Disconnect(connection.id, refusal)
            for connection in self.upkeep.opened()
            if (refusal := self._banned(connection.peer, connection.address, now)) is not None
        ]

    def let_in(self, subject: BanSubject, now: float) -> None:
        """Dial whom a ban of ``subject`` concerned as if nothing had been tried: it has ended, or was lifted."""
        self._dialling.let_in(subject)
        self.upkeep.due_at = now

    def refuses(self, address: Address, now: float) -> bool:
        """Tell whether nobody may begin a handshake from ``address``: not where a trusted peer is known to be."""
        if not self.scores.refuses(address, now):
            return False
        trusted = (self.peers[peer] for peer in self.scores.trusted if peer in self.peers)
        return not any(address.ip == where.ip for state in trusted for where in state.addresses)

    def _evidence(self, connections: Iterable[PeerConnection], now: Now) -> Evidence:
        voting = [(c, place) for c in connections if c.was_ready and (place := self._vote_of(c)) is not None]
        # Whoever dials us has no say about our clock, however many they are and however few we have left.
        ready = [c for c, _ in voting if c.ready]
        offset = clock_offset(ready, now) if len(ready) >= MIN_PEERS else None
        return Evidence({c.peer: place for c, place in voting}, offset)

    def _vote_of(self, connection: PeerConnection) -> str | None:
        """Return which network a connection speaks for, where we dialled it of our own accord."""
        if connection.direction is Direction.INBOUND or connection.extra or connection.feeler:
            return None
        return self.surroundings.place(connection.address)

    def subscribe(self, connection: PeerConnection, message: Subscribe) -> None:
        """Note whose news the peer wants; past the bound nothing more is noted."""
        subscriptions = self.state(connection.peer).subscriptions
        subscriptions.difference_update(message.removed)
        subscriptions.update(message.added[: MAX_REPOSITORIES_PER_PEER - len(subscriptions)])

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, now: Now) -> list[Effect]:
        """Send the Pings that are due, let go of the dead and the mute, dial where connections are missing."""
        effects: list[Effect] = []
        for subject in self.scores.bans.ended(now.mono):
            self.let_in(subject, now.mono)
        if now.mono >= self._guard_at:
            self._guard_at = now.mono + GUARD_INTERVAL
            effects += self.scores.look(self._evidence(self.connections.values(), now), now)
        effects += self._keepalive.tick(now.mono)
        return effects if self._stopping else [*effects, *self.upkeep.tick(now.mono)]

    def _reached(self, peer: PeerId) -> bool:
        state = self.peers.get(peer)
        return state is not None and state.reached

    def _banned(self, peer: PeerId, address: Address, now: float) -> Goodbye | None:
        if self.scores.banned(peer, now):
            return Goodbye(GoodbyeCode.BANNED, "banned", self._ban_seconds(peer, now))
        if (left := self.scores.shut(peer, address, now)) is not None:
            return Goodbye(GoodbyeCode.BANNED, "banned", math.ceil(min(left, MAX_RETRY_AFTER_S)))
        return None

    def _ban_seconds(self, peer: PeerId, now: float) -> int:
        return math.ceil(min(self.scores.ban_left(peer, now), MAX_RETRY_AFTER_S))
