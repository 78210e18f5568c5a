"""``Setbacks``: how long a peer that failed is left alone, for one repository.

A failure that is nobody's fault costs seconds, a fault minutes. Who fails again and again is left alone for as long as
after a fault, where another holder may be asked.
"""

import math
import random
from collections.abc import Callable, Iterable
from typing import Final

from guts.ids import PeerId, RepositoryId
from guts.sync.goal import Goal

RETRY_AFTER_TROUBLE: Final = 15.0
"""Seconds, ± half, before a peer whose transfer failed is asked again for that repository."""

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


class Setbacks:
    """The pauses after failures; what is counted is in the goals.

    Args:
        holders: names the ready peers known to hold a repository.
    """

    def __init__(self, holders: Callable[[RepositoryId], Iterable[PeerId]], rng: random.Random) -> None:
        self._holders = holders
        self._rng = rng

    def jittered(self, seconds: float) -> float:
        """Return ``seconds``, ± half."""
        return seconds * self._rng.uniform(0.5, 1.5)

    def failed(self, goal: Goal, peer: PeerId, now: float) -> float:
        """Count a failure of ``peer``, which may be nobody's fault; return for how many seconds it is left alone."""
        failures = goal.failures.pop(peer, 0) + 1
        goal.failures[peer] = failures
        if len(goal.failures) > MAX_FAILED_PEERS:
            del goal.failures[next(iter(goal.failures))]
        others = (other for other in self._holders(goal.repository) if other != peer)
        demoted = failures >= MAX_FAILURES and any(goal.willing(other, now) for other in others)
        return self.jittered(RETRY_AFTER_FAULT if demoted else RETRY_AFTER_TROUBLE)

    @staticmethod
    def connection_broke(goal: Goal, peer: PeerId) -> None:
        """Forgive ``peer`` what failed with its connection: over another one it is asked as if nothing had been."""
        goal.retry_after.pop(peer, None)
        goal.resting.pop(peer, None)
        goal.failures.pop(peer, None)

    @staticmethod
    def connection_ended(goal: Goal, peer: PeerId, now: float) -> None:
        """Let ``peer``, whose connection has ended, off what failed just before."""
        if now - goal.failed.pop(peer, -math.inf) <= FAILED_WITH_CONNECTION:
            goal.retry_after.pop(peer, None)

    @staticmethod
    def rested(goal: Goal, now: float) -> list[PeerId]:
        """Return the peers that have rested long enough; what was noted of others ends with its time."""
        goal.retry_after = {peer: time for peer, time in goal.retry_after.items() if time > now}
        goal.failed = {peer: time for peer, time in goal.failed.items() if peer in goal.retry_after}
        rested = [peer for peer in goal.resting if goal.willing(peer, now)]
        for peer in rested:
            del goal.resting[peer]
        return rested
