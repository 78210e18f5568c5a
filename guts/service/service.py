"""``Service``: dispatch of events to the components; see the package's docstring."""

import logging
from typing import assert_never

from guts.clock import Now
from guts.effects import (
    Dial,
    Disconnect,
    Effect,
    Send,
)
from guts.errors import GutsError, PeerFault
from guts.events import (
    AddressesChanged,
    CommandReceived,
    Connected,
    ConnectionId,
    DialFailed,
    Disconnected,
    Event,
    FetchFinished,
    GitServed,
    LookFinished,
    LookupFinished,
    MessageReceived,
    OwnEvent,
    ProvidersFound,
    Published,
    RefsLoaded,
    ServeFinished,
    SourceFailed,
    UnknownMessageReceived,
    Woke,
)
from guts.gossip.protocol import GossipProtocol, envelope
from guts.peers.manager import PeerManager
from guts.peers.state import PeerConnection
from guts.service.admission import admit, admit_unknown
from guts.service.commands import Commands
from guts.service.connections import Connections
from guts.service.news import News
from guts.service.repositories import Repositories
from guts.service.seeding import Seeding
from guts.service.serving import Serving
from guts.sync.receipts import Receipts
from guts.sync.reposync import RepoSync
from guts.wire.messages import (
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
    Ping,
    Pong,
    Receipt,
    Refs,
    Subscribe,
)

log = logging.getLogger(__name__)


class Service:
    """The state of a node, as far as decisions need it."""

    def __init__(self, peers: PeerManager, gossip: GossipProtocol, sync: RepoSync) -> None:
        self.peers = peers
        self.gossip = gossip
        self.sync = sync
        self.receipts = Receipts(sync.requests.next)
        self.serving = Serving(peers, sync, self.receipts)
        self._inquiries = (sync, sync.readings)
        self._connections = Connections(peers, sync, self.receipts)
        self._seeding = Seeding(peers, sync)
        self.news = News(peers, gossip, sync, self.receipts, self._seeding)
        self._repositories = Repositories(peers, sync, self.receipts, self.news, self._seeding)
        self._commands = Commands(self._connections, sync, self.receipts, self.news, self._seeding)

    def deadline(self, now: float) -> float:
        """Return when a ``Woke`` is wanted at the latest (monotonic seconds); infinity for never."""
        parts = (*self._inquiries, self.receipts, self._connections)
        return min(self.peers.deadline(now), *(part.deadline() for part in parts))

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
                return self._connections.dial_failed(target, error, now)
            case Disconnected(connection=connection, error=error):
                return self._connections.disconnected(connection, error, now) + self._seeding.look(now)
            case ProvidersFound(repository=repository, records=records):
                effects: list[Effect] = []
                for record in records:
                    effects += self.news.holder_found(repository, record, now)
                return effects
            case LookupFinished():
                return [effect for part in self._inquiries for effect in part.lookup_finished(event, now.mono)]
            case RefsLoaded(connection=connection, request=request, answers=answers, cursor=cursor):
                self.serving.admission.end_load(connection)
                return [Send(connection, Refs(request, answers, cursor))]
            case FetchFinished():
                return self._repositories.fetch_finished(event, now)
            case LookFinished():
                return self._repositories.look_finished(event, now)
            case ServeFinished(connection=connection, error=error):
                self.serving.admission.end_serve(connection)
                return self._fault_of(connection, error, now)
            case GitServed(connection=connection, error=error):
                self.serving.admission.end_git(connection)
                return self._fault_of(connection, error, now)
            case SourceFailed(connection=connection, error=error):
                return self._fault_of(connection, error, now)
            case Published(repository=repository, accepted=accepted):
                return self.news.published(repository, accepted, now)
            case CommandReceived():
                return self._commands.execute(event, now)
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

    def _message(self, connection: PeerConnection, message: Message, now: Now) -> list[Effect]:
        admit(connection, message)
        connection.last_heard = now.mono
        match message:
            case Hello():
                return self._connections.introduced(connection, self.peers.hello(connection, message, now), now)
            case HelloAck():
                return self._connections.introduced(connection, self.peers.hello_ack(connection, message, now), now)
            case Ping(nonce=nonce):
                return [Send(connection.id, Pong(nonce))]
            case Pong():
                self.peers.pong(connection, message, now.mono)
                return []
            case Subscribe():
                return self._repositories.subscribed(connection, message, now)
            case GetRefs():
                return self.serving.get_refs(connection, message)
            case Refs():
                return self._repositories.refs(connection, message, now)
            case GetObjects():
                return self.serving.get_objects(connection, message)
            case Objects():
                # Status and stream say the same, and the worker that reads the stream acts on it; but for the time.
                self.sync.fetches.busy(connection.id, message)
                return []
            case GitService():
                return self.serving.git_service(connection, message)
            case GetReceipt():
                return self.serving.get_receipt(connection, message)
            case Receipt():
                return self.receipts.received(connection.id, connection.peer, message, self.sync.committed, now.mono)
            case Gossip():
                return self.news.gossip(connection, message, now)
            case NewCommit() | NewProof():
                return self.news.gossip(connection, envelope(message), now)
            case NewRepository():
                return self.news.told(connection, message, now)
            case Goodbye():
                return self.peers.goodbye(connection, message)
            case Error():
                self.receipts.refused(connection.id, message.request)
                return [effect for part in self._inquiries for effect in part.refused(connection.id, message, now.mono)]
            case _:
                assert_never(message)

    def _woke(self, now: Now) -> list[Effect]:
        effects = self.peers.tick(now) + self.receipts.tick(now.mono)
        for part in self._inquiries:
            effects += part.tick(now.mono)
        return effects + self._connections.tick(now) + self._seeding.look(now)
