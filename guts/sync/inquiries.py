"""``Inquiries``: who may have a repository is found, dialled, asked and listened to; see the package's docstring.

What is the same for every repository that this node wants something of, whether it follows it (``RepoSync``) or only
reads its refs (``Readings``): answers in pages, one transfer at a time, lookups, dials, rounds and commands that wait;
who is asked is in ``Asking``. What an answer means is for the subclass.
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from guts.addresses import Address, BootstrapAddress
from guts.effects import Candidate, Effect, Reply
from guts.errors import GutsError, PeerFault, StorageFault, Unavailable
from guts.events import CommandId, ConnectionId, FetchFinished, FetchId, LookFinished, LookupFinished
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.sync.asking import Asking, G
from guts.sync.fetches import RunningFetch, pause
from guts.sync.goal import NOT_HELD
from guts.sync.policy import NotTaken
from guts.sync.quotas import QuotaExceeded
from guts.sync.refused import offer_id
from guts.sync.rounds import Batch
from guts.sync.setbacks import (
    RETRY_AFTER_FAULT,
    RETRY_AFTER_REFUSAL,
    RETRY_AFTER_STORAGE,
    RETRY_AFTER_TROUBLE,
)
from guts.wire.messages import Error, ErrorCode, Refs, RefsAnswer, RefsStatus


class DoesNotConnect(Unavailable):
    """A peer's full answer does not follow from what is held here, so nothing was fetched."""

    code: ClassVar[str] = "DOES_NOT_CONNECT"


class Inquiries(Asking[G]):
    """Goals, and what is under way for them; see ``Asking`` for the arguments."""

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
    def _expire(self, goal: G, command_id: CommandId, now: float) -> list[Effect]:
        """Answer a command, if it still waits: its time is over."""

    @abstractmethod
    def _give_up(self, goal: G) -> list[Effect]:
        """End what can't be had, where it is nothing but a wish."""

    def _claimed(self, goal: G, peer: PeerId, size: int) -> None:
        """Take the word of ``peer`` that the repository takes ``size`` bytes; 0: it does not say."""

    # --- answers --------------------------------------------------------------------------------------------

    def refs(self, connection: ConnectionId, refs: Refs, now: float) -> list[Effect]:
        """Take the answer to a GetRefs.

        Raises:
            UnsolicitedAnswer: nothing was asked under that id, or something else was.
        """
        question = self._questions.answered(connection, refs)
        answered = {answer.repository for answer in refs.answers}
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
            self._excuse(
                peer, unanswered, "did not answer about it", now + self._setbacks.jittered(RETRY_AFTER_TROUBLE)
            )
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
            until = now + self._setbacks.jittered(RETRY_AFTER_TROUBLE)
            self._excuse(peer, repositories, f"refused: {error.code.name.lower()}", until)
        return self._answered(peer, repositories, now)

    def _close(self, peer: PeerId, request: int, repositories: Iterable[RepositoryId]) -> None:
        self._questions.close(peer, request)
        for repository in repositories:
            if (goal := self.goals.get(repository)) is not None:
                goal.asking.discard(peer)

    def _answered(self, peer: PeerId, repositories: Iterable[RepositoryId], now: float) -> list[Effect]:
        """Go on after a question has ended, one way or the other."""
        effects: list[Effect] = [*self._questions.send(peer, now)]
        for repository in repositories:
            if (goal := self.goals.get(repository)) is not None:
                effects += self._settle(goal, now)
        return effects + self._invitations.invite(now)

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
        if now < (until := goal.refused.until(offer, peer)) and not goal.waiters:
            # Somebody who waits has every holder tried.
            goal.refused.offered(offer, peer)
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
        return goal, effects + self._invitations.invite(now)

    def _failed(self, goal: G, transfer: RunningFetch, error: GutsError, now: float) -> list[Effect]:
        peer, repositories = transfer.peer, [goal.repository]
        if isinstance(error, QuotaExceeded):
            # Another holder may say otherwise, or send less: nobody can see yet who is right.
            goal.refusal = error
            self._excuse(peer, repositories, str(error), now + self._setbacks.jittered(RETRY_AFTER_REFUSAL))
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
            self._excuse(peer, repositories, str(error), now + self._setbacks.jittered(RETRY_AFTER_FAULT))
        else:
            pause = self._setbacks.failed(goal, peer, now) if transfer.pause is None else transfer.pause
            self._rest(peer, repositories, str(error), now + pause)
            if self._questions.connection(peer) != transfer.connection:
                # The connection broke, and not the peer.
                self._setbacks.connection_broke(goal, peer)
            elif transfer.pause is None:
                goal.failed[peer] = now
        return self._ask_holders(goal, now)

    # --- lookups and dials ----------------------------------------------------------------------------------

    def _dial_hints(self, goal: G, hints: Iterable[BootstrapAddress]) -> list[Effect]:
        # Who is connected is asked as it is: a second connection would take the place of one that is in use.
        return self._search.dial(
            goal, [hint for hint in hints if hint.peer is None or not self._questions.ready(hint.peer)], None
        )

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

    def deadline(self) -> float:
        """Return when ``tick`` is due next (monotonic seconds); infinity for never."""
        return min(self._questions.deadline(), self._agenda.deadline())

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
            self._offer_again(due, now)
            effects += self._round(due, batch, now)
        for peer in batch.peers:
            effects += self._questions.send(peer, now)
        for repository, command_id in self._agenda.late(now):
            if (goal := self.goals.get(repository)) is not None:
                effects += self._expire(goal, command_id, now)
        return effects + self._invitations.invite(now)

    def _offer_again(self, goal: G, now: float) -> None:
        """Let those who offered what had been refused stand in line, where they have waited long enough.

        Nobody knows which of them is honest, so chance decides, and not who answered first.
        """
        peers = goal.refused.due(now)
        self._rng.shuffle(peers)
        goal.offers.update(dict.fromkeys(peers))
