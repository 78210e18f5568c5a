"""``RepoSync``: find peers, ask for refs, see what is newer, have it fetched; see the package's docstring."""

import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Final, assert_never

from guts.addresses import BootstrapAddress
from guts.effects import Candidate, Effect, Fetch, Hurry, Persist, Provide, Reply, SeedingStopped, Send, Terms
from guts.events import (
    Accepted,
    CommandId,
    ConnectionId,
    Failed,
    FetchFinished,
    FetchId,
    Head,
    Incomplete,
    Known,
    LookFinished,
    NothingNew,
    Reason,
)
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.sync.asking import Preference, nobody_first
from guts.sync.fetches import MAX_FETCHES_PER_PEER, RunningFetch, is_as_signed
from guts.sync.goal import Goal, NoLongerFollowed, Prospect, Waiter
from guts.sync.inquiries import DoesNotConnect, Inquiries
from guts.sync.policy import Policy
from guts.sync.prospects import Prospects
from guts.sync.questions import RequestIds
from guts.sync.readings import Readings
from guts.sync.rounds import Batch, Rounds
from guts.sync.search import WANTED_HOLDERS
from guts.wire.limits import MAX_SUBSCRIPTIONS
from guts.wire.messages import NewCommit, NewProof, Subscribe

ASK_INTERVAL: Final = 60.0
"""Seconds between two rounds of anti-entropy for one repository: gossip is for speed, this for certainty."""

LISTEN_AFTER_NOTHING: Final = 15.0
"""Seconds, ± half, for which a peer whose news came to nothing tells no more of that repository: each takes the place
of a transfer. What is missed thereby the next round of anti-entropy brings."""


class RepoSync(Inquiries[Goal]):
    """Every followed repository of this node.

    Attributes:
        readings: of repositories that it does not hold.
        requests: ids for all requests of this node.
        policy: what it seeds, and why.
    """

    transfers_per_peer: ClassVar[int] = MAX_FETCHES_PER_PEER

    def __init__(
        self,
        held: Mapping[RepositoryId, Known],
        holders: Callable[[RepositoryId], Iterable[PeerId]],
        rng: random.Random,
        now: float,
        ask_interval: float = ASK_INTERVAL,
        preference: Preference = nobody_first,
        policy: Policy | None = None,
    ) -> None:
        """Follow what is ``held`` already.

        Args:
            policy: without one, what is asked for explicitly and nothing else.
            holders: names the ready peers known to hold a repository.
            ask_interval: seconds between two rounds of anti-entropy for one repository, ± half.
            preference: as for ``Asking``.
        """
        self.requests = requests = RequestIds()
        super().__init__(holders, rng, requests.next, preference)
        self.readings = Readings(holders, rng, requests.next, preference)
        self.policy = policy or Policy()
        self._prospects = Prospects()
        self._rounds = Rounds(ask_interval, rng)
        for repository, known in held.items():
            goal = self.goals[repository] = Goal(repository, known, held=True, next_search=now)
            self._agenda.schedule(goal, self._rounds.first(now))

    # --- questions ------------------------------------------------------------------------------------------

    def followed(self) -> list[RepositoryId]:
        """Return the repositories whose news this node wants."""
        return [goal.repository for goal in self.goals.values() if goal.prospect is None]

    def holds(self, repository: RepositoryId) -> bool:
        """Tell whether a state of ``repository`` is committed here and followed."""
        goal = self.goals.get(repository)
        return goal is not None and goal.held

    def committed(self, repository: RepositoryId) -> Known | None:
        """Return what is committed here of ``repository``; ``None`` where it is not held."""
        goal = self.goals.get(repository)
        return goal.known if goal is not None and goal.held else None

    def has(self, repository: RepositoryId, author: AuthorId, seq: int, hash_: bytes) -> bool:
        """Tell whether the record ``seq`` of ``author``, with this header's hash, or a later one is here."""
        goal = self.goals.get(repository)
        head = goal.known.head(author) if goal is not None else None
        return head is not None and (head.seq > seq or (head.seq, head.hash) == (seq, hash_))

    def is_newest(self, repository: RepositoryId, author: AuthorId, seq: int, hash_: bytes) -> bool:
        """Tell whether the record ``seq`` of ``author``, with this header's hash, is the newest one that is here."""
        goal = self.goals.get(repository)
        return goal is not None and goal.known.head(author) == Head(seq, hash_)

    def terms(self, repository: RepositoryId) -> Terms:
        """Return on which terms ``repository`` is taken now. Raises: ``NoLongerFollowed``: on none."""
        goal = self.goals.get(repository)
        if goal is None:
            raise NoLongerFollowed(repository)
        return self.policy.terms(repository, goal.prospect)

    def listens(self, peer: PeerId, repository: RepositoryId, now: float) -> bool:
        """Tell whether news of ``peer`` about ``repository`` are listened to, if any of it are."""
        goal = self.goals.get(repository)
        return goal is None or goal.listens(peer, now)

    # --- commands -------------------------------------------------------------------------------------------

    def want(
        self, repository: RepositoryId, hints: Iterable[BootstrapAddress], waiter: Waiter, now: float
    ) -> list[Effect]:
        """Follow ``repository``; the waiter is answered when it is here, or when it can't be had."""
        goal = self.goals.get(repository)
        effects: list[Effect] = []
        if goal is None:
            goal, effects = self._follow(repository, now)
        elif goal.prospect is not None:
            effects = self._promote(goal)
        if goal.held:
            self.policy.took(repository, Reason.EXPLICIT)
        effects += self._dial_hints(goal, hints) + self._ask_everybody(goal, now)
        if goal.held:
            # It is here, if not the newest of it: what was missed while it was not followed comes behind.
            return [*effects, goal.reply(waiter, now)]
        self._wait(goal, waiter)
        return effects + self._search.look_up(goal, now)

    def may_consider(self, peer: PeerId) -> bool:
        """Tell whether there is room to look at one more repository that ``peer`` told of."""
        return self._prospects.room_for(peer, self.policy.places)

    def consider(self, repository: RepositoryId, peer: PeerId, identity_hash: bytes | None, now: float) -> None:
        """Look at ``repository``, which nobody asked for; see ``Prospect``."""
        goal = self.goals[repository] = Goal(repository, prospect=Prospect(peer, identity_hash))
        self._prospects.begin(repository, peer)
        self._agenda.schedule(goal, self._rounds.next(now))

    def _promote(self, goal: Goal) -> list[Effect]:
        """Follow what was a prospect: somebody asked for it, or its maintainers decided."""
        goal.prospect = None
        self._prospects.end(goal.repository)
        return self._tell(Subscribe((goal.repository,)))

    def sync_now(self, repository: RepositoryId, waiter: Waiter, now: float) -> list[Effect]:
        """Ask every ready holder of a held repository now; look for holders where there is none.

        A waiter for every answer has more looked for where they are few: one of them may know nothing, or say so.
        """
        goal = self.goals[repository]
        goal.confirmed = False
        goal.refusal = None
        goal.reasons.clear()
        goal.retry_after.clear()
        goal.resting.clear()
        self._wait(goal, waiter)
        effects: list[Effect] = []
        holders = list(self._holders(repository))
        for peer in holders:
            effects += self.ask(peer, [repository], now)
        if len(holders) < (WANTED_HOLDERS if waiter.every else 1):
            effects += self._search.look_up(goal, now)
        return effects + self._settle(goal, now)

    def drop(self, repository: RepositoryId) -> list[Effect]:
        """Follow ``repository`` no longer."""
        goal = self.goals[repository]
        replies = [Reply(waiter.command_id, NoLongerFollowed(repository)) for waiter in goal.waiters]
        return [*replies, *self._unfollow(goal)]

    def published(
        self, repository: RepositoryId, known: Known, now: float, reason: Reason = Reason.EXPLICIT
    ) -> list[Effect]:
        """Follow what was just signed and committed here, or is here and is seeded again."""
        goal = self.goals.get(repository)
        effects: list[Effect] = []
        if goal is None:
            goal, effects = self._follow(repository, now)
        elif goal.prospect is not None:
            effects = self._promote(goal)
        self.policy.took(repository, reason)
        goal.compared = True
        effects += self._committed(goal, known, now)
        return effects + self._settle(goal, now)

    def _follow(self, repository: RepositoryId, now: float) -> tuple[Goal, list[Effect]]:
        goal = self.goals[repository] = Goal(repository)
        self._agenda.schedule(goal, self._rounds.next(now))
        return goal, self._tell(Subscribe((repository,)))

    def _unfollow(self, goal: Goal) -> list[Effect]:
        self._forget(goal)
        if goal.prospect is not None:
            self._prospects.end(goal.repository)
            return []
        return self._tell(Subscribe((), (goal.repository,)))

    def _give_up(self, goal: Goal) -> list[Effect]:
        return [] if goal.held else self._unfollow(goal)

    def _tell(self, message: Subscribe) -> list[Effect]:
        return [Send(connection, message) for connection in self._questions.connections()]

    # --- peers ----------------------------------------------------------------------------------------------

    def peer_ready(
        self, peer: PeerId, connection: ConnectionId, shared: Iterable[RepositoryId], now: float
    ) -> list[Effect]:
        """Tell a new peer what we follow; ask about what it is known to hold and all that somebody waits for."""
        effects = self._greet(peer, connection, now)
        followed = self.followed()
        for start in range(0, len(followed), MAX_SUBSCRIPTIONS):
            effects.append(Send(connection, Subscribe(tuple(followed[start : start + MAX_SUBSCRIPTIONS]))))
        wanted = [goal.repository for goal in self.goals.values() if not goal.held]
        return effects + self.ask(peer, [*wanted, *shared], now)

    # --- answers --------------------------------------------------------------------------------------------

    def _nothing_newer(self, goal: Goal, peer: PeerId, now: float) -> None:
        goal.confirmed = True

    def vetted(self, fetch: FetchId) -> None:
        """Note that what a running transfer was offered is found good, by all that needs no objects."""
        self.fetches.running[fetch].vetted = True

    def doubts(self, news: NewCommit, now: float) -> bool:
        """Tell whether a record of that author could not be had lately: its teller may not have its objects either."""
        goal = self.goals.get(news.repository)
        return goal is not None and now < goal.doubted.get(news.author, -math.inf)

    def news(self, peer: PeerId, connection: ConnectionId, news: NewCommit, now: float) -> list[Effect]:
        """Take a NewCommit: fetch at once where its record came along, else ask for it."""
        goal = self.goals.get(news.repository)
        if goal is None or not goal.listens(peer, now):
            return []
        if self.has(news.repository, news.author, news.seq, news.hash):
            return []
        if news.record is not None and goal.held and self._questions.connection(peer) == connection:
            candidate = Candidate((), (), (news.record,))
            return self._fetch(goal, peer, candidate, now, asked=False, partial=False, author=news.author)
        return self._ask_afresh(goal, peer, now)

    def ask_afresh(self, peer: PeerId, repository: RepositoryId, now: float) -> list[Effect]:
        """Ask ``peer`` about what it told of; where it is being asked already, once more after that."""
        goal = self.goals.get(repository)
        return self._ask_afresh(goal, peer, now) if goal is not None else []

    def proof_news(self, peer: PeerId, connection: ConnectionId, news: NewProof, now: float) -> list[Effect]:
        """Take a NewProof: have it looked at, where no split of that author is known from before it."""
        goal = self.goals.get(news.repository)
        if goal is None or not goal.held or self._questions.connection(peer) != connection:
            return []
        if not goal.listens(peer, now):
            return []
        split = goal.known.split(news.author)
        if split is not None and split <= news.seq:
            return []
        return self._fetch(goal, peer, Candidate((), (), (), (news.proof,)), now, asked=False, partial=False)

    # --- transfers ------------------------------------------------------------------------------------------

    def _transfer(self, goal: Goal, fetch: FetchId, transfer: RunningFetch, candidate: Candidate) -> Effect:
        repository, terms = goal.repository, self.terms(goal.repository)
        return Fetch(fetch, transfer.connection, transfer.request, repository, candidate, terms, transfer.claim)

    def _hurry(self, goal: Goal, peer: PeerId) -> list[Effect]:
        """Let a transfer have little patience with its peer: ``peer`` has what is newer too, and has committed it.

        Not where nothing is held yet: the whole of a repository may take a while to count.
        """
        seconds = self.fetches.hurry(goal, peer) if goal.held else None
        return [] if seconds is None or goal.fetch is None else [Hurry(goal.fetch, seconds)]

    def fetch_finished(self, event: FetchFinished, now: float) -> list[Effect]:
        """Take the outcome of a transfer."""
        goal, effects = self._ended(event, now)
        if goal is None and isinstance(event.outcome, Accepted):
            # Dropped in the meantime. The commit says that it is seeded; the operator, who spoke last, does not.
            effects.insert(0, Persist(SeedingStopped(event.repository)))
        return effects

    def _finished(
        self, goal: Goal, transfer: RunningFetch, event: FetchFinished | LookFinished, now: float
    ) -> list[Effect]:
        if isinstance(event.outcome, Failed) and is_as_signed(event.outcome.error):
            goal.refused.refuse(transfer.offer, transfer.peer, now)
        match event.outcome:
            case Accepted(known=known, proofs=proofs, reason=reason):
                goal.unheard.pop(transfer.peer, None)
                goal.failures.pop(transfer.peer, None)
                effects = self._promote(goal) if goal.prospect is not None else []
                self.policy.took(goal.repository, reason)
                effects += self._committed(goal, known, now)
                # Where a proof of two histories took an author back, the peer may have what counts now.
                more = transfer.partial or proofs
                return effects + (self._ask_afresh(goal, transfer.peer, now) if more else [])
            case NothingNew(known=known) if known.epoch >= 0:
                self._hush(goal, transfer.peer, now)
                # Where it was not held, it was committed for an earlier goal of this name.
                confirmed = goal.confirmed or transfer.asked or not goal.held
                effects = self._committed(goal, known, now)
                goal.confirmed = confirmed
                return effects
            case NothingNew():
                goal.note(transfer.peer, "says that it holds it, and offers nothing")
                return []
            case Incomplete() if not transfer.asked:
                self._hush(goal, transfer.peer, now)
                return self._ask_afresh(goal, transfer.peer, now)
            case Incomplete():
                return self._failed(goal, transfer, DoesNotConnect("its answer does not follow from what is here"), now)
            case Failed(error=error) if transfer.author is not None and transfer.failed_for_its_record(error):
                goal.doubted[transfer.author] = now + self._setbacks.jittered(LISTEN_AFTER_NOTHING)
                return self._ask_holders(goal, now)
            case Failed(error=error):
                return self._failed(goal, transfer, error, now)
            case _:
                assert_never(event.outcome)

    def _hush(self, goal: Goal, peer: PeerId, now: float) -> None:
        """Listen to no news of ``peer`` for a while: others may have the place of a transfer."""
        goal.unheard[peer] = now + self._setbacks.jittered(LISTEN_AFTER_NOTHING)

    def _committed(self, goal: Goal, known: Known, now: float) -> list[Effect]:
        first, before = not goal.held, goal.known
        goal.known, goal.held, goal.confirmed = known, True, True
        goal.refusal = None
        goal.reasons.clear()
        goal.doubted.clear()
        goal.refused.clear()
        if first or known != before:
            goal.hurried = 0
        effects: list[Effect] = [Provide(goal.repository)] if first else []
        if any(known.head(author) is None for author, _ in before.heads):
            # What counts of that author now is not here; others may have it.
            for peer in self._holders(goal.repository):
                effects += self._ask_afresh(goal, peer, now)
        return effects

    # --- time -----------------------------------------------------------------------------------------------

    def _enough(self, goal: Goal) -> bool:
        if not goal.held or goal.waiters:
            return False
        return len(list(self._holders(goal.repository))) >= WANTED_HOLDERS

    def _round(self, goal: Goal, batch: Batch, now: float) -> list[Effect]:
        goal.unheard = {peer: time for peer, time in goal.unheard.items() if time > now}
        goal.doubted = {author: time for author, time in goal.doubted.items() if time > now}
        rested = self._setbacks.rested(goal, now)
        effects: list[Effect] = []
        for peer in rested:
            effects += self.ask(peer, [goal.repository], now)
        holders = list(self._holders(goal.repository))
        willing = [peer for peer in holders if goal.willing(peer, now)]
        if willing and not rested:
            better = [peer for peer in willing if self._preference(peer, now) >= 0.0]
            self._put(goal, batch.choose(better or willing), now)
        if len(holders) < WANTED_HOLDERS and self._search.may_look_up(goal, now):
            effects += self._search.look_up(goal, now)
        resting = [goal.retry_after[peer] for peer in goal.resting]
        self._agenda.schedule(goal, min([self._rounds.next(now), goal.refused.due_at(), *resting]))
        return effects + self._settle(goal, now)

    def _expire(self, goal: Goal, command_id: CommandId, now: float) -> list[Effect]:
        late = [waiter for waiter in goal.waiters if waiter.command_id == command_id]
        goal.waiters = [waiter for waiter in goal.waiters if waiter.command_id != command_id]
        effects: list[Effect] = [Reply(waiter.command_id, goal.too_late()) for waiter in late]
        if late and not goal.waiters and goal.fetch is None:
            effects += self._give_up(goal)
        return effects

    def _settle(self, goal: Goal, now: float) -> list[Effect]:
        if self.goals.get(goal.repository) is not goal:
            return []
        self._invitations.stand_in_line(goal)
        if not goal.done and goal.busy:
            return []
        if goal.done:
            waiters = [waiter for waiter in goal.waiters if not (waiter.every and goal.busy)]
            goal.waiters = [waiter for waiter in goal.waiters if waiter not in waiters]
            goal.compared = goal.compared or any(waiter.every for waiter in waiters)
            return [goal.reply(waiter, now) for waiter in waiters]
        waiters, goal.waiters = goal.waiters, []
        replies = [Reply(waiter.command_id, goal.failure()) for waiter in waiters]
        return [*replies, *self._give_up(goal)]
