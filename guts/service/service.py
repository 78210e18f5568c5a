"""``Service``: dispatch of events to the components; see the package's docstring."""

import logging
from typing import ClassVar, Final, assert_never

from guts.addresses import BootstrapAddress
from guts.clock import Now
from guts.effects import (
    Dial,
    Disconnect,
    Effect,
    LoadRefs,
    Persist,
    Provide,
    Reply,
    ResetStream,
    SeedingStopped,
    Send,
    Serve,
    Withdraw,
)
from guts.errors import ExitStatus, GutsError, PeerFault, Unavailable, UsageError
from guts.events import (
    Accepted,
    AddressesChanged,
    CommandId,
    CommandReceived,
    Connect,
    Connected,
    ConnectionId,
    DialFailed,
    Disconnected,
    Event,
    Failed,
    FetchFinished,
    LookupFinished,
    MessageReceived,
    ProvidersFound,
    Published,
    RefsLoaded,
    Seed,
    ServeFinished,
    SyncNow,
    UnknownMessageReceived,
    Unseed,
    Woke,
)
from guts.gossip.protocol import GossipProtocol, open_envelope
from guts.ids import PeerId, RepositoryId
from guts.peers.manager import PeerManager
from guts.peers.state import PeerConnection
from guts.records import ExpiredRecord, PeerRecord
from guts.service.admission import BUSY_RETRY_AFTER, Admission, OutOfState, admit
from guts.sync.goal import SyncTimedOut, Waiter
from guts.sync.reposync import RepoSync
from guts.wire.limits import MAX_SUBSCRIPTIONS, SLICES_BYTES
from guts.wire.messages import (
    Error,
    ErrorCode,
    GetObjects,
    GetRefs,
    Goodbye,
    Gossip,
    Hello,
    HelloAck,
    Message,
    NewCommit,
    NewRepository,
    Objects,
    ObjectsStatus,
    Ping,
    Pong,
    Refs,
    ResetCode,
    Subscribe,
)

log = logging.getLogger(__name__)

ALL_SLICES: Final = b"\xff" * SLICES_BYTES


class NotFollowed(UsageError):
    """The command names a repository that this node does not follow."""

    code: ClassVar[str] = "NOT_SEEDED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND

    def __init__(self, repository: RepositoryId) -> None:
        super().__init__(f"this node does not follow {repository}", hint=f"guts seed {repository}")


class Service:
    """The state of a node, as far as decisions need it."""

    def __init__(self, peers: PeerManager, gossip: GossipProtocol, sync: RepoSync) -> None:
        self.peers = peers
        self.gossip = gossip
        self.sync = sync
        self._admission = Admission()
        self._connects: dict[BootstrapAddress, list[Waiter]] = {}

    def deadline(self, now: float) -> float:
        """Return when a ``Woke`` is wanted at the latest (monotonic seconds); infinity for never."""
        waiting = (waiter.deadline for waiters in self._connects.values() for waiter in waiters)
        return min(self.peers.deadline(now), self.sync.deadline(), *waiting)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Return what to do about ``event``, in order."""
        try:
            effects = self._dispatch(event, now)
        except PeerFault as error:
            assert isinstance(event, MessageReceived | UnknownMessageReceived)
            log.debug("connection %s: %s", event.connection, error)
            effects = self.peers.fault(self.peers.connections[event.connection], error, now)
        return self._routed(effects)

    def _dispatch(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case MessageReceived(connection=connection, message=message):
                known = self.peers.connections.get(connection)
                return self._message(known, message, now) if known is not None and not known.closing else []
            case UnknownMessageReceived(connection=connection, message_type=message_type):
                known = self.peers.connections.get(connection)
                if known is None or known.closing:
                    return []
                if not known.ready:
                    raise OutOfState(f"a message of type {message_type} before the hello")
                known.last_heard = now.mono
                return [Send(connection, Error(0, ErrorCode.UNSUPPORTED, "unknown message type"))]
            case Connected():
                return self.peers.connected(event, now)
            case DialFailed(target=target, error=error):
                return self._dial_failed(target, error, now)
            case Disconnected(connection=connection, error=error):
                return self._disconnected(connection, error, now)
            case ProvidersFound(repository=repository, records=records):
                mine = self.peers.me.peer
                others = [record for record in records if record.peer != mine]
                for record in others:
                    self.peers.state(record.peer).holds(repository)
                return self.sync.providers_found(repository, others, now.mono)
            case LookupFinished():
                return self.sync.lookup_finished(event, now.mono)
            case RefsLoaded(connection=connection, request=request, answers=answers, cursor=cursor):
                self._admission.end_load(connection)
                return [Send(connection, Refs(request, answers, cursor))]
            case FetchFinished():
                return self._fetch_finished(event, now)
            case ServeFinished(connection=connection):
                self._admission.end_serve(connection)
                return []
            case Published(repository=repository, accepted=accepted):
                return self._published(repository, accepted, now)
            case CommandReceived():
                return self._command(event, now)
            case Woke():
                return self._woke(now)
            case AddressesChanged(peer_record=peer_record):
                self.peers.peer_record = peer_record
                return []
            case _:
                assert_never(event)

    def _routed(self, effects: list[Effect]) -> list[Effect]:
        """Let the manager of peers see every dial that a component asks for, and every connection that ends."""
        routed: list[Effect] = []
        for effect in effects:
            match effect:
                case Dial(target=target):
                    routed += self.peers.connect(target)
                case Disconnect(connection=connection):
                    routed += self.peers.closing(connection, effect)
                case _:
                    routed.append(effect)
        return routed

    # --- connections ----------------------------------------------------------------------------------------

    def _message(self, connection: PeerConnection, message: Message, now: Now) -> list[Effect]:
        admit(connection, message)
        connection.last_heard = now.mono
        match message:
            case Hello():
                return self._introduced(connection, self.peers.hello(connection, message, now), now)
            case HelloAck():
                return self._introduced(connection, self.peers.hello_ack(connection, message, now), now)
            case Ping(nonce=nonce):
                return [Send(connection.id, Pong(nonce))]
            case Pong():
                self.peers.pong(connection, message, now.mono)
                return []
            case Subscribe():
                return self._subscribed(connection, message, now)
            case GetRefs():
                return self._get_refs(connection, message)
            case Refs():
                return self.sync.refs(connection.id, message, now.mono)
            case GetObjects():
                return self._get_objects(connection, message)
            case Objects():
                # Status and stream say the same; the worker that reads the stream acts on it.
                return []
            case Gossip():
                return self._gossip(connection, message, now)
            case NewCommit() | NewRepository():
                return self._news(connection, message, now)
            case Goodbye(code=code, text=text):
                log.debug("%s says goodbye: %s %s", connection.peer.short, code.name, text)
                return [Disconnect(connection.id, None)]
            case Error(request=request, code=error_code):
                return self.sync.refused(connection.id, request, error_code.name.lower(), now.mono)
            case _:
                assert_never(message)

    def _introduced(self, connection: PeerConnection, effects: list[Effect], now: Now) -> list[Effect]:
        if not connection.ready:
            return effects
        state = self.peers.state(connection.peer)
        followed = self.sync.followed()
        for start in range(0, len(followed), MAX_SUBSCRIPTIONS):
            effects.append(Send(connection.id, Subscribe(tuple(followed[start : start + MAX_SUBSCRIPTIONS]), ())))
        shared = state.repositories.intersection(followed)
        effects += self.sync.peer_ready(connection.peer, connection.id, sorted(shared), now.mono)
        if connection.dialled is not None:
            effects += self._dial_succeeded(connection.dialled, connection.peer, now)
        return effects

    def _dial_succeeded(self, target: BootstrapAddress, peer: PeerId, now: Now) -> list[Effect]:
        effects = self.sync.dial_ended(target, peer, None, now.mono)
        for waiter in self._connects.pop(target, []):
            seconds = round(now.mono - waiter.started, 3)
            effects.append(Reply(waiter.command_id, {"peer": str(peer), "seconds": seconds}))
        return effects

    def _dial_failed(self, target: BootstrapAddress, error: GutsError, now: Now) -> list[Effect]:
        self.peers.dial_failed(target, error, now)
        effects = self.sync.dial_ended(target, None, error, now.mono)
        return effects + [Reply(waiter.command_id, error) for waiter in self._connects.pop(target, [])]

    def _disconnected(self, connection_id: ConnectionId, error: GutsError | None, now: Now) -> list[Effect]:
        connection, effects = self.peers.disconnected(connection_id, error, now)
        effects += self.sync.peer_gone(connection.peer, connection_id, now.mono)
        if connection.dialled is None or connection.was_ready:
            return effects
        if self.peers.connection_to(connection.peer) is not None:
            # It was a second connection to a peer that we have already: the dial did reach it.
            return effects + self._dial_succeeded(connection.dialled, connection.peer, now)
        why = error or Unavailable("the peer closed the connection")
        effects += self.sync.dial_ended(connection.dialled, None, why, now.mono)
        return effects + [Reply(waiter.command_id, why) for waiter in self._connects.pop(connection.dialled, [])]

    # --- repositories ---------------------------------------------------------------------------------------

    def _subscribed(self, connection: PeerConnection, message: Subscribe, now: Now) -> list[Effect]:
        self.peers.subscribe(connection, message)
        state = self.peers.state(connection.peer)
        shared = [repository for repository in message.added if self.sync.holds(repository)]
        for repository in shared:
            state.holds(repository)
        return self.sync.ask(connection.peer, shared, now.mono)

    def _get_refs(self, connection: PeerConnection, message: GetRefs) -> list[Effect]:
        if not self._admission.begin_load(connection.id):
            busy = Error(message.request, ErrorCode.BUSY, "too many requests under way", BUSY_RETRY_AFTER)
            return [Send(connection.id, busy)]
        return [LoadRefs(connection.id, message.request, message.queries, message.cursor)]

    def _get_objects(self, connection: PeerConnection, message: GetObjects) -> list[Effect]:
        if message.slices != ALL_SLICES or message.filter:
            status, code, wait = ObjectsStatus.UNSUPPORTED, ResetCode.REFUSED, 0
        elif not self.sync.holds(message.repository):
            status, code, wait = ObjectsStatus.NOT_HELD, ResetCode.NOT_FOUND, 0
        elif not self._admission.begin_serve(connection.id):
            status, code, wait = ObjectsStatus.BUSY, ResetCode.LIMIT, BUSY_RETRY_AFTER
        else:
            return [Serve(connection.id, message)]
        refusal = Send(connection.id, Objects(message.request, status, wait))
        return [refusal, ResetStream(connection.id, message.stream, code)]

    def _gossip(self, connection: PeerConnection, message: Gossip, now: Now) -> list[Effect]:
        news = open_envelope(message)
        return self._news(connection, news, now) if self.gossip.first_seen(message, now.mono) else []

    def _news(self, connection: PeerConnection, news: NewCommit | NewRepository, now: Now) -> list[Effect]:
        state = self.peers.state(connection.peer)
        if isinstance(news, NewCommit):
            if self.sync.holds(news.repository):
                state.holds(news.repository)
            return self.sync.news(connection.peer, connection.id, news, now.mono)
        if news.repository not in self.sync.goals:
            return []
        try:
            holder = PeerRecord.verify(news.peer_record, now.wall)
        except ExpiredRecord:
            return []
        self.peers.state(holder.peer).holds(news.repository)
        return self.sync.ask(holder.peer, [news.repository], now.mono)

    def _fetch_finished(self, event: FetchFinished, now: Now) -> list[Effect]:
        goal = self.sync.goals.get(event.repository)
        first = goal is not None and not goal.held
        peer = goal.fetch[1] if goal is not None and goal.fetch is not None else None
        effects: list[Effect] = []
        connection = self.peers.connections.get(event.connection)
        if isinstance(event.outcome, Failed):
            error = event.outcome.error
            log.debug("fetch of %s failed: %s", event.repository.short, error)
            if isinstance(error, PeerFault) and connection is not None:
                effects += self.peers.fault(connection, error, now)
        elif peer is not None:
            self.peers.state(peer).holds(event.repository)
        effects += self.sync.fetch_finished(event, now.mono)
        if isinstance(event.outcome, Accepted) and goal is None:
            # No longer followed since; the commit says otherwise.
            effects.append(Persist(SeedingStopped(event.repository)))
        if isinstance(event.outcome, Accepted) and goal is not None:
            effects += self._announce(event.repository, event.outcome, event.connection, first, now)
        return effects

    def _published(self, repository: RepositoryId, accepted: Accepted, now: Now) -> list[Effect]:
        first = not self.sync.holds(repository)
        self.sync.published(repository, accepted.known, now.mono)
        effects: list[Effect] = [Provide(repository)] if first else []
        return effects + self._announce(repository, accepted, None, first, now)

    def _announce(
        self, repository: RepositoryId, accepted: Accepted, source: ConnectionId | None, first: bool, now: Now
    ) -> list[Effect]:
        """Tell those who want to know, but not the one who told us."""
        effects: list[Effect] = []
        if first:
            effects += self.peers.broadcast(Subscribe((repository,), ()))
            news = NewRepository(repository, accepted.known.epoch, accepted.known.identity_hash, self.peers.peer_record)
            everybody = [c.id for c in self.peers.ready() if c.id != source]
            effects += self.gossip.announce(news, everybody, now.mono)
        listeners = [
            state.connection.id
            for state in self.peers.subscribers(repository)
            if state.connection is not None and state.connection.id != source
        ]
        for author, head, record in accepted.news:
            commit = NewCommit(repository, author, head.seq, head.hash, record)
            effects += self.gossip.announce(commit, listeners, now.mono)
        return effects

    # --- commands and time ----------------------------------------------------------------------------------

    def _command(self, event: CommandReceived, now: Now) -> list[Effect]:
        command = event.command
        match command:
            case Seed(repository=repository, hints=hints, timeout=timeout):
                waiter = Waiter(event.command_id, now.mono, now.mono + timeout)
                return self.sync.want(repository, hints, waiter, now.mono)
            case SyncNow(repository=repository, timeout=timeout):
                if not self.sync.holds(repository):
                    return [Reply(event.command_id, NotFollowed(repository))]
                waiter = Waiter(event.command_id, now.mono, now.mono + timeout)
                return self.sync.sync_now(repository, waiter, now.mono)
            case Unseed(repository=repository):
                return self._unseed(event.command_id, repository)
            case Connect(target=target, timeout=timeout):
                waiter = Waiter(event.command_id, now.mono, now.mono + timeout)
                self._connects.setdefault(target, []).append(waiter)
                return [Dial(target)]
            case _:
                assert_never(command)

    def _unseed(self, command_id: CommandId, repository: RepositoryId) -> list[Effect]:
        if repository not in self.sync.goals:
            return [Reply(command_id, NotFollowed(repository))]
        kept = [Persist(SeedingStopped(repository))] if self.sync.holds(repository) else []
        return [
            *self.sync.drop(repository),
            *self.peers.broadcast(Subscribe((), (repository,))),
            Withdraw(repository),
            *kept,
            Reply(command_id, {"repository": str(repository)}),
        ]

    def _woke(self, now: Now) -> list[Effect]:
        effects = self.peers.tick(now) + self.sync.tick(now)
        for target, waiters in list(self._connects.items()):
            for waiter in [waiter for waiter in waiters if waiter.deadline <= now.mono]:
                waiters.remove(waiter)
                effects.append(Reply(waiter.command_id, SyncTimedOut(f"{target} did not answer in time")))
            if not waiters:
                del self._connects[target]
        return effects
