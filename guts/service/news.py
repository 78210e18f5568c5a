"""News: what peers tell, what this node tells, and who is said to hold what."""

from collections import OrderedDict
from typing import Final

from guts.clock import Now
from guts.effects import Effect, Fetch, Send
from guts.errors import PeerFault
from guts.events import Accepted, ConnectionId, Failed, FetchFinished, FetchId, Incomplete, Vetted
from guts.gossip.envelope import TOPIC_REPOSITORIES, announcement, fits, open_envelope
from guts.gossip.protocol import RELAY_WINDOW_MS, WANTS_REPOSITORIES, GossipProtocol
from guts.gossip.trees import Tree
from guts.ids import PeerId, RepositoryId
from guts.peers.manager import PeerManager
from guts.peers.networks import prefix
from guts.peers.rates import TokenBucket
from guts.peers.state import PeerConnection
from guts.records import ExpiredRecord, PeerRecord, ProviderRecord
from guts.service.admission import Admitted
from guts.service.seeding import Seeding
from guts.service.serving import SEEDS, Serving
from guts.sync.receipts import Receipts
from guts.sync.reposync import RepoSync
from guts.wire.messages import Gossip, Graft, NewCommit, NewProof, NewRepository, Prune

REPOSITORIES_RATE: Final = 1.0
"""New repositories per second that are passed on for one peer, on average: 86,400 a day, more than any network makes
up that one node would want to hear all of."""

REPOSITORIES_BURST: Final = 256.0
MAX_PURSES: Final = 4_096
"""Peers remembered for what was passed on for them, also when they are gone: to come again fills no purse."""
ASK_BESIDE: Final = 1.0
"""Seconds that a transfer may take before others who told of something newer are asked whether they have it already."""

ASK_BESIDE_AGAIN: Final = 3.0
"""Seconds between two such questions."""

HOT_MS: Final = 60_000
"""Age of a record, by its signed time, past which one that a question brought is not sent on in full: those around
have it most likely, and this node was away. What gossip brought goes on in full whatever its age, within the window."""


class News:
    """Takes news in, and announces what is found good here."""

    def __init__(
        self,
        peers: PeerManager,
        gossip: GossipProtocol,
        sync: RepoSync,
        receipts: Receipts,
        serving: Serving,
        seeding: Seeding,
    ) -> None:
        self._peers = peers
        self._gossip = gossip
        self._sync = sync
        self._inquiries = (sync, sync.readings)
        self._receipts = receipts
        self._seeding = seeding
        self._serving = serving
        self._passed: OrderedDict[PeerId, TokenBucket] = OrderedDict()
        self._told: dict[FetchId, Gossip] = {}
        self._fresh: dict[FetchId, frozenset[bytes]] = {}
        self._slower: dict[RepositoryId, dict[ConnectionId, Tree]] = {}

    def deadline(self) -> float:
        """Return when ``tick`` is due (monotonic seconds); infinity for never."""
        return min(self._gossip.missing.deadline(), self._gossip.untold.deadline())

    # --- what peers tell ------------------------------------------------------------------------------------

    def gossip(self, connection: PeerConnection, admitted: Admitted[Gossip], now: Now) -> list[Effect]:
        """Take news in their envelope.

        Raises:
            PeerFault: they are malformed, or were refused before.
        """
        message = admitted.message
        opened = admitted.opened(open_envelope)
        news = opened.message
        if isinstance(news, NewCommit):
            return self._commit(connection, message, news, now) if news.repository in self._sync.goals else []
        if not self._gossip.first_seen(message, now.mono):
            return []
        if isinstance(news, NewRepository) and message.topic == TOPIC_REPOSITORIES:
            return self.told(connection, opened.of(news), now) + self._passed_on(connection, message, news, now)
        if isinstance(news, NewProof) and not self._sync.listens(connection.peer, news.repository, now.mono):
            # Another peer, to whom we do listen, may tell the same.
            self._gossip.forget(message)
            return []
        return self.told(connection, opened.of(news), now)

    def told(self, connection: PeerConnection, admitted: Admitted[NewProof | NewRepository], now: Now) -> list[Effect]:
        """Act on news that are new."""
        news = admitted.message
        if news.repository not in self._sync.goals and not (
            isinstance(news, NewRepository) and self._seeding.wants(news.repository, news.identity_hash, now)
        ):
            return []
        if isinstance(news, NewProof):
            self._peers.state(connection.peer).holds(news.repository)
            return self._sync.proof_news(connection.peer, connection.id, news, now.mono)
        try:
            holder = PeerRecord.verify(news.peer_record, now.wall)
        except ExpiredRecord:
            return []
        if news.repository not in self._sync.goals:
            return self._seeding.announced(connection.peer, news.repository, news.identity_hash, holder, now)
        return self.holder_found(news.repository, holder, now, prefix(connection.address.ip))

    def _passed_on(self, connection: PeerConnection, message: Gossip, news: NewRepository, now: Now) -> list[Effect]:
        """Tell some of those who want to hear of new repositories, where this node is one of them.

        Anybody may name any holder's record beside any repository: what one peer can have passed on is bounded.
        """
        if WANTS_REPOSITORIES not in self._peers.me.capabilities:
            return []
        bucket = self._passed.setdefault(connection.peer, TokenBucket(at=now.mono))
        self._passed.move_to_end(connection.peer)
        if len(self._passed) > MAX_PURSES:
            self._passed.popitem(last=False)
        if bucket.owed(REPOSITORIES_RATE, now.mono) > REPOSITORIES_BURST - 1:
            # It goes on when another peer tells it.
            self._gossip.forget(message)
            return []
        try:
            PeerRecord.verify(news.peer_record, now.wall)
        except ExpiredRecord:
            return []
        bucket.spend(1.0, REPOSITORIES_RATE, REPOSITORIES_BURST, now.mono)
        return [*self._gossip.scatter(message, self._curious(but=connection.id), now.mono)]

    def _curious(self, but: ConnectionId | None = None) -> list[ConnectionId]:
        """Return the links to those who want to hear of new repositories."""
        return [
            connection.id
            for connection in self._peers.ready()
            if connection.id != but and WANTS_REPOSITORIES in self._peers.state(connection.peer).capabilities
        ]

    def _commit(self, connection: PeerConnection, message: Gossip, news: NewCommit, now: Now) -> list[Effect]:
        self._peers.state(connection.peer).holds(news.repository)
        self._gossip.has(news, connection.id)
        if news.record is None:
            return self._in_short(connection, news, now)
        if not self._gossip.first_seen(message, now.mono):
            return self._twice(connection, news, now)
        if not self._sync.listens(connection.peer, news.repository, now.mono):
            self._gossip.forget(message)
            return []
        if self._sync.doubts(news, now.mono):
            self._gossip.forget(message)
            self._gossip.missing.told(connection.id, news, connection.rtt, now.mono)
            return []
        effects = self._sync.news(connection.peer, connection.id, news, now.mono)
        for effect in effects:
            if isinstance(effect, Fetch):
                self._told[effect.fetch] = message
        if self._under_way(news) and not effects:
            self._gossip.missing.told(connection.id, news, connection.rtt, now.mono)
        return effects

    def _under_way(self, news: NewCommit) -> bool:
        """Tell whether something is fetched that may be, or keeps from coming, what ``news`` tells of."""
        goal = self._sync.goals[news.repository]
        known = self._sync.has(news.repository, news.author, news.seq, news.hash)
        return goal.held and goal.fetch is not None and not known

    def _twice(self, connection: PeerConnection, news: NewCommit, now: Now) -> list[Effect]:
        """Make the link lazy over which a record came that had come already: another link is faster.

        Not before it is committed: who was the first to tell may never give what it leads to.
        """
        tree = news.repository, news.author
        if self._under_way(news):
            self._gossip.missing.told(connection.id, news, connection.rtt, now.mono)
            self._slower.setdefault(news.repository, {})[connection.id] = tree
            return []
        return self._prune(connection, tree)

    def _prune(self, connection: PeerConnection, tree: Tree) -> list[Effect]:
        if self._gossip.trees.is_lazy(tree, connection.id):
            # It crossed the Prune on the wire, or the other side does not care.
            return []
        self._gossip.trees.prune(tree, connection.id)
        return [Send(connection.id, Prune(*tree))]

    def _in_short(self, connection: PeerConnection, news: NewCommit, now: Now) -> list[Effect]:
        """Ask for a record that was told of: at once where it will not come in full, else if it does not in time."""
        goal = self._sync.goals[news.repository]
        if self._sync.has(news.repository, news.author, news.seq, news.hash):
            return []
        if not goal.listens(connection.peer, now.mono):
            return []
        lazy = self._gossip.trees.is_lazy((news.repository, news.author), connection.id)
        if goal.held and (lazy or goal.fetch is not None or goal.asking):
            self._gossip.missing.told(connection.id, news, connection.rtt, now.mono)
            return []
        return self._sync.news(connection.peer, connection.id, news, now.mono)

    def pruned(self, connection: PeerConnection, admitted: Admitted[Prune]) -> None:
        """Tell a peer in short of what an author signs, from now on."""
        repository, author = admitted.message.repository, admitted.message.author
        goal = self._sync.goals.get(repository)
        follows = repository in self._peers.state(connection.peer).subscriptions
        if goal is not None and follows and goal.known.head(author) is not None:
            self._gossip.trees.prune((repository, author), connection.id)

    def grafted(self, connection: PeerConnection, admitted: Admitted[Graft]) -> None:
        """Tell a peer in full of what an author signs, again."""
        self._gossip.trees.graft((admitted.message.repository, admitted.message.author), connection.id)

    def holder_found(
        self, repository: RepositoryId, record: PeerRecord | ProviderRecord, now: Now, teller: str = ""
    ) -> list[Effect]:
        """Take the signed word of a node that it holds ``repository``; ``teller``: the network that it came from."""
        if record.peer == self._peers.me.peer or self._peers.scores.banned(record.peer, now.mono):
            return []
        self._peers.state(record.peer, teller).holds(repository)
        where = [address for address in record.addresses if self._peers.surroundings.may_dial(address)]
        return [
            effect
            for part in self._inquiries
            for effect in part.holder_found(repository, record.peer, where, now.mono, teller)
        ]

    # --- what this node tells -------------------------------------------------------------------------------

    def vetted(self, event: Vetted, now: Now) -> list[Effect]:
        """Send on in full what is found good, before its objects are here; who is told may ask for them."""
        goal = self._sync.goals.get(event.repository)
        fresh = [record for record in event.records if now.wall - record.time_ms <= RELAY_WINDOW_MS]
        self._fresh[event.fetch] = frozenset(record.head.hash for record in fresh)
        if goal is None or goal.fetch != event.fetch or not goal.held:
            # Who copies it for the first time has nothing to tell those who told it.
            return []
        self._sync.vetted(event.fetch)
        asked = self._sync.fetches.running[event.fetch].asked
        listeners = self._listeners(event.repository)
        sends: list[Send] = []
        for record in fresh:
            commit = NewCommit(event.repository, record.author, record.head.seq, record.head.hash, record.record)
            self._gossip.has(commit, event.connection)
            if not asked or now.wall - record.time_ms <= HOT_MS:
                relayed = self._gossip.relay(commit, listeners, now.mono)
                for send in relayed:
                    # Who has it from others too, and commits it first, does not tell us what we told.
                    self._gossip.missing.told(send.connection, commit, None, now.mono)
                sends += relayed
        self._serving.expect(event.repository, [send.connection for send in sends])
        return [*sends]

    def fetched(self, event: FetchFinished, before: int | None, now: Now) -> list[Effect]:
        """Announce what a transfer brought; ``before``: the newest epoch known until then, ``None`` for none.

        Where it brought nothing, what was told is forgotten or, where it is worth nothing, remembered for that.
        """
        fresh = self._fresh.pop(event.fetch, None)
        told = self._told.pop(event.fetch, None)
        slower = self._slower.pop(event.repository, {})
        committed = isinstance(event.outcome, Accepted)
        effects, in_vain = self._serving.settled(event.repository, now.mono, committed=committed)
        for link in () if committed else in_vain:
            # Every holder is asked now.
            self._gossip.missing.asked(event.repository, link)
        for header_hash in fresh or ():
            self._gossip.have_not(header_hash, in_vain)
        match event.outcome:
            case Accepted() if event.repository in self._sync.goals:
                effects += self._announce(
                    event.repository, event.outcome, before, now, event.connection, fresh, in_vain
                )
                for link, tree in slower.items():
                    if link != event.connection and (connection := self._peers.connections.get(link)) is not None:
                        effects += self._prune(connection, tree)
            case Failed(error=PeerFault()) if told is not None and fresh is None:
                self._gossip.reject(told, now.mono)
            case Failed() | Incomplete() if told is not None:
                self._gossip.forget(told)
            case _:
                pass
        return effects

    def published(self, repository: RepositoryId, accepted: Accepted, now: Now) -> list[Effect]:
        """Announce what our own maintainer signed."""
        goal = self._sync.goals.get(repository)
        before = goal.known.epoch if goal is not None and goal.held else None
        effects = self._sync.published(repository, accepted.known, now.mono, accepted.reason)
        if before is None:
            # A repository that nobody knew of.
            message = announcement(self._new_repository(repository, accepted))
            effects += self._gossip.scatter(message, self._curious(), now.mono)
        listeners = self._listeners(repository)
        for author, head, record in accepted.news:
            commit = NewCommit(repository, author, head.seq, head.hash, record)
            effects += self._gossip.relay(commit, listeners, now.mono)
        return effects + self._announce(repository, accepted, before, now)

    def _announce(
        self,
        repository: RepositoryId,
        accepted: Accepted,
        before: int | None,
        now: Now,
        source: ConnectionId | None = None,
        fresh: frozenset[bytes] | None = None,
        waiting: frozenset[ConnectionId] = frozenset(),
    ) -> list[Effect]:
        """Tell those who want to know what is new since epoch ``before``, and do not know it; records in short.

        What came from ``source`` and was told of in full is told a little later, to who does not know it then, but
        for those who are ``waiting`` for it. Who told us gets our receipt, and so does who asked for it.

        Proof that an author signed two histories is for all: who told us may have told of one of the two. So is
        news of an identity document: a record may count again by it that we have kept and the other one has not.
        """
        seeds = SEEDS in self._peers.me.capabilities
        effects = self._receipts.committed(repository, accepted, source if seeds else None, self.holders(repository))
        listeners = self._listeners(repository)
        if before is None or before < accepted.known.epoch:
            effects += self._gossip.flood(self._new_repository(repository, accepted), listeners, now.mono)
        for author, split, proof in accepted.proofs:
            effects += self._gossip.flood(NewProof(repository, author, split, proof), listeners, now.mono)
        for author, head, record in accepted.news:
            if fresh is None or head.hash in fresh:
                commit = NewCommit(repository, author, head.seq, head.hash, record)
                if source is None or not fits(commit):
                    effects += self._gossip.tell(commit, listeners)
                else:
                    effects += self._gossip.tell(commit, [link for link in listeners if link in waiting])
                    self._gossip.untold.add(commit, now.mono)
        return effects

    def holders(self, repository: RepositoryId) -> list[tuple[PeerId, ConnectionId]]:
        """Return the connected peers that hold ``repository``, or follow it and may soon."""
        states = [*self._peers.peers_with_repository(repository), *self._peers.subscribers(repository)]
        connected = {state.id: state.connection.id for state in states if state.connection is not None}
        return list(connected.items())

    def _listeners(self, repository: RepositoryId) -> list[ConnectionId]:
        states = self._peers.subscribers(repository)
        return [state.connection.id for state in states if state.connection is not None]

    def _new_repository(self, repository: RepositoryId, accepted: Accepted) -> NewRepository:
        known = accepted.known
        return NewRepository(repository, known.epoch, known.identity_hash, self._peers.peer_record)

    # --- time, and ends -------------------------------------------------------------------------------------

    def tick(self, now: Now) -> list[Effect]:
        """Tell in short what is due, and graft a link for each repository whose news were told of and have not come."""
        effects: list[Effect] = []
        for news in self._gossip.untold.due(now.mono):
            # What is no longer the newest has been overtaken by news of its own.
            if self._sync.is_newest(news.repository, news.author, news.seq, news.hash):
                effects += self._gossip.tell(news, self._listeners(news.repository))
        for repository in self._gossip.missing.due(now.mono):
            effects += self._overdue(repository, now)
        return effects

    def _overdue(self, repository: RepositoryId, now: Now) -> list[Effect]:
        missing = self._gossip.missing
        goal = self._sync.goals.get(repository)
        if goal is None:
            missing.here(repository)
            return []
        for link, told in list(missing.tellers(repository).items()):
            if link not in self._peers.connections or self._sync.has(repository, told.author, told.seq, told.hash):
                missing.asked(repository, link)
        tellers = missing.tellers(repository)
        if not tellers:
            return []
        link, told = next(iter(tellers.items()))
        teller = self._peers.connections[link]
        if goal.fetch is not None and goal.held:
            return self._ask_beside(goal.fetch, teller, repository, now)
        if goal.fetch is None and not goal.offers:
            missing.asked(repository, link)
            effects: list[Effect] = [*self._graft(teller, (repository, told.author))]
            effects += self._sync.ask_afresh(teller.peer, repository, now.mono)
        else:
            effects = []
        if tellers := missing.tellers(repository):
            missing.wait(repository, self._peers.connections[next(iter(tellers))].rtt, now.mono)
        return effects

    def _ask_beside(self, fetch: FetchId, teller: PeerConnection, repository: RepositoryId, now: Now) -> list[Effect]:
        """Ask one who told of something newer whether it has it, while a transfer runs that takes long; then the next.

        Where it has, the transfer is told to hurry (``RepoSync``).
        """
        missing = self._gossip.missing
        transfer = self._sync.fetches.running[fetch]
        due = transfer.begun + ASK_BESIDE
        effects: list[Effect] = []
        if now.mono >= due:
            due = now.mono + ASK_BESIDE_AGAIN
            if not transfer.hurried and teller.id != transfer.connection:
                effects = self._sync.ask(teller.peer, [repository], now.mono)
            missing.last(repository, teller.id)
        missing.wait_until(repository, due)
        return effects

    def _graft(self, teller: PeerConnection, tree: Tree) -> list[Send]:
        if not self._gossip.trees.is_lazy(tree, teller.id):
            return []
        self._gossip.trees.graft(tree, teller.id)
        return [Send(teller.id, Graft(*tree))]

    def connection_gone(self, connection: ConnectionId) -> None:
        """Forget what was told over a connection, and to whom."""
        for slower in self._slower.values():
            slower.pop(connection, None)
        self._gossip.drop_link(connection)
