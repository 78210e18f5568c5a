"""``Asking``: which peer is asked about which goal, which is not, and for how long.

A peer is asked about a goal once at a time, not before it has rested from a failure, and, where it is one of those who
are asked last, not as long as another holder is known.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Generic, TypeVar

from guts.effects import Effect
from guts.events import ConnectionId
from guts.ids import PeerId, RepositoryId
from guts.sync.agenda import Agenda
from guts.sync.fetches import MAX_FETCHES, Fetches
from guts.sync.goal import Goal, Waiter
from guts.sync.invitations import Invitations
from guts.sync.pages import Pages
from guts.sync.questions import Questions, refs_query
from guts.sync.search import Search
from guts.sync.setbacks import Setbacks
from guts.wire.messages import RefsQuery

G = TypeVar("G", bound=Goal)

Preference = Callable[[PeerId, float], float]


def nobody_first(peer: PeerId, now: float) -> float:
    """Prefer nobody."""
    return 0.0


class Asking(ABC, Generic[G]):
    """Goals, and who is asked about them.

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
        self._setbacks = Setbacks(holders, rng)
        self._invitations = Invitations(self.goals, self.fetches, preference, self.ask, self._settle)

    @abstractmethod
    def _settle(self, goal: G, now: float) -> list[Effect]:
        """Answer the waiters of ``goal`` where it is decided; stand in line where something was offered."""

    # --- peers ----------------------------------------------------------------------------------------------

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
            goal.refused.gone(peer)
            if peer in goal.asking or peer in goal.offers or peer in goal.resting:
                goal.asking.discard(peer)
                goal.offers.pop(peer, None)
                goal.resting.pop(peer, None)
                goal.note(peer, "disconnected")
                effects += self._settle(goal, now)
            self._setbacks.connection_ended(goal, peer, now)
        return effects + self._invitations.invite(now)

    # --- questions ------------------------------------------------------------------------------------------

    def asked(self, connection: ConnectionId, request: int) -> bool:
        """Tell whether ``request`` is the id of a question of these."""
        return self._questions.find(connection, request) is not None

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
        return refs_query(repository, self._pages.known(peer, repository, goal.known))

    def _ask_everybody(self, goal: G, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for peer in self._questions.peers():
            effects += self.ask(peer, [goal.repository], now)
        return effects

    def _ask_holders(self, goal: G, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for holder in sorted(self._holders(goal.repository), key=lambda holder: -self._preference(holder, now)):
            effects += self.ask(holder, [goal.repository], now)
        return effects

    def _ask_afresh(self, goal: G, peer: PeerId, now: float) -> list[Effect]:
        if peer in goal.asking:
            # What it is asked already it may have answered already, before this was new.
            goal.offers[peer] = None
            return []
        return self.ask(peer, [goal.repository], now)

    # --- who is not asked -----------------------------------------------------------------------------------

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

    # --- goals ----------------------------------------------------------------------------------------------

    def _wait(self, goal: G, waiter: Waiter) -> None:
        goal.waiters.append(waiter)
        self._agenda.wait(goal, waiter)

    def _forget(self, goal: G) -> None:
        """Let ``goal`` be one no more."""
        del self.goals[goal.repository]
        self._pages.forget(goal.repository)
        self.fetches.withdraw(goal.repository)
