"""``Untold``: news that this node has committed and tells in short a little later, when most know them already.

All who follow a repository commit a push at about the same moment. If each told all others at once, every link that is
no part of the tree would be crossed from both ends, by what neither needs, while both are busy with the push itself.
Who waits a moment of its own hears from the others first, and has few left to tell.
"""

import heapq
import itertools
import math
import random
from typing import Final

from guts.gossip.envelope import brief
from guts.wire.messages import NewCommit

TELL_WITHIN: Final = 0.5
"""Seconds in which all have been told: some round trips, so that most links are crossed from one end only; and little
beside the time in which a connection is found dead, after which what is told in short mends the tree."""


class Untold:
    """What is to be told, and when. It holds the commits of half a second: some tens, without their records, of which
    one commit may bring as many as there are maintainers."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._order = itertools.count()
        self._news: list[tuple[float, int, NewCommit]] = []

    def add(self, news: NewCommit, now: float) -> None:
        """Tell ``news`` within ``TELL_WITHIN`` of ``now`` (monotonic seconds)."""
        heapq.heappush(self._news, (now + self._rng.uniform(0.0, TELL_WITHIN), next(self._order), brief(news)))

    def due(self, now: float) -> list[NewCommit]:
        """Return, once, what is to be told by ``now``."""
        found: list[NewCommit] = []
        while self._news and self._news[0][0] <= now:
            found.append(heapq.heappop(self._news)[2])
        return found

    def deadline(self) -> float:
        """Return when ``due`` has something (monotonic seconds); infinity for never."""
        return self._news[0][0] if self._news else math.inf
