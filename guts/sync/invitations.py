"""``Invitations``: who offered something when no transfer could start is asked again when one can.

What was offered is not kept, only by whom: it may be older by then, and it is large.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, TypeVar

from guts.effects import Effect
from guts.ids import PeerId, RepositoryId
from guts.sync.fetches import Fetches
from guts.sync.goal import Goal

MAX_INVITED: Final = 2
"""Peers whose answer is awaited before no more of those who offered something are asked: one of them may be silent."""

G = TypeVar("G", bound=Goal)

Ask = Callable[[PeerId, Iterable[RepositoryId], float], list[Effect]]


class Invitations(Generic[G]):
    """The line of goals for which something was offered.

    Args:
        preference: says how gladly a peer is asked at a time.
        ask: asks a peer about repositories.
        settle: answers who waits for a goal, where it is decided.
    """

    def __init__(
        self,
        goals: Mapping[RepositoryId, G],
        fetches: Fetches,
        preference: Callable[[PeerId, float], float],
        ask: Ask,
        settle: Callable[[G, float], list[Effect]],
    ) -> None:
        self._goals = goals
        self._fetches = fetches
        self._preference = preference
        self._ask = ask
        self._settle = settle

    def stand_in_line(self, goal: G) -> None:
        """Have those asked who offered something when there was no room, as soon as there is."""
        if goal.offers and goal.fetch is None and len(goal.asking) < MAX_INVITED:
            self._fetches.offer(goal)

    def invite(self, now: float) -> list[Effect]:
        """Ask for what was offered when there was no room, as far as there is room now."""
        effects: list[Effect] = []
        invited: Counter[PeerId] = Counter()

        def invitable(repository: RepositoryId) -> list[PeerId]:
            offers = self._goals[repository].offers if repository in self._goals else ()
            return [peer for peer in offers if self._fetches.room_from(peer, invited[peer])]

        for repository in self._fetches.invited(lambda offered: bool(invitable(offered))):
            goal = self._goals[repository]
            while (peers := invitable(repository)) and len(goal.asking) < MAX_INVITED:
                peer = max(peers, key=lambda offering: self._preference(offering, now))
                del goal.offers[peer]
                effects += self._ask(peer, [repository], now)
                invited[peer] += peer in goal.asking
            effects += self._settle(goal, now)
        return effects
