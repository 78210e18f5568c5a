"""``Search``: who may hold a repository, by lookups in the DHT, and how they are dialled.

A lookup, or a hint in a command, names addresses that anybody may have written. So few are dialled at a time for one
goal, and the rest waits: what the operator named comes first, then those who told of others take turns by chance, each
by *rank*: each holder's first address before anybody's second, and chance within one rank.
"""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Final

from guts.addresses import BootstrapAddress
from guts.effects import Dial, Effect, FindProviders
from guts.errors import GutsError
from guts.events import LookupFinished
from guts.ids import PeerId, RepositoryId
from guts.sync.goal import Goal, WaitingDial

SEARCH_INTERVAL: Final = 300.0
"""Seconds between two lookups for a repository with too few connected holders, ± half."""

MAX_SEARCHES: Final = 4
"""Lookups at a time of our own accord, for all repositories together: each is a hundred datagrams. Those for a
command come on top."""

WANTED_HOLDERS: Final = 3
"""Other holders of a followed repository to be connected to, as a best effort."""

MAX_DIALS_PER_GOAL: Final = 8
MAX_WAITING_DIALS: Final = 256
"""Targets per goal that wait for one of those dials to end: what four holders of the DHT may tell at most, 64 records
each. One record with eight dead addresses would otherwise keep every other holder out."""


class Search:
    """The lookups and dials of every goal; what is under way for one is noted in the ``Goal``."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._lookups: set[RepositoryId] = set()

    def may_look_up(self, goal: Goal, now: float) -> bool:
        """Tell whether ``goal`` may be looked up of our own accord at ``now`` (monotonic seconds)."""
        return now >= goal.next_search and len(self._lookups) < MAX_SEARCHES

    def look_up(self, goal: Goal, now: float) -> list[Effect]:
        """Look up who provides the repository, unless that is under way."""
        if goal.searching:
            return []
        goal.searching = True
        goal.asked = 0
        goal.next_search = now + SEARCH_INTERVAL * self._rng.uniform(0.5, 1.5)
        self._lookups.add(goal.repository)
        return [FindProviders(goal.repository)]

    def lookup_ended(self, event: LookupFinished, goal: Goal | None) -> None:
        """Note the end of a lookup; ``None``: its repository is no longer followed."""
        self._lookups.discard(event.repository)
        if goal is not None:
            goal.searching = False
            goal.asked = event.asked
            goal.alone = event.alone

    def dial(self, goal: Goal, targets: Iterable[BootstrapAddress], teller: str | None) -> list[Effect]:
        """Dial ``targets``, the best first, as far as there is room; others wait.

        Where too many wait, one of whoever told of the most is forgotten.

        Args:
            teller: the network of who told of them; "": the DHT; ``None``: the operator.
        """
        for rank, target in enumerate(targets):
            if target in goal.dials or target in goal.to_dial:
                continue
            goal.to_dial[target] = WaitingDial(rank, teller)
            if len(goal.to_dial) > MAX_WAITING_DIALS:
                told = Counter(waits.teller for waits in goal.to_dial.values() if waits.teller is not None)
                most = max(told, key=lambda other: told[other], default=None)
                theirs = [waiting for waiting, waits in goal.to_dial.items() if waits.teller == most]
                # The last one of the highest rank.
                del goal.to_dial[max(reversed(theirs), key=lambda waiting: goal.to_dial[waiting].rank)]
        return self._dial_waiting(goal)

    def dial_ended(
        self, goal: Goal, target: BootstrapAddress, outcome: PeerId | GutsError, *, enough: bool
    ) -> list[Effect]:
        """Note the end of a dial for ``goal``, and dial what waits.

        Args:
            outcome: who is ready now; its other addresses need no dial.
            enough: no further holder is wanted.
        """
        del goal.dials[target]
        if isinstance(outcome, PeerId):
            for other in [other for other in goal.to_dial if other.peer == outcome]:
                del goal.to_dial[other]
        if enough:
            goal.to_dial.clear()
        return self._dial_waiting(goal)

    def _dial_waiting(self, goal: Goal) -> list[Effect]:
        """Dial what waits, as far as there is room; nobody knows which of one rank is honest, so chance decides."""
        effects: list[Effect] = []
        while goal.to_dial and len(goal.dials) < MAX_DIALS_PER_GOAL:
            tellers = dict.fromkeys(waits.teller for waits in goal.to_dial.values())
            teller = None if None in tellers else self._rng.choice(list(tellers))
            theirs = {target: waits.rank for target, waits in goal.to_dial.items() if waits.teller == teller}
            rank = min(theirs.values())
            target = self._rng.choice([target for target, waits in theirs.items() if waits == rank])
            del goal.to_dial[target]
            goal.dials[target] = None
            effects.append(Dial(target, hinted=teller is None))
        return effects
