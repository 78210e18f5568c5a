"""``Service``: dispatch of events to the components; see the package's docstring."""

import logging
from collections import deque
from typing import Final, assert_never

from guts.clock import Now
from guts.effects import (
    Dial,
    Disconnect,
    Effect,
    Fetch,
    Look,
    Send,
    Withhold,
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
    Vetted,
    Woke,
)
from guts.gossip.envelope import envelope
from guts.gossip.protocol import GossipProtocol
from guts.limits import Limits
from guts.peers.exchange import PeerExchange
from guts.peers.keepalive import pong
from guts.peers.manager import PeerManager
from guts.peers.rates import Rates, signatures_in, signatures_offered
from guts.peers.state import PeerConnection
from guts.service.admission import Admission, Admitted
from guts.service.banning import Banning
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
    GetPeers,
    GetReceipt,
    GetRefs,
    GitService,
    Goodbye,
    Gossip,
    Graft,
    Hello,
    HelloAck,
    Message,
    NewCommit,
    NewProof,
    NewRepository,
    Objects,
    Peers,
    Ping,
    Pong,
    Prune,
    Receipt,
    Refs,
    Subscribe,
)

log = logging.getLogger(__name__)

GOSSIP: Final = (Gossip, NewCommit, NewProof, NewRepository)
"""What is not listened to from a peer that is grey."""


class Service:
    """The state of a node, as far as decisions need it."""

    def __init__(
        self, peers: PeerManager, gossip: GossipProtocol, sync: RepoSync, limits: Limits | None = None
    ) -> None:
        self.peers = peers
        self.gossip = gossip
        self.sync = sync
        peers.upkeep.followed = sync.goals.keys()
        self.receipts = Receipts(sync.requests.next)
        self.limits = limits or Limits()
        self.rates = Rates(self.limits, peers.penalty)
        self.admission = Admission(self.limits, self.rates)
        self.serving = Serving(peers, sync, self.receipts, self.admission)
        self._inquiries = (sync, sync.readings)
        self._seeding = Seeding(peers, sync, gossip)
        self.news = News(peers, gossip, sync, self.receipts, self.serving, self._seeding)
        self.exchange = PeerExchange(peers, sync.requests.next, peers.rng)
        self._connections = Connections(peers, sync, self.receipts, self.serving, self.news, self.exchange)
        self._repositories = Repositories(peers, sync, self.receipts, self.news, self._seeding)
        self._timed = (*self._inquiries, self.receipts, self.exchange, self._connections, self.serving, self.news)
        self._commands = Commands(
            self._connections, Banning(peers), sync, self.receipts, self.news, self.admission, self._seeding
        )

    def deadline(self, now: float) -> float:
        """Return when a ``Woke`` is wanted at the latest (monotonic seconds); infinity for never."""
        return min(self.peers.deadline(now), *[part.deadline() for part in self._timed])

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Return what to do about ``event``, in order."""
        match event:
            case MessageReceived(connection=connection_id) | UnknownMessageReceived(connection=connection_id):
                connection = self.peers.connections.get(connection_id)
                effects = [] if connection is None or connection.closing else self._heard(connection, event, now)
            case _:
                effects = self._happened(event, now)
        return self._routed(effects, now)

    def _heard(
        self, connection: PeerConnection, event: MessageReceived | UnknownMessageReceived, now: Now
    ) -> list[Effect]:
        """Act on what a peer said: the only events whose handling may find a fault."""
        try:
            if isinstance(event, UnknownMessageReceived):
                effects = self.admission.admit_unknown(connection, event, now.mono)
                connection.last_heard = now.mono
                return [Send(connection.id, Error(0, ErrorCode.UNSUPPORTED, "unknown message type")), *effects]
            return self._message(connection, event, now)
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
                self.admission.end_load(connection)
                return [Send(connection, Refs(request, answers, cursor))]
            case Vetted():
                return self.news.vetted(event, now)
            case FetchFinished():
                return self._repositories.fetch_finished(event, now)
            case LookFinished():
                return self._repositories.look_finished(event, now)
            case ServeFinished(connection=connection, error=error):
                return self._fault_of(connection, error, now) + self.serving.served(connection)
            case GitServed(connection=connection, error=error):
                self.admission.end_git(connection)
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

    def _routed(self, effects: list[Effect], now: Now) -> list[Effect]:
        """Let the manager of peers see every dial that a component asks for, and every connection that ends."""
        routed: list[Effect] = []
        # What is dialled in the place of a dial that is refused may be refused too.
        waiting = deque(effects)
        while waiting:
            match effect := waiting.popleft():
                case Dial() if (refusal := self.peers.refusal(effect, now.mono)) is not None:
                    waiting.extend(self._connections.refused(effect.target, refusal, now))
                case Dial():
                    routed += self.peers.connect(effect)
                case Disconnect():
                    routed += self.peers.closing(effect)
                case _:
                    routed.append(effect)
        return routed

    def _message(self, connection: PeerConnection, event: MessageReceived, now: Now) -> list[Effect]:
        admitted, waits = self.admission.admit(connection, event, now.mono)
        connection.last_heard = now.mono
        if isinstance(event.message, GOSSIP) and self.peers.scores.grey(connection.peer, now.mono):
            return [*waits]
        effects = self._act(connection, admitted, now)
        return [*effects, *waits, *self._checks(connection, event.message, effects, now)]

    def _checks(self, connection: PeerConnection, message: Message, effects: list[Effect], now: Now) -> list[Effect]:
        """Count the signatures that a message makes this node check; who brings too many has to wait."""
        offered = (signatures_offered(effect.candidate) for effect in effects if isinstance(effect, Fetch | Look))
        count = signatures_in(message) + sum(offered)
        seconds = self.rates.spend_checks(connection.peer, count, now.mono) if count else 0.0
        return [Withhold(connection.id, seconds)] if seconds else []

    def _act(self, connection: PeerConnection, admitted: Admitted[Message], now: Now) -> list[Effect]:
        match admitted.message:
            case Hello() as message:
                return self._connections.introduced(connection, self.peers.hello(connection, message, now), now)
            case HelloAck() as message:
                return self._connections.introduced(connection, self.peers.hello_ack(connection, message, now), now)
            case Ping(nonce=nonce):
                return [Send(connection.id, Pong(nonce))]
            case Pong() as message:
                pong(connection, message, now.mono)
                return []
            case Subscribe() as message:
                return self._repositories.subscribed(connection, admitted.of(message), now)
            case GetRefs() as message:
                return self.serving.get_refs(connection, admitted.of(message))
            case Refs() as message:
                return self._repositories.refs(connection, admitted.of(message), now)
            case GetObjects() as message:
                return self.serving.get_objects(connection, admitted.of(message), now.mono)
            case Objects() as message:
                # Status and stream say the same, and the worker that reads the stream acts on it; but for the time.
                self.sync.fetches.answered(connection.id, message)
                return []
            case GitService() as message:
                return self.serving.git_service(connection, admitted.of(message))
            case GetReceipt() as message:
                return self.serving.get_receipt(connection, admitted.of(message))
            case Receipt() as message:
                return self.receipts.received(connection.id, connection.peer, message, self.sync.committed, now.mono)
            case GetPeers() as message:
                return self.exchange.asked(connection, message, now)
            case Peers() as message:
                self.exchange.told(connection, message, now)
                return []
            case Gossip() as message:
                return self.news.gossip(connection, admitted.of(message), now)
            case NewCommit() | NewProof() as message:
                return self.news.gossip(connection, admitted.of(message).opened(envelope), now)
            case Prune() as message:
                self.news.pruned(connection, admitted.of(message))
                return []
            case Graft() as message:
                self.news.grafted(connection, admitted.of(message))
                return []
            case NewRepository() as message:
                return self.news.told(connection, admitted.of(message), now)
            case Goodbye() as message:
                return self.peers.goodbye(connection, message)
            case Error() as message:
                self.receipts.refused(connection.id, message.request)
                self.exchange.refused(connection.id, message.request)
                return [effect for part in self._inquiries for effect in part.refused(connection.id, message, now.mono)]
            case message:
                assert_never(message)

    def _woke(self, now: Now) -> list[Effect]:
        effects = self.peers.tick(now) + self.receipts.tick(now.mono) + self.exchange.tick(now.mono)
        for part in self._inquiries:
            effects += part.tick(now.mono)
        effects += self.news.tick(now) + self.serving.tick(now.mono)
        return effects + self._connections.tick(now) + self._seeding.look(now)
