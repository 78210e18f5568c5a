"""News: what peers tell, what this node tells, and who is said to hold what."""

from guts.clock import Now
from guts.effects import Effect
from guts.events import Accepted, ConnectionId
from guts.gossip.protocol import GossipProtocol, envelope, open_envelope
from guts.gossip.protocol import News as AnyNews
from guts.ids import PeerId, RepositoryId
from guts.peers.manager import PeerManager
from guts.peers.state import PeerConnection
from guts.records import ExpiredRecord, PeerRecord, ProviderRecord
from guts.service.seeding import Seeding
from guts.service.serving import SEEDS
from guts.sync.receipts import Receipts
from guts.sync.reposync import RepoSync
from guts.wire.messages import Gossip, NewCommit, NewProof, NewRepository


class News:
    """Takes news in, and announces what is committed here."""

    def __init__(
        self, peers: PeerManager, gossip: GossipProtocol, sync: RepoSync, receipts: Receipts, seeding: Seeding
    ) -> None:
        self._peers = peers
        self._gossip = gossip
        self._sync = sync
        self._inquiries = (sync, sync.readings)
        self._receipts = receipts
        self._seeding = seeding

    def gossip(self, connection: PeerConnection, message: Gossip, now: Now) -> list[Effect]:
        """Take news in their envelope."""
        if not self._gossip.first_seen(message, now.mono):
            return []
        news = open_envelope(message)
        if not (isinstance(news, NewRepository) or self._sync.listens(connection.peer, news.repository, now.mono)):
            # Another peer, to whom we do listen, may tell the same.
            self._gossip.forget(message)
            return []
        return self.told(connection, news, now)

    def told(self, connection: PeerConnection, news: AnyNews, now: Now) -> list[Effect]:
        """Act on news that are new."""
        if news.repository not in self._sync.goals and not (
            isinstance(news, NewRepository) and self._seeding.wants(news.repository, news.identity_hash, now)
        ):
            return []
        if isinstance(news, NewProof):
            self._peers.state(connection.peer).holds(news.repository)
            return self._sync.proof_news(connection.peer, connection.id, news, now.mono)
        if isinstance(news, NewCommit):
            self._peers.state(connection.peer).holds(news.repository)
            return self._sync.news(connection.peer, connection.id, news, now.mono)
        try:
            holder = PeerRecord.verify(news.peer_record, now.wall)
        except ExpiredRecord:
            return []
        if news.repository not in self._sync.goals:
            return self._seeding.announced(connection.peer, news.repository, news.identity_hash, holder, now)
        return self.holder_found(news.repository, holder, now)

    def holder_found(self, repository: RepositoryId, record: PeerRecord | ProviderRecord, now: Now) -> list[Effect]:
        """Take the signed word of a node that it holds ``repository``."""
        if record.peer == self._peers.me.peer or self._peers.scores.banned(record.peer, now.mono):
            return []
        self._peers.state(record.peer).holds(repository)
        return [
            effect
            for part in self._inquiries
            for effect in part.holder_found(repository, record.peer, record.addresses, now.mono)
        ]

    def published(self, repository: RepositoryId, accepted: Accepted, now: Now) -> list[Effect]:
        """Announce what our own maintainer signed."""
        goal = self._sync.goals.get(repository)
        before = goal.known.epoch if goal is not None and goal.held else None
        effects = self._sync.published(repository, accepted.known, now.mono)
        if before is None:
            # News to everybody: a repository that nobody knew of.
            news = self._new_repository(repository, accepted)
            self._gossip.first_seen(envelope(news), now.mono)
            effects += self._peers.broadcast(envelope(news))
            before = accepted.known.epoch
        return effects + self.announce(repository, accepted, before, None, now)

    def announce(
        self, repository: RepositoryId, accepted: Accepted, before: int | None, source: ConnectionId | None, now: Now
    ) -> list[Effect]:
        """Tell those who want to know what is new since epoch ``before``, but not the one who told us.

        That one gets our receipt, and so does who asked for it.

        Proof that an author signed two histories is for that one too: it may have told us of one of the two. So is
        news of an identity document: a record may count again by it that we have kept and the other one has not.
        """
        seeds = SEEDS in self._peers.me.capabilities
        receipts = self._receipts.committed(repository, accepted, source if seeds else None, self.holders(repository))
        everybody = [
            state.connection.id for state in self._peers.subscribers(repository) if state.connection is not None
        ]
        listeners = [connection for connection in everybody if connection != source]
        effects: list[Effect] = []
        if before is None or before < accepted.known.epoch:
            effects += self._gossip.announce(self._new_repository(repository, accepted), everybody, now.mono)
        for author, split, proof in accepted.proofs:
            effects += self._gossip.announce(NewProof(repository, author, split, proof), everybody, now.mono)
        for author, head, record in accepted.news:
            commit = NewCommit(repository, author, head.seq, head.hash, record)
            effects += self._gossip.announce(commit, listeners, now.mono)
        return receipts + effects

    def holders(self, repository: RepositoryId) -> list[tuple[PeerId, ConnectionId]]:
        """Return the connected peers that hold ``repository``, or follow it and may soon."""
        states = [*self._peers.peers_with_repository(repository), *self._peers.subscribers(repository)]
        connected = {state.id: state.connection.id for state in states if state.connection is not None}
        return list(connected.items())

    def _new_repository(self, repository: RepositoryId, accepted: Accepted) -> NewRepository:
        known = accepted.known
        return NewRepository(repository, known.epoch, known.identity_hash, self._peers.peer_record)
