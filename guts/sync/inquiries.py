"""``Inquiries``: who may have a repository is found, dialled, asked and listened to; see the package's docstring.

What is the same for every repository that this node wants something of, whether it follows it (``RepoSync``) or only
reads its refs (``Readings``): lookups, dials, questions, answers in pages, one transfer at a time, peers that are busy
or failed, commands that wait. What an answer means is for the subclass.
"""

import math
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from typing import ClassVar, Final, Generic, TypeVar

from guts.addresses import Address, BootstrapAddress
from guts.effects import Candidate, Effect, Reply
from guts.errors import GutsError, PeerFault, Severity, StorageFault, Unavailable
from guts.events import CommandId, ConnectionId, FetchFinished, FetchId, LookFinished, LookupFinished
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.sync.agenda import Agenda
from guts.sync.fetches import MAX_FETCHES, Fetches, RunningFetch, pause
from guts.sync.goal import NOT_HELD, Goal, Waiter
from guts.sync.pages import Pages
from guts.sync.policy import NotTaken, QuotaExceeded
from guts.sync.questions import Questions
from guts.sync.refused import offer_id
from guts.sync.rounds import Batch
from guts.sync.search import Search
from guts.wire.limits import MAX_KNOWN_HEADS, MAX_SPLITS
from guts.wire.messages import Error, ErrorCode, KnownHead, KnownSplit, Refs, RefsAnswer, RefsQuery, RefsStatus

RETRY_AFTER_TROUBLE: Final = 15.0
"""Seconds, ± half, before a peer whose transfer failed is asked again for that repository."""

MAX_INVITED: Final = 2
"""Peers whose answer is awaited before no more of those who offered something are asked: one of them may be silent."""

FAILED_WITH_CONNECTION: Final = 2.0
"""Seconds before the end of a connection in which what failed over it failed with it: streams end first, by a hair."""
MAX_FAILURES: Final = 3
"""Transfers from one peer that failed, one after the other, before it is demoted for that repository: as long as
another holder may be asked, it is left alone as after a fault. Who announces what it has not got gets no more."""

MAX_FAILED_PEERS: Final = 256
"""Peers per goal whose failures are counted; the one that failed the longest ago is forgotten first."""

RETRY_AFTER_FAULT: Final = 600.0
RETRY_AFTER_STORAGE: Final = 60.0
RETRY_AFTER_REFUSAL: Final = 600.0
"""Seconds before what this node's own limits refused is tried again: something may have been removed by then."""


G = TypeVar("G", bound=Goal)

Preference = Callable[[PeerId, float], float]


def nobody_first(peer: PeerId, now: float) -> float:
    """Prefer nobody."""
    return 0.0


class UnsolicitedAnswer(PeerFault):
    """An answer to a question that was not asked, or about something that was not asked for."""

    code: ClassVar[str] = "UNSOLICITED_ANSWER"
    severity: ClassVar[Severity] = Severity.SERIOUS


class DoesNotConnect(Unavailable):
    """A peer's full answer does not follow from what is held here, so nothing was fetched."""

    code: ClassVar[str] = "DOES_NOT_CONNECT"


class Inquiries(ABC, Generic[G]):
    """Goals, and what is under way for them.

    Args:
        holders: names the ready peers known to hold a repository.
        next_request: returns an id for a request, one that is not under way with any peer.
        preference: says how gladly a peer is asked at a time (monotonic seconds), more than others or less; below 0:
            only where nobody else holds what is wanted.

    Attributes:
        goals: by repository.
        fetches: the running transfers.
    """

    transfers_per_peer: ClassVar[int] = MAX_FETCHES

    def __init__(
        self,
        holders: Callable[[RepositoryId], Iterable[PeerId]],
        rng: random.Random,
        next_request: Callable[[], int],
        preference: Preference = nobody_first,
    ) -> None:
        self.goals: dict[RepositoryId, G] = {}
        self.fetches = Fetches(self.transfers_per_peer)
        self._holders = holders
        self._rng = rng
        self._next_request = next_request
        self._preference = preference
        self._questions = Questions(self._query, next_request)
        self._pages = Pages()
        self._agenda = Agenda()
        self._search = Search(rng)

    # --- what differs ---------------------------------------------------------------------------------------

    @abstractmethod
    def _nothing_newer(self, goal: G, peer: PeerId, now: float) -> None:
        """Take a whole answer that has nothing newer than what was known when ``peer`` was asked."""

    @abstractmethod
    def _transfer(self, goal: G, fetch: FetchId, transfer: RunningFetch, candidate: Candidate) -> Effect:
        """Return what has ``candidate`` judged and taken."""

    @abstractmethod
    def _finished(
        self, goal: G, transfer: RunningFetch, event: FetchFinished | LookFinished, now: float
    ) -> list[Effect]:
        """Take the outcome of a transfer of a goal that is still there."""

    @abstractmethod
    def _enough(self, goal: G) -> bool:
        """Tell whether no further holder is to be dialled."""

    @abstractmethod
    def _round(self, goal: G, batch: Batch, now: float) -> list[Effect]:
        """Do what is due for ``goal``, and schedule what is due next; whom ``batch`` chose is asked after that."""

    @abstractmethod
    def _settle(self, goal: G, now: float) -> list[Effect]:
        """Answer the waiters of ``goal`` where it is decided; stand in line where something was offered."""

    @abstractmethod
    def _expire(self, goal: G, command_id: CommandId, now: float) -> list[Effect]:
        """Answer a command, if it still waits: its time is over."""

    @abstractmethod
    def _give_up(self, goal: G) -> list[Effect]:
        """End what can't be had, where it is nothing but a wish."""

    def _claimed(self, goal: G, peer: PeerId, size: int) -> None:
        """Take the word of ``peer`` that the repository takes ``size`` bytes; 0: it does not say."""

    # --- peers ----------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """Return when ``tick`` is due next (monotonic seconds); infinity for never."""
        return min(self._questions.deadline(), self._agenda.deadline())

    def _greet(self, peer: PeerId, connection: ConnectionId, now: float) -> list[Effect]:
        """Take in a peer that is ready, in the place of an earlier connection to it."""
        effects: list[Effect] = []
        if (replaced := self._questions.connection(peer)) is not None:
            effects += self.peer_gone(peer, replaced, now)
        self._questions.begin(peer, connection)
        return effects

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
            if now - goal.failed.pop(peer, -math.inf) <= FAILED_WITH_CONNECTION:
                goal.retry_after.pop(peer, None)
        return effects + self._invite(now)

    def ask(self, peer: PeerId, repositories: Iterable[RepositoryId], now: float) -> list[Effect]:
        """Ask ``peer`` what it has that is newer, of those ``repositories`` that are goals."""
        for repository in repositories:
            if (goal := self.goals.get(repository)) is not None:
                self._put(goal, peer, now)
        return [*self._questions.send(peer, now)]

    def _put(self, goal: G, peer: PeerId, now: float) -> None:
        """Put a question to ``peer`` about ``goal`` in line, where it may be asked."""
        if peer in goal.asking or not goal.willing(peer, now):
            return
        if self._preference(peer, now) < 0.0 and self._better_known(goal.repository, now):
            return
        if self._questions.add(peer, goal.repository):
            goal.asking.add(peer)

    def _better_known(self, repository: RepositoryId, now: float) -> bool:
        return any(self._preference(holder, now) >= 0.0 for holder in self._holders(repository))

    def _query(self, peer: PeerId, repository: RepositoryId) -> RefsQuery | None:
        goal = self.goals.get(repository)
        if goal is None:
            return None
        known = self._pages.known(peer, repository, goal.known)
        # An author who is left out is only told again.
        heads = tuple(KnownHead(author, head.seq, head.hash) for author, head in known.heads[:MAX_KNOWN_HEADS])
        splits = tuple(KnownSplit(author, seq) for author, seq in known.splits[:MAX_SPLITS])
        return RefsQuery(repository, known.epoch + 1, known.identity_hash, heads, splits, known.fork)

    def _dial_hints(self, goal: G, hints: Iterable[BootstrapAddress]) -> list[Effect]:
        # Who is connected is asked as it is: a second connection would take the place of one that is in use.
        return self._search.dial(
            goal, [hint for hint in hints if hint.peer is None or not self._questions.ready(hint.peer)], None
        )

    def _ask_everybody(self, goal: G, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for peer in self._questions.peers():
            effects += self.ask(peer, [goal.repository], now)
        return effects

    # --- answers --------------------------------------------------------------------------------------------

    def asked(self, connection: ConnectionId, request: int) -> bool:
        """Tell whether ``request`` is the id of a question of these."""
        return self._questions.find(connection, request) is not None

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

    def _answer(self, goal: G, peer: PeerId, answer: RefsAnswer, partial: bool, now: float) -> list[Effect]:
        if answer.status is not RefsStatus.HELD:
            self._pages.drop(peer, goal.repository)
            goal.note(peer, NOT_HELD)
            return []
        self._claimed(goal, peer, answer.size)
        if partial and self._wants_more(goal, peer, now) and self._pages.keep(peer, answer, now):
            return self.ask(peer, [goal.repository], now)
        candidate = self._pages.take(peer, answer)
        if candidate.documents or candidate.records or candidate.proofs:
            return self._fetch(goal, peer, candidate, now, asked=True, partial=partial, claim=answer.size)
        if goal.held:
            self._nothing_newer(goal, peer, now)
        else:
            goal.note(peer, "says that it holds it, and offers nothing")
        return []

    def _wants_more(self, goal: G, peer: PeerId, now: float) -> bool:
        return self.fetches.room_for(goal, peer) and goal.willing(peer, now) and now >= goal.paused_until

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

    def _ask_afresh(self, goal: G, peer: PeerId, now: float) -> list[Effect]:
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
        self,
        goal: G,
        peer: PeerId,
        candidate: Candidate,
        now: float,
        *,
        asked: bool,
        partial: bool,
        author: AuthorId | None = None,
        claim: int = 0,
    ) -> list[Effect]:
        connection = self._questions.connection(peer)
        assert connection is not None
        if not goal.willing(peer, now) or now < goal.paused_until:
            return []
        offer = offer_id(candidate.records)
        if now < (until := goal.refused.until(offer)) and not goal.waiters:
            # Somebody who waits has every holder tried.
            self._agenda.schedule(goal, min(goal.next_ask, until))
            return []
        if not self.fetches.room_for(goal, peer):
            # The bytes are not kept: whoever has something newer is asked again when there is room.
            goal.offers[peer] = None
            return self._hurry(goal, peer) if asked else []
        goal.offers.pop(peer, None)
        request = self._next_request()
        transfer = RunningFetch(
            goal.repository,
            peer,
            connection,
            request,
            asked,
            partial,
            offer,
            author,
            claim=claim,
            prospect=goal.prospect is not None,
            begun=now,
        )
        return [self._transfer(goal, self.fetches.begin(goal, transfer), transfer, candidate)]

    def _hurry(self, goal: G, peer: PeerId) -> list[Effect]:
        """Do what is due when ``peer`` answers that it has something newer, and a transfer of ``goal`` runs."""
        return []

    def _ended(self, event: FetchFinished | LookFinished, now: float) -> tuple[G | None, list[Effect]]:
        """Count a transfer out, and take its outcome."""
        transfer = self.fetches.end(event.fetch)
        goal = self.goals.get(event.repository)
        effects: list[Effect] = []
        if goal is not None:
            if goal.fetch == event.fetch:
                goal.fetch = None
            effects += self._finished(goal, transfer, event, now)
            effects += self._settle(goal, now)
        return goal, effects + self._invite(now)

    def _failed(self, goal: G, transfer: RunningFetch, error: GutsError, now: float) -> list[Effect]:
        peer, repositories = transfer.peer, [goal.repository]
        if isinstance(error, QuotaExceeded):
            # Another holder may say otherwise, or send less: nobody can see yet who is right.
            goal.refusal = error
            self._excuse(peer, repositories, str(error), now + self._jittered(RETRY_AFTER_REFUSAL))
            return self._ask_holders(goal, now)
        if isinstance(error, StorageFault | NotTaken):
            goal.paused_until = now + (RETRY_AFTER_STORAGE if isinstance(error, StorageFault) else RETRY_AFTER_REFUSAL)
            goal.offers.clear()
            goal.resting.clear()
            self._agenda.schedule(goal, goal.paused_until)
            waiters, goal.waiters = goal.waiters, []
            replies = [Reply(waiter.command_id, error) for waiter in waiters]
            return [*replies, *self._give_up(goal)]
        if isinstance(error, PeerFault):
            self._excuse(peer, repositories, str(error), now + self._jittered(RETRY_AFTER_FAULT))
        else:
            pause = self._pause_of(goal, peer, now) if transfer.pause is None else transfer.pause
            self._rest(peer, repositories, str(error), now + pause)
            if self._questions.connection(peer) != transfer.connection:
                # The connection broke, and not the peer: over another one it is asked as if nothing had been.
                goal.retry_after.pop(peer, None)
                goal.resting.pop(peer, None)
                goal.failures.pop(peer, None)
            elif transfer.pause is None:
                goal.failed[peer] = now
        return self._ask_holders(goal, now)

    def _ask_holders(self, goal: G, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for holder in sorted(self._holders(goal.repository), key=lambda holder: -self._preference(holder, now)):
            effects += self.ask(holder, [goal.repository], now)
        return effects

    def _pause_of(self, goal: G, peer: PeerId, now: float) -> float:
        """Count a failure of ``peer``, which may be nobody's fault; return for how many seconds it is left alone."""
        failures = goal.failures.pop(peer, 0) + 1
        goal.failures[peer] = failures
        if len(goal.failures) > MAX_FAILED_PEERS:
            del goal.failures[next(iter(goal.failures))]
        others = (other for other in self._holders(goal.repository) if other != peer)
        demoted = failures >= MAX_FAILURES and any(goal.willing(other, now) for other in others)
        return self._jittered(RETRY_AFTER_FAULT if demoted else RETRY_AFTER_TROUBLE)

    def _invite(self, now: float) -> list[Effect]:
        """Ask for what was offered when there was no room, as far as there is room now."""
        effects: list[Effect] = []
        invited: Counter[PeerId] = Counter()

        def invitable(repository: RepositoryId) -> list[PeerId]:
            offers = self.goals[repository].offers if repository in self.goals else ()
            return [peer for peer in offers if self.fetches.room_from(peer, invited[peer])]

        for repository in self.fetches.invited(lambda offered: bool(invitable(offered))):
            goal = self.goals[repository]
            while (peers := invitable(repository)) and len(goal.asking) < MAX_INVITED:
                peer = max(peers, key=lambda offering: self._preference(offering, now))
                del goal.offers[peer]
                effects += self.ask(peer, [repository], now)
                invited[peer] += peer in goal.asking
            effects += self._settle(goal, now)
        return effects

    # --- lookups and dials ----------------------------------------------------------------------------------

    def holder_found(
        self, repository: RepositoryId, peer: PeerId, addresses: Iterable[Address], now: float, teller: str = ""
    ) -> list[Effect]:
        """Ask a holder that is connected; dial another one, as far as holders are wanted.

        Args:
            teller: the network of who told of it; "": the DHT.
        """
        goal = self.goals.get(repository)
        if goal is None:
            return []
        if self._questions.ready(peer):
            return self.ask(peer, [repository], now)
        if self._enough(goal):
            return []
        targets = [BootstrapAddress(address.ip, address.port, peer) for address in addresses]
        return self._search.dial(goal, targets, teller)

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
            effects += self._search.dial_ended(goal, target, outcome, enough=self._enough(goal))
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
        batch = Batch(self._rng)
        for due in self._agenda.rounds(self.goals, now):
            effects += self._round(due, batch, now)
        for peer in batch.peers:
            effects += self._questions.send(peer, now)
        for repository, command_id in self._agenda.late(now):
            if (goal := self.goals.get(repository)) is not None:
                effects += self._expire(goal, command_id, now)
        return effects

    def _rested(self, goal: G, now: float) -> list[PeerId]:
        """Return the peers that have rested long enough; what was noted of others ends with its time."""
        goal.retry_after = {peer: time for peer, time in goal.retry_after.items() if time > now}
        goal.failed = {peer: time for peer, time in goal.failed.items() if peer in goal.retry_after}
        rested = [peer for peer in goal.resting if goal.willing(peer, now)]
        for peer in rested:
            del goal.resting[peer]
        return rested

    def _stand_in_line(self, goal: G) -> None:
        """Have those asked who offered something when there was no room, as soon as there is."""
        if goal.offers and goal.fetch is None and len(goal.asking) < MAX_INVITED:
            self.fetches.offer(goal)

    def _wait(self, goal: G, waiter: Waiter) -> None:
        goal.waiters.append(waiter)
        self._agenda.wait(goal, waiter)

    def _forget(self, goal: G) -> None:
        """Let ``goal`` be one no more."""
        del self.goals[goal.repository]
        self._pages.forget(goal.repository)
        self.fetches.withdraw(goal.repository)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(0.5, 1.5)
