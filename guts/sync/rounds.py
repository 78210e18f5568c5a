"""``Rounds``: anti-entropy in batches, so that 10,000 repositories are 160 messages a minute and not 10,000.

Each repository is compared with one holder about once in an interval, at a time drawn anew each time. Times are put on
a grid of a few rounds per interval, and in one round those asked are as few as can be: each gets as many questions as
fit one message before the next one gets any. Whose turn comes first is drawn anew in each round.
"""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Final

from guts.ids import PeerId
from guts.wire.limits import MAX_QUERIES

ROUNDS: Final = 8
"""Rounds per interval: few enough that the repositories of a round fill messages, enough that answers come evenly."""


class Rounds:
    """When each repository is compared next.

    Args:
        interval: seconds between two comparisons of one repository, ± half.
    """

    def __init__(self, interval: float, rng: random.Random) -> None:
        self._interval = interval
        self._step = interval / ROUNDS
        self._rng = rng
        # Nodes that start together do not ask together.
        self._phase = rng.uniform(-self._step / 2, self._step / 2)

    def first(self, now: float) -> float:
        """Return when a repository is compared for the first time after the start (monotonic seconds)."""
        return self._on_grid(now + self._rng.uniform(0.0, self._interval), now)

    def next(self, now: float) -> float:
        """Return when a repository that is compared at ``now`` is compared again."""
        return self._on_grid(now + self._interval * self._rng.uniform(0.5, 1.5), now)

    def _on_grid(self, time: float, now: float) -> float:
        return max(now, round((time - self._phase) / self._step) * self._step + self._phase)


class Batch:
    """Who is asked about how much in one round."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._turns: dict[PeerId, float] = {}
        self._questions: Counter[PeerId] = Counter()

    @property
    def peers(self) -> Iterable[PeerId]:
        """Return those that were chosen."""
        return self._questions.keys()

    def choose(self, willing: Iterable[PeerId]) -> PeerId:
        """Return which of ``willing``, of whom there is one at least, is asked about one repository more."""
        chosen = min(willing, key=lambda peer: (self._questions.get(peer, 0) // MAX_QUERIES, self._turn(peer)))
        self._questions[chosen] += 1
        return chosen

    def _turn(self, peer: PeerId) -> float:
        turn = self._turns.get(peer)
        if turn is None:
            turn = self._turns[peer] = self._rng.random()
        return turn
