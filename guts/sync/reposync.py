"""``RepoSync``: find peers, ask for refs, see what is newer, have it fetched; see the package's docstring."""

import random
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Final, assert_never

from guts.addresses import Address, BootstrapAddress
from guts.effects import (
    Candidate,
    Effect,
    Fetch,
    Persist,
    Provide,
    Reply,
    SeedingStopped,
    Send,
)
from guts.errors import GutsError, PeerFault, Severity, StorageFault, Unavailable
from guts.events import (
    Accepted,
    ConnectionId,
    Failed,
    FetchFinished,
    Incomplete,
    Known,
    LookupFinished,
    NothingNew,
)
from guts.ids import PeerId, RepositoryId
from guts.sync.agenda import Agenda
from guts.sync.fetches import Fetches, RunningFetch, pause
from guts.sync.goal import NOT_HELD, Goal, NoLongerFollowed, Waiter
from guts.sync.pages import Pages
from guts.sync.questions import Questions
from guts.sync.search import WANTED_HOLDERS, Search
from guts.wire.limits import MAX_KNOWN_HEADS, MAX_SPLITS, MAX_SUBSCRIPTIONS
from guts.wire.messages import (
    Error,
    ErrorCode,
    KnownHead,
    KnownSplit,
    NewCommit,
    NewProof,
    Refs,
    RefsAnswer,
    RefsQuery,
    RefsStatus,
    Subscribe,
)

ASK_INTERVAL: Final = 60.0
"""Seconds between two rounds of anti-entropy for one repository: gossip is for speed, this for certainty."""

RETRY_AFTER_TROUBLE: Final = 15.0
"""Seconds, ± half, before a peer whose transfer failed is asked again for that repository."""

LISTEN_AFTER_NOTHING: Final = 15.0
"""Seconds, ± half, for which a peer whose news came to nothing tells no more of that repository: each takes the place
of a transfer. What is missed thereby the next round of anti-entropy brings."""

MAX_INVITED: Final = 2
"""Peers whose answer is awaited before no more of those who offered something are asked: one of them may be silent."""

RETRY_AFTER_FAULT: Final = 600.0
RETRY_AFTER_STORAGE: Final = 60.0


class UnsolicitedAnswer(PeerFault):
    """An answer to a question that was not asked, or about something that was not asked for."""

    code: ClassVar[str] = "UNSOLICITED_ANSWER"
    severity: ClassVar[Severity] = Severity.SERIOUS


class DoesNotConnect(Unavailable):
    """A peer's full answer does not follow from what is held here, so nothing was fetched."""

    code: ClassVar[str] = "DOES_NOT_CONNECT"


class RepoSync:
    """Every followed repository of this node."""

    def __init__(
        self,
        held: Mapping[RepositoryId, Known],
        holders: Callable[[RepositoryId], Iterable[PeerId]],
        rng: random.Random,
        now: float,
        ask_interval: float = ASK_INTERVAL,
    ) -> None:
        """Follow what is ``held`` already.

        Args:
            holders: names the ready peers known to hold a repository.
            ask_interval: seconds between two rounds of anti-entropy for one repository, ± half.
        """
        self._ask_interval = ask_interval
        self.goals: dict[RepositoryId, Goal] = {}
        self.fetches = Fetches()
        self._holders = holders
        self._rng = rng
        self._questions = Questions(self._query)
        self._pages = Pages()
        self._agenda = Agenda()
        self._search = Search(rng)
        for repository, known in held.items():
            goal = self.goals[repository] = Goal(repository, known, held=True, next_search=now)
            self._agenda.schedule(goal, now + rng.uniform(0.0, ask_interval))

    # --- questions ------------------------------------------------------------------------------------------

    def followed(self) -> list[RepositoryId]:
        """Return the repositories whose news this node wants."""
        return list(self.goals)

    def holds(self, repository: RepositoryId) -> bool:
        """Tell whether a state of ``repository`` is committed here and followed."""
        goal = self.goals.get(repository)
        return goal is not None and goal.held

    def listens(self, peer: PeerId, repository: RepositoryId, now: float) -> bool:
        """Tell whether news of ``peer`` about ``repository`` are listened to, if any of it are."""
        goal = self.goals.get(repository)
        return goal is None or goal.listens(peer, now)

    def deadline(self) -> float:
        """Return when ``tick`` is due next (monotonic seconds); infinity for never."""
        return min(self._questions.deadline(), self._agenda.deadline())

    # --- commands -------------------------------------------------------------------------------------------

    def want(
        self,
        repository: RepositoryId,
        hints: Iterable[BootstrapAddress],
        waiter: Waiter,
        now: float,
    ) -> list[Effect]:
        """Follow ``repository``; the waiter is answered when it is here, or when it can't be had."""
        goal = self.goals.get(repository)
        effects: list[Effect] = []
        if goal is None:
            goal, effects = self._follow(repository, now)
        # Who is connected is asked as it is: a second connection would take the place of one that is in use.
        strangers = [hint for hint in hints if hint.peer is None or not self._questions.ready(hint.peer)]
        effects += self._search.dial(goal, strangers)
        for peer in self._questions.peers():
            effects += self.ask(peer, [repository], now)
        if goal.held:
            # It is here, if not the newest of it: what was missed while it was not followed comes behind.
            return [*effects, goal.reply(waiter, now)]
        self._wait(goal, waiter)
        return effects + self._search.look_up(goal, now)

    def sync_now(self, repository: RepositoryId, waiter: Waiter, now: float) -> list[Effect]:
        """Ask every ready holder of a held repository now; look for holders where there is none.

        A waiter for every answer has more looked for where they are few: one of them may know nothing, or say so.
        """
        goal = self.goals[repository]
        goal.confirmed = False
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

    def published(self, repository: RepositoryId, known: Known, now: float) -> list[Effect]:
        """Follow what was just signed and committed here."""
        goal = self.goals.get(repository)
        effects: list[Effect] = []
        if goal is None:
            goal, effects = self._follow(repository, now)
        goal.compared = True
        effects += self._committed(goal, known, now)
        return effects + self._settle(goal, now)

    def _follow(self, repository: RepositoryId, now: float) -> tuple[Goal, list[Effect]]:
        goal = self.goals[repository] = Goal(repository)
        self._agenda.schedule(goal, now + self._jittered(self._ask_interval))
        return goal, self._tell(Subscribe((repository,)))

    def _unfollow(self, goal: Goal) -> list[Effect]:
        del self.goals[goal.repository]
        self._pages.forget(goal.repository)
        self.fetches.withdraw(goal.repository)
        return self._tell(Subscribe((), (goal.repository,)))

    def _tell(self, message: Subscribe) -> list[Effect]:
        return [Send(connection, message) for connection in self._questions.connections()]

    def _wait(self, goal: Goal, waiter: Waiter) -> None:
        goal.waiters.append(waiter)
        self._agenda.wait(goal, waiter)

    # --- peers ----------------------------------------------------------------------------------------------

    def peer_ready(
        self, peer: PeerId, connection: ConnectionId, shared: Iterable[RepositoryId], now: float
    ) -> list[Effect]:
        """Tell a new peer what we follow; ask about what it is known to hold and all that somebody waits for."""
        effects: list[Effect] = []
        if (replaced := self._questions.connection(peer)) is not None:
            effects += self.peer_gone(peer, replaced, now)
        self._questions.begin(peer, connection)
        followed = self.followed()
        for start in range(0, len(followed), MAX_SUBSCRIPTIONS):
            effects.append(Send(connection, Subscribe(tuple(followed[start : start + MAX_SUBSCRIPTIONS]))))
        wanted = [goal.repository for goal in self.goals.values() if not goal.held]
        return effects + self.ask(peer, [*wanted, *shared], now)

    def peer_gone(self, peer: PeerId, connection: ConnectionId, now: float) -> list[Effect]:
        """Give up what was asked of a peer whose connection is gone."""
        if not self._questions.end(peer, connection):
            return []
        effects: list[Effect] = []
        for goal in list(self.goals.values()):
            self._pages.drop(peer, goal.repository)
            if peer in goal.asking or peer in goal.offers or peer in goal.resting:
                goal.asking.discard(peer)
                goal.offers.pop(peer, None)
                goal.resting.pop(peer, None)
                goal.note(peer, "disconnected")
                effects += self._settle(goal, now)
        return effects + self._invite(now)

    def ask(self, peer: PeerId, repositories: Iterable[RepositoryId], now: float) -> list[Effect]:
        """Ask ``peer`` what it has that is newer, of those ``repositories`` that we follow."""
        for repository in repositories:
            goal = self.goals.get(repository)
            if goal is None or peer in goal.asking or not goal.willing(peer, now):
                continue
            if self._questions.add(peer, repository):
                goal.asking.add(peer)
        return [*self._questions.send(peer, now)]

    def _query(self, peer: PeerId, repository: RepositoryId) -> RefsQuery | None:
        goal = self.goals.get(repository)
        if goal is None:
            return None
        known = self._pages.known(peer, repository, goal.known)
        # An author who is left out is only told again.
        heads = tuple(KnownHead(author, head.seq, head.hash) for author, head in known.heads[:MAX_KNOWN_HEADS])
        splits = tuple(KnownSplit(author, seq) for author, seq in known.splits[:MAX_SPLITS])
        return RefsQuery(repository, known.epoch + 1, known.identity_hash, heads, splits, known.fork)

    # --- answers --------------------------------------------------------------------------------------------

    def refs(self, connection: ConnectionId, refs: Refs, now: float) -> list[Effect]:
        """Take the answer to a GetRefs.

        Raises:
            UnsolicitedAnswer: nothing was asked under that id, or something else was.
        """
        question = self._questions.find(connection, refs.request)
        if question is None:
            raise UnsolicitedAnswer("Refs for a request that is not open")
        answered = {answer.repository for answer in refs.answers}
        if len(answered) != len(refs.answers) or not answered <= set(question.repositories):
            raise UnsolicitedAnswer("Refs about a repository that was not asked for")
        peer = question.peer
        self._close(peer, refs.request, question.repositories)
        effects: list[Effect] = []
        for answer in refs.answers:
            if (goal := self.goals.get(answer.repository)) is not None:
                # The cut, where there is one, is in the last answer.
                partial = bool(refs.cursor) and answer is refs.answers[-1]
                effects += self._answer(goal, peer, answer, partial, now)
        unanswered = [repository for repository in question.repositories if repository not in answered]
        if refs.cursor and answered:
            effects += self.ask(peer, unanswered, now)
        else:
            self._excuse(peer, unanswered, "did not answer about it", now + self._jittered(RETRY_AFTER_TROUBLE))
        return effects + self._answered(peer, question.repositories, now)

    def _answer(self, goal: Goal, peer: PeerId, answer: RefsAnswer, partial: bool, now: float) -> list[Effect]:
        if answer.status is not RefsStatus.HELD:
            self._pages.drop(peer, goal.repository)
            goal.note(peer, NOT_HELD)
            return []
        if partial and self._wants_more(goal, peer, now) and self._pages.keep(peer, answer, now):
            return self.ask(peer, [goal.repository], now)
        candidate = self._pages.take(peer, answer)
        if candidate.documents or candidate.records or candidate.proofs:
            return self._fetch(goal, peer, candidate, now, asked=True, partial=partial)
        if goal.held:
            goal.confirmed = True
        else:
            goal.note(peer, "says that it holds it, and offers nothing")
        return []

    def _wants_more(self, goal: Goal, peer: PeerId, now: float) -> bool:
        return self.fetches.room_for(goal) and goal.willing(peer, now) and now >= goal.paused_until

    def refused(self, connection: ConnectionId, error: Error, now: float) -> list[Effect]:
        """Take an Error that answers one of our questions; any other is nobody's concern."""
        question = self._questions.find(connection, error.request)
        if question is None:
            return []
        peer, repositories = question.peer, question.repositories
        self._close(peer, error.request, repositories)
        if error.code is ErrorCode.BUSY:
            self._rest(peer, repositories, "is busy", now + pause(error.retry_after_s))
        else:
            until = now + self._jittered(RETRY_AFTER_TROUBLE)
            self._excuse(peer, repositories, f"refused: {error.code.name.lower()}", until)
        return self._answered(peer, repositories, now)

    def news(self, peer: PeerId, connection: ConnectionId, news: NewCommit, now: float) -> list[Effect]:
        """Take a NewCommit: fetch at once where its record came along, else ask for it."""
        goal = self.goals.get(news.repository)
        if goal is None or not goal.listens(peer, now):
            return []
        head = goal.known.head(news.author)
        if head is not None and (head.seq > news.seq or (head.seq, head.hash) == (news.seq, news.hash)):
            return []
        if news.record is not None and goal.held and self._questions.connection(peer) == connection:
            return self._fetch(goal, peer, Candidate((), (), (news.record,)), now, asked=False, partial=False)
        return self._ask_afresh(goal, peer, now)

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

    def _ask_afresh(self, goal: Goal, peer: PeerId, now: float) -> list[Effect]:
        if peer in goal.asking:
            # What it is asked already it may have answered already, before this was new.
            goal.offers[peer] = None
            return []
        return self.ask(peer, [goal.repository], now)

    def _close(self, peer: PeerId, request: int, repositories: Iterable[RepositoryId]) -> None:
        self._questions.close(peer, request)
        for repository in repositories:
            if (goal := self.goals.get(repository)) is not None:
                goal.asking.discard(peer)

    def _excuse(self, peer: PeerId, repositories: Iterable[RepositoryId], why: str, until: float) -> None:
        for repository in repositories:
            self._pages.drop(peer, repository)
            if (goal := self.goals.get(repository)) is not None:
                goal.note(peer, why)
                goal.retry_after[peer] = until

    def _rest(self, peer: PeerId, repositories: Iterable[RepositoryId], why: str, until: float) -> None:
        """Ask ``peer`` again at ``until``; a command goes on waiting for that."""
        self._excuse(peer, repositories, why, until)
        for repository in repositories:
            goal = self.goals.get(repository)
            if goal is not None and self._questions.ready(peer):
                goal.resting[peer] = None
                self._agenda.schedule(goal, min(goal.next_ask, until))

    def _answered(self, peer: PeerId, repositories: Iterable[RepositoryId], now: float) -> list[Effect]:
        """Go on after a question has ended, one way or the other."""
        effects: list[Effect] = [*self._questions.send(peer, now)]
        for repository in repositories:
            if (goal := self.goals.get(repository)) is not None:
                effects += self._settle(goal, now)
        return effects + self._invite(now)

    # --- transfers ------------------------------------------------------------------------------------------

    def _fetch(
        self, goal: Goal, peer: PeerId, candidate: Candidate, now: float, *, asked: bool, partial: bool
    ) -> list[Effect]:
        connection = self._questions.connection(peer)
        assert connection is not None
        if not goal.willing(peer, now) or now < goal.paused_until:
            return []
        if not self.fetches.room_for(goal):
            # The bytes are not kept: whoever has something newer is asked again when there is room.
            goal.offers[peer] = None
            return []
        goal.offers.pop(peer, None)
        request = self._questions.next_request()
        transfer = RunningFetch(goal.repository, peer, connection, request, asked, partial)
        return [Fetch(self.fetches.begin(goal, transfer), connection, request, goal.repository, candidate)]

    def fetch_finished(self, event: FetchFinished, now: float) -> list[Effect]:
        """Take the outcome of a transfer."""
        transfer = self.fetches.end(event.fetch)
        goal = self.goals.get(event.repository)
        effects: list[Effect] = []
        if goal is not None:
            if goal.fetch == event.fetch:
                goal.fetch = None
            effects += self._finished(goal, transfer, event, now)
            effects += self._settle(goal, now)
        elif isinstance(event.outcome, Accepted):
            # Dropped in the meantime. The commit says that it is seeded; the operator, who spoke last, does not.
            effects.append(Persist(SeedingStopped(event.repository)))
        return effects + self._invite(now)

    def _finished(self, goal: Goal, transfer: RunningFetch, event: FetchFinished, now: float) -> list[Effect]:
        match event.outcome:
            case Accepted(known=known, proofs=proofs):
                goal.unheard.pop(transfer.peer, None)
                effects = self._committed(goal, known, now)
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
            case Failed(error=error):
                return self._failed(goal, transfer, error, now)
            case _:
                assert_never(event.outcome)

    def _hush(self, goal: Goal, peer: PeerId, now: float) -> None:
        """Listen to no news of ``peer`` for a while: others may have the place of a transfer."""
        goal.unheard[peer] = now + self._jittered(LISTEN_AFTER_NOTHING)

    def _committed(self, goal: Goal, known: Known, now: float) -> list[Effect]:
        first, before = not goal.held, goal.known
        goal.known, goal.held, goal.confirmed = known, True, True
        goal.reasons.clear()
        effects: list[Effect] = [Provide(goal.repository)] if first else []
        if any(known.head(author) is None for author, _ in before.heads):
            # What counts of that author now is not here; others may have it.
            for peer in self._holders(goal.repository):
                effects += self._ask_afresh(goal, peer, now)
        return effects

    def _failed(self, goal: Goal, transfer: RunningFetch, error: GutsError, now: float) -> list[Effect]:
        if isinstance(error, StorageFault):
            goal.paused_until = now + RETRY_AFTER_STORAGE
            goal.offers.clear()
            goal.resting.clear()
            self._agenda.schedule(goal, goal.paused_until)
            waiters, goal.waiters = goal.waiters, []
            replies = [Reply(waiter.command_id, error) for waiter in waiters]
            return [*replies, *([] if goal.held else self._unfollow(goal))]
        peer, repositories = transfer.peer, [goal.repository]
        if isinstance(error, PeerFault):
            self._excuse(peer, repositories, str(error), now + self._jittered(RETRY_AFTER_FAULT))
        else:
            pause = self._jittered(RETRY_AFTER_TROUBLE) if transfer.pause is None else transfer.pause
            self._rest(peer, repositories, str(error), now + pause)
        effects: list[Effect] = []
        for other in self._holders(goal.repository):
            effects += self.ask(other, repositories, now)
        return effects

    def _invite(self, now: float) -> list[Effect]:
        """Ask for what was offered when there was no room, as far as there is room now."""
        effects: list[Effect] = []
        for repository in self.fetches.invited():
            goal = self.goals[repository]
            while goal.offers and len(goal.asking) < MAX_INVITED:
                peer = next(iter(goal.offers))
                del goal.offers[peer]
                effects += self.ask(peer, [repository], now)
            effects += self._settle(goal, now)
        return effects

    # --- lookups and dials ----------------------------------------------------------------------------------

    def holder_found(
        self, repository: RepositoryId, peer: PeerId, addresses: Iterable[Address], now: float
    ) -> list[Effect]:
        """Ask a holder that is connected; dial another one, as far as holders are wanted."""
        goal = self.goals.get(repository)
        if goal is None:
            return []
        if self._questions.ready(peer):
            return self.ask(peer, [repository], now)
        if self._has_holders(goal):
            return []
        return self._search.dial(goal, [BootstrapAddress(address.ip, address.port, peer) for address in addresses])

    def _has_holders(self, goal: Goal) -> bool:
        if not goal.held or goal.waiters:
            return False
        return len(list(self._holders(goal.repository))) >= WANTED_HOLDERS

    def lookup_finished(self, event: LookupFinished, now: float) -> list[Effect]:
        """Note that a lookup has ended."""
        goal = self.goals.get(event.repository)
        self._search.lookup_ended(event, goal)
        return self._settle(goal, now) if goal is not None else []

    def dial_ended(self, target: BootstrapAddress, outcome: PeerId | GutsError, now: float) -> list[Effect]:
        """Note the end of a dial: who is ready now, or why nobody is."""
        effects: list[Effect] = []
        for goal in [goal for goal in self.goals.values() if target in goal.dials]:
            if isinstance(outcome, PeerId):
                effects += self.ask(outcome, [goal.repository], now)
            else:
                goal.note(target, str(outcome))
            effects += self._search.dial_ended(goal, target, outcome, enough=self._has_holders(goal))
            effects += self._settle(goal, now)
        return effects

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Do what is due: rounds of anti-entropy, lookups, answers that did not come, commands out of time."""
        effects: list[Effect] = []
        for peer, repositories in self._questions.overdue(now):
            for repository in repositories:
                if (goal := self.goals.get(repository)) is not None:
                    self._pages.drop(peer, repository)
                    goal.asking.discard(peer)
                    goal.note(peer, "did not answer in time")
            effects += self._answered(peer, repositories, now)
        for goal in self._agenda.rounds(self.goals, now):
            effects += self._round(goal, now)
        for repository, command_id in self._agenda.late(now):
            if (goal := self.goals.get(repository)) is not None:
                effects += self._expire(goal, command_id)
        return effects

    def _round(self, goal: Goal, now: float) -> list[Effect]:
        goal.retry_after = {peer: time for peer, time in goal.retry_after.items() if time > now}
        goal.unheard = {peer: time for peer, time in goal.unheard.items() if time > now}
        rested = [peer for peer in goal.resting if goal.willing(peer, now)]
        effects: list[Effect] = []
        for peer in rested:
            del goal.resting[peer]
            effects += self.ask(peer, [goal.repository], now)
        holders = list(self._holders(goal.repository))
        willing = [peer for peer in holders if goal.willing(peer, now)]
        if willing and not rested:
            effects += self.ask(self._rng.choice(willing), [goal.repository], now)
        if len(holders) < WANTED_HOLDERS and self._search.may_look_up(goal, now):
            effects += self._search.look_up(goal, now)
        resting = [goal.retry_after[peer] for peer in goal.resting]
        self._agenda.schedule(goal, min([now + self._jittered(self._ask_interval), *resting]))
        return effects + self._settle(goal, now)

    def _expire(self, goal: Goal, command_id: int) -> list[Effect]:
        late = [waiter for waiter in goal.waiters if waiter.command_id == command_id]
        goal.waiters = [waiter for waiter in goal.waiters if waiter.command_id != command_id]
        effects: list[Effect] = [Reply(waiter.command_id, goal.too_late()) for waiter in late]
        if late and not goal.waiters and not goal.held and goal.fetch is None:
            effects += self._unfollow(goal)
        return effects

    def _settle(self, goal: Goal, now: float) -> list[Effect]:
        """Answer the waiters of ``goal`` where it is decided; stand in line where something was offered."""
        if self.goals.get(goal.repository) is not goal:
            return []
        if goal.offers and goal.fetch is None and len(goal.asking) < MAX_INVITED:
            self.fetches.offer(goal.repository)
        if not goal.done and goal.busy:
            return []
        if goal.done:
            waiters = [waiter for waiter in goal.waiters if not (waiter.every and goal.busy)]
            goal.waiters = [waiter for waiter in goal.waiters if waiter not in waiters]
            goal.compared = goal.compared or any(waiter.every for waiter in waiters)
            return [goal.reply(waiter, now) for waiter in waiters]
        waiters, goal.waiters = goal.waiters, []
        replies = [Reply(waiter.command_id, goal.failure()) for waiter in waiters]
        return [*replies, *([] if goal.held else self._unfollow(goal))]

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(0.5, 1.5)
