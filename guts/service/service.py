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
    Reply,
    ResetStream,
    SeedingStopped,
    Send,
    Serve,
    ServeGit,
    Withdraw,
)
from guts.errors import ExitStatus, GutsError, PeerFault, Unavailable, UsageError
from guts.events import (
    Accepted,
    AddressesChanged,
    AwaitReceipts,
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
    GitServed,
    Known,
    LookFinished,
    LookupFinished,
    MessageReceived,
    NothingNew,
    OwnEvent,
    ProvidersFound,
    Published,
    Read,
    RefsLoaded,
    Seed,
    ServeFinished,
    SourceFailed,
    SyncNow,
    UnknownMessageReceived,
    Unseed,
    Woke,
)
from guts.gossip.protocol import GossipProtocol, News, envelope, open_envelope
from guts.ids import PeerId, RepositoryId
from guts.peers.manager import PeerManager
from guts.peers.state import PeerConnection
from guts.records import ExpiredRecord, PeerRecord, ProviderRecord
from guts.service.admission import BUSY_RETRY_AFTER, Admission, admit, admit_unknown
from guts.sync.goal import SyncTimedOut, Waiter
from guts.sync.receipts import Receipts, ReceiptWaiter
from guts.sync.reposync import RepoSync
from guts.wire.limits import SLICES_BYTES
from guts.wire.messages import (
    UPLOAD_PACK,
    Error,
    ErrorCode,
    GetObjects,
    GetReceipt,
    GetRefs,
    GitService,
    Goodbye,
    Gossip,
    Hello,
    HelloAck,
    Message,
    NewCommit,
    NewProof,
    NewRepository,
    Objects,
    ObjectsStatus,
    Ping,
    Pong,
    Receipt,
    Refs,
    RefsStatus,
    ResetCode,
    Subscribe,
)

log = logging.getLogger(__name__)

ALL_SLICES: Final = b"\xff" * SLICES_BYTES

SEEDS: Final = "seed"
"""The capability of those who keep what they commit, and so give receipts."""


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
        self._inquiries = (sync, sync.readings)
        self.receipts = Receipts(sync.requests.next)
        self._admission = Admission()
        self._connects: dict[BootstrapAddress, list[Waiter]] = {}

    def deadline(self, now: float) -> float:
        """Return when a ``Woke`` is wanted at the latest (monotonic seconds); infinity for never."""
        waiting = (waiter.deadline for waiters in self._connects.values() for waiter in waiters)
        return min(
            [
                self.peers.deadline(now),
                *(part.deadline() for part in self._inquiries),
                self.receipts.deadline(),
                *waiting,
            ]
        )

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Return what to do about ``event``, in order."""
        match event:
            case MessageReceived(connection=connection_id) | UnknownMessageReceived(connection=connection_id):
                connection = self.peers.connections.get(connection_id)
                effects = [] if connection is None or connection.closing else self._heard(connection, event, now)
            case _:
                effects = self._happened(event, now)
        return self._routed(effects)

    def _heard(
        self, connection: PeerConnection, event: MessageReceived | UnknownMessageReceived, now: Now
    ) -> list[Effect]:
        """Act on what a peer said: the only events whose handling may find a fault."""
        try:
            if isinstance(event, UnknownMessageReceived):
                admit_unknown(connection, event.message_type)
                connection.last_heard = now.mono
                return [Send(connection.id, Error(0, ErrorCode.UNSUPPORTED, "unknown message type"))]
            return self._message(connection, event.message, now)
        except PeerFault as error:
            log.debug("%s: %s", connection.peer.short, error)
            return self.peers.fault(connection.peer, error, now)

    def _happened(self, event: OwnEvent, now: Now) -> list[Effect]:
        match event:
            case Connected():
                return self.peers.connected(event, now)
            case DialFailed(target=target, error=error):
                return self._dial_failed(target, error, now)
            case Disconnected(connection=connection, error=error):
                return self._disconnected(connection, error, now)
            case ProvidersFound(repository=repository, records=records):
                effects: list[Effect] = []
                for record in records:
                    effects += self._holder_found(repository, record, now)
                return effects
            case LookupFinished():
                return [effect for part in self._inquiries for effect in part.lookup_finished(event, now.mono)]
            case RefsLoaded(connection=connection, request=request, answers=answers, cursor=cursor):
                self._admission.end_load(connection)
                return [Send(connection, Refs(request, answers, cursor))]
            case FetchFinished():
                return self._fetch_finished(event, now)
            case LookFinished():
                return self._look_finished(event, now)
            case ServeFinished(connection=connection, error=error):
                self._admission.end_serve(connection)
                return self._fault_of(connection, error, now)
            case GitServed(connection=connection, error=error):
                self._admission.end_git(connection)
                return self._fault_of(connection, error, now)
            case SourceFailed(connection=connection, error=error):
                return self._fault_of(connection, error, now)
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

    def _fault_of(self, connection: ConnectionId, error: GutsError | None, now: Now) -> list[Effect]:
        """Count ``error`` against who is at the other end of ``connection``, where it is a fault of a peer's."""
        asker = self.peers.connections.get(connection)
        return self.peers.fault(asker.peer, error, now) if asker and isinstance(error, PeerFault) else []

    def _routed(self, effects: list[Effect]) -> list[Effect]:
        """Let the manager of peers see every dial that a component asks for, and every connection that ends."""
        routed: list[Effect] = []
        for effect in effects:
            match effect:
                case Dial(target=target):
                    routed += self.peers.connect(target)
                case Disconnect():
                    routed += self.peers.closing(effect)
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
                return self._refs(connection, message, now)
            case GetObjects():
                return self._get_objects(connection, message)
            case Objects():
                # Status and stream say the same, and the worker that reads the stream acts on it; but for the time.
                self.sync.fetches.busy(connection.id, message)
                return []
            case GitService():
                return self._git_service(connection, message)
            case GetReceipt():
                return self._get_receipt(connection, message)
            case Receipt():
                return self._receipt(connection, message, now)
            case Gossip():
                return self._gossip(connection, message, now)
            case NewCommit() | NewProof():
                return self._gossip(connection, envelope(message), now)
            case NewRepository():
                return self._news(connection, message, now)
            case Goodbye():
                return self.peers.goodbye(connection, message)
            case Error():
                self.receipts.refused(connection.id, message.request)
                return [effect for part in self._inquiries for effect in part.refused(connection.id, message, now.mono)]
            case _:
                assert_never(message)

    def _introduced(self, connection: PeerConnection, effects: list[Effect], now: Now) -> list[Effect]:
        if not connection.ready:
            return effects
        known = self.peers.state(connection.peer).repositories
        shared = sorted(repository for repository in known if repository in self.sync.goals)
        effects += self.sync.peer_ready(connection.peer, connection.id, shared, now.mono)
        effects += self.sync.readings.peer_ready(connection.peer, connection.id, now.mono)
        if connection.dialled is not None:
            effects += self._dial_succeeded(connection.dialled, connection.peer, now)
        return effects

    def _dial_succeeded(self, target: BootstrapAddress, peer: PeerId, now: Now) -> list[Effect]:
        effects = self._dial_ended(target, peer, now)
        for waiter in self._connects.pop(target, []):
            seconds = round(now.mono - waiter.started, 3)
            effects.append(Reply(waiter.command_id, {"peer": str(peer), "seconds": seconds}))
        return effects

    def _dial_failed(self, target: BootstrapAddress, error: GutsError, now: Now) -> list[Effect]:
        self.peers.dial_failed(target, now)
        return self._dial_in_vain(target, error, now)

    def _dial_in_vain(self, target: BootstrapAddress, error: GutsError, now: Now) -> list[Effect]:
        effects = self._dial_ended(target, error, now)
        return effects + [Reply(waiter.command_id, error) for waiter in self._connects.pop(target, [])]

    def _dial_ended(self, target: BootstrapAddress, outcome: PeerId | GutsError, now: Now) -> list[Effect]:
        return [effect for part in self._inquiries for effect in part.dial_ended(target, outcome, now.mono)]

    def _disconnected(self, connection_id: ConnectionId, error: GutsError | None, now: Now) -> list[Effect]:
        connection, effects = self.peers.disconnected(connection_id, error, now)
        for part in self._inquiries:
            effects += part.peer_gone(connection.peer, connection_id, now.mono)
        self.receipts.gone(connection_id)
        if connection.dialled is None or connection.was_ready:
            return effects
        if self.peers.connection_to(connection.peer) is not None:
            # It was a second connection to a peer that we have already: the dial did reach it.
            return effects + self._dial_succeeded(connection.dialled, connection.peer, now)
        why = error or connection.farewell or Unavailable("the peer closed the connection")
        return effects + self._dial_in_vain(connection.dialled, why, now)

    # --- repositories ---------------------------------------------------------------------------------------

    def _subscribed(self, connection: PeerConnection, message: Subscribe, now: Now) -> list[Effect]:
        """Ask who wants the news of what we hold: it may hold it too, or only want to."""
        self.peers.subscribe(connection, message)
        shared = [repository for repository in message.added if self.sync.holds(repository)]
        asked = self.sync.ask(connection.peer, shared, now.mono)
        return asked + self.receipts.met(connection.peer, connection.id, message.added)

    def _refs(self, connection: PeerConnection, message: Refs, now: Now) -> list[Effect]:
        readings = self.sync.readings
        part = readings if readings.asked(connection.id, message.request) else self.sync
        effects = part.refs(connection.id, message, now.mono)
        state = self.peers.state(connection.peer)
        for answer in message.answers:
            if answer.status is RefsStatus.HELD:
                state.holds(answer.repository)
            else:
                state.repositories.discard(answer.repository)
        held = [answer.repository for answer in message.answers if answer.status is RefsStatus.HELD]
        return effects + self.receipts.met(connection.peer, connection.id, held)

    def _holder_found(self, repository: RepositoryId, record: PeerRecord | ProviderRecord, now: Now) -> list[Effect]:
        """Take the signed word of a node that it holds ``repository``."""
        if record.peer == self.peers.me.peer or self.peers.scores.banned(record.peer, now.mono):
            return []
        self.peers.state(record.peer).holds(repository)
        return [
            effect
            for part in self._inquiries
            for effect in part.holder_found(repository, record.peer, record.addresses, now.mono)
        ]

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

    def _git_service(self, connection: PeerConnection, message: GitService) -> list[Effect]:
        if message.service != UPLOAD_PACK:
            error, code, text, wait = ErrorCode.UNSUPPORTED, ResetCode.REFUSED, "unknown service", 0
        elif not self.sync.holds(message.repository):
            error, code, text, wait = ErrorCode.NOT_FOUND, ResetCode.NOT_FOUND, "not held here", 0
        elif not self._admission.begin_git(connection.id, connection.address):
            error, code, text, wait = ErrorCode.BUSY, ResetCode.LIMIT, "too many under way", BUSY_RETRY_AFTER
        else:
            return [ServeGit(connection.id, message)]
        refusal = Send(connection.id, Error(message.request, error, text, wait))
        return [refusal, ResetStream(connection.id, message.stream, code)]

    def _get_receipt(self, connection: PeerConnection, message: GetReceipt) -> list[Effect]:
        goal = self.sync.goals.get(message.repository)
        if SEEDS not in self.peers.me.capabilities:
            refusal = Error(message.request, ErrorCode.REFUSED, "this node keeps nothing")
        elif goal is None:
            refusal = Error(message.request, ErrorCode.NOT_FOUND, "not followed here")
        else:
            return self.receipts.asked(connection.id, message, goal.known if goal.held else Known())
        return [Send(connection.id, refusal)]

    def _receipt(self, connection: PeerConnection, message: Receipt, now: Now) -> list[Effect]:
        return self.receipts.received(connection.id, connection.peer, message, self._held, now.mono)

    def _held(self, repository: RepositoryId) -> Known | None:
        goal = self.sync.goals.get(repository)
        return goal.known if goal is not None and goal.held else None

    def holders(self, repository: RepositoryId) -> list[tuple[PeerId, ConnectionId]]:
        """Return the connected peers that hold ``repository``, or follow it and may soon."""
        states = [*self.peers.peers_with_repository(repository), *self.peers.subscribers(repository)]
        connected = {state.id: state.connection.id for state in states if state.connection is not None}
        return list(connected.items())

    def _gossip(self, connection: PeerConnection, message: Gossip, now: Now) -> list[Effect]:
        if not self.gossip.first_seen(message, now.mono):
            return []
        news = open_envelope(message)
        if not (isinstance(news, NewRepository) or self.sync.listens(connection.peer, news.repository, now.mono)):
            # Another peer, to whom we do listen, may tell the same.
            self.gossip.forget(message)
            return []
        return self._news(connection, news, now)

    def _news(self, connection: PeerConnection, news: News, now: Now) -> list[Effect]:
        if news.repository not in self.sync.goals:
            return []
        if isinstance(news, NewProof):
            self.peers.state(connection.peer).holds(news.repository)
            return self.sync.proof_news(connection.peer, connection.id, news, now.mono)
        if isinstance(news, NewCommit):
            self.peers.state(connection.peer).holds(news.repository)
            return self.sync.news(connection.peer, connection.id, news, now.mono)
        try:
            holder = PeerRecord.verify(news.peer_record, now.wall)
        except ExpiredRecord:
            return []
        return self._holder_found(news.repository, holder, now)

    def _fetch_finished(self, event: FetchFinished, now: Now) -> list[Effect]:
        peer = self.sync.fetches.running[event.fetch].peer
        goal = self.sync.goals.get(event.repository)
        before = goal.known.epoch if goal is not None and goal.held else None
        effects: list[Effect] = []
        match event.outcome:
            case Failed(error=error):
                log.debug("fetch of %s from %s failed: %s", event.repository.short, peer.short, error)
                if isinstance(error, PeerFault):
                    effects += self.peers.fault(peer, error, now)
            case Accepted() | NothingNew() if goal is not None:
                self.peers.state(peer).holds(event.repository)
            case _:
                pass
        effects += self.sync.fetch_finished(event, now.mono)
        if isinstance(event.outcome, Accepted) and goal is not None:
            effects += self._announce(event.repository, event.outcome, before, event.connection, now)
        return effects

    def _look_finished(self, event: LookFinished, now: Now) -> list[Effect]:
        readings = self.sync.readings
        peer = readings.fetches.running[event.fetch].peer
        effects: list[Effect] = []
        match event.outcome:
            case Failed(error=PeerFault() as error):
                effects += self.peers.fault(peer, error, now)
            case Accepted() | NothingNew():
                self.peers.state(peer).holds(event.repository)
            case _:
                pass
        return effects + readings.look_finished(event, now.mono)

    def _published(self, repository: RepositoryId, accepted: Accepted, now: Now) -> list[Effect]:
        goal = self.sync.goals.get(repository)
        before = goal.known.epoch if goal is not None and goal.held else None
        effects = self.sync.published(repository, accepted.known, now.mono)
        if before is None:
            # News to everybody: a repository that nobody knew of.
            news = self._new_repository(repository, accepted)
            self.gossip.first_seen(envelope(news), now.mono)
            effects += self.peers.broadcast(envelope(news))
            before = accepted.known.epoch
        return effects + self._announce(repository, accepted, before, None, now)

    def _announce(
        self, repository: RepositoryId, accepted: Accepted, before: int | None, source: ConnectionId | None, now: Now
    ) -> list[Effect]:
        """Tell those who want to know what is new since epoch ``before``, but not the one who told us.

        That one gets our receipt, and so does who asked for it.

        Proof that an author signed two histories is for that one too: it may have told us of one of the two. So is
        news of an identity document: a record may count again by it that we have kept and the other one has not.
        """
        seeds = SEEDS in self.peers.me.capabilities
        receipts = self.receipts.committed(repository, accepted, source if seeds else None, self.holders(repository))
        everybody = [
            state.connection.id for state in self.peers.subscribers(repository) if state.connection is not None
        ]
        listeners = [connection for connection in everybody if connection != source]
        effects: list[Effect] = []
        if before is None or before < accepted.known.epoch:
            effects += self.gossip.announce(self._new_repository(repository, accepted), everybody, now.mono)
        for author, split, proof in accepted.proofs:
            effects += self.gossip.announce(NewProof(repository, author, split, proof), everybody, now.mono)
        for author, head, record in accepted.news:
            commit = NewCommit(repository, author, head.seq, head.hash, record)
            effects += self.gossip.announce(commit, listeners, now.mono)
        return receipts + effects

    def _new_repository(self, repository: RepositoryId, accepted: Accepted) -> NewRepository:
        known = accepted.known
        return NewRepository(repository, known.epoch, known.identity_hash, self.peers.peer_record)

    # --- commands and time ----------------------------------------------------------------------------------

    def _command(self, event: CommandReceived, now: Now) -> list[Effect]:
        command = event.command
        match command:
            case Seed(repository=repository, hints=hints, timeout=timeout):
                waiter = Waiter(event.command_id, now.mono, now.mono + timeout)
                return self.sync.want(repository, hints, waiter, now.mono)
            case SyncNow(repository=repository, timeout=timeout, every=every):
                if not self.sync.holds(repository):
                    return [Reply(event.command_id, NotFollowed(repository))]
                waiter = Waiter(event.command_id, now.mono, now.mono + timeout, every)
                return self.sync.sync_now(repository, waiter, now.mono)
            case Read(repository=repository, known=known, hints=hints, timeout=timeout):
                waiter = Waiter(event.command_id, now.mono, now.mono + timeout)
                return self.sync.readings.read(repository, known, hints, waiter, now.mono)
            case Unseed(repository=repository):
                return self._unseed(event.command_id, repository)
            case AwaitReceipts():
                return self._await_receipts(event.command_id, command, now)
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
            Withdraw(repository),
            *kept,
            Reply(command_id, {"repository": str(repository)}),
        ]

    def _await_receipts(self, command_id: CommandId, command: AwaitReceipts, now: Now) -> list[Effect]:
        known = self._held(command.repository)
        if known is None:
            return [Reply(command_id, NotFollowed(command.repository))]
        waiter = ReceiptWaiter(
            command_id,
            command.repository,
            command.author,
            command.seq,
            command.replicas,
            now.mono + command.timeout,
            set(command.confirmed),
        )
        return self.receipts.wait(waiter, known, self.holders(command.repository))

    def _woke(self, now: Now) -> list[Effect]:
        effects = self.peers.tick(now) + self.receipts.tick(now.mono)
        for part in self._inquiries:
            effects += part.tick(now.mono)
        for target, waiters in list(self._connects.items()):
            for waiter in [waiter for waiter in waiters if waiter.deadline <= now.mono]:
                waiters.remove(waiter)
                effects.append(Reply(waiter.command_id, SyncTimedOut(f"{target} did not answer in time")))
            if not waiters:
                del self._connects[target]
        return effects
